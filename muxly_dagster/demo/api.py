"""The demo's API: a small CRM and a small billing service with the paging, the limits and the bad moments of real ones.

CRM (`/crm`, bearer token): contacts page by cursor, companies by page number, deals by offset. Billing (`/billing`, API key):
customers page by Link header, invoices by cursor. Both answer 429 above 200 requests a second and at every 89th request, and 503
at every 37th. `/hooks` takes one record per POST, fails at every 23rd, and refuses deals without a name. `/chat` takes messages as an
incoming webhook of Slack does.
"""

import bisect
import contextlib
import datetime as dt
import functools
import hmac
import itertools
import os
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import IO

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from muxly_dagster.demo.data import Item, collection
from muxly_dagster.errors import ConfigurationError, MuxlyError

CRM_TOKEN = "demo-crm-token"
BILLING_KEY = "demo-billing-key"
REQUESTS_PER_SECOND = 200
THROTTLED_EVERY = 89
UNAVAILABLE_EVERY = 37
HOOK_UNAVAILABLE_EVERY = 23

_Endpoint = Callable[[Request], Awaitable[Response]]


class _Mistake(Exception):
    """What a caller got wrong, as the answer to send."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@contextlib.contextmanager
def serve(port: int = 0, day: int = 1) -> Iterator[str]:
    """Run the API as it stands on `day` in a process of its own on 127.0.0.1, and give its base URL.

    Port 0 takes a free one. The process ends with the context, and also when the process that started it dies.
    Raises MuxlyError when it does not come up.
    """
    command = [sys.executable, "-m", "muxly_dagster.demo", "--port", str(port), "--day", str(day), "--until-stdin-closes"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout
        try:
            url = process.stdout.readline().strip()
            if not url:
                raise MuxlyError("The demo's API did not start.", do="read what it printed above, and try another port")
            yield url
        finally:
            process.stdin.close()
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()


def run(port: int, day: int, lifeline: IO[str] | None = None) -> None:
    """Serve the API in this process until it is interrupted or until `lifeline` ends, saying its URL on standard output."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except OSError as error:
        raise ConfigurationError(f"Port {port} of 127.0.0.1 cannot be had: {error.strerror}.", do="choose another port") from error
    listener.listen()
    server = uvicorn.Server(uvicorn.Config(create_app(day), log_level="warning", access_log=False, lifespan="off", ws="none"))
    if lifeline:
        threading.Thread(target=_stop_at_end, args=(server, lifeline), daemon=True).start()
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[listener])


def _stop_at_end(server: uvicorn.Server, lifeline: IO[str]) -> None:
    while os.read(lifeline.fileno(), 1024):  # not lifeline.read(): its lock, held by a thread, aborts the interpreter's shutdown
        pass
    server.should_exit = True


def create_app(day: int = 1) -> Starlette:
    """The API as it stands on a day."""
    crm = _Face(day, "authorization", f"Bearer {CRM_TOKEN}")
    billing = _Face(day, "x-api-key", BILLING_KEY)
    hooks, chat = _Hooks(), _Chat()

    async def index(_: Request) -> Response:
        return JSONResponse(
            {"day": day, "crm": ["contacts", "companies", "deals"], "billing": ["customers", "invoices"], "hooks": "/hooks"}
        )

    async def account(_: Request) -> Response:
        return JSONResponse({"account": "demo", "day": day})

    return Starlette(
        routes=[
            Route("/", index),
            Route("/crm/account", crm.guarded(account)),
            Route("/crm/contacts", crm.guarded(crm.contacts)),
            Route("/crm/companies", crm.guarded(crm.companies)),
            Route("/crm/deals", crm.guarded(crm.deals)),
            Route("/billing/account", billing.guarded(account)),
            Route("/billing/customers", billing.guarded(billing.customers)),
            Route("/billing/invoices", billing.guarded(billing.invoices)),
            Route("/hooks", hooks.receive, methods=["POST"]),
            Route("/hooks", hooks.summary, methods=["GET"]),
            Route("/chat", chat.receive, methods=["POST"]),
            Route("/chat", chat.summary, methods=["GET"]),
        ]
    )


class _Face:
    """One of the two services: its credential, its limits and its collections."""

    def __init__(self, day: int, header: str, credential: str) -> None:
        self._header, self._credential = header, credential
        self._requests = itertools.count(1)
        self._recent: deque[float] = deque()
        self._items = functools.cache(functools.partial(collection, day=day))
        self._by_change = functools.cache(lambda name: sorted(self._items(name), key=_change))

    def guarded(self, endpoint: _Endpoint) -> _Endpoint:
        async def answer(request: Request) -> Response:
            given = request.headers.get(self._header, "")
            if not hmac.compare_digest(given.encode(), self._credential.encode()):
                return JSONResponse({"error": f"the header {self._header} holds no valid credential"}, 401)
            now, number = time.monotonic(), next(self._requests)
            while self._recent and self._recent[0] <= now - 1:
                self._recent.popleft()
            if number % THROTTLED_EVERY == 0 or len(self._recent) >= REQUESTS_PER_SECOND:
                return JSONResponse({"error": "too many requests"}, 429, {"Retry-After": "1"})
            self._recent.append(now)
            if number % UNAVAILABLE_EVERY == 0:
                return JSONResponse({"error": "the service is out of order for a moment"}, 503)
            try:
                return await endpoint(request)
            except _Mistake as mistake:
                return JSONResponse({"error": str(mistake)}, mistake.status)

        return answer

    async def contacts(self, request: Request) -> Response:
        items = self._items("contacts")
        start = _after(items, request.query_params.get("after"))
        page = items[start : start + _number(request, "limit", 100, most=200)]
        more = start + len(page) < len(items)
        return _json(b'{"results":', page, b',"paging":', orjson.dumps({"next": {"after": page[-1].id}} if more else {}), b"}")

    async def companies(self, request: Request) -> Response:
        items = self._items("companies")
        number, size = _number(request, "page", 1), _number(request, "per_page", 50, most=100)
        page = items[(number - 1) * size : number * size]
        return _json(b'{"companies":', page, b',"page":%d,"pages":%d}' % (number, -(-len(items) // size)))

    async def deals(self, request: Request) -> Response:
        items = _changed_since(self._by_change("deals"), request)
        offset = _number(request, "offset", 0, least=0)
        page = items[offset : offset + _number(request, "limit", 100, most=200)]
        return _json(b'{"results":', page, b',"total":%d}' % len(items))

    async def customers(self, request: Request) -> Response:
        items = self._items("customers")
        number, size = _number(request, "page", 1), _number(request, "per_page", 50, most=100)
        answer = _json(b"", items[(number - 1) * size : number * size])
        if number * size < len(items):
            following = request.url.include_query_params(page=number + 1)
            answer.headers["Link"] = f'<{following}>; rel="next"'
        return answer

    async def invoices(self, request: Request) -> Response:
        items = _changed_since(self._by_change("invoices"), request)
        start = _after(items, request.query_params.get("starting_after"))
        page = items[start : start + _number(request, "limit", 100, most=250)]
        following = page[-1].id if start + len(page) < len(items) else None
        return _json(b'{"data":', page, b',"next_cursor":', orjson.dumps(following), b"}")


class _Hooks:
    """The place that deals are posted to. Counts what it took, by record id, so that a repeat shows."""

    def __init__(self) -> None:
        self._posts = itertools.count(1)
        self._taken: list[str] = []
        self._refused = 0

    async def receive(self, request: Request) -> Response:
        if next(self._posts) % HOOK_UNAVAILABLE_EVERY == 0:
            return JSONResponse({"error": "out of order for a moment"}, 503)
        try:
            record = orjson.loads(await request.body())
            identity, data = str(record["id"]), dict(record["data"])
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
            return JSONResponse({"error": "the body is no record with id and data"}, 400)
        if record.get("op") != "delete" and not data.get("dealname"):
            self._refused += 1
            return JSONResponse({"error": "dealname is empty"}, 422)
        self._taken.append(identity)
        return JSONResponse({"taken": identity}, 202)

    async def summary(self, _: Request) -> Response:
        return JSONResponse({"taken": len(self._taken), "distinct": len(set(self._taken)), "refused": self._refused})


class _Chat:
    """A channel that messages are posted to, as Slack's incoming webhooks take them."""

    def __init__(self) -> None:
        self._messages: list[str] = []

    async def receive(self, request: Request) -> Response:
        try:
            text = str(orjson.loads(await request.body())["text"])
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return PlainTextResponse("invalid_payload", 400)
        if not text.strip():
            return PlainTextResponse("no_text", 400)
        self._messages.append(text)
        return PlainTextResponse("ok")

    async def summary(self, _: Request) -> Response:
        return JSONResponse({"messages": self._messages})


def _json(head: bytes, page: Sequence[Item], *tail: bytes) -> Response:
    return Response(head + b"[" + b",".join(item.json for item in page) + b"]" + b"".join(tail), media_type="application/json")


def _number(request: Request, name: str, default: int, least: int = 1, most: int = sys.maxsize) -> int:
    text = request.query_params.get(name, str(default))
    if not text.isdecimal() or not least <= int(text) <= most:
        raise _Mistake(400, f"{name} must be a whole number of at least {least}" + (f" and at most {most}" if most < sys.maxsize else ""))
    return int(text)


def _after(items: Sequence[Item], cursor: str | None) -> int:
    if not cursor:
        return 0
    place = next((index for index, item in enumerate(items) if item.id == cursor), None)
    if place is None:
        raise _Mistake(400, "the cursor is none that this API gave out")
    return place + 1


def _change(item: Item) -> tuple[dt.datetime, str]:
    return item.updated_at, item.id


def _changed_since(items: Sequence[Item], request: Request) -> Sequence[Item]:
    """Those of the items, which stand in the order of their last change, that changed at or after `updated_since`."""
    text = request.query_params.get("updated_since")
    if not text:
        return items
    try:
        since = dt.datetime.fromisoformat(text)
    except ValueError:
        raise _Mistake(400, "updated_since must be a time such as 2026-01-31T12:00:00Z") from None
    since = since if since.tzinfo else since.replace(tzinfo=dt.UTC)
    return items[bisect.bisect_left(items, (since, ""), key=_change) :]
