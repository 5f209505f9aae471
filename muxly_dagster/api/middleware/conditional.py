"""HEAD, and answers that need not be sent again: an ETag on every answer to a GET, 304 where the client has it (RFC 9110, 13)."""

import xxhash
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LARGEST = 1 << 20
"""Answers beyond this go out without a tag."""

_DEFAULTS = {b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'", b"cross-origin-resource-policy": b"same-origin"}
_OF_BODIES = frozenset({b"content-length", b"content-type", b"content-encoding"})


class Conditional:
    """Answers HEAD as GET without the body. What goes out in one piece gets a tag; what is streamed passes as it comes."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "HEAD":
            await self._head(scope, receive, _with_defaults(send, b"private, no-cache"))
        elif scope["method"] == "GET":
            await self._app(scope, receive, _tagging(scope, _with_defaults(send, b"private, no-cache")))
        else:
            await self._app(scope, receive, _with_defaults(send, b"no-store"))

    async def _head(self, scope: Scope, receive: Receive, send: Send) -> None:
        # A copy: the server looks at its own to learn that no body follows.
        got, ended = {**scope, "method": "GET"}, False

        async def bodiless(message: Message) -> None:
            nonlocal ended
            if ended:
                raise OSError("the answer has ended")  # as servers say it to those who stream to a client that is gone
            await send(message if message["type"] != "http.response.body" else {"type": "http.response.body", "body": b""})
            ended = message["type"] == "http.response.body"

        async def gone() -> Message:
            return {"type": "http.disconnect"} if ended else await receive()

        try:
            await self._app(got, gone, _tagging(got, bodiless))
        except Exception:
            if not ended:
                raise
        finally:
            if "route" in got:
                scope["route"] = got["route"]


def _with_defaults(send: Send, cache_control: bytes) -> Send:
    async def with_defaults(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", ()))
            there = {name for name, _ in headers}
            headers += [(name, value) for name, value in _DEFAULTS.items() if name not in there]
            if b"cache-control" not in there:
                headers.append((b"cache-control", cache_control))
            message["headers"] = headers
        await send(message)

    return with_defaults


def _tagging(scope: Scope, send: Send) -> Send:
    held: Message | None = None

    async def tagging(message: Message) -> None:
        nonlocal held
        if message["type"] == "http.response.start" and message["status"] == 200:
            held = message  # what its tag is shows when the body is there
            return
        if held is not None and message["type"] == "http.response.body":
            start, held = held, None
            body, whole = message.get("body", b""), not message.get("more_body", False)
            tag = next((value for name, value in start["headers"] if name == b"etag"), b"")
            if not tag and whole and len(body) <= LARGEST:
                tag = b'"' + xxhash.xxh3_128_hexdigest(body).encode() + b'"'
                start["headers"] = [*start["headers"], (b"etag", tag)]
            if tag and whole and _has(scope, tag):
                kept = [(name, value) for name, value in start["headers"] if name not in _OF_BODIES]
                start, message = {**start, "status": 304, "headers": kept}, {"type": "http.response.body", "body": b""}
            await send(start)
        await send(message)

    return tagging


def _has(scope: Scope, tag: bytes) -> bool:
    """Whether If-None-Match names the tag; by the weak comparison, as RFC 9110, 13.1.2 says."""
    said = b",".join(value for name, value in scope["headers"] if name == b"if-none-match")
    return said.strip() == b"*" or tag.removeprefix(b"W/") in [each.strip().removeprefix(b"W/") for each in said.split(b",")]
