"""Many small requests under way from one thread: each goes out as soon as its source gives it, and is told of as soon as it is over.

A thread for each request under way costs more than the request does: measured by benchmarks/webhook.py. Here one event loop sends them
all. What meets trouble goes on in a thread of the client's, which has the patience: waits, renewed credentials, further attempts.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from muxly_dagster.errors import MuxlyError, RetryLater
from muxly_dagster.http import outcomes, transport
from muxly_dagster.http.credentials import Credentials
from muxly_dagster.http.guard import Pins
from muxly_dagster.http.judging import Course, Failure, Judging
from muxly_dagster.http.limits import Budgets
from muxly_dagster.http.messages import Request, Response
from muxly_dagster.http.outgoing import Outgoing
from muxly_dagster.http.wire import Trouble

if TYPE_CHECKING:
    from pyreqwest.client import Client

_T = TypeVar("_T")

_ASKED_AGAIN = 1.0
"""Seconds after which a token source is asked again whether its token still holds."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a request ended: with a response or with an error; and what it took."""

    request: Request
    course: Course
    response: Response | None = None
    error: MuxlyError | None = None


class Source(Protocol):
    """Where requests come from. It is only ever asked and told by one thread at a time, never while another call is running."""

    def next(self) -> Request | None:
        """The next request that may go out now; None when there is none, for now or for good. Asked again whenever one is over."""

    def take(self, outcome: Outcome) -> None:
        """Hear how a request ended."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What a client lends for the way of one request: see the methods of Http of the same names."""

    ready: Callable[[Request], tuple[Outgoing, str]]
    signed: Callable[[Outgoing], Outgoing]
    exchange: Callable[[Request, threading.Event, None, Course, Failure | None], Response]
    credentials: Callable[[], Credentials] | None
    renewed: Callable[[Request, Credentials], Outgoing]
    budgets: Budgets | None
    judging: Judging
    pins: Pins | None
    threads: ThreadPoolExecutor


class Flow:
    """The requests of one source, at most `in_flight` at once."""

    def __init__(self, parts: Parts, source: Source, in_flight: int, stop: threading.Event) -> None:
        self._parts, self._source, self._in_flight, self._stop = parts, source, in_flight, stop
        self._workers: set[asyncio.Task[None]] = set()
        self._clients: dict[str | None, Client] = {}
        self._credentials: Credentials | None = None
        self._asked_at = float("-inf")
        self._failure: Exception | None = None
        self._running: set[Future[Any]] = set()

    def run(self) -> None:
        """Send until the source has nothing more and nothing is under way.

        Raises what the source raises, and RetryLater when the client is closed meanwhile. Ctrl-C does not wait for slow answers.
        """
        over: Future[None] = Future()
        threading.Thread(target=self._loop, args=(over,), name="muxly-http-flow", daemon=True).start()
        try:
            over.result()
        except Exception:
            self._stop.set()
            wait(tuple(self._running))  # what threads have on the wire
            raise
        except BaseException:
            self._stop.set()
            raise

    def _loop(self, over: "Future[None]") -> None:
        try:
            with asyncio.Runner(loop_factory=_new_loop) as runner:
                runner.run(self._drive())
        except BaseException as error:
            over.set_exception(error)
        else:
            over.set_result(None)

    async def _drive(self) -> None:
        self._renewing = asyncio.Lock()
        watch = asyncio.create_task(self._watch())
        try:
            self._fill()
            while self._workers and self._failure is None:
                await asyncio.wait([watch, *self._workers], return_when=asyncio.FIRST_COMPLETED)
                if watch.done():
                    raise outcomes.stopped("the client")
            if self._failure is not None:
                raise self._failure
        finally:
            for task in (watch, *self._workers):
                task.cancel()
            await asyncio.gather(watch, *self._workers, return_exceptions=True)
            for client in self._clients.values():
                await client.close()

    def _fill(self) -> None:
        while len(self._workers) < self._in_flight and (request := self._source.next()) is not None:
            worker = asyncio.create_task(self._work(request))
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)

    async def _work(self, request: Request | None) -> None:
        try:
            while request is not None:
                self._source.take(await self._one(request))
                request = self._source.next()
                if request is not None:
                    self._fill()
        except Exception as error:  # the source's own
            self._failure = self._failure or error

    async def _one(self, request: Request) -> Outcome:
        """Send a request; what met trouble the first time goes on in a thread."""
        course = Course()
        try:
            answer = await self._first(request, course)
            if isinstance(answer, Response):
                return Outcome(request, course, answer)
            if answer is not None and not answer.again and answer.refused is None:
                return Outcome(request, course, error=answer.error)
            patience = partial(self._parts.exchange, request, self._stop, None, course, answer)
            return Outcome(request, course, await self._in_thread(patience))
        except MuxlyError as error:
            return Outcome(request, course, error=error)

    async def _first(self, request: Request, course: Course) -> Response | Failure | None:
        """The first attempt; None where it has to wait, or is not for this way."""
        parts = self._parts
        sent, path = parts.ready(request)
        if not transport.HAS_PYREQWEST or parts.budgets is None or sent.method in ("GET", "HEAD"):
            return None  # those may be redirected
        try:
            if parts.credentials is not None:
                sent = parts.renewed(request, await self._valid(parts.credentials))
            client, address = self._connected()
        except RetryLater:
            return None
        turn = parts.budgets.start_now(path)
        if turn is None:
            return None
        sent = parts.signed(sent)
        began = time.monotonic()
        try:
            target = sent.address
            answer = await transport.send_async(client, sent.method, target, sent.headers, sent.content, parts.judging.max_body)
        except Trouble as trouble:
            course.statuses.append(0)
            if not trouble.sent and parts.pins is not None:
                parts.pins.failed(address)
            return parts.judging.of_trouble(trouble, request, sent)
        finally:
            course.seconds = time.monotonic() - began
            parts.budgets.finish(turn)
        course.statuses.append(answer.status)
        response = Response(answer.status, answer.headers, answer.content, sent.url, request, parts.judging.redaction)
        judged = parts.judging.of_response(response, request, sent)
        if isinstance(judged, Failure) and judged.refused is not None:
            self._asked_at = float("-inf")
        return judged

    def _connected(self) -> "tuple[Client, str | None]":
        """The client whose connections go to the host's address of this moment, and that address where it is pinned."""
        pins = self._parts.pins
        address = pins.current() if pins is not None else None
        client = self._clients.get(address)
        if client is None:
            client = self._clients[address] = transport.open_async(self._parts.judging.timeouts, pins, address)
        return client, address

    async def _valid(self, credentials: Callable[[], Credentials]) -> Credentials:
        """Credentials that are valid now. To ask may mean a request of its own, so it is a thread that asks, and not each time."""
        async with self._renewing:
            if self._credentials is None or time.monotonic() > self._asked_at + _ASKED_AGAIN:
                self._credentials = await self._in_thread(credentials)
                self._asked_at = time.monotonic()
            return self._credentials

    async def _in_thread(self, deed: Callable[[], _T]) -> _T:
        try:
            future = self._parts.threads.submit(deed)
        except RuntimeError:  # the client is closed
            raise outcomes.stopped("the client") from None
        self._running.add(future)
        future.add_done_callback(self._running.discard)
        return await asyncio.wrap_future(future)

    async def _watch(self) -> None:
        """Over when nobody wants the answers any more."""
        while not self._stop.is_set():
            await asyncio.sleep(0.05)


def _new_loop() -> asyncio.AbstractEventLoop:
    """uvloop where it is installed: it halves what a small request costs."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
