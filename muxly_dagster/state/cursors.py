"""Cursors of pulls, numbered: the row that counts is the one that the lake's newest commit names."""

import datetime as dt
from typing import Any

import sqlalchemy as sa

from muxly_dagster.state import tables

_KEPT = 5


class Cursors:
    """Reads and writes cursor rows. A row is written before the lake commits; a row that no commit names is ignored."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def read(self, pull: str, version: int) -> Any | None:
        """The cursor of one row; None if there is no such row."""
        with self._engine.begin() as connection:
            table = tables.cursors
            return connection.scalar(sa.select(table.c.cursor).where(table.c.pull == pull, table.c.version == version))

    def write(self, pull: str, version: int, cursor: Any, table_id: str) -> None:
        """Write the row, in place of an earlier one of the same number, and drop rows long past."""
        table = tables.cursors
        with self._engine.begin() as connection:
            connection.execute(
                sa.delete(table).where(table.c.pull == pull, sa.or_(table.c.version >= version, table.c.version < version - _KEPT))
            )
            connection.execute(
                sa.insert(table).values(pull=pull, version=version, cursor=cursor, table_id=table_id, written_at=tables.now())
            )

    def forget(self, pull: str) -> None:
        """Start over: forget every cursor and that the pull ever ran."""
        with self._engine.begin() as connection:
            connection.execute(sa.delete(tables.cursors).where(tables.cursors.c.pull == pull))
            connection.execute(sa.delete(tables.pulls).where(tables.pulls.c.pull == pull))

    def succeeded(self, pull: str, table_id: str) -> None:
        """Remember that a pull has read everything, and the lake table it stored it in."""
        with self._engine.begin() as connection:
            connection.execute(sa.delete(tables.pulls).where(tables.pulls.c.pull == pull))
            connection.execute(sa.insert(tables.pulls).values(pull=pull, table_id=table_id, last_success=tables.now()))

    def last_success(self, pull: str) -> tuple[str, dt.datetime] | None:
        """The lake table's id and the time of the last complete pull; None if there was none."""
        with self._engine.begin() as connection:
            row = connection.execute(
                sa.select(tables.pulls.c.table_id, tables.pulls.c.last_success).where(tables.pulls.c.pull == pull)
            ).one_or_none()
        return (row.table_id, dt.datetime.fromisoformat(row.last_success)) if row else None
