"""Request ids, a line in the log for each request, figures, and an answer where something failed that nobody expected."""

import logging
import random
import re
import time

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from muxly_dagster.api.middleware.counting import Requests
from muxly_dagster.api.problems import unexpected

_SANE = re.compile(rb"[A-Za-z0-9._:-]{8,128}")
HEADERS = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]
_CLOSED_BY_CLIENT = 499

_access = logging.getLogger("muxly.access")
_log = logging.getLogger("muxly.api")


class Watched:
    """Gives a request its id: the `X-Request-Id` it came with, or a new one; answers, problems and the log have it.

    The log line names neither query nor headers nor body, which may hold secrets. Without `log_all`, only what was refused has one.
    """

    def __init__(self, app: ASGIApp, requests: Requests, *, log_all: bool) -> None:
        self._app, self._requests, self._log_all = app, requests, log_all

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        own_id = request_id(next((value for name, value in scope["headers"] if name == b"x-request-id"), b""))
        scope.setdefault("state", {})["request_id"] = own_id.decode()
        headers = [(b"x-request-id", own_id), *HEADERS]
        began, status = time.perf_counter(), 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *headers]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:
            _log.error("request %s failed", own_id.decode(), exc_info=error)
            if status:  # half an answer is out already: the server can only cut the connection
                raise
            await unexpected(own_id.decode())(scope, receive, watched)
        finally:
            seconds = time.perf_counter() - began
            status = status or _CLOSED_BY_CLIENT
            self._requests.count(scope["method"], getattr(scope.get("route"), "path", ""), status, seconds)
            if (self._log_all or status >= 400) and _access.isEnabledFor(logging.INFO):
                _access.info("%s", _line(scope, own_id, status, seconds))


def request_id(given: bytes) -> bytes:
    """The id of a request: the one it came with, or a new one."""
    return bytes(given) if _SANE.fullmatch(given) else b"%016x" % random.getrandbits(64)


def _line(scope: Scope, request_id: bytes, status: int, seconds: float) -> str:
    """One line of JSON: in JSON, nothing that a client sends can begin a line of its own."""
    client = scope.get("client")
    said = {
        "request_id": request_id.decode(),
        "client": client[0] if client else "",
        "method": scope["method"],
        "path": scope["path"],
        "status": status,
        "seconds": round(seconds, 6),
    }
    return orjson.dumps(said).decode()
