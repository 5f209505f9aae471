"""MySQL and MariaDB: read row by row from an unbuffered cursor; Arrow parses the values' text."""

import contextlib
import socket
import ssl
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import pyarrow as pa
import pymysql
from pymysql.constants import FIELD_TYPE, FLAG
from pymysql.converters import conversions
from pymysql.cursors import SSCursor

from muxly_dagster.connectors.sql.dialect import BATCH_BYTES, Chunk, Column, Columns, Database, Relation, Select, json_field
from muxly_dagster.errors import ConfigurationError, MuxlyError, RetryLater, SignInError, SourceError
from muxly_dagster.records import TIMESTAMP

_TYPES: dict[int, tuple[str, pa.DataType]] = {
    FIELD_TYPE.TINY: ("tinyint", pa.int64()),
    FIELD_TYPE.SHORT: ("smallint", pa.int64()),
    FIELD_TYPE.INT24: ("mediumint", pa.int64()),
    FIELD_TYPE.LONG: ("int", pa.int64()),
    FIELD_TYPE.LONGLONG: ("bigint", pa.int64()),
    FIELD_TYPE.YEAR: ("year", pa.int64()),
    FIELD_TYPE.FLOAT: ("float", pa.float64()),
    FIELD_TYPE.DOUBLE: ("double", pa.float64()),
    FIELD_TYPE.DATE: ("date", pa.date32()),
    FIELD_TYPE.NEWDATE: ("date", pa.date32()),
    FIELD_TYPE.DATETIME: ("datetime", TIMESTAMP),
    FIELD_TYPE.TIMESTAMP: ("timestamp", TIMESTAMP),
    FIELD_TYPE.TIME: ("time", pa.string()),
    FIELD_TYPE.GEOMETRY: ("geometry", pa.binary()),
}
_BINARY = 63  # the character set number of bytes
_REFUSED = {1044, 1045, 1142, 1143, 1227, 1370, 1698, 1820, 1862, 3118, 4151}
_PASSING = {1040, 1053, 1129, 1152, 1158, 1159, 1160, 1161, 1203, 1205, 1213, 1226, 2002, 2003, 2005, 2006, 2013, 2055, 3024}
_NO_DATABASE = {1046, 1049}
_DECLARED_WRONG = {1051, 1052, 1054, 1060, 1064, 1103, 1109, 1146, 1305}
_ENCODERS: Any = {kind: encode for kind, encode in conversions.items() if not isinstance(kind, int)}  # no decoders: values stay text
_SECONDS_TO_CONNECT = 10
_SECONDS_OF_SILENCE = 600


class MySql(Database):
    """A MySQL or MariaDB connection in one read-only transaction with a consistent snapshot."""

    folds_text = True

    def __init__(self, url: str, schema: str) -> None:
        parts = urlsplit(url)
        self._database = schema or unquote(parts.path.lstrip("/"))
        try:
            self._connection = pymysql.connect(
                host=parts.hostname or "localhost",
                port=parts.port or 3306,
                user=unquote(parts.username or "") or None,
                password=unquote(parts.password or ""),
                database=self._database or None,
                charset="utf8mb4",
                connect_timeout=_SECONDS_TO_CONNECT,
                read_timeout=_SECONDS_OF_SILENCE,
                conv=_ENCODERS,
                **_options(parts.query),
            )
            with self._connection.cursor() as cursor:
                cursor.execute("set session time_zone = '+00:00'")
                cursor.execute("set session transaction isolation level repeatable read")
                cursor.execute("start transaction with consistent snapshot, read only")
        except pymysql.MySQLError as error:
            raise self.error(error) from None

    def close(self) -> None:
        # COM_QUIT cannot be said in mid-result; the server notices that the socket is gone.
        self._connection._force_close()  # type: ignore[attr-defined]

    def interrupt(self) -> None:
        with contextlib.suppress(OSError, AttributeError):  # closed already: there is no socket any more
            self._connection._sock.shutdown(socket.SHUT_RDWR)  # type: ignore[attr-defined]

    def quote(self, name: str) -> str:
        return "`" + name.replace("`", "``") + "`"

    def literal(self, value: Any, column: Column) -> str:
        if value is None:
            return "null"
        bare = pa.types.is_integer(column.field.type) or pa.types.is_decimal(column.field.type)
        return str(value) if bare and _is_number(str(value)) else self._connection.cursor().mogrify("%s", [str(value)])

    def tables(self) -> list[str]:
        query = "select table_name from information_schema.tables where table_schema = coalesce(nullif(%s, ''), database()) order by 1"
        return [name for (name,) in self._rows(query, [self._database])]

    def relations(self) -> list[Relation]:
        query = """
            select table_schema, table_name, column_name, column_key from information_schema.columns
            where table_schema not in ('information_schema', 'mysql', 'performance_schema', 'sys') order by 1, 2, ordinal_position"""
        found: dict[tuple[str, str], dict[str, str]] = {}
        for schema, name, column, key in self._rows(query, []):
            found.setdefault((schema, name), {})[column] = key
        return [Relation(s, n, s == self._database, tuple(keys), "PRI" in keys.values()) for (s, n), keys in found.items()]

    def describe(self, source: str, table: str = "") -> list[Column]:
        json = self._json_columns(table) if table else set()
        try:
            with self._connection.cursor() as cursor:
                cursor.execute(f"select * from {source} limit 0")
                fields: Sequence[Any] = cursor._result.fields
        except pymysql.MySQLError as error:
            raise self.error(error) from None
        return [_column(field, is_json=field.name in json) for field in fields]

    def _json_columns(self, table: str) -> set[str]:
        """MariaDB's JSON columns are texts with a check; only the table's definition tells."""
        definition = self._rows(f"show create table {table}")[0][1]
        lines = [line.strip() for line in definition.splitlines() if "json_valid(" in line.lower()]
        return {line[1:].partition("`")[0] for line in lines if line.startswith("`")}

    def primary_key(self, table: str) -> tuple[str, ...]:
        rows = self._rows(f"show keys from {table} where Key_name = 'PRIMARY'")
        return tuple(row[4] for row in sorted(rows, key=lambda row: int(row[3])))

    def read(self, select: Select, known: pa.Schema | None) -> Iterator[Chunk]:
        cursor = SSCursor(self._connection)
        try:
            cursor.execute(select.text(self.quote))
            rows: list[tuple[Any, ...]] = []
            size = 0
            while row := cursor.fetchone():
                rows.append(row)
                size += sum(map(len, filter(None, row)))
                if len(rows) >= select.batch_rows or size >= BATCH_BYTES:
                    yield _chunk(rows, select, known)
                    rows, size = [], 0
            if rows:
                yield _chunk(rows, select, known)
        except pymysql.MySQLError as error:
            raise self.error(error) from None
        finally:
            _forget_rest(cursor)

    def bound(self, source: str, key: Sequence[Column], where: str, place: int) -> tuple[Any, ...] | None:
        names = ", ".join(self.quote(column.name) for column in key)
        condition = f" where {where}" if where else ""
        rows = self._rows(f"select {names} from {source}{condition} order by {names} limit 1 offset {place}")
        return tuple(rows[0]) if rows else None

    def ranged(self, table: str, key: Sequence[str], least_rows: int) -> bool:
        # InnoDB keeps rows in the order of the primary key: ranges of it always cost no more than the whole.
        rows = self._rows(
            "select table_rows from information_schema.tables where table_schema = coalesce(%s, database()) and table_name = %s",
            self._parts(table),
        )
        return bool(rows) and int(rows[0][0] or 0) >= least_rows

    def _parts(self, table: str) -> tuple[str | None, str]:
        """A quoted table name's schema, None where it carries none, and its own name."""
        schema, _, name = table.rpartition("`.`")
        return (schema.lstrip("`").replace("``", "`") or None, name.strip("`").replace("``", "`"))

    def compare(self, columns: Sequence[Column], sign: str, values: Sequence[Any]) -> str:
        # A comparison of rows is right, but uses no index here; this says the same of the first column alone beside it.
        whole = super().compare(columns, sign, values)
        return whole if len(columns) == 1 else f"{super().compare(columns[:1], sign[0] + '=', values[:1])} and {whole}"

    def _rows(self, statement: str, parameters: Sequence[Any] | None = None) -> Sequence[Any]:
        try:
            with self._connection.cursor() as cursor:
                cursor.execute(statement, parameters)
                rows: Sequence[Any] = cursor.fetchall()
                return rows
        except pymysql.MySQLError as error:
            raise self.error(error) from None

    def error(self, error: Exception) -> MuxlyError:
        code = error.args[0] if error.args and isinstance(error.args[0], int) else 0
        said = f"MySQL says: {error.args[1] if len(error.args) > 1 else error}"
        if code in _REFUSED:
            return SignInError(said, do="check the user and the password in the source's `url`, and that the user may SELECT there")
        if code in _NO_DATABASE:
            return ConfigurationError(said, do="check the database's name at the end of the source's `url`")
        if code in _DECLARED_WRONG:
            return ConfigurationError(said, do="correct the pull's `table`, `columns`, `cursor` or `query`")
        if code in _PASSING or isinstance(error, pymysql.InterfaceError):
            return RetryLater(said, do="check that the server is up and can be reached from here; the pull goes on where it was")
        return SourceError(said)


def _forget_rest(cursor: Any) -> None:
    """Leave an unbuffered result where it is: closing or collecting the cursor would first read all that is left of it."""
    if cursor._result is not None:
        cursor._result.unbuffered_active = False
    cursor.connection = None


def _options(query: str) -> dict[str, Any]:
    """TLS from the URL: `ssl_ca`, `ssl_cert`, `ssl_key`, `ssl_verify_identity`, or `ssl=true` for whatever certificate there is."""
    options: dict[str, Any] = {}
    for name, value in parse_qsl(query):
        if name in ("ssl_ca", "ssl_cert", "ssl_key"):
            options[name] = value
        elif name in ("ssl_verify_cert", "ssl_verify_identity"):
            options[name] = value.lower() == "true"
        elif name == "ssl" and value.lower() == "true":
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            options["ssl"] = context
        elif name != "charset":
            known = "ssl, ssl_ca, ssl_cert, ssl_key, ssl_verify_cert, ssl_verify_identity"
            raise ConfigurationError(f"a mysql:// `url` has no option {name}", do=f"use one of {known}, or leave it out")
    return options


def _column(field: Any, *, is_json: bool) -> Column:
    name, code, nullable = field.name, field.type_code, not field.flags & FLAG.NOT_NULL
    if is_json or code == FIELD_TYPE.JSON:
        return Column(json_field(name), "json", nullable)
    if code in (FIELD_TYPE.DECIMAL, FIELD_TYPE.NEWDECIMAL):
        precision = field.length - (field.scale > 0) - (not field.flags & FLAG.UNSIGNED)
        fits = 0 < precision <= 38
        type_ = pa.decimal128(precision, field.scale) if fits else pa.string()
        return Column(pa.field(name, type_), "decimal", nullable, loose=not fits)
    if code == FIELD_TYPE.BIT:
        return Column(pa.field(name, pa.bool_() if field.length == 1 else pa.int64()), "bit", nullable)
    if code == FIELD_TYPE.LONGLONG and field.flags & FLAG.UNSIGNED:
        return Column(pa.field(name, pa.decimal128(20, 0)), "bigint unsigned", nullable)
    if code in _TYPES:
        kind, type_ = _TYPES[code]
        return Column(pa.field(name, type_), kind, nullable)
    if field.charsetnr == _BINARY and not field.flags & (FLAG.ENUM | FLAG.SET):
        return Column(pa.field(name, pa.binary()), "binary", nullable)
    return Column(pa.field(name, pa.string()), "text", nullable)


def _chunk(rows: list[tuple[Any, ...]], select: Select, known: pa.Schema | None) -> Chunk:
    columns = Columns(known)
    coercions: dict[str, str] = {}
    values = list(zip(*rows, strict=True))
    for column, found in zip(select.columns, values, strict=False):
        type_ = column.field.type
        if column.kind == "bit":
            numbers = [None if bits is None else int.from_bytes(bits) for bits in found]
            columns.fields.append(column.field)
            columns.arrays.append(pa.array(numbers, pa.int64()).cast(type_))
        elif pa.types.is_binary(type_):
            columns.fields.append(column.field)
            columns.arrays.append(pa.array(found, type_))
        else:
            if pa.types.is_temporal(type_) and any(text is not None and text.startswith("0000-00-00") for text in found):
                coercions[column.name] = "0000-00-00 read as null"
                found = tuple(None if text is not None and text.startswith("0000-00-00") else text for text in found)
            columns.add(column, pa.array(found, pa.string()))
    positions = list(zip(*values[len(select.columns) :], strict=True))
    metadata = {"coercions": coercions} if coercions else {}
    if not columns.bad:
        return Chunk(columns.table(), positions, metadata=metadata)
    names = [column.name for column in select.columns]
    unreadable = columns.unreadable(lambda row: dict(zip(names, rows[row], strict=False)))
    return Chunk(columns.table(), [p for row, p in enumerate(positions) if row not in columns.bad], unreadable, metadata)


def _is_number(text: str) -> bool:
    return text.lstrip("-").replace(".", "", 1).isdecimal()
