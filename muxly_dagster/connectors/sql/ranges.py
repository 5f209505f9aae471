"""Large tables by ranges of their key: several connections read them at once, and one that broke reads its range again."""

import threading
from collections.abc import Generator
from typing import Any

import pyarrow as pa

from muxly_dagster import records
from muxly_dagster.connector import Batch
from muxly_dagster.connectors.sql.connections import Connections
from muxly_dagster.connectors.sql.dialect import Database, Select
from muxly_dagster.connectors.sql.news import batch
from muxly_dagster.connectors.sql.source import Source
from muxly_dagster.errors import RetryLater

_WAITS = (0.0, 1.0, 2.0, 4.0, 8.0, 15.0)
"""Seconds before each new attempt to connect; a server that restarts is back by then."""

_LEAST_RANGES = 2

_Range = tuple[tuple[Any, ...] | None, tuple[Any, ...] | None]


def splits(database: Database, source: Source) -> bool:
    """Whether the table is read by ranges: it is large, and its rows lie in the order of its primary key, which has an order."""
    if not source.table or source.order or not source.key or source.key != database.primary_key(source.table):
        return False
    for column in source.keys:
        type_ = column.field.type
        if pa.types.is_boolean(type_) or pa.types.is_binary(type_) or pa.types.is_floating(type_) or records.is_json(column.field):
            return False
    return database.ranged(source.table, source.key, _LEAST_RANGES * source.pull.chunk_rows)


class Ranges:
    """Hands out the ranges of a table's key, each once, in their order. Used by several threads."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._last: tuple[Any, ...] | None = None
        self._ended = False
        self._lock = threading.Lock()

    def take(self, database: Database) -> _Range | None:
        """The next range: the keys behind the first bound up to the second, None being open; None when there are no more."""
        with self._lock:
            if self._ended:
                return None
            start = self._last
            where = database.compare(self._source.keys, ">", start) if start is not None else ""
            end = database.bound(self._source.table, self._source.keys, where, self._source.pull.chunk_rows - 1)
            self._last, self._ended = end, end is None
            return start, end


def read_ranges(
    database: Database, connections: Connections, source: Source, ranges: Ranges, known: pa.Schema | None
) -> Generator[Batch, None, None]:
    """Ranges, one after the other, until there are no more. A connection that breaks is opened anew, and reads its range again.

    Raises RetryLater when the database does not come back.
    """
    waits = list(_WAITS)
    current: _Range | None = None
    broken = False
    while True:
        try:
            if broken:
                database, broken = connections.reopen(database, waits.pop(0)), False
            current = current or ranges.take(database)
            if current is None:
                return
            select = Select(source.columns, source.sql(), _within(database, source, current), (), source.pull.batch_rows)
            for chunk in database.read(select, known):
                yield batch(chunk)
            current, waits = None, list(_WAITS)
        except RetryLater:
            broken = True
            if not waits or connections.left:
                raise


def _within(database: Database, source: Source, bounds: _Range) -> str:
    start, end = bounds
    conditions = [database.compare(source.keys, ">", start)] if start is not None else []
    conditions += [database.compare(source.keys, "<=", end)] if end is not None else []
    return " and ".join(conditions)
