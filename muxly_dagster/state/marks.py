"""Which events were accepted before: a mark for each id that a sender gave, for as long as ids are remembered.

Ids are random more often than not, and an index that takes them in one by one writes a page of some kilobytes for each. So marks lie in
order of arrival first (`inbox_recent`), where every process that stores events keeps them in memory too, and go into the index
(`inbox_ids`) by the hundred thousand, sorted, some pages at a time.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property

import numpy as np
import sqlalchemy as sa

from muxly_dagster.state import tables
from muxly_dagster.state.posts import MARK

RECENT = 250_000
"""Marks that wait for the index: about 100 bytes of memory each, twice as many while they go there."""

_SLICE = 8192  # marks that go into the index in one transaction
_LONGEST = 24 * 3600  # seconds that marks are recent
_SWEPT = 10_000  # marks that are looked at in one step of forgetting

# One statement for all marks: a statement for each would give up the interpreter's lock thousands of times.
_SQLITE_PIECES = f"""with recursive place(at) as (select 1 union all select at + {MARK} from place where at + {MARK} < :size)
 select substr(:marks, at, {MARK}) as mark{{more}} from place"""
_SQLITE_FIND = f"select mark from inbox_ids where mark in ({_SQLITE_PIECES.format(more='')})"
_SQLITE_ADD = f"insert into inbox_ids (mark, at) {_SQLITE_PIECES.format(more=', :at')} where true on conflict do nothing"
_POSTGRES_PIECES = (
    f"select substring(cast(:marks as bytea) from at for {MARK}) as mark{{more}} from generate_series(1, :size, {MARK}) as place(at)"
)
_POSTGRES_FIND = f"select mark from inbox_ids join ({_POSTGRES_PIECES.format(more='')}) as given using (mark)"
_POSTGRES_ADD = f"insert into inbox_ids (mark, at) {_POSTGRES_PIECES.format(more=', :at')} on conflict do nothing"

# Built once: they are asked for every group of requests.
_recent = tables.inbox_recent.c
_INSERT = sa.insert(tables.inbox_recent)
_FIRST = sa.select(sa.func.min(_recent.seq))
_ENDS = sa.select(_FIRST.scalar_subquery(), sa.select(sa.func.max(_recent.seq)).scalar_subquery())
_ANY = sa.select(tables.inbox_ids.c.at).limit(1)
_BEHIND = sa.select(_recent.seq, _recent.marks).where(_recent.seq > sa.bindparam("last")).order_by(_recent.seq)


class Marks:
    """The marks of all streams. Everything but `settle` belongs into the one transaction that stores events at a time."""

    def __init__(self, engine: sa.Engine, beside: Callable[[], sa.Engine] | None = None, recent: int = RECENT) -> None:
        self._engine, self._beside, self._most = engine, beside, recent
        self._recent: set[bytes] = set()
        self._older: set[bytes] = set()  # on their way into the index
        self._first = self._last = 0  # the rows of `inbox_recent` that are in memory
        self._added: list[bytes] = []
        self._swept = b""
        self._any = True  # in the index
        sqlite = engine.dialect.name == "sqlite"
        self._find, self._add = (sa.text(q) for q in ((_SQLITE_FIND, _SQLITE_ADD) if sqlite else (_POSTGRES_FIND, _POSTGRES_ADD)))
        self.full = False
        """Whether it is this process's turn to `settle`."""

    @cached_property
    def index(self) -> sa.Engine:
        """Where the index lies: `beside`, opened when it is first needed, or in the same database."""
        return self._engine if self._beside is None else self._beside()

    def close(self) -> None:
        """Give back what was opened beside."""
        if "index" in vars(self) and self.index is not self._engine:
            self.index.dispose()

    def known(self, connection: sa.Connection, marks: Sequence[Sequence[bytes]]) -> list[frozenset[int]]:
        """For each of these lists, the places of marks that are known, or stand before in these lists. The others are known from now on.

        An empty mark is known to nobody.
        """
        self._read(connection)
        given = [mark for part in marks for mark in part if mark]
        fresh = set(given)
        count = len(fresh)
        if fresh:
            fresh -= self._recent
            fresh -= self._older
            fresh.difference_update(list(self._indexed(connection, fresh)))
        self._added = list(fresh)
        if len(given) == count == len(fresh):
            return [frozenset()] * len(marks)
        return [self._gone(part, fresh) for part in marks]

    def write(self, connection: sa.Connection) -> None:
        """Write what `known` has found to be new."""
        if self._added:
            row = {"at": int(time.time()), "count": len(self._added), "marks": b"".join(self._added)}
            result = connection.execute(_INSERT, row)
            self._row = int(result.inserted_primary_key[0]) if result.inserted_primary_key else 0

    def committed(self) -> None:
        """What was written is durable."""
        if self._added:
            before = len(self._recent)
            self._recent.update(self._added)
            self._first, self._last = self._first or self._row, self._row
            # All processes count the same: the one that crosses the line settles. Twice as many: it has died over it.
            self.full |= before <= self._most < len(self._recent) or len(self._recent) > 2 * self._most
        self._added = []

    def settle(self, turn: AbstractContextManager[object], stop: Callable[[], bool]) -> None:
        """Bring what was recent into the index, a little at a time, while events are stored; they wait for the `turn`s at begin and end.

        Whoever stops or is killed over it has done no harm: it is done again.
        """
        self.full, table = False, tables.inbox_recent
        with turn, self._engine.begin() as connection:
            self._read(connection)
            upto, self._older, self._recent = self._last, self._older | self._recent, set()
            rows = connection.execute(sa.select(table.c.marks, table.c.at).where(table.c.seq <= upto)).all()
        newest = max((at for _, at in rows), default=0)
        for piece in _sorted([bytes(marks) for marks, _ in rows]):
            began = time.monotonic()
            with self.index.begin() as connection:
                connection.execute(self._add, {"marks": piece, "size": len(piece), "at": newest})
            if stop():
                return
            if len(self._recent) < self._most:
                time.sleep(time.monotonic() - began)
        with turn:
            with self._engine.begin() as connection:
                connection.execute(sa.delete(table).where(table.c.seq <= upto))
                first = connection.scalar(_FIRST) or 0
            self._older, self._first, self._any = set(), first, True

    def forget(self, before: int) -> bool:
        """Forget some of the marks from before this time (seconds since 1970); whether that was the last step of a round over all."""
        ids = tables.inbox_ids
        behind = sa.select(ids.c.mark).where(ids.c.mark > self._swept).order_by(ids.c.mark).offset(_SWEPT).limit(1)
        with self.index.begin() as connection:
            upto = connection.scalar(behind)
            span = [ids.c.mark > self._swept] + ([ids.c.mark <= upto] if upto is not None else [])
            connection.execute(sa.delete(ids).where(ids.c.at < before, *span))
        self._swept = bytes(upto) if upto is not None else b""
        return upto is None

    def look(self, connection: sa.Connection, before: int) -> None:
        """Whether there is something to `settle` that has been recent for long, so that it can be forgotten too."""
        oldest = connection.scalar(sa.select(sa.func.min(tables.inbox_recent.c.at)))
        self.full |= oldest is not None and oldest < max(before, int(time.time()) - _LONGEST)

    def _read(self, connection: sa.Connection) -> None:
        """Take in what other processes have written, and forget what one of them has brought into the index."""
        first, last = connection.execute(_ENDS).one()
        first = first or 0
        if first != self._first:
            self._recent, self._older, self._first = set(), set(), first
            self._last = first - 1 if first else self._last
            with self._reading(connection) as reading:
                self._any = reading.scalar(_ANY) is not None
        if (last or 0) > self._last:
            for seq, marks in connection.execute(_BEHIND, {"last": self._last}):
                self._recent.update(_pieces(bytes(marks), MARK))
                self._last = int(seq)

    def _indexed(self, connection: sa.Connection, marks: set[bytes]) -> Iterator[bytes]:
        if self._any and marks:
            given = b"".join(sorted(marks))  # in order, neighbours in the index are read together
            with self._reading(connection) as reading:
                for (mark,) in reading.execute(self._find, {"marks": given, "size": len(given)}):
                    yield bytes(mark)

    def _reading(self, connection: sa.Connection) -> AbstractContextManager[sa.Connection]:
        """A connection to the index: where it lies beside, one of its own."""
        if self.index is self._engine:
            return nullcontext(connection)
        return self.index.connect().execution_options(muxly_reads=True)

    @staticmethod
    def _gone(marks: Sequence[bytes], fresh: set[bytes]) -> frozenset[int]:
        gone = []
        for at, mark in enumerate(marks):
            if mark in fresh:
                fresh.remove(mark)  # the next one of the same is a repetition
            elif mark:
                gone.append(at)
        return frozenset(gone)


def _pieces(content: bytes, size: int) -> list[bytes]:
    return [content[at : at + size] for at in range(0, len(content), size)]


def _sorted(rows: Sequence[bytes]) -> Iterator[bytes]:
    """All marks of some rows in order, some at a time."""
    marks = np.frombuffer(b"".join(rows), dtype=f"S{MARK}")
    return iter(_pieces(np.sort(marks).tobytes(), MARK * _SLICE))
