"""The form that every request is read into before it is stored."""

from collections.abc import Sequence
from dataclasses import dataclass, field


class Unreadable(ValueError):
    """A request of which nothing can be read: it is cut off, or not of the form that it says it is of. The text tells its sender why."""


class UnknownType(Unreadable):
    """A request in a form that Muxly does not read, by its Content-Type."""


class TooLarge(Unreadable):
    """A request that holds more than is read at once."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """An item of a request that is no event: its place in the request (from 0), and why. It is told to the sender and not kept."""

    index: int
    reason: str


@dataclass(slots=True)
class Gathered:
    """Events of one stream from one request, in their order.

    `lines` holds one JSON object each, without line breaks; `ids` the sender's id of each, "" where it gave none; `indexes` the place of
    each in the request, from 0. `repeatable` says that a request of the same bytes is a repetition of this one and no second measurement
    (everything in it carries its own time), so that it is known for one without ids.
    """

    stream: str
    lines: list[bytes] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    indexes: Sequence[int] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    repeatable: bool = False
