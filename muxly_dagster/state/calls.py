"""Calls of webhooks: each kept once, and with it the start of the run that is to deal with it."""

import datetime as dt
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from muxly_dagster.intake import Call
from muxly_dagster.state import tables
from muxly_dagster.state.starts import Start, insert, take_turn

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
    """The calls of all jobs. Raises RetryLater where the database cannot be reached."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        # SQLite lets writers of one process wait by trying again and again; a lock lets the next one in at once.
        self._one_at_a_time = threading.Lock() if engine.dialect.name == "sqlite" else None

    def put(self, call: Call, start: Start) -> Kept:
        """Keep a call, with the start that is to be opened for it if none is, in one transaction. The call's own `seq` is not looked at."""
        if self._one_at_a_time is None:
            return self._put(call, start)
        with self._one_at_a_time:
            return self._put(call, start)

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
        old = [table.c.job == job, table.c.received_at < _text(before), table.c.start.is_not(None)]
        with self._engine.begin() as connection:
            return connection.execute(sa.delete(table).where(*old, *([] if upto is None else [table.c.seq <= upto]))).rowcount

    def _put(self, call: Call, start: Start) -> Kept:
        dialect = sqlite if self._engine.dialect.name == "sqlite" else postgresql
        values = {
            "id": call.id,
            "job": call.job,
            "delivery_id": call.delivery_id,
            "received_at": _text(call.received_at),
            "headers": dict(call.headers),
            "query": call.query,
            "body": call.body,
        }
        jobs = tables.jobs
        with self._engine.begin() as connection:
            take_turn(connection, call.job, shared=True)
            insert_call = dialect.insert(tables.calls).values(**values).on_conflict_do_nothing().returning(tables.calls.c.seq)
            if connection.scalar(insert_call) is None:
                return Kept(known=True)
            opened = start if insert(connection, start) else None
            paused = bool(connection.scalar(sa.select(jobs.c.paused).where(jobs.c.name == call.job)))
        return Kept(opened=opened, paused=paused)


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


def _text(moment: dt.datetime) -> str:
    return moment.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
