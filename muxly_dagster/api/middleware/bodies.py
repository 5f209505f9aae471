"""What may be sent to routes that take small JSON documents: not more than a mebibyte, nothing else than JSON, no NUL in the address."""

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from muxly_dagster.api.problems import Problem, answer

LARGEST = 1 << 20


class Bodies:
    """Refuses larger bodies with 413, whether or not their length is said, other kinds of them with 415, and NUL, which nothing is named
    by and Postgres has no text for, with 400.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"")
        problem = None
        if "\0" in scope["path"] or b"%00" in scope["query_string"]:
            problem = _NUL
        elif length.isdigit() and int(length[:20]) > LARGEST:
            problem = _TOO_LARGE
        elif (length not in (b"", b"0") or b"transfer-encoding" in headers) and not _is_json(headers):
            problem = _NO_JSON
        if problem is not None:
            await answer(problem, scope["state"]["request_id"])(scope, receive, send)
            return
        total = 0

        async def counted() -> Message:
            nonlocal total
            message = await receive()
            total += len(message.get("body", b""))
            if total > LARGEST:
                raise HTTPException(413, _TOO_LARGE.detail)
            return message

        await self._app(scope, counted, send)


def _is_json(headers: dict[bytes, bytes]) -> bool:
    media_type = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    json = media_type == b"application/json" or (media_type.startswith(b"application/") and media_type.endswith(b"+json"))
    return json and headers.get(b"content-encoding", b"identity").strip().lower() in (b"identity", b"")


_NUL = Problem(title="Bad request", status=400, detail="the address holds the character NUL", do="leave it out")
_TOO_LARGE = Problem(title="Content too large", status=413, detail=f"a body may have {LARGEST:,} bytes", do="send less at a time")
_NO_JSON = Problem(
    title="Unsupported media type",
    status=415,
    detail="this takes JSON that is not compressed, and nothing else",
    do="send it with Content-Type: application/json",
)
