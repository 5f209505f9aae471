"""PostgreSQL: read by `COPY ... TO STDOUT`, in its binary form where that is exact, else as CSV, which Arrow parses natively."""

import contextlib
import csv
import io
import os
import socket
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.csv as pacsv
from psycopg import sql as pgsql

from muxly_dagster.connectors.sql import postgres_arrow
from muxly_dagster.connectors.sql.dialect import BATCH_BYTES, Chunk, Column, Columns, Database, Relation, Select, hex_bytes, json_field
from muxly_dagster.connectors.sql.postgres_arrow import ArrowReader
from muxly_dagster.errors import ConfigurationError, MuxlyError, RetryLater, SignInError, SourceError
from muxly_dagster.records import TIMESTAMP

_TYPES: dict[str, pa.DataType] = {
    "bool": pa.bool_(),
    "int2": pa.int64(),
    "int4": pa.int64(),
    "int8": pa.int64(),
    "oid": pa.int64(),
    "float4": pa.float64(),
    "float8": pa.float64(),
    "date": pa.date32(),
    "timestamp": TIMESTAMP,
    "timestamptz": TIMESTAMP,
    "bytea": pa.binary(),
}
_SECONDS_TO_CONNECT = 10
_IN_ORDER = 0.9
"""From this correlation of a column's values with the place of their rows on, ranges of it are read as quickly as the whole table."""


class Postgres(Database):
    """A PostgreSQL connection in one read-only, repeatable-read transaction."""

    def __init__(self, url: str, schema: str) -> None:
        self._schema = schema
        self._arrow: ArrowReader | None = None
        self._exported = ""
        try:
            said = psycopg.conninfo.conninfo_to_dict(url)
            url = psycopg.conninfo.make_conninfo(url, connect_timeout=said.get("connect_timeout", _SECONDS_TO_CONNECT))
            self._conninfo = psycopg.conninfo.make_conninfo(url, application_name="muxly")
            self._connection = psycopg.connect(self._conninfo, autocommit=True)
        except psycopg.Error as error:
            raise self.error(error) from None
        for statement in (
            "set timezone = 'UTC'",
            "set datestyle = 'ISO, YMD'",
            "set intervalstyle = 'iso_8601'",
            "set bytea_output = 'hex'",
            "set client_encoding = 'UTF8'",
            "set idle_in_transaction_session_timeout = 0",  # one connection waits while its neighbour reads
            "begin isolation level repeatable read read only",
        ):
            self._rows(statement)

    def close(self) -> None:
        if self._arrow is not None:
            self._arrow.close()
        self._connection.close()

    def interrupt(self) -> None:
        if self._arrow is not None:
            self._arrow.interrupt()
        # The read fails at once, without a word to a server that may not answer; closing the file would not wake its thread.
        with contextlib.suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(self._connection.fileno())) as line:
            line.shutdown(socket.SHUT_RDWR)

    def quote(self, name: str) -> str:
        return '"' + name.replace('"', '""') + '"'

    def literal(self, value: Any, column: Column) -> str:
        return "null" if value is None else f"cast({pgsql.Literal(str(value)).as_string(self._connection)} as {column.kind})"

    def tables(self) -> list[str]:
        query = """
            select case when n.nspname = any(current_schemas(false)) or n.nspname = %s then c.relname else n.nspname || '.' || c.relname end
            from pg_class c join pg_namespace n on n.oid = c.relnamespace
            where c.relkind in ('r', 'p', 'v', 'm', 'f') and not c.relispartition
              and n.nspname not in ('pg_catalog', 'information_schema') and n.nspname not like 'pg\\_t%%' and (%s = '' or n.nspname = %s)
            order by 1"""
        return [name for (name,) in self._rows(query, [self._schema] * 3)]

    def relations(self) -> list[Relation]:
        query = """
            select n.nspname, c.relname, case when %s = '' then pg_table_is_visible(c.oid) else n.nspname = %s end,
              array(select a.attname::text from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped),
              exists(select 1 from pg_index i where i.indrelid = c.oid and i.indisprimary)
            from pg_class c join pg_namespace n on n.oid = c.relnamespace
            where c.relkind in ('r', 'p', 'v', 'm', 'f') and not c.relispartition
              and n.nspname not in ('pg_catalog', 'information_schema') and n.nspname not like 'pg\\_t%%'
              and has_schema_privilege(n.oid, 'usage') and has_any_column_privilege(c.oid, 'select')
            order by 1, 2"""
        found = self._rows(query, [self._schema] * 2)
        return [Relation(schema, name, default, tuple(columns), keyed) for schema, name, default, columns, keyed in found]

    def describe(self, source: str, table: str = "") -> list[Column]:
        with self._connection.cursor() as cursor:
            try:
                cursor.execute(f"select * from {source} limit 0")
            except psycopg.Error as error:
                raise self.error(error) from None
            described = cursor.description or []
        names = "select oid, format_type(oid, null), typname, typcategory from pg_type where oid = any(%s)"
        types = {oid: rest for oid, *rest in self._rows(names, [[d.type_code for d in described]])}
        filled = "select attname from pg_attribute where attrelid = %s::regclass and attnotnull and not attisdropped"
        never_null = {name for (name,) in self._rows(filled, [table])} if table else set()
        columns = []
        for d in described:
            kind, name, category = types[d.type_code]
            nullable = d.name not in never_null
            if name == "numeric" or name == "money":
                fits = d.precision is not None and d.scale is not None and d.precision <= 38 and 0 <= d.scale <= d.precision
                type_ = pa.decimal128(d.precision, d.scale) if fits else pa.string()
                columns.append(Column(pa.field(d.name, type_), kind, nullable, loose=not fits))
            elif name in ("json", "jsonb") or category in ("A", "C"):
                columns.append(Column(json_field(d.name), kind, nullable))
            else:
                columns.append(Column(pa.field(d.name, _TYPES.get(name, pa.string())), kind, nullable))
        return columns

    def primary_key(self, table: str) -> tuple[str, ...]:
        query = """
            select a.attname from pg_index i cross join unnest(i.indkey) with ordinality k(number, place)
            join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.number
            where i.indrelid = %s::regclass and i.indisprimary order by k.place"""
        return tuple(name for (name,) in self._rows(query, [table]))

    def read(self, select: Select, known: pa.Schema | None) -> Iterator[Chunk]:
        arrow = self._reader(select)
        if arrow is not None:
            try:
                wanted = [postgres_arrow.item(column, self.quote(column.name)) for column in select.columns]
                items = [*filter(None, wanted), *postgres_arrow.beyond(select.columns, self.quote)]
                yield from arrow.read(self._statement(select, items), select, known)
            except postgres_arrow.Error as error:
                raise self.error(error) from None
            return
        statement = f"copy ({self._statement(select, [self._item(column) for column in select.columns])}) to stdout (format csv)"
        lines: list[bytes] = []
        size = 0
        try:
            with self._connection.cursor() as cursor, cursor.copy(statement) as copy:
                for line in copy:
                    lines.append(bytes(line))
                    size += len(line)
                    if len(lines) >= select.batch_rows or size >= BATCH_BYTES:
                        yield _chunk(b"".join(lines), select, known)
                        lines.clear()
                        size = 0
        except psycopg.Error as error:
            raise self.error(error) from None
        if lines:
            yield _chunk(b"".join(lines), select, known)

    def _statement(self, select: Select, items: Sequence[str]) -> str:
        # Named apart from the columns, or ORDER BY would mean the text.
        named = [f"{item} as muxly_{place}" for place, item in enumerate(items)]
        named += [f"cast({self.quote(name)} as text) as muxly_position_{place}" for place, name in enumerate(select.order)]
        order = f" order by {', '.join(map(self.quote, select.order))}" if select.order else ""
        where = f" where {select.where}" if select.where else ""
        return f"select {', '.join(named)} from {select.source}{where}{order}"

    def _reader(self, select: Select) -> ArrowReader | None:
        """The connection that reads binary; None where CSV has to do, also because there is no room for one more connection."""
        if not select.columns or not all(postgres_arrow.item(column, "x") for column in select.columns):
            return None
        if self._connection.info.parameter_status("server_encoding") == "SQL_ASCII":  # its texts may be invalid UTF-8
            return None
        if self._arrow is None:
            try:
                self._arrow = ArrowReader(self._conninfo, self.snapshot())
            except postgres_arrow.Error:
                return None
        return self._arrow

    def bound(self, source: str, key: Sequence[Column], where: str, place: int) -> tuple[Any, ...] | None:
        names = [self.quote(column.name) for column in key]
        # Named apart from the columns, or ORDER BY would mean the text.
        items = ", ".join(f"cast({name} as text) as muxly_{place}" for place, name in enumerate(names))
        condition = f" where {where}" if where else ""
        rows = self._rows(f"select {items} from {source}{condition} order by {', '.join(names)} limit 1 offset {place}")
        return tuple(rows[0]) if rows else None

    def ranged(self, table: str, key: Sequence[str], least_rows: int) -> bool:
        rows = self._rows("select reltuples from pg_class where oid = %s::regclass", [table])
        if not rows or rows[0][0] < least_rows:
            return False
        query = """
            select s.correlation from pg_stats s join pg_class c on c.relname = s.tablename
            join pg_namespace n on n.oid = c.relnamespace and n.nspname = s.schemaname
            where c.oid = %s::regclass and s.attname = %s and not s.inherited"""
        return any(abs(correlation or 0) >= _IN_ORDER for (correlation,) in self._rows(query, [table, key[0]]))

    def snapshot(self) -> str:
        if not self._exported:
            self._exported = str(self._rows("select pg_export_snapshot()")[0][0])
        return self._exported

    def join(self, snapshot: str) -> bool:
        try:
            # A snapshot can only be taken before a transaction's first query.
            self._connection.execute("rollback")
            self._connection.execute("begin isolation level repeatable read read only")
            self._connection.execute(pgsql.SQL("set transaction snapshot {}").format(snapshot))
        except (psycopg.errors.InvalidParameterValue, psycopg.errors.UndefinedObject):
            self._rows("begin isolation level repeatable read read only")
            return False
        except psycopg.Error as error:
            raise self.error(error) from None
        return True

    def _item(self, column: Column) -> str:
        name = self.quote(column.name)
        if column.kind == "timestamp with time zone":
            return f"{name} at time zone 'UTC'"
        if column.kind == "money":
            return f"cast({name} as numeric)"
        if column.field.metadata and column.kind not in ("json", "jsonb"):
            return f"to_json({name})"
        return name

    def _rows(self, statement: str, parameters: Sequence[Any] = ()) -> list[Any]:
        try:
            if self._connection.info.transaction_status is psycopg.pq.TransactionStatus.INERROR:
                self._connection.rollback()
            with self._connection.cursor() as cursor:
                cursor.execute(statement, parameters or None)
                return cursor.fetchall() if cursor.description else []
        except psycopg.Error as error:
            raise self.error(error) from None

    def error(self, error: Exception) -> MuxlyError:
        state = getattr(error, "sqlstate", None) or ""
        diagnosis = getattr(error, "diag", None)
        message = (diagnosis.message_primary if diagnosis else None) or " ".join(str(error).split())
        said = f"Postgres says: {message}"
        if state.startswith("28") or any(sign in message for sign in ("authentication failed", "pg_hba.conf", "no password supplied")):
            return SignInError(said, do="check the user and the password in the source's `url`")
        if state == "42501":
            return SignInError(said, do="grant the user SELECT on it (and USAGE on its schema)")
        if state == "3D000" or ("database" in message and "does not exist" in message):
            return ConfigurationError(said, do="check the database's name at the end of the source's `url`")
        if "role" in message and "does not exist" in message:
            return SignInError(said, do="check the user in the source's `url`")
        if not state or state[:2] in ("08", "40", "53", "57") or state == "55P03":
            return RetryLater(said, do="check that the server is up and can be reached from here; the pull goes on where it was")
        if state[:2] in ("42", "3F"):
            return ConfigurationError(said, do="correct the pull's `table`, `columns`, `cursor` or `query`")
        return SourceError(said)


def _chunk(lines: bytes, select: Select, known: pa.Schema | None) -> Chunk:
    width = len(select.columns) + len(select.order)
    names = [str(place) for place in range(width)]
    options = pacsv.ReadOptions(column_names=names, block_size=len(lines) + 1, use_threads=False)
    # An empty line is a row: one column, null.
    parse = pacsv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False)
    direct = [_direct(column) for column in select.columns] + [pa.string()] * len(select.order)

    def converted(types: Sequence[pa.DataType]) -> pa.Table:
        convert = pacsv.ConvertOptions(
            column_types=dict(zip(names, types, strict=True)),
            null_values=[""],
            true_values=["t"],
            false_values=["f"],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        )
        return pacsv.read_csv(pa.BufferReader(lines), read_options=options, parse_options=parse, convert_options=convert).combine_chunks()

    columns = Columns(known)
    try:
        table = converted(direct)
    except pa.ArrowInvalid:
        table = converted([pa.binary()] * width)
        table = _decoded(table, columns, [c.name for c in select.columns])
    for column, values in zip(select.columns, table.columns, strict=False):
        array = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
        if pa.types.is_binary(column.field.type):
            columns.fields.append(column.field)
            columns.arrays.append(hex_bytes(array.to_pylist()))
        elif array.type == column.field.type and not column.loose:
            columns.fields.append(column.field)
            columns.arrays.append(array)
        else:
            columns.add(column, _words(array) if pa.types.is_boolean(column.field.type) else array)
    positions = list(zip(*(table.column(at).to_pylist() for at in range(len(select.columns), width)), strict=True))
    if not columns.bad:
        return Chunk(columns.table(), positions)
    rows = list(csv.reader(io.StringIO(lines.decode("utf-8", "backslashreplace"), newline="")))
    kept = [position for row, position in enumerate(positions) if row not in columns.bad]
    return Chunk(
        columns.table(), kept, columns.unreadable(lambda row: dict(zip([c.name for c in select.columns], rows[row], strict=False)))
    )


def _direct(column: Column) -> pa.DataType:
    """The type that the CSV reader converts to by itself."""
    type_ = column.field.type
    if column.loose or pa.types.is_binary(type_):
        return pa.string()
    return pa.timestamp("us") if type_ == TIMESTAMP else type_


def _words(array: pa.Array) -> pa.Array:
    words = {"t": "true", "f": "false"}
    return pa.array([words.get(value, value) for value in array.to_pylist()], pa.string())


def _decoded(table: pa.Table, columns: Columns, names: list[str]) -> pa.Table:
    """The raw values as text; rows with invalid UTF-8 (a SQL_ASCII database holds anything) are marked."""
    arrays = []
    for place, values in enumerate(table.columns):
        texts: list[str | None] = []
        for row, value in enumerate(values.to_pylist()):
            try:
                texts.append(None if value is None else value.decode())
            except UnicodeDecodeError:
                texts.append(None)
                columns.bad.setdefault(row, f"{names[place] if place < len(names) else 'the cursor'}: the text is not valid UTF-8")
        arrays.append(pa.array(texts, pa.string()))
    return pa.table(arrays, names=table.column_names)
