"""Calls of webhooks: each kept once, and with it the start of the run that is to deal with it."""

import datetime as dt
import threading
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from muxly_dagster.errors import MuxlyError
from muxly_dagster.intake import Call
from muxly_dagster.state import tables
from muxly_dagster.state.starts import Start, insert, take_turn

_MOST_TOGETHER = 200
_PAGE = 1000
_PAGE_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Kept:
    """What became of a call. `known`: it was there before, and nothing was done. `opened` is the start that it opened.

    None is opened where one of the job is open already, which will take this call too. `paused`: the job is, so the start waits.
    """

    known: bool = False
    opened: Start | None = None
    paused: bool = False


class KeptCalls:
    """The calls of all jobs. Raises RetryLater where the database cannot be reached.

    Calls that come while others are written are written together, in the next transaction: what costs time is that the disk has it.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._queue: list[_Waiting] = []
        self._lock, self._busy = threading.Lock(), False

    def put(self, call: Call, start: Start) -> Kept:
        """Keep a call, with the start that is to be opened for it if none is, in one transaction. The call's own `seq` is not looked at."""
        mine = _Waiting(call, start)
        with self._lock:
            self._queue.append(mine)
            mine.writes, self._busy = not self._busy, True
        if not mine.writes:
            mine.woken.wait()
        if mine.writes:
            self._write_waiting()
        if mine.error is not None:
            raise mine.error
        assert mine.kept is not None
        return mine.kept

    def after(self, job: str, seq: int, limit: int) -> Sequence[Call]:
        """The next calls of a job's webhook behind a seq, in order: at most `limit`, fewer where they are large.

        No call turns up later with a lower seq.
        """
        with self._engine.begin() as connection:
            take_turn(connection, job)
            return _page(connection, tables.calls.c.job == job, seq, limit)

    def find(self, job: str, delivery_id: str) -> Call | None:
        """The call that the sender names so."""
        table = tables.calls
        query = sa.select(table).where(table.c.job == job, table.c.delivery_id == delivery_id)
        with self._engine.begin() as connection:
            row = connection.execute(query).mappings().one_or_none()
        return _of(row) if row else None

    def of_start(self, start: str) -> Iterator[Call]:
        """The calls that a start's run took, in order, a page at a time."""
        seq = 0
        while True:
            with self._engine.begin() as connection:
                page = _page(connection, tables.calls.c.start == start, seq, _PAGE)
            if not page:
                return
            yield from page
            seq = page[-1].seq

    def waiting(self, job: str) -> int:
        """How many calls of a job no run has taken."""
        table = tables.calls
        query = sa.select(sa.func.count()).where(table.c.start.is_(None), table.c.job == job)
        with self._engine.begin() as connection:
            return int(connection.scalar(query) or 0)

    def jobs(self) -> Sequence[str]:
        """The jobs that calls are kept of, by name."""
        with self._engine.begin() as connection:
            return list(connection.scalars(sa.select(tables.calls.c.job).distinct().order_by(tables.calls.c.job)))

    def prune(self, job: str, before: dt.datetime, upto: int | None = None) -> int:
        """Delete the calls of a job that came before this time and were taken by a run; up to a seq, if one is said. Answers how many."""
        table = tables.calls
        old = [table.c.job == job, table.c.received_at < tables.written(before), table.c.start.is_not(None)]
        with self._engine.begin() as connection:
            return connection.execute(sa.delete(table).where(*old, *([] if upto is None else [table.c.seq <= upto]))).rowcount

    def _write_waiting(self) -> None:
        """Write what waits, and leave what came meanwhile to the first that did."""
        with self._lock:
            batch, self._queue = self._queue[:_MOST_TOGETHER], self._queue[_MOST_TOGETHER:]
        try:
            self._write(batch)
        finally:
            with self._lock:
                self._busy = bool(self._queue)
                if self._queue:
                    self._queue[0].writes = True
                    self._queue[0].woken.set()
            for waiting in batch:
                waiting.woken.set()

    def _write(self, batch: list["_Waiting"]) -> None:
        try:
            kept = self._put(batch)
        except Exception as error:
            if len(batch) == 1 or isinstance(error, MuxlyError):
                for waiting in batch:
                    waiting.error = error
                return
            for waiting in batch:  # one of them is at fault, and the others are not to suffer for it
                self._write([waiting])
            return
        for waiting, what in zip(batch, kept, strict=True):
            waiting.kept = what

    def _put(self, batch: list["_Waiting"]) -> list[Kept]:
        insert_call = _INSERT[self._engine.dialect.name]
        paused: dict[str, bool] = {}
        kept: list[Kept] = []
        with self._engine.begin() as connection:
            for job in sorted({waiting.call.job for waiting in batch}):
                take_turn(connection, job, shared=True)
            for waiting in batch:
                call = waiting.call
                if connection.scalar(insert_call, _row(call)) is None:
                    kept.append(Kept(known=True))
                elif call.job in paused:  # a start is open since the first call of this job
                    kept.append(Kept(paused=paused[call.job]))
                else:
                    opened = _open(connection, waiting.start)
                    paused[call.job] = bool(connection.scalar(_PAUSED, {"job": call.job}))
                    kept.append(Kept(opened=opened, paused=paused[call.job]))
        return kept


@dataclass(slots=True, eq=False)
class _Waiting:
    """A call that is to be written, and what became of that. Its thread is woken when it was, or when it is to write itself."""

    call: Call
    start: Start
    woken: threading.Event = field(default_factory=threading.Event)
    writes: bool = False
    kept: Kept | None = None
    error: Exception | None = None


_INSERT = {
    name: dialect.insert(tables.calls).on_conflict_do_nothing().returning(tables.calls.c.seq)
    for name, dialect in (("sqlite", sqlite), ("postgresql", postgresql))
}
_HAS_ENDED = sa.select(tables.starts.c.ended.is_not(None)).where(tables.starts.c.id == sa.bindparam("start"))
_PAUSED = sa.select(tables.jobs.c.paused).where(tables.jobs.c.name == sa.bindparam("job"))


def _open(connection: sa.Connection, start: Start) -> Start | None:
    """Open a start unless one of the job is open. A call that was forgotten and comes again may find a start of its own that has ended."""
    if insert(connection, start):
        return start
    if not connection.scalar(_HAS_ENDED, {"start": start.id}):
        return None
    anew = replace(start, id=str(uuid.uuid4()))
    return anew if insert(connection, anew) else None


def _row(call: Call) -> dict[str, object]:
    return {
        "id": call.id,
        "job": call.job,
        "delivery_id": call.delivery_id,
        "received_at": tables.written(call.received_at),
        "headers": dict(call.headers),
        "query": call.query,
        "body": call.body,
    }


def _page(connection: sa.Connection, which: sa.ColumnElement[bool], seq: int, limit: int) -> list[Call]:
    """The calls behind a seq, in order, of about so many bytes that they fit into memory; at least one if there is any."""
    table = tables.calls
    size = sa.func.length(table.c.body)
    before = (sa.func.sum(size).over(order_by=table.c.seq) - size).label("before")
    behind = sa.select(table.c.seq, before).where(which, table.c.seq > seq).order_by(table.c.seq).limit(limit).subquery()
    fitting = sa.select(table).join(behind, behind.c.seq == table.c.seq).where(behind.c.before < _PAGE_BYTES).order_by(table.c.seq)
    return [_of(row) for row in connection.execute(fitting).mappings()]


def _of(row: sa.RowMapping) -> Call:
    known = {name: row[name] for name in ("seq", "id", "job", "delivery_id", "headers", "query")}
    return Call(**known, received_at=dt.datetime.fromisoformat(row["received_at"]), body=bytes(row["body"]))
