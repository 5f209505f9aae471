"""Jobs that were made by the API, and which jobs are paused, those of muxly.yaml among them."""

import datetime as dt
import json
import logging
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from muxly_dagster.errors import ConfigurationError, MuxlyError
from muxly_dagster.state import tables
from muxly_dagster.state.troubles import explain

_log = logging.getLogger("muxly.state")

_COPY = "jobs.json"
_SECONDS_TO_CONNECT = 3


@dataclass(frozen=True, slots=True)
class StoredJob:
    """What the state holds of a job. `spec` is what would stand under `jobs: NAME:`, its `${NAME}` as they were written; None for a job
    that stands in muxly.yaml. `version` grows with every change.
    """

    name: str
    spec: Mapping[str, Any] | None
    paused: bool
    version: int
    created_at: dt.datetime
    updated_at: dt.datetime


class Jobs:
    """Remembers jobs. Of two who change one at the same time, the later is told so."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def all(self) -> list[StoredJob]:
        """Every job that the state knows of, by name."""
        with self._engine.begin() as connection:
            return _all(connection)

    def made(self) -> list[StoredJob]:
        """Those that were made by the API, by name."""
        return [job for job in self.all() if job.spec is not None]

    def read(self, name: str) -> StoredJob | None:
        """One job; None where the state knows nothing of it."""
        with self._engine.begin() as connection:
            return _read(connection, name)

    def is_paused(self, name: str) -> bool:
        """Whether a job is not to be started by its schedule or webhook."""
        job = self.read(name)
        return job is not None and job.paused

    def create(self, name: str, spec: Mapping[str, Any]) -> StoredJob | None:
        """Keep a new job; None where there is one of that name."""
        now = tables.now()
        row = {"name": name, "spec": dict(spec), "paused": False, "version": 1, "created_at": now, "updated_at": now}
        try:
            with self._engine.begin() as connection:
                # A job of muxly.yaml may have been paused that is no longer there.
                left_over = sa.and_(tables.jobs.c.name == name, tables.jobs.c.spec.is_(None))
                connection.execute(sa.delete(tables.jobs).where(left_over))
                connection.execute(sa.insert(tables.jobs).values(**row))
                return _read(connection, name)
        except sa.exc.IntegrityError:
            return None

    def change(self, name: str, spec: Mapping[str, Any], version: int) -> StoredJob | None:
        """Keep a job's new spec; None where it is gone, or no longer the version that was looked at."""
        table = tables.jobs
        values = {"spec": dict(spec), "version": table.c.version + 1, "updated_at": tables.now()}
        with self._engine.begin() as connection:
            these = sa.and_(table.c.name == name, table.c.version == version)
            done = connection.execute(sa.update(table).where(these).values(**values)).rowcount
            return _read(connection, name) if done else None

    def pause(self, name: str, *, paused: bool) -> StoredJob:
        """Pause a job, or resume it; a job that the state knows nothing of stands in muxly.yaml."""
        table, now = tables.jobs, tables.now()
        with self._engine.begin() as connection:
            tables.ensure(connection, table, name=name, spec=None, paused=False, version=0, created_at=now, updated_at=now)
            turned = sa.and_(table.c.name == name, table.c.paused != paused)
            connection.execute(sa.update(table).where(turned).values(paused=paused, version=table.c.version + 1, updated_at=now))
            job = _read(connection, name)
        assert job is not None
        return job

    def delete(self, name: str, version: int | None = None) -> bool:
        """Forget a job; False where it is gone, or no longer the version that was looked at."""
        table = tables.jobs
        these = table.c.name == name if version is None else sa.and_(table.c.name == name, table.c.version == version)
        with self._engine.begin() as connection:
            return bool(connection.execute(sa.delete(table).where(these)).rowcount)


def made_jobs(url: str, home: Path) -> list[StoredJob]:
    """The jobs that were made by the API, asked of a database that need not be there: nothing is created, and nothing ever raises.

    Where the database is away for a moment, they are as they were read last: a copy lies in `home`, without any secret.
    """
    copy = home / _COPY
    try:
        found = glance(url)
    except MuxlyError as error:
        return _from_copy(copy, error)
    _to_copy(copy, found)
    return found


def glance(url: str) -> list[StoredJob]:
    """The jobs that were made by the API, without making or migrating a database. Raises MuxlyError where it cannot be asked."""
    engine = _engine_to_look(url)
    if engine is None:
        return []
    explain(engine)
    try:
        with engine.connect() as connection:
            if not sa.inspect(connection).has_table("jobs"):
                return []
            return [job for job in _all(connection) if job.spec is not None]
    finally:
        engine.dispose()


def _engine_to_look(url: str) -> sa.Engine | None:
    """An engine that only looks; None where there is no database yet."""
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError:
        raise ConfigurationError("MUXLY_DATABASE_URL is not a database URL") from None
    if parsed.get_backend_name() == "postgresql":
        arguments = {"options": "-csearch_path=muxly", "connect_timeout": _SECONDS_TO_CONNECT}
        return sa.create_engine(parsed.set(drivername="postgresql+psycopg"), poolclass=sa.NullPool, connect_args=arguments)
    path = Path(parsed.database or "")
    if parsed.get_backend_name() != "sqlite" or not parsed.database or not path.is_file():
        return None
    address = f"{path.absolute().as_uri()}?mode=ro"
    return sa.create_engine("sqlite://", poolclass=sa.NullPool, creator=lambda: _sqlite(address))


def _sqlite(address: str) -> Any:
    import sqlite3

    return sqlite3.connect(address, uri=True, timeout=5, check_same_thread=False)


def _all(connection: sa.Connection) -> list[StoredJob]:
    return [_of(row) for row in connection.execute(sa.select(tables.jobs).order_by(tables.jobs.c.name)).mappings()]


def _read(connection: sa.Connection, name: str) -> StoredJob | None:
    row = connection.execute(sa.select(tables.jobs).where(tables.jobs.c.name == name)).mappings().one_or_none()
    return _of(row) if row else None


def _of(row: Mapping[Any, Any]) -> StoredJob:
    moments = {name: dt.datetime.fromisoformat(row[name]) for name in ("created_at", "updated_at")}
    return StoredJob(**{**row, **moments})


# ---- the copy


def _to_copy(copy: Path, jobs: Sequence[StoredJob]) -> None:
    rows = [
        {"name": j.name, "spec": j.spec, "paused": j.paused, "version": j.version}
        | {"created_at": j.created_at.isoformat(), "updated_at": j.updated_at.isoformat()}
        for j in jobs
    ]
    text = json.dumps(rows)
    try:
        if (copy.read_text(encoding="utf-8") if copy.exists() else "[]") == text:
            return
        new = copy.with_name(f"{copy.name}.{uuid.uuid4().hex}")
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(new, copy)
    except OSError as error:
        _log.warning("jobs that were made by the API cannot be copied to %s (%s)", copy, error.strerror)


def _from_copy(copy: Path, error: MuxlyError) -> list[StoredJob]:
    try:
        found = [_of(row) for row in json.loads(copy.read_text(encoding="utf-8"))]
    except FileNotFoundError:
        _log.warning("jobs that were made by the API are left out: %s", error)
        return []
    except (OSError, ValueError, KeyError, TypeError):
        _log.warning("jobs that were made by the API are left out, the copy %s is damaged too: %s", copy, error)
        return []
    _log.warning("jobs that were made by the API are as they were when last read: %s", error)
    return found
