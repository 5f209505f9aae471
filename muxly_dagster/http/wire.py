"""What every transport takes and gives: times to wait, an answer, what can go wrong."""

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple, Protocol

from pydantic import BaseModel, ConfigDict, Field

from muxly_dagster.http.messages import Headers


class Timeouts(BaseModel):
    """How long to wait, in seconds: for a connection, for the next bytes, and for one attempt as a whole."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    connect: float = Field(10.0, gt=0, description="For the connection.")
    read: float = Field(60.0, gt=0, description="For the next bytes of an answer.")
    total: float = Field(300.0, gt=0, description="For one attempt, from connecting to the last byte.")


class Answer(NamedTuple):
    """What came back, decompressed."""

    status: int
    headers: Headers
    content: bytes


Taker = Callable[[int, Headers], Callable[[bytes], None] | None]
"""Sees status and headers of an answer, and says where the pieces of its body go; None: it does not want the body."""

PIECE = 512 * 1024
"""Most bytes of one piece of a body that is handed on as it comes: neither library's own buffer holds more."""

BEGINNING = 64 * 1024
"""Bytes of a body that nobody takes which are read all the same: an error page says what is wrong in fewer."""

IDLE = 30
"""Seconds an unused connection is kept: less than the usual server keeps it, so that none is found closed when needed."""

Kind = Literal["connect", "timeout", "broken", "garbled", "certificate", "too_large", "invalid", "closed"]


class Trouble(Exception):
    """No usable answer came. `sent` says whether the other side may have acted on the request; the text may hold secrets."""

    def __init__(self, kind: Kind, text: str, *, sent: bool = True) -> None:
        super().__init__(text)
        self.kind, self.text, self.sent = kind, text, sent


class Transport(Protocol):
    """Sends requests from any thread over connections it keeps."""

    def send(self, method: str, url: str, headers: Mapping[str, str], content: bytes | None, max_body: int) -> Answer:
        """Send one request and read its answer, at most `max_body` bytes of it. Raises Trouble."""

    def receive(self, method: str, url: str, headers: Mapping[str, str], content: bytes | None, take: Taker) -> Answer:
        """Send one request and hand its answer's body on in pieces, as it stands on the wire and however long it takes as a whole.

        The answer holds the beginning of a body that is not taken. Raises Trouble, and what the taker raises.
        """

    def close(self) -> None:
        """Close all connections; requests under way fail with Trouble."""
