"""From parcels in the inbox to batches: whole parcels are decoded at once, and one is never taken for read that is not."""

import datetime as dt
import re
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from muxly_dagster import records
from muxly_dagster.connector import Batch, Cursor, Unreadable
from muxly_dagster.decoding import PageDecoder, broken_record
from muxly_dagster.errors import SourceError
from muxly_dagster.intake import Inbox, Parcel

ID, RECEIVED_AT = "_id", "_received_at"

COLUMNS = pa.schema([pa.field(ID, pa.string()), pa.field(RECEIVED_AT, records.TIMESTAMP)])
"""What the inbox knows of every event. They stand before the event's own fields."""

_OWN = re.compile(r"_(own_)*(id|received_at)")
_PAGE = 4 << 20  # bytes: as much as the decoder reads in one pass
_LONGEST = 300.0  # seconds
_TEXT = 64 << 10
_NEVER = dt.datetime(1, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True, slots=True)
class Position:
    """What of an inbox is in the lake: parcels up to `seq`, none of which was received after `received_at`.

    The time is what tells this inbox from another one of its place, whose numbers begin anew: a database that was restored or made
    again. There, a parcel of a low number is in the lake only if it is as old as what was stored.
    """

    seq: int = 0
    received_at: dt.datetime = _NEVER

    @classmethod
    def of(cls, cursor: Cursor | None) -> "Position":
        """From the cursor of a pull."""
        return cls(cursor["seq"], dt.datetime.fromisoformat(cursor["received_at"])) if cursor else cls()

    @property
    def cursor(self) -> Cursor:
        """As JSON."""
        return {"seq": self.seq, "received_at": self.received_at.isoformat()}

    def has(self, parcel: Parcel) -> bool:
        """Whether a parcel is in the lake."""
        return parcel.seq <= self.seq and parcel.received_at <= self.received_at

    def behind(self, parcel: Parcel) -> "Position":
        """The position once this parcel is stored too."""
        return Position(parcel.seq, max(self.received_at, parcel.received_at))


@dataclass(slots=True)
class _Page:
    """Events that are decoded together; `position` once they are stored, None in the middle of a parcel."""

    lines: list[bytes] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    times: list[tuple[dt.datetime, int]] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    size: int = 0
    position: Position | None = None

    def add(self, parcel: Parcel, lines: list[bytes], ids: Sequence[str], size: int) -> None:
        """Take these events of a parcel."""
        self.lines += lines
        self.ids += ids
        self.times.append((parcel.received_at, len(lines)))
        self.size += size

    def leave_out(self, numbers: Collection[int]) -> None:
        """Go on without these events."""
        kept = [number for number in range(len(self.lines)) if number not in numbers]
        times = [time for time, count in self.times for _ in range(count)]
        self.lines, self.ids = [self.lines[number] for number in kept], [self.ids[number] for number in kept]
        self.times = [(times[number], 1) for number in kept]


def read(inbox: Inbox, source: str, stream: str, position: Position, known: pa.Schema | None) -> Iterator[Batch]:
    """What waits in a stream, in order, from the inbox's beginning up to what had come when this began.

    Ends after some minutes all the same: where more comes in than can be read, what follows from a pull gets its turn.
    """
    decoder = PageDecoder(known=_as_sent(known))
    until = time.monotonic() + _LONGEST
    for page in _pages(_news(inbox, source, stream, position), position):
        yield _batch(decoder, page)
        if page.position is not None and time.monotonic() >= until:
            return


def _news(inbox: Inbox, source: str, stream: str, position: Position) -> Iterator[Parcel]:
    """The parcels that are not in the lake. Those that are, since a run was killed before it let go of them, are let go of now."""
    ends = inbox.ends([(source, stream)])
    _, last = ends.get((source, stream), (0, 0))
    at, met = 0, False
    while at < last and (parcels := inbox.parcels(source, stream, at, _PAGE)):
        at = parcels[-1].seq
        for parcel in parcels:
            if not position.has(parcel):
                met = True
                yield parcel
        if not met:  # behind a parcel that is still to be stored, nothing can be let go of without it
            inbox.let_go(source, stream, at)


def _pages(parcels: Iterable[Parcel], position: Position) -> Iterator[_Page]:
    """Small parcels together, a large one in pieces."""
    page = _Page()
    for parcel in parcels:
        lines = parcel.body.split(b"\n") if parcel.body else []
        if len(lines) != len(parcel.ids):
            raise SourceError(
                f"parcel {parcel.seq} of the inbox is damaged: it holds {len(lines)} events and {len(parcel.ids)} ids",
                do="restore the inbox's database from a backup",
            )
        start = 0
        for end, size in _cuts(lines, len(parcel.body)):
            if page.times and page.size + size > _PAGE:
                yield page
                page = _Page()
            page.add(parcel, lines[start:end], parcel.ids[start:end], size)
            start = end
            page.position = None
        page.refused += parcel.refused
        page.size += sum(len(text) + len(reason) for text, reason in parcel.refused)
        position = page.position = position.behind(parcel)
    if page.times:
        yield page


def _cuts(lines: Sequence[bytes], size: int) -> Iterator[tuple[int, int]]:
    """Where to cut the lines of a parcel of this size into pieces: the end of each, and its size."""
    if size <= _PAGE:
        yield len(lines), size
        return
    taken = 0
    for number, line in enumerate(lines):
        if taken and taken + len(line) > _PAGE:
            yield number, taken
            taken = 0
        taken += len(line) + 1
    yield len(lines), taken


# ---- decoding -------------------------------------------------------------------------------------------------------


def _batch(decoder: PageDecoder, page: _Page) -> Batch:
    unreadable = [Unreadable(text[:_TEXT], reason) for text, reason in page.refused]
    rows = _decoded(decoder, page.lines)
    if rows is None:
        bad = _troubles(page.lines)
        unreadable += [Unreadable(page.lines[at][:_TEXT].decode("utf-8", "replace"), reason) for at, reason in bad.items()]
        page.leave_out(bad)
        rows = _decoded(decoder, page.lines)
    if rows is None:
        raise SourceError("events of the inbox can be read by themselves, but not together", do="report it, with the events that wait")
    return Batch(_with_columns(rows, page), page.position.cursor if page.position else None, tuple(unreadable))


def _decoded(decoder: PageDecoder, lines: Sequence[bytes]) -> pa.Table | None:
    """A row for each of these events; None where one of them cannot be read."""
    page = b"[" + b",".join(lines) + b"]"
    try:
        decoder.decode(page)
    except (SourceError, ValueError, RecursionError):
        decoder.flush(len(page))  # what was taken before it came to the trouble
        return None
    rows, unread = decoder.flush(len(page))
    if not rows.num_columns and len(unread) == len(lines) and not any(map(broken_record, lines)):
        return rows  # events without any value: what the inbox knows of them is all there is
    return rows if len(rows) == len(lines) and not unread else None


def _troubles(lines: Sequence[bytes], first: int = 0) -> dict[int, str]:
    """Which of these events cannot be read, by their numbers, and why: found by halving."""
    if not lines or _decoded(PageDecoder(), lines) is not None:
        return {}
    if len(lines) == 1:
        return {first: broken_record(lines[0]) or "it cannot be read"}
    middle = len(lines) // 2
    return _troubles(lines[:middle], first) | _troubles(lines[middle:], first + middle)


def _with_columns(rows: pa.Table, page: _Page) -> pa.Table:
    times = pa.array([time for time, _ in page.times], records.TIMESTAMP)
    of_each = np.repeat(np.arange(len(times)), [count for _, count in page.times])
    ours = [pa.array(page.ids, pa.string()), times.take(pa.array(of_each))]
    fields = [pa.field(_as_stored(f.name), f.type, metadata=f.metadata) for f in rows.schema]
    return pa.table([*ours, *rows.columns], schema=pa.schema([*COLUMNS, *fields]))


def _as_stored(name: str) -> str:
    """The column of an event's field: one that is called like ours gets `own` into its name, and so does one that is called like that."""
    return f"_own{name}" if _OWN.fullmatch(name) else name


def _as_sent(known: pa.Schema | None) -> pa.Schema | None:
    """The event's own fields of a lake table, by the names that events have them under."""
    if known is None:
        return None
    own = [f for f in known if f.name not in COLUMNS.names]
    return pa.schema([pa.field(f.name.removeprefix("_own"), f.type, metadata=f.metadata) if _OWN.fullmatch(f.name) else f for f in own])
