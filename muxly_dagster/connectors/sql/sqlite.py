"""SQLite: any value can stand in any column, so each batch says which type holds its values."""

import contextlib
import datetime as dt
import re
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote, unquote

import orjson
import pyarrow as pa

from muxly_dagster.connector import Unreadable
from muxly_dagster.connectors.sql.dialect import BATCH_BYTES, Chunk, Column, Database, Relation, Select, json_field, shown
from muxly_dagster.errors import ConfigurationError, MuxlyError, RetryLater, SourceError
from muxly_dagster.records import TIMESTAMP, to_json

_SECONDS_TO_WAIT = 30
_UNREADABLE_TEXT = 64 << 10
_TIME = re.compile(r"DATETIME|TIMESTAMP", re.IGNORECASE)
_SHORTEST_TIME = len("2024-01-01 00:00")


class _NotText(bytes):
    """Bytes that SQLite holds as text though they are not valid UTF-8."""


class Sqlite(Database):
    """A read-only connection to a SQLite file, in one transaction."""

    dynamic = True

    def __init__(self, url: str, schema: str) -> None:
        self._schema = schema
        self._path = unquote(url.partition(":///")[2].partition("?")[0])
        if not self._path or self._path == ":memory:":
            raise ConfigurationError(
                "a sqlite `url` has to name a file", do="write sqlite:///folder/file.db, or sqlite:////folder/file.db for an absolute path"
            )
        try:
            self._connection = sqlite3.connect(
                f"file:{quote(self._path)}?mode=ro", uri=True, timeout=_SECONDS_TO_WAIT, isolation_level=None, check_same_thread=False
            )
            self._connection.text_factory = _text
            self._connection.execute("begin")
            self._connection.execute("select 1 from sqlite_master limit 1")
        except sqlite3.Error as error:
            raise self.error(error) from None

    def close(self) -> None:
        self._connection.close()

    def interrupt(self) -> None:
        with contextlib.suppress(sqlite3.Error):  # closed already
            self._connection.interrupt()

    def quote(self, name: str) -> str:
        return '"' + name.replace('"', '""') + '"'

    def literal(self, value: Any, column: Column) -> str:
        if value is None:
            return "null"
        return repr(value) if isinstance(value, int | float) else "'" + str(value).replace("'", "''") + "'"

    def tables(self) -> list[str]:
        master = f"{self.quote(self._schema)}.sqlite_master" if self._schema else "sqlite_master"
        return [
            name
            for (name,) in self._rows(
                f"select name from {master} where type in ('table', 'view') and name not like 'sqlite\\_%' escape '\\'"
            )
        ]

    def relations(self) -> list[Relation]:
        schema = self._schema or "main"
        found = []
        for name in sorted(self.tables()):
            try:
                rows = self._rows(f"pragma {self.quote(schema)}.table_xinfo({self.quote(name)})")
            except ConfigurationError:
                rows = ()  # a view of a table that is gone: its own pull says so
            columns = tuple(row[1] for row in rows if row[6] != 1)
            found.append(Relation(schema, name, True, columns, any(row[5] for row in rows)))
        return found

    def describe(self, source: str, table: str = "") -> list[Column]:
        if not table:
            described = self._describe(source)
            return [Column(pa.field(name, pa.string()), "") for name in described]
        self._describe(source)
        rows = self._rows(f"pragma {self._prefix(table)}table_xinfo({self._bare(table)})")
        return [
            Column(json_field(name) if kind.upper() == "JSON" else pa.field(name, pa.string()), kind, nullable=not filled)
            for _, name, kind, filled, _, _, hidden in rows
            if hidden != 1
        ]

    def _describe(self, source: str) -> list[str]:
        try:
            return [item[0] for item in self._connection.execute(f"select * from {source} limit 0").description]
        except sqlite3.Error as error:
            raise self.error(error) from None

    def primary_key(self, table: str) -> tuple[str, ...]:
        rows = self._rows(f"pragma {self._prefix(table)}table_xinfo({self._bare(table)})")
        return tuple(row[1] for row in sorted(rows, key=lambda row: int(row[5])) if row[5])

    def _prefix(self, table: str) -> str:
        schema, dot, _ = table.rpartition('"."')
        return f'{schema}".' if dot else ""

    def _bare(self, table: str) -> str:
        _, dot, name = table.rpartition('"."')
        return f'"{name}' if dot else table

    def read(self, select: Select, known: pa.Schema | None) -> Iterator[Chunk]:
        try:
            cursor = self._connection.execute(select.text(self.quote))
            rows: list[tuple[Any, ...]] = []
            size = 0
            # One by one: a whole batch of long texts at a time could fill the memory.
            for row in cursor:
                rows.append(row)
                size += sum(len(value) for value in row if isinstance(value, str | bytes))
                if len(rows) >= select.batch_rows or size >= BATCH_BYTES:
                    yield _chunk(rows, select)
                    rows, size = [], 0
            if rows:
                yield _chunk(rows, select)
        except sqlite3.Error as error:
            raise self.error(error) from None

    def bound(self, source: str, key: Sequence[Column], where: str, place: int) -> tuple[Any, ...] | None:
        names = ", ".join(self.quote(column.name) for column in key)
        condition = f" where {where}" if where else ""
        rows = self._rows(f"select {names} from {source}{condition} order by {names} limit 1 offset {place}")
        return tuple(rows[0]) if rows else None

    def _rows(self, statement: str) -> Sequence[Any]:
        try:
            return self._connection.execute(statement).fetchall()
        except sqlite3.Error as error:
            raise self.error(error) from None

    def error(self, error: Exception) -> MuxlyError:
        message = str(error)
        said = f"SQLite says: {message}"
        if "unable to open" in message:
            return ConfigurationError(f"there is no SQLite database {self._path}", do="correct the source's `url`")
        if "locked" in message or "busy" in message:
            return RetryLater(said, do="another program is writing to the file; try again when it is done")
        if isinstance(error, sqlite3.OperationalError) and not message.startswith("disk"):
            return ConfigurationError(said, do="correct the pull's `table`, `columns`, `cursor` or `query`")
        return SourceError(said, where=self._path)


def _text(raw: bytes) -> str | bytes:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return _NotText(raw)


def _chunk(rows: list[tuple[Any, ...]], select: Select) -> Chunk:
    width = len(select.columns)
    for place, name in enumerate(select.order, width):
        if any(isinstance(row[place], bytes) for row in rows):
            raise ConfigurationError(f"{name} holds bytes, which have no order to go by", do="name a number or a time as `cursor`")
    jsons = [place for place, column in enumerate(select.columns) if column.field.metadata]
    bad = {at: reason for at, row in enumerate(rows) if (reason := _trouble(row, jsons, select))}
    names = [column.name for column in select.columns]
    unreadable = tuple(
        Unreadable(to_json(dict(zip(names, rows[at], strict=False))).decode()[:_UNREADABLE_TEXT], reason) for at, reason in bad.items()
    )
    if bad:
        rows = [row for at, row in enumerate(rows) if at not in bad]
    values = list(zip(*rows, strict=True)) if rows else [()] * (width + len(select.order))
    fields, arrays = [], []
    for column, found in zip(select.columns, values, strict=False):
        array = _array(found, column)
        fields.append(pa.field(column.name, array.type, metadata=column.field.metadata if pa.types.is_string(array.type) else None))
        arrays.append(array)
    return Chunk(pa.table(arrays, schema=pa.schema(fields)), list(zip(*values[width:], strict=True)), unreadable)


def _trouble(row: tuple[Any, ...], jsons: Sequence[int], select: Select) -> str:
    """Why a row cannot be read; empty if it can."""
    for place, value in enumerate(row):
        if type(value) is _NotText:
            name = select.columns[place].name if place < len(select.columns) else select.order[place - len(select.columns)]
            return f"{name}: {shown(value)} (in base64) is not valid UTF-8"
    for place in jsons:
        value = row[place]
        if isinstance(value, str):
            try:
                orjson.loads(value)
            except ValueError:
                return f"{select.columns[place].name}: {shown(value)} is no valid JSON"
    return ""


def _array(values: Sequence[Any], column: Column) -> pa.Array:
    """The values in the narrowest type that holds all of them exactly; text when they are of several kinds."""
    kinds = {type(value) for value in values} - {type(None)}
    if not kinds:
        return pa.nulls(len(values))
    if column.field.metadata:
        return pa.array([None if v is None else v if isinstance(v, str) else to_json(v).decode() for v in values], pa.string())
    if kinds == {int}:
        if column.kind.upper() in ("BOOL", "BOOLEAN") and all(value in (0, 1, None) for value in values):
            return pa.array([None if value is None else bool(value) for value in values], pa.bool_())
        return pa.array(values, pa.int64())
    if kinds == {float} or (kinds == {int, float} and all(type(v) is not int or int(float(v)) == v for v in values)):
        return pa.array([None if value is None else float(value) for value in values], pa.float64())
    if kinds == {bytes}:
        return pa.array(values, pa.binary())
    if kinds == {str} and column.kind:
        return _times(values, column)
    return pa.array([None if v is None else v if isinstance(v, str) else _bare_json(v) for v in values], pa.string())


def _bare_json(value: Any) -> str:
    """A number or bytes among texts: as JSON has it, without quotes."""
    return to_json(value).decode().strip('"')


def _times(values: Sequence[Any], column: Column) -> pa.Array:
    """Texts of a column that is declared to hold dates or times as such, if every one of them is one."""
    try:
        if column.kind.upper() == "DATE":
            return pa.array([None if v is None else dt.date.fromisoformat(v) for v in values], pa.date32())
        if _TIME.match(column.kind) and all(v is None or len(v) >= _SHORTEST_TIME for v in values):
            moments = [None if v is None else dt.datetime.fromisoformat(v) for v in values]
            return pa.array([m if m is None or m.tzinfo else m.replace(tzinfo=dt.UTC) for m in moments], TIMESTAMP)
    except (ValueError, OverflowError):
        pass
    return pa.array(values, pa.string())
