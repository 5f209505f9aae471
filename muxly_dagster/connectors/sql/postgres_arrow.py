"""PostgreSQL's rows straight into Arrow: ADBC reads COPY's binary form without holding up Python's other threads.

What it would read less exactly than Postgres writes it (numbers with a point) is asked for as text, and so are the times that Arrow has no
place for. Tables with a type that is in no list are left to the CSV form.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import adbc_driver_manager
import adbc_driver_postgresql  # type: ignore[import-untyped]
import adbc_driver_postgresql.dbapi  # type: ignore[import-untyped]
import psycopg
import pyarrow as pa
import pyarrow.compute as pc

from muxly_dagster.connectors.sql.dialect import Chunk, Column, Columns, Select
from muxly_dagster.records import is_json

Error = adbc_driver_manager.Error

_NATIVE = {"boolean", "smallint", "integer", "bigint", "double precision", "text", "character varying", "bytea"}
_AS_TEXT = {"numeric", "uuid", "json", "jsonb"}
_TIMES = {
    "date": "between '0001-01-01' and '9999-12-31'",
    "timestamp without time zone": "between '0001-01-01' and '9999-12-31 23:59:59.999999'",
    "timestamp with time zone": "between '0001-01-01' and '9999-12-31 23:59:59.999999'",
}
"""What has a place in the lake: the driver reads infinities, and years beyond, as other times."""
_BATCH_BYTES = 4 << 20
_GONE = (
    "server closed the connection",
    "connection to server",
    "terminating connection",
    "canceling statement",
    "SSL",
    "could not receive",
)
_INTERNAL_ERROR = "XX000"


def item(column: Column, name: str) -> str | None:
    """How a column (`name`: quoted) is selected; None where ADBC cannot read it exactly."""
    if column.kind in _NATIVE:
        return name
    if column.kind in _AS_TEXT:
        return f"cast({name} as text)"
    if column.kind in _TIMES:
        return f"case when {name} {_TIMES[column.kind]} then {name} end"
    if column.kind == "money":
        return f"cast(cast({name} as numeric) as text)"
    if column.kind == "real":  # by its digits, or 0.1 would become 0.10000000149
        return f"cast(cast({name} as text) as double precision)"
    return f"cast(to_json({name}) as text)" if is_json(column.field) else None


def beyond(columns: Sequence[Column], quote: Callable[[str], str]) -> list[str]:
    """For each time among the columns one more item: its text where it has no place, else null."""
    items = []
    for column in columns:
        if column.kind in _TIMES:
            name = quote(column.name)
            text = f"{name} at time zone 'UTC'" if column.kind == "timestamp with time zone" else name
            items.append(f"case when not {name} {_TIMES[column.kind]} then cast({text} as text) end")
    return items


class ArrowReader:
    """A connection beside another one, in a transaction that sees the same snapshot. Raises Error."""

    def __init__(self, conninfo: str, snapshot: str) -> None:
        self._connection = adbc_driver_postgresql.dbapi.connect(conninfo, autocommit=True)
        self._reading: Any = None
        try:
            for statement in (
                "set timezone = 'UTC'",
                "set datestyle = 'ISO, YMD'",
                "set client_encoding = 'UTF8'",
                "set idle_in_transaction_session_timeout = 0",  # one connection waits while its neighbour reads
                "begin isolation level repeatable read read only",
                f"set transaction snapshot {psycopg.sql.Literal(snapshot).as_string()}",
            ):
                with self._connection.cursor() as cursor:
                    cursor.execute(statement)
        except Error:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the connection."""
        with contextlib.suppress(Error):
            self._connection.close()

    def interrupt(self) -> None:
        """End the read that is under way on another thread."""
        if self._reading is not None:
            with contextlib.suppress(Error):
                self._reading.adbc_cancel()

    def read(self, statement: str, select: Select, known: pa.Schema | None) -> Iterator[Chunk]:
        """The rows of a statement whose items are `select`'s columns, what is `beyond` them, and its positions as text."""
        hint = {adbc_driver_postgresql.StatementOptions.BATCH_SIZE_HINT_BYTES.value: str(_BATCH_BYTES)}
        with self._connection.cursor(adbc_stmt_kwargs=hint) as cursor:
            cursor.execute(statement)
            self._reading = cursor
            try:
                for batch in _batches(cursor.fetch_record_batch()):
                    for start in range(0, len(batch), select.batch_rows):
                        yield _chunk(batch.slice(start, select.batch_rows), select, known)
            finally:
                self._reading = None


def _batches(reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    """The batches; errors in mid-read come as Arrow's, which know no SQLSTATE, and become the driver's."""
    while True:
        try:
            batch = reader.read_next_batch()
        except StopIteration:
            return
        except (OSError, pa.ArrowException) as error:
            gone = any(sign in str(error) for sign in _GONE)
            status = adbc_driver_manager.AdbcStatusCode.IO
            raise Error(str(error), status_code=status, sqlstate=None if gone else _INTERNAL_ERROR) from None
        yield batch


def _chunk(batch: pa.RecordBatch, select: Select, known: pa.Schema | None) -> Chunk:
    columns = Columns(known)
    width = len(select.columns)
    times = [place for place, column in enumerate(select.columns) if column.kind in _TIMES]
    texts = dict(zip(times, batch.columns[width:], strict=False))
    for place, (column, values) in enumerate(zip(select.columns, batch.columns, strict=False)):
        if pa.types.is_string(values.type):
            columns.add(column, values)
            continue
        to = column.field.type
        native = pa.types.is_timestamp(values.type) and values.type.tz is None
        columns.fields.append(column.field)
        columns.arrays.append(pc.assume_timezone(values, "UTC") if native else values.cast(to))
        if place in texts and texts[place].null_count < len(batch):
            for row, text in enumerate(texts[place].to_pylist()):
                if text is not None:
                    columns.homeless(row, column, text)
    positions = list(zip(*(values.to_pylist() for values in batch.columns[width + len(times) :]), strict=True))
    if not columns.bad:
        return Chunk(columns.table(), positions)
    names = [column.name for column in select.columns]

    def as_it_came(row: int) -> dict[str, Any]:
        values = [
            texts[place][row] if place in texts and texts[place][row].is_valid else batch.columns[place][row] for place in range(width)
        ]
        return {name: _said(value.as_py()) for name, value in zip(names, values, strict=True)}

    unreadable = columns.unreadable(as_it_came)
    return Chunk(columns.table(), [position for row, position in enumerate(positions) if row not in columns.bad], unreadable)


def _said(value: Any) -> Any:
    """A value as the CSV form has it."""
    if isinstance(value, bool):
        return "t" if value else "f"
    if isinstance(value, bytes):
        return "\\x" + value.hex()
    return "" if value is None else str(value)
