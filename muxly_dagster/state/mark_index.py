"""The index of marks: which events were accepted before, for as long as ids are remembered.

To look into it for every event would cost more than to store them, and ids are new almost always. So a process that stores many keeps a
Bloom filter of what is in the index, and asks only for what may be there. The filter is filled from the index behind the scenes; without
one, everything is asked for.
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property

import sqlalchemy as sa
from rbloom import Bloom

from muxly_dagster.state import tables
from muxly_dagster.state.posts import MARK, pieces

EXPECTED, WRONG = 10_000_000, 0.01
"""Up to so many marks, the filter lets no more than this part of new ones through: 12 MB. With ten times as many, it lets most of them."""

_LEARNED = 20_000  # marks that are read into the filter at a time
_SWEPT = 10_000  # marks that are looked at in one step of forgetting
_MANY = 10_000  # asked for, until a filter is worth its while

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

_ids = tables.inbox_ids.c
_ANY = sa.select(_ids.at).limit(1)
_NEXT = sa.select(_ids.mark).where(_ids.mark > sa.bindparam("last")).order_by(_ids.mark).limit(sa.bindparam("most"))


class MarkIndex:
    """The index, in the database of the inbox or in one `beside`, which is opened when it is first needed.

    `known` belongs into the transaction that stores events; everything else may go on beside it.
    """

    def __init__(self, engine: sa.Engine, beside: Callable[[], sa.Engine] | None = None) -> None:
        self._shared, self._beside = engine, beside
        sqlite = engine.dialect.name == "sqlite"
        self._find, self._add = (sa.text(q) for q in ((_SQLITE_FIND, _SQLITE_ADD) if sqlite else (_POSTGRES_FIND, _POSTGRES_ADD)))
        self._filter: Bloom | None = None
        self._coming: Bloom | None = None  # the filter that is being filled
        self._looked = False
        self._asked = 0
        self._swept = b""

    @cached_property
    def engine(self) -> sa.Engine:
        """Where it lies."""
        return self._shared if self._beside is None else self._beside()

    def close(self) -> None:
        """Give back what was opened beside."""
        if "engine" in vars(self) and self.engine is not self._shared:
            self.engine.dispose()

    def known(self, connection: sa.Connection, marks: Iterable[bytes]) -> list[bytes]:
        """Those of some marks that are in the index."""
        if not self._looked:
            with self._reading(connection) as reading:
                if reading.scalar(_ANY) is None:
                    self._filter = _empty()
            self._looked = True
        perhaps = marks if self._filter is None else [mark for mark in marks if mark in self._filter]
        given = b"".join(sorted(perhaps))  # in order, neighbours in the index are read together
        if not given:
            return []
        if self._filter is None:
            self._asked += len(given) // MARK
        with self._reading(connection) as reading:
            return [bytes(mark) for (mark,) in reading.execute(self._find, {"marks": given, "size": len(given)})]

    def add(self, marks: bytes, at: int) -> None:
        """Take in marks, one behind the other and in order, as accepted at a time (seconds since 1970)."""
        self.added(pieces(marks, MARK))
        with self.engine.begin() as connection:
            connection.execute(self._add, {"marks": marks, "size": len(marks), "at": at})

    def added(self, marks: Iterable[bytes]) -> None:
        """Marks that are in the index, or come into it now, by whichever process."""
        for each in (self._filter, self._coming):
            if each is not None:
                each.update(marks)

    def missed(self) -> None:
        """Another process has added marks that nobody here has seen: what the filter does not know may be in the index all the same."""
        self._filter = self._coming = None

    @property
    def is_asked_much(self) -> bool:
        """Whether it is time to `learn`."""
        return self._filter is None and self._asked > _MANY

    def learn(self, turn: AbstractContextManager[object], stop: Callable[[], bool]) -> None:
        """Fill the filter, unless somebody says `stop` or marks are `missed` meanwhile, which they are not in a `turn`."""
        self._asked, self._coming = 0, (coming := _empty())
        last, more = b"", True
        while more and not stop() and self._coming is coming:
            with self.engine.connect().execution_options(muxly_reads=True) as connection:
                marks = [bytes(mark) for (mark,) in connection.execute(_NEXT, {"last": last, "most": _LEARNED})]
            coming.update(marks)
            more = len(marks) == _LEARNED
            last = marks[-1] if marks else last
        with turn:
            if not more and self._coming is coming:
                self._filter = coming
            self._coming = None

    def forget(self, before: int) -> bool:
        """Forget some of the marks from before this time (seconds since 1970); whether that was the last step of a round over all."""
        behind = sa.select(_ids.mark).where(_ids.mark > self._swept).order_by(_ids.mark).offset(_SWEPT).limit(1)
        with self.engine.begin() as connection:
            upto = connection.scalar(behind)
            span = [_ids.mark > self._swept] + ([_ids.mark <= upto] if upto is not None else [])
            connection.execute(sa.delete(tables.inbox_ids).where(_ids.at < before, *span))
        self._swept = bytes(upto) if upto is not None else b""
        return upto is None

    def _reading(self, connection: sa.Connection) -> AbstractContextManager[sa.Connection]:
        """A connection to the index: where it lies beside, one of its own."""
        if self.engine is self._shared:
            return nullcontext(connection)
        return self.engine.connect().execution_options(muxly_reads=True)


def _empty() -> Bloom:
    return Bloom(EXPECTED, WRONG)
