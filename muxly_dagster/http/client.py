"""The client: requests in, answers out, with everything between them that can go wrong met the same way."""

import hashlib
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urljoin, urlsplit

from muxly_dagster.auth import Auth, NoAuth, TokenSource
from muxly_dagster.errors import ConfigurationError, RetryLater, SourceError
from muxly_dagster.http import outcomes
from muxly_dagster.http.credentials import Credentials, Live
from muxly_dagster.http.downloading import PROGRESS, Download, Downloaded, FileTooLarge, Receiving
from muxly_dagster.http.flow import Flow, Parts, Source
from muxly_dagster.http.guard import AddressGuard, Pins
from muxly_dagster.http.hosts import Reach, merge_query, same_place, without_params
from muxly_dagster.http.judging import Course, Failure, Judging
from muxly_dagster.http.limits import Budgets, Limit, Stopped
from muxly_dagster.http.messages import Request, Response
from muxly_dagster.http.ordered import in_order
from muxly_dagster.http.outcomes import Judge
from muxly_dagster.http.outgoing import Outgoing, common_headers, outgoing
from muxly_dagster.http.redaction import Redaction
from muxly_dagster.http.retries import Retries
from muxly_dagster.http.shared import SharedBudgets
from muxly_dagster.http.transport import open_transport
from muxly_dagster.http.wire import Answer, Timeouts, Trouble
from muxly_dagster.services import Turns

_log = logging.getLogger("muxly.http")

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS = 5
_MIB = 1024 * 1024

_T = TypeVar("_T")

_Send = Callable[[str, str, Mapping[str, str], bytes | None], Answer]


Signer = Callable[[Outgoing], Mapping[str, str]]
"""Makes headers of a request as it goes out, such as a signature with the time of this very attempt."""


class Http:
    """Talks to one API from any thread, over kept connections.

    A request that meets a passing trouble is sent again after a wait; one that cannot succeed raises SignInError,
    SourceError or, when the trouble outlasts `retries`, RetryLater. `hosts` are the hosts that may be asked beside the
    base URL's own; `judge` may overrule what a status means; `secrets` are hidden in texts like those of `auth`;
    `concurrency` is the number of the client's own threads.

    A token source as `auth` is asked for credentials at every attempt; when they are refused and it can give others, the request
    is sent once more. With `turns`, the `limits` are held together with every other client of the same `account` (a text that
    names whose allowance they are; the base URL where it is empty), in this process and in others.

    `signer` adds headers to every attempt. With a `guard`, only addresses that it lets pass are connected to; then the base URL is one
    that it made plain, and its host is the only one that can be asked.
    """

    def __init__(
        self,
        base_url: str = "",
        *,
        auth: Auth | TokenSource = NoAuth(),  # noqa: B008 (frozen)
        limits: Sequence[Limit] = (),
        timeouts: Timeouts = Timeouts(),  # noqa: B008 (frozen)
        retries: Retries = Retries(),  # noqa: B008 (frozen)
        headers: Mapping[str, str] | None = None,
        hosts: Sequence[str] | None = None,
        max_body: int = 256 * _MIB,
        judge: Judge | None = None,
        secrets: Sequence[str] = (),
        concurrency: int = 16,
        turns: Turns | None = None,
        account: str = "",
        signer: Signer | None = None,
        guard: AddressGuard | None = None,
    ) -> None:
        base = urlsplit(base_url) if base_url else None
        self._credentials = Credentials({}) if isinstance(auth, TokenSource) else Credentials.of(auth, base)
        self._redaction = Redaction([*self._credentials.secrets, *secrets, *(auth.secrets() if isinstance(auth, TokenSource) else ())])
        self._live = Live(auth, self._redaction.learn) if isinstance(auth, TokenSource) else None
        self._own_headers = headers or {}
        self._reach = Reach(base, None if hosts is None else tuple(hosts))
        if base and (refusal := Reach(None, None).refusal(base)):
            raise ConfigurationError(f"the base URL is {self._redaction(base_url)!r}, {refusal}", do="write it as https://HOST/PATH")
        self._base_url = base._replace(netloc=base.netloc.rpartition("@")[2]).geturl() if base else ""
        self._headers = common_headers(headers or {}, self._credentials)
        self._common = self._credentials, self._headers
        self._hidden = frozenset([*self._credentials.secrets, *(s for s in secrets if s)])
        self._retries, self._max_body, self._timeouts, self._signer = retries, max_body, timeouts, signer
        self._judging = Judging(judge, self._redaction, timeouts, max_body)
        base_path = base.path if base else ""
        own = Budgets(limits, base_path)
        self._account = account or self._base_url
        self._budgets = SharedBudgets(limits, base_path, turns, self._account) if turns is not None and limits else own
        self._own = own if self._budgets is own else None
        self._pins = Pins(guard, self._base_url) if guard is not None else None
        self._transport = open_transport(timeouts, self._redaction, self._pins)
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="muxly-http")
        self._closed = threading.Event()
        self._allowed: set[tuple[str, str]] = set()
        self._stops: set[threading.Event] = {self._closed}
        self._lock = threading.Lock()

    # ---- asking ----------------------------------------------------------------------------------------------------

    def request(self, request: Request) -> Response:
        """Send a request and wait for its answer. Raises SignInError, SourceError, RetryLater, ConfigurationError."""
        return self._wait_for(partial(self._exchange, request))

    def get(self, url: str, params: Mapping[str, Any] | None = None) -> Response:
        """Send a GET request and wait for its answer; errors as in `request`."""
        return self.request(Request("GET", url, params))

    def each(self, requests: Iterable[Request], in_flight: int) -> Iterator[Response]:
        """The answers in the order of the requests, with at most `in_flight` requests sent ahead (and at most `concurrency` at once).

        The next request is only asked for when an answer has been taken. What fails is raised at its place. Closing the
        iterator ends what waits and waits for what is on the wire: afterwards nothing of it is running.
        """
        return self._in_order((partial(self._exchange, request) for request in requests), in_flight)

    def flow(self, source: Source, in_flight: int) -> None:
        """Send what a source gives, whenever it gives it, at most `in_flight` requests at once; returns when there is nothing more.

        For many small requests: an answer is told of as soon as it is there, in no order. Errors are told of, not raised. Redirects of
        what is not a GET are answers, as everywhere.
        """
        stop = self._begin()
        live = None if self._live is None else self._live.now
        lent = (self._own, self._judging, self._pins, self._threads)
        try:
            Flow(Parts(self._ready, self._signed, self._exchange, live, self._with, *lent), source, in_flight, stop).run()
        finally:
            self._end(stop)

    def download(self, request: Request, path: Path, *, max_bytes: int) -> Downloaded:
        """Send a request and write its answer's body to a file, in bounded memory and however long it takes; errors as in `request`.

        A download that broke off goes on where it was (RFC 9110, 14), also in a later process, unless the server's file has changed
        meanwhile or it cannot say so. Raises FileTooLarge above `max_bytes`, MuxlyError where the disk is full.
        """
        return self._wait_for(partial(self._download, Download(request, path, max_bytes)))

    def downloads(
        self, wanted: Iterable[Download], in_flight: int, then: Callable[[Download, Downloaded | FileTooLarge], _T]
    ) -> Iterator[_T]:
        """What `then` makes of each download, in their order; it runs on the client's threads. Otherwise like `each`."""

        def one(download: Download, stop: threading.Event) -> _T:
            try:
                return then(download, self._download(download, stop))
            except FileTooLarge as error:
                return then(download, error)

        return self._in_order((partial(one, download) for download in wanted), in_flight)

    def _wait_for(self, deed: Callable[[threading.Event], _T]) -> _T:
        if threading.current_thread() is not threading.main_thread():
            return deed(self._closed)
        # The transport cannot be interrupted: waiting for another thread lets Ctrl-C and Dagster's termination through.
        stop = self._begin()
        try:
            return self._threads.submit(deed, stop).result()
        finally:
            self._end(stop)

    def _in_order(self, deeds: Iterable[Callable[[threading.Event], _T]], in_flight: int) -> Iterator[_T]:
        stop = self._begin()
        yield from in_order(deeds, in_flight, self._threads, stop, lambda: self._end(stop))

    def name_of(self, request: Request) -> str:
        """A name for what is asked and by whom, for what is kept of its answer: the same account's same request has the same one."""
        made = outgoing(request, self._base_url, self._own_headers, self._credentials)
        parts = [self._account, *self._credentials.secrets, made.method, made.url, *(f"{n}: {v}" for n, v in sorted(made.headers.items()))]
        return hashlib.sha256("\n".join(parts).encode() + b"\n" + (made.content or b"")).hexdigest()

    def close(self) -> None:
        """End everything under way and close the connections."""
        self._closed.set()
        with self._lock:
            for stop in self._stops:
                stop.set()
        self._budgets.wake()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._transport.close()
        self._threads.shutdown(wait=True)
        self._budgets.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Http({self._redaction(self._base_url)!r})"

    # ---- one request, however often it is sent ------------------------------------------------------------------------

    def _download(self, download: Download, stop: threading.Event) -> Downloaded:
        """Exchange as often as it brings the download forward: a long one may well lose its connection more than once."""
        given = {name.lower() for name in download.request.headers or ()}
        plain = {"Accept": "*/*", "Accept-Encoding": "identity"}  # the bytes of the file itself: only they can be counted and continued
        headers = {**{name: value for name, value in plain.items() if name.lower() not in given}, **(download.request.headers or {})}
        receiving = Receiving(self._transport, download, stop, self._redaction)
        while True:
            before = receiving.furthest
            try:
                return receiving.finish(self._exchange(replace(download.request, headers=headers), stop, receiving.send))
            except RetryLater as error:
                if stop.is_set() or error.after is not None or receiving.furthest < before + PROGRESS:
                    raise

    def _ready(self, request: Request) -> tuple[Outgoing, str]:
        """The request as it would go out, and the path its budgets go by. Raises ConfigurationError, SourceError for a place it may not
        go to."""
        first = self._made(request, self._headers, self._credentials)
        address = urlsplit(first.url.partition("?")[0])  # which is the same for all pages, so it is remembered
        if (place := (address.scheme, address.netloc)) not in self._allowed:
            try:
                refusal = self._reach.refusal(address)
            except ValueError:
                raise ConfigurationError("the URL cannot be read", do="check base_url and the path", where=self._where(first)) from None
            if refusal:
                raise SourceError(f"the request goes to a place {refusal}", do=outcomes.ADD_HOST, where=self._where(first))
            self._allowed.add(place)
        return first, address.path or "/"

    def _exchange(
        self,
        request: Request,
        stop: threading.Event,
        send: _Send | None = None,
        course: Course | None = None,
        failure: Failure | None = None,
    ) -> Response:
        """Send a request as often as `retries` say; from the second attempt on where the first has already met a `failure`."""
        first, path = self._ready(request)
        course = course or Course()
        spent, renewed = 0.0, False
        for attempt in itertools.count(1):
            answer, seconds = (failure, course.seconds) if failure else self._attempt(request, first, path, stop, send, course)
            failure = None
            if isinstance(answer, Response):
                return answer
            spent += seconds
            if answer.refused is not None and self._live is not None and not renewed and self._live.refused(answer.refused):
                renewed = True  # a request whose sender was not accepted was not carried out: even a POST may be sent again
                continue
            if not answer.again:
                raise answer.error
            delay = self._retries.delay(attempt, answer.asked or 0.0)
            if attempt >= self._retries.attempts or spent + max(delay, answer.asked or 0.0) > self._retries.budget_seconds:
                raise outcomes.given_up(answer.error, attempt, answer.asked)
            if answer.asked is not None or answer.limited:
                self._budgets.pause(path, delay if answer.asked is None else answer.asked)
            what, most = answer.error.what, self._retries.attempts
            _log.info("%s: %s; trying again in %.1f s (attempt %d of %d)", self._where(first), what, delay, attempt + 1, most)
            spent += delay
            if stop.wait(delay):
                raise outcomes.stopped(self._where(first))
        raise AssertionError("unreachable")

    def _attempt(
        self, request: Request, first: Outgoing, path: str, stop: threading.Event, send: _Send | None, course: Course
    ) -> "tuple[Response | Failure, float]":
        """Wait for a turn and send once: what came of it, and the seconds it took without the wait."""
        began = time.monotonic()
        if self._live is not None:
            try:
                self._live.now()  # may take a while, and a turn must be used at once
            except RetryLater as error:
                return Failure(error, again=True, asked=error.after), time.monotonic() - began
        try:
            turn = self._budgets.start(path, stop)
        except Stopped:
            raise outcomes.stopped(self._where(first)) from None
        began = time.monotonic()
        try:
            if self._live is not None:
                first = self._with(request, self._live.now())
            answer = self._once(request, self._signed(first), send, course)
        except RetryLater as error:
            answer = Failure(error, again=True, asked=error.after)
        finally:
            self._budgets.finish(turn)
        course.seconds = time.monotonic() - began
        return answer, course.seconds

    def _signed(self, asked: Outgoing) -> Outgoing:
        """The request with what its signer makes of it at this moment."""
        return asked if self._signer is None else replace(asked, headers={**asked.headers, **self._signer(asked)})

    def _with(self, request: Request, credentials: Credentials) -> Outgoing:
        """The request with credentials that are valid now."""
        known, common = self._common
        if known is not credentials:
            common = common_headers(self._own_headers, credentials)
            self._common = credentials, common
        return self._made(request, common, credentials)

    def _made(self, request: Request, common: Mapping[str, str], credentials: Credentials) -> Outgoing:
        made = outgoing(request, self._base_url, common, credentials)
        if not request.at_home or self._reach.base is None or same_place(self._reach.base, urlsplit(made.url)):
            return made
        return replace(made, headers=credentials.strip(made.headers, self._hidden.union(credentials.secrets)), credentials=Credentials({}))

    def _once(self, request: Request, first: Outgoing, send: _Send | None, course: Course) -> "Response | Failure":
        """Send once and judge what comes back."""
        try:
            response = self._follow(request, first, send)
        except Trouble as trouble:
            course.statuses.append(0)
            return self._judging.of_trouble(trouble, request, first)
        course.statuses.append(response.status)
        return self._judging.of_response(response, request, first)

    def _follow(self, request: Request, first: Outgoing, send: _Send | None) -> Response:
        """Send once, following redirects. Raises Trouble, and SourceError for a redirect that may not be followed."""
        url, headers, params = first.url, first.headers, first.credentials.params
        for _ in range(_MOST_REDIRECTS + 1):
            target = merge_query(url, params)
            if send is not None:
                answer = send(first.method, target, headers, first.content)
            else:
                answer = self._transport.send(first.method, target, headers, first.content, self._max_body)
            location = answer.headers.get("location")
            if answer.status not in _REDIRECTS or not location or first.method not in ("GET", "HEAD"):
                return Response(answer.status, answer.headers, answer.content, url, request, self._redaction)
            here = urlsplit(url)
            where = f"{first.method} {self._redaction(url)}"
            try:
                there = urlsplit(urljoin(url, location))
                refusal = self._reach.refusal(there, came_from=here)
            except ValueError:
                raise SourceError("redirects to an address that cannot be read", do="check base_url and the path", where=where) from None
            if refusal:
                raise SourceError(f"redirects to a place {refusal}; not followed", do=outcomes.ADD_HOST, where=where)
            if "@" in there.netloc and there.netloc != here.netloc:
                there = there._replace(netloc=there.netloc.rpartition("@")[2])
            url = there.geturl().partition("#")[0]
            if not same_place(here, there):
                headers, params = first.credentials.strip(headers, self._hidden.union(first.credentials.secrets)), ()
                url = without_params(url, self._credentials.param_names, self._hidden)
            else:
                url = without_params(url, self._credentials.param_names, frozenset())  # it would be sent twice
        do = "check base_url; log-in pages redirect in circles"
        raise SourceError(f"redirects more than {_MOST_REDIRECTS} times", do=do, where=self._where(first))

    def _where(self, asked: Outgoing) -> str:
        return self._judging.where(asked)

    # ---- what is under way ----------------------------------------------------------------------------------------------

    def _begin(self) -> threading.Event:
        stop = threading.Event()
        with self._lock:
            if self._closed.is_set():
                stop.set()
            self._stops.add(stop)
        return stop

    def _end(self, stop: threading.Event) -> None:
        stop.set()
        with self._lock:
            self._stops.discard(stop)
        self._budgets.wake()
