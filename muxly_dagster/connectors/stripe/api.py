"""Stripe's API as it is spoken to: lists by the last object's id, and answers turned into errors that say what to do."""

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from muxly_dagster.errors import MuxlyError, SignInError, SourceError
from muxly_dagster.http import Http, Request, Response, Verdict

API_VERSION = "2026-09-30.endive"
"""The version that answers are rendered in (https://docs.stripe.com/changelog)."""

BASE_URL = "https://api.stripe.com"

_PAGE = 100  # the most there is (https://docs.stripe.com/api/pagination)
_IN_FLIGHT = 8
_Kind = TypeVar("_Kind")
_OURS = frozenset({400, 402, 403, 404})
"""Statuses whose bodies say more than their numbers: they are handed back and read by `checked`."""


class Missing(SourceError):
    """The object that a request names does not exist any more."""


class _Problem(msgspec.Struct, frozen=True):
    type: str = ""
    code: str | None = None
    message: str | None = None
    param: str | None = None


class _Answer(msgspec.Struct, frozen=True):
    error: _Problem = _Problem()


class ListPage(msgspec.Struct, frozen=True):
    """One page of a list, its objects as the JSON texts that came."""

    data: list[msgspec.Raw]
    has_more: bool = False


class Named(msgspec.Struct, frozen=True):
    """An object, as far as telling it from others goes."""

    id: str
    deleted: bool = False


def judge(response: Response) -> Verdict | tuple[Verdict, float | None] | None:
    """What an answer means where its status alone does not say it; Stripe may say itself whether to send a request again."""
    wish = response.headers.get("stripe-should-retry", "")
    if wish == "true" and response.status >= 400:
        return "retry"
    if response.status in _OURS:
        return "skip"
    if response.status == 409 and wish != "false":
        return "retry"  # another request with the same idempotency key, or for the same object, is still under way
    return "fail" if wish == "false" and response.status >= 500 else None


def checked(response: Response) -> Response:
    """The response, if it is a good one. Raises SignInError, SourceError (Missing) with what the answer says."""
    if response.status < 400:
        return response
    raise _error(response)


def _error(response: Response) -> MuxlyError:
    try:
        problem = msgspec.json.decode(response.content, type=_Answer).error
    except (msgspec.DecodeError, ValueError):
        problem = _Problem()
    said, where = response.redaction(problem.message or response.excerpt()), response.where
    if problem.code == "resource_missing" or response.status == 404:
        do = "check the id; objects of test mode and live mode do not know each other, nor do those of connected accounts"
        return Missing(f"Stripe does not have this ({said})", do=do, where=where)
    if response.status == 403:
        do = "give the restricted key the permission to read this, or `Events: read`, on Stripe's page of API keys; or use another key"
        return SignInError(f"the key is not allowed to do this ({said})", do=do, where=where)
    if response.status == 402:
        return SourceError(f"the payment failed ({said})", do="the customer or another means of payment has to help", where=where)
    if problem.type == "idempotency_error":
        return SourceError(f"the same idempotency key was used for another request ({said})", do="give another key", where=where)
    do = f"change what is asked as the answer says ({problem.param})" if problem.param else "change what is asked as the answer says"
    return SourceError(f"Stripe refuses the request ({said})", do=do, where=where)


@dataclass(frozen=True)
class Api:
    """A client for one account."""

    http: Http

    def get(self, path: str, params: Mapping[str, Any] | None = None) -> Response:
        """A good answer. Raises what `checked` and the client raise."""
        return checked(self.http.request(Request("GET", f"/v1/{path}", params)))

    def pages(self, path: str, params: Mapping[str, Any], after: str = "") -> Iterator[ListPage]:
        """A list from its newest object to its oldest, or what lies behind the object `after`. Raises Missing where that is gone."""
        before: list[str] = []
        while True:
            try:
                response = self.get(path, {**params, "limit": _PAGE, "starting_after": after or None})
            except Missing:
                if not before:
                    raise
                after = before.pop()  # deleted since its page was read: the one before it does as well
                continue
            try:
                page = msgspec.json.decode(response.content, type=ListPage)
            except (msgspec.DecodeError, ValueError):
                raise SourceError("the answer is no list of Stripe's", do="check base_url", where=response.where) from None
            ids = [id_of(raw) for raw in page.data]
            last = ids[-1] if ids else ""
            if page.has_more and (not last or last == after):
                raise SourceError("the list does not come to an end", do="run the pull again; if it stays, report it", where=response.where)
            yield page
            if not page.has_more:
                return
            after, before = last, ids[:-1]

    def each(self, path: str, ids: Sequence[str], params: Mapping[str, Any]) -> Iterator[tuple[str, bytes | None]]:
        """Objects by their ids, each with its JSON text; None for one that is gone."""
        requests = (Request("GET", f"/v1/{path}/{quote(name, safe='')}", params, tag=name) for name in ids)
        for response in self.http.each(requests, _IN_FLIGHT):
            try:
                content = checked(response).content
            except Missing:
                yield response.request.tag, None
                continue
            yield response.request.tag, None if read_as(content, Named).deleted else content

    def now(self) -> dt.datetime:
        """What time it is at Stripe, whose clock stamps the objects. Asks for an event: who may not read them learns so at once."""
        response = self.get("events", {"limit": 1})
        try:
            return parsedate_to_datetime(response.headers.get("date", "")).astimezone(dt.UTC)
        except (ValueError, TypeError):
            return dt.datetime.now(dt.UTC)


def read_as(raw: msgspec.Raw | bytes, kind: type[_Kind]) -> _Kind:
    """An object that came as JSON, as far as `kind` goes. Raises SourceError where it is another kind of thing."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, ValueError) as error:
        what = f"an object that came is none of Stripe's ({error})"
        raise SourceError(what, do="check base_url and api_version; if they are right, report it") from None


def id_of(raw: msgspec.Raw | bytes) -> str:
    """The id of an object that came as JSON. Raises SourceError where it has none."""
    return read_as(raw, Named).id
