"""An ASGI app that reads a request and answers 202, and nothing else: what uvicorn itself can do, as a limit for `benchmarks.collect`."""

from typing import Any


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer one request."""
    while (await receive()).get("more_body", False):
        pass
    headers = [(b"content-length", b"2"), (b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 202, "headers": headers})
    await send({"type": "http.response.body", "body": b"{}"})
