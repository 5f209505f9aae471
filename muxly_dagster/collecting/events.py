"""The form that every request is read into before it is stored."""

from collections.abc import Container, Iterable, Iterator, Sequence
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


class Lines:
    """Events as one text, a JSON object on each of its lines, as the inbox keeps them: it is cut only for who wants to see them singly."""

    __slots__ = ("_count", "_texts")

    def __init__(self, texts: Iterable[bytes] = (), count: int | None = None) -> None:
        """Of texts with so many lines together; without `count` each of them is a line."""
        self._texts = list(texts)
        self._count = len(self._texts) if count is None else count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.text.split(b"\n") if self._count else ())

    def __getitem__(self, at: int) -> bytes:
        """One of them; to find it, all are cut."""
        return list(self)[at]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Lines | list) and list(self) == list(other)

    def __repr__(self) -> str:
        return f"Lines({list(self)!r})"

    @property
    def text(self) -> bytes:
        """All of them, with a line break between each two."""
        if len(self._texts) > 1:
            self._texts = [b"\n".join(self._texts)]
        return self._texts[0] if self._texts else b""

    @property
    def size(self) -> int:
        """About how many bytes they are; nothing is joined for it."""
        return sum(map(len, self._texts))

    def append(self, line: bytes) -> None:
        """Put an event behind them."""
        self._texts.append(line)
        self._count += 1

    def extend(self, lines: "Lines") -> None:
        """Put others behind them."""
        self._texts += lines._texts
        self._count += lines._count

    def without(self, places: Container[int]) -> "Lines":
        """Those that do not stand at these places."""
        return Lines(line for at, line in enumerate(self) if at not in places)


@dataclass(slots=True)
class Gathered:
    """Events of one stream from one request, in their order.

    `lines` holds one JSON object each, without line breaks, and may be given as a list; `ids` the sender's id of each, "" where it gave
    none; `indexes` the place of each in the request, from 0. `repeatable` says that a request of the same bytes is a repetition of this
    one and no second measurement (everything in it carries its own time), so that it is known for one without ids.
    """

    stream: str
    lines: Lines = field(default_factory=Lines)
    ids: list[str] = field(default_factory=list)
    indexes: Sequence[int] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    repeatable: bool = False

    def __post_init__(self) -> None:
        if type(self.lines) is not Lines:
            self.lines = Lines(self.lines)
