"""Bodies of requests as they come in: within a size, within a time, and not too many in memory at once."""

import asyncio
from types import TracebackType

from starlette.requests import Request
from starlette.types import Message

from muxly_dagster.api.problems import ApiError
from muxly_dagster.errors import RetryLater

PATIENCE, SHORT = 120.0, 20.0
"""Seconds that a body may be on its way, once it has begun to come; the second is for senders who have not proven who they are yet."""


class Room:
    """So many bytes of bodies may be held in memory at a time."""

    __slots__ = ("held", "most", "patience")

    def __init__(self, most: int, patience: float = PATIENCE) -> None:
        self.most, self.patience, self.held = most, patience, 0

    def hold(self) -> "Hold":
        """What one request holds, to be opened around reading its body and whatever is made of it."""
        return Hold(self)


class Hold:
    """Counts what one request holds; gives it back at the end of its `with`."""

    __slots__ = ("_size", "room")

    def __init__(self, room: Room) -> None:
        self.room, self._size = room, 0

    def add(self, size: int) -> None:
        """So many bytes more. Raises RetryLater where all requests together hold too many; one alone may hold what its limit allows."""
        if self.room.held > self._size and self.room.held + size > self.room.most:
            raise RetryLater("too many bodies are being read", do="send it again, and less at a time", after=1)
        self.room.held += size
        self._size += size

    def __enter__(self) -> "Hold":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.room.held -= self._size


async def received(request: Request, hold: Hold, most: int, do: str = "send less at a time") -> bytes:
    """A body as it came, of at most so many bytes; `do` is what else the sender is told to do.

    Raises ApiError (400) for one that broke off, (408) for one that takes too long, (413) for a larger one; RetryLater where too many are
    held.
    """
    said = request.headers.get("content-length", "")
    if said.isdecimal() and int(said[:20]) > most:
        raise too_large(f"the body has more than {most:,} bytes", do)
    # Not by `Request.stream`, which takes longer than all the rest of this.
    message = await request.receive()
    body = _piece(message)
    if len(body) > most:
        raise too_large(f"the body has more than {most:,} bytes", do)
    hold.add(len(body))
    if not message.get("more_body", False):
        return body
    pieces, length = [body], len(body)
    # What waits for its rest takes room from others: nobody may keep it by sending a byte now and then.
    try:
        async with asyncio.timeout(hold.room.patience):
            while message.get("more_body", False):
                message = await request.receive()
                pieces.append(_piece(message))
                length += len(pieces[-1])
                if length > most:
                    raise too_large(f"the body has more than {most:,} bytes", do)
                hold.add(len(pieces[-1]))
    except TimeoutError:
        raise ApiError(
            408, "Too slow", f"the body was not here within {hold.room.patience:g} seconds", do="send less at a time", connection="close"
        ) from None
    return b"".join(pieces)


def too_large(what: str, do: str = "send less at a time") -> ApiError:
    """The refusal of a body that is too large."""
    return ApiError(413, "Too large", what, do=do)


def _piece(message: Message) -> bytes:
    if message["type"] == "http.disconnect":
        raise ApiError(400, "The request broke off")
    piece: bytes = message.get("body", b"")
    return piece
