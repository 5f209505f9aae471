"""Which events were accepted before: a mark for each id that a sender gave, for as long as ids are remembered.

Marks lie in order of arrival first (`inbox_recent`), where every process that stores events keeps them in memory too, and go into the index
by the hundred thousand.
"""

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager

import sqlalchemy as sa

from muxly_dagster.errors import RetryLater
from muxly_dagster.state import tables
from muxly_dagster.state.marks.arrivals import Arrivals
from muxly_dagster.state.marks.batch import Batch
from muxly_dagster.state.marks.index import MarkIndex
from muxly_dagster.state.marks.turn import take_turn
from muxly_dagster.state.posts import MARK, UNMARKED, pieces

RECENT = 250_000
"""Marks that wait for the index; twice as many while they go there."""

_MOST = 8  # times as many, and senders are to come again
_LONGEST = 24 * 3600  # seconds that marks are recent
_NOTHING = Batch(b"")

# Built once: they are asked for every group of requests.
_recent = tables.inbox_recent.c
_INSERT = sa.insert(tables.inbox_recent)
_FIRST = sa.select(sa.func.min(_recent.seq))
_ENDS = sa.select(_FIRST.scalar_subquery(), sa.select(sa.func.max(_recent.seq)).scalar_subquery())
_BEHIND = sa.select(_recent.seq, _recent.marks).where(_recent.seq > sa.bindparam("last")).order_by(_recent.seq)


class Marks:
    """The marks of all streams. Everything but `settle` belongs into the one transaction that stores events at a time."""

    def __init__(self, engine: sa.Engine, index: MarkIndex, recent: int = RECENT) -> None:
        self._engine, self._index, self._most = engine, index, recent
        self._recent = Arrivals()
        self._older = Arrivals()  # on their way into the index
        self._first = self._last = 0  # the rows of `inbox_recent` that are in memory
        self._added = _NOTHING
        self.full = False
        """Whether it is this process's turn to `settle`."""

    def known(self, connection: sa.Connection, marks: Sequence[bytes]) -> list[frozenset[int]]:
        """For each of these parts, the places of marks that are known, or stand before in these parts. The others are known from now on.

        UNMARKED is known to nobody. Raises RetryLater where more of them wait for the index than memory should hold.
        """
        self._read(connection)
        if len(self._recent) + len(self._older) > _MOST * self._most:
            self.full = True
            raise RetryLater("more new ids come in than can be remembered", do="send the events again, and fewer at a time", after=1)
        together = b"".join(marks)
        batch = Batch(together)
        if batch.may_repeat or UNMARKED in together:
            batch = Batch(b"".join({mark for part in marks for mark in pieces(part, MARK)} - {UNMARKED}))
        known = {*self._recent.known(batch), *self._older.known(batch), *self._index.known(connection, batch)} if len(batch) else set()
        if not known and len(batch.marks) == len(together):
            self._added = batch
            return [frozenset()] * len(marks)
        fresh = set(pieces(batch.marks, MARK)) - known
        self._added = Batch(b"".join(fresh))
        return [self._gone(pieces(part, MARK), fresh) for part in marks]

    def write(self, connection: sa.Connection) -> None:
        """Write what `known` has found to be new."""
        if len(self._added):
            self._row = _written(connection, self._added.marks)

    def committed(self) -> None:
        """What was written is durable."""
        if len(self._added):
            before = len(self._recent)
            self._recent.add(self._added)
            self._first, self._last = self._first or self._row, self._row
            # All processes count the same: the one that crosses the line settles. Twice as many: it has died over it.
            self.full |= before <= self._most < len(self._recent) or len(self._recent) > 2 * self._most
        self._added = _NOTHING

    def settle(self, turn: AbstractContextManager[object]) -> None:
        """Bring what was recent into the index while events are stored; they wait for the `turn`s at begin and end.

        Whoever is killed over it has done no harm: it is done again.
        """
        self.full, table = False, tables.inbox_recent
        with turn, self._engine.begin() as connection:
            take_turn(connection)
            self._read(connection)
            upto, older = self._last, self._older
            self._older, self._recent = self._recent, Arrivals()
            self._older.take(older)  # of a time that it did not come to its end
            marks = self._older.all()  # not later: who reads that another process has settled lets go of them
            since, newest = connection.execute(sa.select(sa.func.min(_recent.at), sa.func.max(_recent.at)).where(_recent.seq <= upto)).one()
        if marks:
            self._index.add(marks, since, newest)
        with turn:
            with self._engine.begin() as connection:
                take_turn(connection)
                self._read(connection)  # another process may have settled more than this one has seen
                gone = connection.execute(sa.delete(table).where(table.c.seq <= upto)).rowcount
                first = connection.scalar(_FIRST)
                if gone and not first:
                    first = _written(connection, b"")  # who has seen none of these rows is to see that there were some
            self._older, self._first = Arrivals(), first or 0
            self._index.changed()
            self._last = max(self._last, self._first)

    def look(self, connection: sa.Connection, before: int) -> None:
        """Whether there is something to `settle` that has been recent for long, so that it can be forgotten too."""
        oldest = connection.scalar(sa.select(sa.func.min(tables.inbox_recent.c.at)))
        self.full |= oldest is not None and oldest < max(before, int(time.time()) - _LONGEST)

    def _read(self, connection: sa.Connection) -> None:
        """Take in what other processes have written, and forget what one of them has brought into the index."""
        first, last = connection.execute(_ENDS).one()
        first = first or 0
        if first != self._first:
            self._recent, self._older, self._first = Arrivals(), Arrivals(), first
            self._index.changed()
            self._last = first - 1 if first else self._last
        if (last or 0) > self._last:
            rows = connection.execute(_BEHIND, {"last": self._last}).all()
            self._recent.add(Batch(b"".join(bytes(marks) for _, marks in rows)))
            self._last = int(rows[-1][0])

    @staticmethod
    def _gone(marks: Sequence[bytes], fresh: set[bytes]) -> frozenset[int]:
        gone = []
        for at, mark in enumerate(marks):
            if mark in fresh:
                fresh.remove(mark)  # the next one of the same is a repetition
            elif mark != UNMARKED:
                gone.append(at)
        return frozenset(gone)


def _written(connection: sa.Connection, marks: bytes) -> int:
    """Write a row of these marks; its seq."""
    result = connection.execute(_INSERT, {"at": int(time.time()), "count": len(marks) // MARK, "marks": marks})
    return int(result.inserted_primary_key[0]) if result.inserted_primary_key else 0
