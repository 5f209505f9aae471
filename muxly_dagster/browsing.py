"""The current rows of a table as people ask for them: some columns, under a condition, a page at a time in the order of their keys."""

import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from muxly_dagster import records, sandbox
from muxly_dagster.errors import ConfigurationError, MuxlyError, RetryLater
from muxly_dagster.lake import LakeTable

if TYPE_CHECKING:
    import duckdb

SECONDS = 30.0
"""How long a page may take."""

_AT_ONCE = 4
_places = threading.BoundedSemaphore(_AT_ONCE)
"""Each query may take half a gigabyte."""

_LOG = "_muxly_log"

_GROWING = frozenset(
    [
        "range",
        "generate_series",
        "repeat",
        "lpad",
        "rpad",
        "list_resize",
        "array_resize",
        "list_reduce",
        "array_reduce",
        "reduce",
        "list_pack",
        "bar",
        "format",
        "printf",
    ]
)
"""Functions that make values of any length out of a number, which DuckDB neither counts as memory nor can be interrupted in."""


def read(
    table: LakeTable,
    *,
    where: str = "",
    columns: Sequence[str] = (),
    after: str | None = None,
    limit: int,
    seconds: float = SECONDS,
) -> tuple[pa.Table, str | None]:
    """A page: the rows behind the key `after`, and the key of the last of them if there are more.

    `where` is one SQL expression over the table's columns, `columns` are those that are wanted (none: all). Raises ConfigurationError for
    an expression or a column that cannot be, MuxlyError for an expression that fails on the data or takes too long, RetryLater where too
    many ask.
    """
    wanted = [_column(table, name) for name in columns] or list(table.schema.names)
    condition = _condition(table, where) if where else "true"
    schema = pa.schema([table.schema.field(name) for name in wanted])
    if not table.schema.names:
        return schema.empty_table(), None
    behind = "_muxly_key > $after" if after is not None else "true"
    shown = ", ".join(f"cast({sandbox.quote(n)} as varchar)" if records.is_json(schema.field(n)) else sandbox.quote(n) for n in wanted)
    known = ", ".join(
        f"cast({sandbox.quote(f.name)} as json) as {sandbox.quote(f.name)}" if records.is_json(f) else sandbox.quote(f.name)
        for f in (*records.ENVELOPE, *table.schema)
    )
    sql = (
        f"with current as (select {known} from {_LOG} where _muxly_seq in (select max(_muxly_seq) from {_LOG} where {behind}"
        f" group by _muxly_key having arg_max(_muxly_op, _muxly_seq) <> 'delete'))"
        f" select _muxly_key, {shown} from current where {condition} order by _muxly_key limit {limit + 1}"
    )
    with _sandbox(seconds) as connection, sandbox.explained(table.name):
        connection.register(_LOG, table.dataset())
        found = connection.sql(sql, params={"after": after} if after is not None else None).to_arrow_table()
    keys = found.column(0).slice(0, limit)
    rows = pa.table([column.slice(0, limit).cast(f.type) for column, f in zip(found.columns[1:], schema, strict=True)], schema=schema)
    return rows, keys[-1].as_py() if len(found) > limit else None


def columns(table: LakeTable) -> dict[str, str]:
    """The table's columns with their types; what holds nested values is `json`."""
    return {field.name: "json" if records.is_json(field) else str(field.type) for field in table.schema}


def count(table: LakeTable) -> int:
    """How many current rows a table has; counted once for each state of it."""
    return _count(_Same(table))


class _Same:
    """A table as it stands, alike to another of the same state."""

    def __init__(self, table: LakeTable) -> None:
        self.table, self._state = table, (table.url, table.table_id, table.head)

    def __hash__(self) -> int:
        return hash(self._state)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other._state == self._state


@lru_cache(maxsize=1024)
def _count(same: _Same) -> int:
    return same.table.count_current()


def _column(table: LakeTable, name: str) -> str:
    if name not in table.schema.names:
        raise ConfigurationError(sandbox.unknown_column(name, table.schema.names))
    return name


def _condition(table: LakeTable, text: str) -> str:
    expression = sandbox.read_expression(text)
    growing = sorted(sandbox.functions(text) & _GROWING)
    if growing:
        raise ConfigurationError(f"a filter may not use {', '.join(growing)}", do="compare columns with values as they stand")
    known = {name.casefold() for name in (*table.schema.names, *records.ENVELOPE.names)}
    for name in expression.columns:
        if name.casefold() not in known:
            raise ConfigurationError(sandbox.unknown_column(name, table.schema.names))
    return expression.sql


@contextmanager
def _sandbox(seconds: float) -> Iterator["duckdb.DuckDBPyConnection"]:
    if not _places.acquire(timeout=seconds):
        raise RetryLater("too many queries are going on", do="ask again in a moment", after=5)
    late = threading.Event()
    try:
        with tempfile.TemporaryDirectory(prefix="muxly-") as spill, sandbox.connect(memory_limit="512MB", spill=Path(spill)) as connection:

            def stop() -> None:
                late.set()
                connection.interrupt()

            timer = threading.Timer(seconds, stop)
            timer.start()
            try:
                yield connection
            except MuxlyError:
                if late.is_set():
                    raise MuxlyError(
                        f"the query took longer than {seconds:g} seconds", do="ask for less, or for something simpler"
                    ) from None
                raise
            finally:
                timer.cancel()
                timer.join()
    finally:
        _places.release()
