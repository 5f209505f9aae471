"""Deliveries that wait for a moment: for another try, for a window to open, for a batch to be old enough."""

import datetime as dt
from dataclasses import dataclass

import sqlalchemy as sa

from muxly_dagster.state import tables


@dataclass(frozen=True, slots=True)
class Wait:
    """What a target waits for, until when, and how often it has failed in a row (0 where it waits for other reasons)."""

    target: str
    until: dt.datetime
    why: str
    failures: int = 0


class Waiting:
    """Remembers who waits, so that a restart forgets nobody. One row for each target."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def read(self, target: str) -> Wait | None:
        """What a target waits for; None if nothing."""
        with self._engine.begin() as connection:
            row = connection.execute(sa.select(tables.waiting).where(tables.waiting.c.target == target)).mappings().one_or_none()
        return _of(row) if row else None

    def all(self) -> list[Wait]:
        """Everyone who waits, the next first."""
        with self._engine.begin() as connection:
            rows = connection.execute(sa.select(tables.waiting).order_by(tables.waiting.c.until, tables.waiting.c.target)).mappings().all()
        return [_of(row) for row in rows]

    def due(self, now: dt.datetime) -> list[Wait]:
        """Those whose moment has come."""
        return [wait for wait in self.all() if wait.until <= now]

    def put(self, wait: Wait) -> None:
        """Let a target wait, in place of what it waited for."""
        table = tables.waiting
        values = {"until": tables.written(wait.until), "why": wait.why, "failures": wait.failures}
        with self._engine.begin() as connection:
            tables.ensure(connection, table, target=wait.target, **values)
            connection.execute(sa.update(table).where(table.c.target == wait.target).values(**values))

    def clear(self, target: str) -> None:
        """It waits no longer."""
        with self._engine.begin() as connection:
            connection.execute(sa.delete(tables.waiting).where(tables.waiting.c.target == target))


def _of(row: sa.RowMapping) -> Wait:
    return Wait(row["target"], dt.datetime.fromisoformat(row["until"]), row["why"], row["failures"])
