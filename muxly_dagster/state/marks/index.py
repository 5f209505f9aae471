"""The index of marks: which events were accepted before, for as long as ids are remembered.

It is made of segments, a new one for each time that marks are brought in; many small ones are merged into a large one, and old ones are
forgotten whole. To look into them for every event would cost more than to store it, and ids are new almost always. So a process that
stores events keeps a filter of what is in the segments that it knows, and asks only for what may be there; the others it asks.
"""

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property

import sqlalchemy as sa

from muxly_dagster.state import tables
from muxly_dagster.state.marks import segments
from muxly_dagster.state.marks.batch import Batch
from muxly_dagster.state.marks.filter import MarkFilter
from muxly_dagster.state.marks.merging import Lock, merging, sweeping
from muxly_dagster.state.marks.segments import Segment
from muxly_dagster.state.marks.turn import take_turn
from muxly_dagster.state.posts import MARK
from muxly_dagster.state.reading import reading

SIZES = tuple(1 << power for power in (21, 24, 27))
"""Bytes of a filter, which grows with what is remembered: 128 MiB are enough for 32 million marks, and good for three times as many."""

_LEARNED = 65_536  # marks that are read into the filter at a time
_ADDED = 8192  # marks that are brought in before another thread has its turn
_MANY = 10_000  # asked for, until to learn is worth its while


class MarkIndex:
    """The index, in the database of the inbox or in one `beside`, which is opened when it is first needed.

    `known` belongs into the transaction that stores events; everything else is done by one thread, while others go on.
    """

    def __init__(self, engine: sa.Engine, lock: Lock, beside: Callable[[], sa.Engine] | None = None) -> None:
        self._shared, self._lock, self._beside = engine, lock, beside
        self._learned = _Learned(SIZES[0])
        self._coming: _Learned | None = None  # a larger one that is being filled
        self._complete: _Learned | None = None  # one in which all is, for as long as nothing is `changed`
        self._asked = 0
        self._unswept = True
        self._work: Generator[None] | None = None

    @cached_property
    def engine(self) -> sa.Engine:
        """Where it lies."""
        return self._shared if self._beside is None else self._beside()

    def open(self) -> None:
        """Be ready for `known`, before its transaction begins: opening may have to wait for a process that waits for that to end."""
        _ = self.engine

    def close(self) -> None:
        """Give back what was opened beside."""
        if "engine" in vars(self) and self.engine is not self._shared:
            self.engine.dispose()

    # ---- while events are stored --------------------------------------------------------------------------------------

    def known(self, connection: sa.Connection, batch: Batch) -> list[bytes]:
        """Those of some marks that are in the index."""
        learned = self._learned
        numbers = learned.numbers  # before the filter is asked: what is learned meanwhile is not in its answer
        perhaps = learned.filter.perhaps(batch)
        if learned is self._complete and not perhaps:
            return []
        with self._beside_or(connection) as looking:
            there = segments.whole(looking)
            seen = [segment for segment in there if _within(segment, numbers)]
            others = [segment for segment in there if not _within(segment, numbers)]
            found = set[int]()
            if seen and perhaps:
                found = {perhaps[at] for at in segments.find(looking, seen, b"".join(batch[at] for at in perhaps))}
            if others:
                self._asked += len(batch)
                found |= segments.find(looking, others, batch.marks)
            else:
                learned.numbers |= {segment.number for segment in there}  # those too that were merged of such as it has
                self._complete = learned
        return [batch[at] for at in found]

    def changed(self) -> None:
        """Marks have come into the index, maybe another process's. Merging brings none."""
        self._complete = None

    @property
    def is_asked_much(self) -> bool:
        """Whether it is time to learn what the filter does not know."""
        return self._asked > _MANY

    # ---- beside -------------------------------------------------------------------------------------------------------

    def add(self, marks: bytes, since: int, at: int) -> None:
        """Take in marks, one behind the other, as accepted from one time to another (seconds since 1970)."""
        with self.engine.begin() as connection:
            segment = segments.begin(connection, since, at, len(marks) // MARK)
            segments.write(connection, segment, marks)
            segments.finish(connection, segment)
        for each in (self._learned, self._coming):
            if each is not None:
                each.take(marks)
                each.knows(segment)

    def forget(self, before: int) -> None:
        """Forget the segments whose newest mark is from before this time (seconds since 1970)."""
        with self.engine.begin() as connection:
            take_turn(connection)
            gone = connection.execute(sa.delete(tables.inbox_segments).where(tables.inbox_segments.c.at < before)).rowcount
        self._unswept |= bool(gone)

    def work(self) -> bool:
        """Do a step of what is due: sweep what is left of old segments, learn, merge; whether there was anything to do."""
        if self._work is None:
            self._work = self._due()
        for _ in self._work:
            return True
        self._work = None
        return False

    def rest(self) -> None:
        """Leave what was begun: it is begun anew, if ever."""
        if self._work is not None:
            self._work.close()
        self._work = self._coming = None

    def _due(self) -> Generator[None]:
        if self._unswept:
            yield from sweeping(self.engine)
            self._unswept = False
        if self.is_asked_much or self._learned.filter.is_full:
            yield from self._learning()
        yield from merging(self.engine, self._lock)

    def _learning(self) -> Generator[None]:
        """Bring into the filter what is not in it; into a new one where it is full of what is remembered, or of what was forgotten."""
        learned = self._learned
        with reading(self.engine) as connection:
            there = segments.whole(connection)
        count = sum(segment.count for segment in there)
        filled = learned.filter.count + sum(segment.count for segment in there if not _within(segment, learned.numbers))
        size = next((size for size in SIZES if MarkFilter.room_in(size) > 2 * count), SIZES[-1])
        if filled > MarkFilter.room_in(learned.filter.size) and (size > learned.filter.size or filled > 2 * count):
            learned = self._coming = _Learned(size)
        for segment in there:
            if not _within(segment, learned.numbers):
                parts = segments.parts(segment, _LEARNED)
                for part in range(parts):
                    with reading(self.engine) as connection:
                        learned.take(segments.read(connection, [segment.span(part, parts)]))
                    yield
                with reading(self.engine) as connection:
                    is_there = connection.scalar(segments.row_of(segment.number)) is not None
                if is_there:  # else it was merged meanwhile, and maybe swept before all of it was read
                    learned.knows(segment)
        self._learned, self._coming, self._asked = learned, None, 0

    def _beside_or(self, connection: sa.Connection) -> AbstractContextManager[sa.Connection]:
        """A connection to the index: where it lies beside, one of its own."""
        return nullcontext(connection) if self.engine is self._shared else reading(self.engine)


class _Learned:
    """A filter, and the segments that are in it."""

    def __init__(self, size: int) -> None:
        self.filter = MarkFilter(size)
        self.numbers: frozenset[int] = frozenset()

    def take(self, marks: bytes) -> None:
        """Bring in marks, some at a time."""
        for at in range(0, len(marks), MARK * _ADDED):
            self.filter.add(Batch(marks[at : at + MARK * _ADDED]))

    def knows(self, segment: Segment) -> None:
        """All marks of a segment are in the filter. Two threads may say so at once: one that is not heard has it learned again."""
        self.numbers |= {segment.number}


def _within(segment: Segment, numbers: frozenset[int]) -> bool:
    """Whether all marks of a segment are in those with these numbers: it is one of them, or was merged of such."""
    return segment.number in numbers or (bool(segment.merged) and numbers.issuperset(segment.merged))
