"""The pages of one request: asked for one after another or several at once, until the API says that there are no more."""

import itertools
import re
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urljoin

from muxly_dagster.decoding import Page
from muxly_dagster.errors import SourceError
from muxly_dagster.http import Http, Request, Response
from muxly_dagster.manifest.asking.keyset import Order
from muxly_dagster.manifest.asking.requests import build_request
from muxly_dagster.manifest.language.expressions import ABSENT, Context, render
from muxly_dagster.manifest.schema import (
    CursorPaging,
    KeysetPaging,
    LinkPaging,
    NoPaging,
    OffsetPaging,
    PageNumberPaging,
    Paging,
    RequestSpec,
)

_LINK = re.compile(r"<([^<>]*)>([^<]*)")
_NEXT = re.compile(r""";\s*rel\s*=\s*(?:"[^"]*\bnext\b[^"]*"|next\b)""", re.IGNORECASE)

Take = Callable[[Response], Page]
"""Reads an answer. The page's envelope begins with the values at `envelope_paths`; with keyset paging, with the records' keys."""


@dataclass(frozen=True)
class Asking:
    """How pages are asked for: the client, the request with what its expressions may name, and how many requests may be under way.

    `ask` sends one request where the client alone does not do (answers that are kept); pages are then asked for one by one. `tag` goes
    with every request, and comes back with its answer.
    """

    http: Http
    spec: RequestSpec
    context: Context
    in_flight: int = 8
    ask: Callable[[Request], Response] | None = None
    tag: Any = None

    def request(self, spec: RequestSpec | None = None, **names: Any) -> Request:
        """The request (or another one of the same stream) with these names beside the others."""
        asked, context = spec or self.spec, {**self.context, **names}
        if asked.path and render(asked.path, context, into_path=True) is ABSENT:
            do = "give the source what it names, or correct the stream's request"
            raise SourceError(f"the request's path {asked.path} names a value that is not there", do=do)
        request = build_request(asked, context)
        return replace(request, tag=self.tag) if self.tag is not None else request

    def send(self, request: Request) -> Response:
        """The answer to one request."""
        return self.ask(request) if self.ask else self.http.request(request)

    def each(self, requests: Iterator[Request]) -> Generator[Response, None, None]:
        """The answers to many, in their order."""
        yield from self.http.each(requests, self.in_flight) if self.ask is None else map(self.ask, requests)


def envelope_paths(paging: Paging) -> list[str]:
    """What to read beside the records of each page."""
    match paging:
        case CursorPaging():
            return [paging.next, *([paging.more] if paging.more else [])]
        case OffsetPaging() | PageNumberPaging():
            return [paging.total] if paging.total else []
        case LinkPaging():
            return [paging.next] if paging.next else []
    return []


def first_request(asking: Asking, paging: Paging) -> Request:
    """What is asked for the first page. Raises SourceError where its path names a value that is not there."""
    match paging:
        case NoPaging():
            return asking.request()
        case KeysetPaging():
            return _behind(asking, paging, paging.start)
        case CursorPaging() | LinkPaging():
            return _sized(asking.request(), paging.size)
    return put(_sized(asking.request(), paging.size), paging.into, paging.first if isinstance(paging, PageNumberPaging) else 0)


def read_pages(asking: Asking, paging: Paging, take: Take, first: Response | None = None) -> Iterator[Page]:
    """Ask for the pages and yield each once it is read. `first` is the answer to the first request, where it has been sent before.

    Raises SourceError for an API that never comes to an end, beside what the client raises.
    """
    response = asking.send(first_request(asking, paging)) if first is None else first
    match paging:
        case NoPaging():
            yield take(response)
        case CursorPaging():
            yield from _by_cursor(asking, paging, take, response)
        case LinkPaging():
            yield from _by_link(asking, paging, take, response)
        case KeysetPaging():
            yield from _by_keyset(asking, paging, take, response)
        case _ if paging.size is None:
            yield from _one_by_one(asking, paging, take, response)
        case _:
            yield from _by_number(asking, paging, paging.size[1], take, response)


def put(request: Request, place: str, value: Any) -> Request:
    """The request with a value at `query.NAME` or `json.NAME`."""
    where, _, rest = place.partition(".")
    if where == "query":
        return replace(request, params={**(request.params or {}), rest: value})
    return replace(request, json=_put(request.json, rest.split("."), value))


def _put(body: Any, names: list[str], value: Any) -> Any:
    if not names:
        return value
    fields: Mapping[str, Any] = body if isinstance(body, Mapping) else {}
    return {**fields, names[0]: _put(fields.get(names[0]), names[1:], value)}


def _sized(request: Request, size: tuple[str, int] | None) -> Request:
    return put(request, *size) if size else request


def _by_cursor(asking: Asking, paging: CursorPaging, take: Take, response: Response) -> Iterator[Page]:
    seen: set[str] = set()
    first = first_request(asking, paging)
    while True:
        page = take(response)
        cursor = page.envelope[0]
        more = page.envelope[1] if paging.more else True
        if cursor is None or cursor == "" or cursor is False or not more:
            yield page
            return
        _must_be_new(str(cursor), seen, f"the page cursor {str(cursor)[:200]!r}", response)
        yield page
        following = asking.request(paging.then, page=cursor) if paging.then else first
        response = asking.send(put(following, paging.into, cursor) if paging.into else following)


def _by_link(asking: Asking, paging: LinkPaging, take: Take, response: Response) -> Iterator[Page]:
    seen: set[str] = set()
    request = first_request(asking, paging)
    while True:
        page = take(response)
        link = page.envelope[0] if paging.next else _next_link(response.headers.get("link", ""))
        if not link:
            yield page
            return
        if not isinstance(link, str):
            raise SourceError(f"the next page's address is {link!r}", do="correct the stream's `paging.next`", where=response.where)
        url = urljoin(response.url, link)
        _must_be_new(url, seen, "the same next page", response)
        yield page
        response = asking.send(replace(request, url=url, params=None))


def _behind(asking: Asking, paging: KeysetPaging, key: Any) -> Request:
    """What is asked for the records behind a key."""
    request = _sized(asking.request(keyset=key), paging.size)
    return request if paging.into == "keyset" or key is None else put(request, paging.into, key)


def _by_keyset(asking: Asking, paging: KeysetPaging, take: Take, response: Response) -> Iterator[Page]:
    size, order, full = paging.size[1], Order(paging.by), False
    while True:
        page = take(response)
        # Until a page was full, a short one may be the API's own cap on pages: then only an empty one is the end.
        full = full or page.records >= size
        if page.records == 0 or (full and page.records < size):
            yield page
            return
        last = order.take(page.envelope[0], response.where)
        yield page
        response = asking.send(_behind(asking, paging, last))


def _next_link(header: str) -> str:
    return next((url for url, rest in _LINK.findall(header) if _NEXT.search(rest)), "")


def _must_be_new(cursor: str, seen: set[str], what: str, response: Response) -> None:
    if cursor in seen:
        raise SourceError(
            f"the API names {what} a second time: its paging goes in circles",
            do="check the stream's `paging` (`into`: does the API read the cursor there?); else report it to the service",
            where=response.where,
        )
    seen.add(cursor)


def _one_by_one(asking: Asking, paging: OffsetPaging | PageNumberPaging, take: Take, response: Response) -> Iterator[Page]:
    offset, before, request = 0, b"", asking.request()
    for number in itertools.count((paging.first if isinstance(paging, PageNumberPaging) else 0) + 1):
        before = _must_differ(response, before)
        page = take(response)
        yield page
        offset += page.records
        total = _total(paging, page)
        if page.records == 0 or (total is not None and offset >= total):
            return
        response = asking.send(put(request, paging.into, number if isinstance(paging, PageNumberPaging) else offset))


def _by_number(asking: Asking, paging: OffsetPaging | PageNumberPaging, size: int, take: Take, response: Response) -> Iterator[Page]:
    first, step = (paging.first, 1) if isinstance(paging, PageNumberPaging) else (0, size)
    request = _sized(asking.request(), paging.size)
    page = take(response)
    total = _total(paging, page)
    _must_have_size(page, size, total, response)
    yield page
    if page.records == 0 or (total is not None and page.records >= total):
        return
    before = response.content
    if total is None and page.records < size:
        _must_be_all(asking, put(request, paging.into, first + (1 if step == 1 else page.records)), take, page, size)
        return

    def requests() -> Iterator[Request]:
        for number in itertools.count(1):
            if total is not None and number * size >= total:
                return
            yield put(request, paging.into, first + number * step)

    with closing(asking.each(requests())) as responses:
        for response in responses:
            before = _must_differ(response, before)
            page = take(response)
            total = _total(paging, page) if total is not None else None
            yield page
            if page.records == 0 or (total is None and page.records < size):
                return


def _total(paging: OffsetPaging | PageNumberPaging, page: Page) -> int | None:
    found = page.envelope[0] if paging.total else None
    try:
        return None if found is None else int(found)
    except (ValueError, TypeError):
        return None


def _must_have_size(page: Page, size: int, total: int | None, response: Response) -> None:
    """An API that gives other pages than asked for would have records passed over in silence."""
    if page.records > size or (total is not None and 0 < page.records < min(size, total)):
        raise SourceError(
            f"{size} records a page were asked for, {page.records} came",
            do="correct the stream's `paging.size`: the API may allow fewer, or read the size elsewhere",
            where=response.where,
        )


def _must_be_all(asking: Asking, after: Request, take: Take, page: Page, size: int) -> None:
    """A first page that is short may be all there is, or the API's own cap: only what lies behind it tells the two apart."""
    try:
        response = asking.send(after)
    except SourceError:
        return  # some APIs know no page behind the last one
    if take(response).records:
        _must_have_size(page, size, page.records + 1, response)


def _must_differ(response: Response, before: bytes) -> bytes:
    if response.content == before and len(before) > 2:
        raise SourceError(
            "the API answers the same page again and again",
            do="check the stream's `paging.into`: does the API read the position there?",
            where=response.where,
        )
    return response.content
