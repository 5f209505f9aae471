"""Starts: runs that are to begin, and which run each was begun by. Whoever asks, and however often, one run begins a start.

A start is written before Dagster is asked for a run, so it outlives whatever goes down in between. The run asks `begin` before it does
anything. Calls of webhooks open one start for a job at a time (an index holds that): calls that come while it is open belong to it.
"""

import datetime as dt
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from muxly_dagster.state import tables

START = "muxly/start"
"""The tag of a run that says which start it is to begin."""

Cause = Literal["webhook", "cron", "api"]
Ended = Literal["begun", "cancelled"]

_ASKED_AGAIN = dt.timedelta(seconds=30)
_LATEST = dt.timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Start:
    """A run of a job that is to begin from `due_at` on, with these tags. `id` is a UUID, and the id of the run that is asked for first.

    `attempts` counts how often Dagster was asked, `submitted_at` is the last time. `run_id` is the run that began it.
    """

    id: str
    job: str
    cause: Cause
    due_at: dt.datetime
    tags: Mapping[str, str] = field(default_factory=dict)
    submitted_at: dt.datetime | None = None
    attempts: int = 0
    run_id: str | None = None
    ended: Ended | None = None

    @property
    def asked_again_at(self) -> dt.datetime:
        """When whoever sweeps looks at it: from then on it may be submitted again, later each time."""
        if self.submitted_at is None:
            return self.due_at
        return self.submitted_at + min(_LATEST, _ASKED_AGAIN * 2.0 ** min(self.attempts - 1, 10))


class Starts:
    """The starts of all jobs. Raises RetryLater where the database cannot be reached."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def put(self, start: Start) -> bool:
        """Write a start down; False: one of this id is there already, and stays as it is."""
        with self._engine.begin() as connection:
            return insert(connection, start)

    def find(self, id: str) -> Start | None:
        """One start."""
        with self._engine.begin() as connection:
            return _find(connection, id)

    def open(self, job: str) -> list[Start]:
        """The starts of a job that no run has begun, the oldest first."""
        table = tables.starts
        query = sa.select(table).where(table.c.job == job, table.c.ended.is_(None)).order_by(table.c.due_at, table.c.id)
        with self._engine.begin() as connection:
            return [_of(row) for row in connection.execute(query).mappings()]

    def due(self, now: dt.datetime) -> list[Start]:
        """Starts that should have begun and have not: never submitted, or so long ago that Dagster must be asked what became of it.

        What webhooks started waits while the job is paused.
        """
        table, jobs = tables.starts, tables.jobs
        paused = sa.exists().where(jobs.c.name == table.c.job, jobs.c.paused)
        query = (
            sa.select(table)
            .where(table.c.ended.is_(None), table.c.due_at <= tables.written(now), sa.not_(sa.and_(table.c.cause == "webhook", paused)))
            .order_by(table.c.due_at, table.c.id)
        )
        with self._engine.begin() as connection:
            found = [_of(row) for row in connection.execute(query).mappings()]
        return [start for start in found if start.asked_again_at <= now]

    def submitted(self, id: str, now: dt.datetime) -> bool:
        """Note, before Dagster is asked, that it is; False: do not ask, the start has ended or somebody else is asking right now."""
        with self._engine.begin() as connection:
            start = _find(connection, id, lock=True)
            if start is None or start.ended is not None or (start.submitted_at is not None and start.asked_again_at > now):
                return False
            table = tables.starts
            values = {"submitted_at": tables.written(now), "attempts": start.attempts + 1}
            connection.execute(sa.update(table).where(table.c.id == id).values(**values))
            return True

    def put_back(self, id: str) -> None:
        """Dagster could not be asked: the start is due again at once."""
        table = tables.starts
        with self._engine.begin() as connection:
            connection.execute(sa.update(table).where(table.c.id == id, table.c.ended.is_(None)).values(submitted_at=None))

    def begin(self, id: str, run_id: str, *, repeated: bool = False) -> bool:
        """Let a run begin a start: True for the first that asks, and whenever that one asks again; False for every other run.

        What a webhook started takes all calls of its job that wait. False, too, for a start that is not there, or was cancelled, unless
        somebody repeats the run that was cancelled: that has the calls that waited for it.
        """
        with self._engine.begin() as connection:
            start = _find(connection, id)
            if start is None:
                return False
            take_turn(connection, start.job)
            start = _find(connection, id, lock=True)
            if start is not None and start.ended == "cancelled" and repeated:
                connection.execute(sa.update(tables.starts).where(tables.starts.c.id == id).values(ended="begun", run_id=run_id))
                return True
            if start is None or start.ended is not None:
                return start is not None and start.ended == "begun" and start.run_id == run_id
            _end(connection, start, "begun", run_id)
            return True

    def cancel(self, id: str) -> bool:
        """Let a start never begin; False where it has ended already. The calls that waited for it are passed over."""
        with self._engine.begin() as connection:
            start = _find(connection, id)
            if start is None:
                return False
            take_turn(connection, start.job)
            start = _find(connection, id, lock=True)
            if start is None or start.ended is not None:
                return False
            _end(connection, start, "cancelled", None)
            return True

    def prune(self, before: dt.datetime) -> int:
        """Forget starts that have ended and were due before this time, and of which no call is left; answers how many."""
        table, calls = tables.starts, tables.calls
        used = sa.exists().where(calls.c.start == table.c.id)
        with self._engine.begin() as connection:
            done = connection.execute(
                sa.delete(table).where(table.c.ended.is_not(None), table.c.due_at < tables.written(before), sa.not_(used))
            )
            return done.rowcount


_INSERT = {
    name: dialect.insert(tables.starts).on_conflict_do_nothing().returning(tables.starts.c.id)
    for name, dialect in (("sqlite", sqlite), ("postgresql", postgresql))
}


def insert(connection: sa.Connection, start: Start) -> bool:
    """Write a start down unless there is one of its id, or an open one of a webhook of the same job; answers whether it was."""
    values = {
        "id": start.id,
        "job": start.job,
        "cause": start.cause,
        "due_at": tables.written(start.due_at),
        "tags": dict(start.tags),
        "attempts": 0,
    }
    return connection.scalar(_INSERT[connection.dialect.name], values) is not None


def take_turn(connection: sa.Connection, job: str, *, shared: bool = False) -> None:
    """Hold the calls of a job until the transaction ends: those who add some may do so together, who takes or reads them is alone.

    So no call is overlooked that was numbered before others and committed after them. SQLite has one transaction at a time anyway.
    """
    if connection.dialect.name == "sqlite":
        return
    number = int.from_bytes(hashlib.sha256(f"muxly:calls:{job}".encode()).digest()[:8], "big", signed=True)
    lock = sa.func.pg_advisory_xact_lock_shared if shared else sa.func.pg_advisory_xact_lock
    connection.execute(sa.select(lock(number)))


def _find(connection: sa.Connection, id: str, *, lock: bool = False) -> Start | None:
    query = sa.select(tables.starts).where(tables.starts.c.id == id)
    row = connection.execute(query.with_for_update() if lock else query).mappings().one_or_none()
    return _of(row) if row else None


def _end(connection: sa.Connection, start: Start, ended: Ended, run_id: str | None) -> None:
    table, calls = tables.starts, tables.calls
    connection.execute(sa.update(table).where(table.c.id == start.id).values(ended=ended, run_id=run_id))
    if start.cause == "webhook":
        connection.execute(sa.update(calls).where(calls.c.start.is_(None), calls.c.job == start.job).values(start=start.id))


def _of(row: sa.RowMapping) -> Start:
    submitted = dt.datetime.fromisoformat(row["submitted_at"]) if row["submitted_at"] else None
    return Start(**{**row, "due_at": dt.datetime.fromisoformat(row["due_at"]), "submitted_at": submitted})
