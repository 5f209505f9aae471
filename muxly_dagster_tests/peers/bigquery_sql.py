"""The tables of the BigQuery stand-in and its SQL: GoogleSQL translated by sqlglot, run by DuckDB over Arrow tables."""

import datetime as dt
import functools
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import duckdb
import pyarrow as pa
import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

_OPENING = threading.Lock()
_JSON = b"google:sqlType:json"
_ADVICE = re.compile(r'(?:Referenced column|column) "?(\w+)"? not found', re.IGNORECASE)


class Refused(Exception):
    """An answer of Google's that refuses, with its HTTP status and reason."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason, self.message = status, reason, message

    def answer(self) -> dict[str, Any]:
        """As Google writes it."""
        if self.reason == "invalid_grant":
            return {"error": self.reason, "error_description": self.message}
        errors = [{"message": self.message, "domain": "global", "reason": self.reason}]
        return {"error": {"code": self.status, "message": self.message, "errors": errors}}


@dataclass
class Relation:
    """A table with every version it had, or a view. A column `_PARTITIONTIME` is one only for who asks for it by name."""

    versions: list[tuple[dt.datetime, pa.Table]] = field(default_factory=list)
    kind: str = "TABLE"
    view: str = ""
    key: Sequence[str] = ()
    fields: list[dict[str, Any]] = field(default_factory=list)
    partitioning: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    partitions: list[tuple[str, dt.datetime, int]] = field(default_factory=list)

    def at(self, moment: dt.datetime | None) -> pa.Table:
        """The rows at a time; now, where there is none."""
        if moment is None:
            return self.versions[-1][1]
        if moment > dt.datetime.now(dt.UTC):
            raise Refused(400, "invalid", "snapshot time is in the future")
        past = [rows for made, rows in self.versions if made <= moment]
        if not past:
            raise Refused(404, "notFound", "the table did not exist at the snapshot time")
        return past[-1]


@dataclass
class Made:
    """What a query gives: its rows (none for other statements), its type, and the bytes it reads."""

    rows: pa.Table | None
    statement: str
    bytes: int


def current(tables: dict[str, Relation], relation: Relation) -> pa.Table:
    """The rows of a table or view now."""
    if not relation.view:
        return visible(relation.at(None))
    rows = run(tables, relation.view, [], dry=False).rows
    assert rows is not None
    return rows


def visible(rows: pa.Table) -> pa.Table:
    """The rows without pseudo-columns."""
    return rows.select([name for name in rows.column_names if not name.startswith("_PARTITION")])


def tables_in(query: str) -> list[exp.Table]:
    """The tables that a query names; none where it is no SQL."""
    try:
        return list(sqlglot.parse_one(query, read="bigquery").find_all(exp.Table))
    except SqlglotError:
        return []


def matching(rows: pa.Table, restriction: str) -> pa.Table:
    """The rows that meet a condition in GoogleSQL."""
    if not restriction:
        return rows
    try:
        condition = settled(sqlglot.parse_one(restriction, read="bigquery"), {}).sql("duckdb")
    except SqlglotError:
        raise Refused(400, "invalid", f"request failed: Query error: Syntax error in the row restriction {restriction!r}") from None
    # Through positions: what DuckDB gives back would have lost the fields' metadata.
    numbered = rows.append_column("_row", pa.array(range(len(rows)), pa.int64()))
    try:
        with opened() as connection:
            connection.register(
                "rows", numbered.select([n for n, t in zip(numbered.column_names, numbered.schema.types, strict=True) if _simple(t)])
            )
            chosen = connection.sql(f"SELECT _row FROM rows WHERE {condition} ORDER BY _row").to_arrow_table()
    except duckdb.Error as error:
        raise Refused(400, "invalid", f"request failed: Query error in the row restriction: {_said(error)}") from None
    return rows.take(chosen["_row"])


def run(tables: dict[str, Relation], query: str, parameters: Sequence[dict[str, Any]], *, dry: bool) -> Made:
    """Run one statement. Raises Refused."""
    try:
        parsed = sqlglot.parse_one(query, read="bigquery")
    except SqlglotError as error:
        raise Refused(400, "invalidQuery", f"Syntax error: {str(error).splitlines()[0]}") from None
    if not isinstance(parsed, exp.Query):
        return Made(None, parsed.key.upper(), 0)
    values = {parameter["name"].lower(): parameter for parameter in parameters}
    with opened() as connection:
        size = 0
        ready = settled(parsed, values)
        for table in list(ready.find_all(exp.Table)):
            if not table.name:
                continue
            rows, name = _found(tables, table)
            columns = {column.name for column in ready.find_all(exp.Column)}
            everything = ready.find(exp.Star) is not None
            size += sum(rows[column].nbytes for column in rows.column_names if everything or column in columns)
            connection.register(name, rows)
            alias = table.args.get("alias")
            table.replace(exp.Table(this=exp.to_identifier(name, quoted=True), alias=alias))
        text = ready.sql("duckdb")
        try:
            made = connection.sql(f"SELECT * FROM ({text}) LIMIT 0" if dry else text).to_arrow_table()
        except duckdb.Error as error:
            raise Refused(400, "invalidQuery", _said(error)) from None
    return Made(as_google(made), "SELECT", size)


def _found(tables: dict[str, Relation], table: exp.Table) -> tuple[pa.Table, str]:
    parts = [part for item in table.parts for part in item.name.split(".")]
    if parts[-2:] == ["INFORMATION_SCHEMA", "PARTITIONS"]:
        dataset = parts[-3]
        listed = [
            (name.partition(".")[2], *partition)
            for name, relation in tables.items()
            if name.startswith(f"{dataset}.")
            for partition in relation.partitions
        ]
        names = ["table_name", "partition_id", "last_modified_time", "total_logical_bytes"]
        types = [pa.string(), pa.string(), pa.timestamp("us", "UTC"), pa.int64()]
        columns = list(zip(*listed, strict=True)) or [()] * 4
        return pa.table([pa.array(column, type_) for column, type_ in zip(columns, types, strict=True)], names=names), "partitions"
    name = ".".join(parts[-2:])
    if name not in tables:
        raise Refused(404, "notFound", f"Not found: Table {'.'.join(parts)} was not found in location EU")
    relation = tables[name]
    return (relation.at(None) if not relation.view else current(tables, relation)), name


def settled(parsed: exp.Expression, values: dict[str, dict[str, Any]]) -> exp.Expression:
    """The statement with its parameters filled in and GoogleSQL's own widths of types."""

    def settle(node: exp.Expression) -> exp.Expression:
        if isinstance(node, exp.Parameter):
            name = node.name.lower()
            if name not in values:
                raise Refused(400, "invalidQuery", f"Query parameter '{name}' not found at [1:1]")
            return _value(values[name])
        if isinstance(node, exp.DataType) and node.is_type(exp.DataType.Type.DECIMAL) and not node.expressions:
            return sqlglot.exp.DataType.build("DECIMAL(38, 9)")
        return node

    return parsed.transform(settle).transform(settle)


def _value(parameter: dict[str, Any]) -> exp.Expression:
    kind, value = parameter["parameterType"], parameter["parameterValue"]
    if kind["type"] == "ARRAY":
        items = [exp.Literal.string(str(item["value"])) for item in value.get("arrayValues", [])]
        inner = kind["arrayType"]["type"]
        return exp.Array(expressions=[exp.cast(item, exp.DataType.build(inner, dialect="bigquery")) for item in items])
    if value.get("value") is None:
        return exp.null()
    return exp.cast(exp.Literal.string(str(value["value"])), exp.DataType.build(kind["type"], dialect="bigquery"))


def opened() -> duckdb.DuckDBPyConnection:
    """A connection of its own to DuckDB: what it registers, and its temporary tables, nobody else sees."""
    with _OPENING:
        connection = _database().cursor()
    connection.execute("SET TimeZone = 'UTC'")
    return connection


@functools.cache
def _database() -> duckdb.DuckDBPyConnection:
    """One for the process: to start it takes a hundred times as long as a connection to it."""
    return duckdb.connect(config={"threads": 1})


def _said(error: duckdb.Error) -> str:
    found = _ADVICE.search(str(error))
    return f"Unrecognized name: {found[1]} at [1:8]" if found else str(error).splitlines()[0]


def _simple(type_: pa.DataType) -> bool:
    return not (pa.types.is_nested(type_) or pa.types.is_decimal256(type_) or pa.types.is_interval(type_))


def as_google(rows: pa.Table) -> pa.Table:
    """DuckDB's result in the Arrow types that BigQuery has."""
    columns = []
    for column in rows.columns:
        type_ = column.type
        if pa.types.is_integer(type_) or (pa.types.is_decimal(type_) and type_.scale == 0):
            column = column.cast(pa.int64())
        elif pa.types.is_decimal128(type_):
            column = column.cast(pa.decimal128(38, 9))
        elif pa.types.is_timestamp(type_) and type_.tz:
            column = column.cast(pa.timestamp("us", "UTC"))
        columns.append(column)
    return pa.table(columns, names=rows.column_names)


# ---- as REST says it --------------------------------------------------------------------------------------------------

_KINDS = [
    (pa.types.is_boolean, "BOOLEAN"),
    (pa.types.is_integer, "INTEGER"),
    (pa.types.is_floating, "FLOAT"),
    (pa.types.is_decimal128, "NUMERIC"),
    (pa.types.is_decimal256, "BIGNUMERIC"),
    (pa.types.is_binary, "BYTES"),
    (pa.types.is_date, "DATE"),
    (pa.types.is_time, "TIME"),
    (pa.types.is_interval, "INTERVAL"),
]


def rest_fields(rows: pa.Table) -> list[dict[str, Any]]:
    """The columns as a TableSchema has them."""
    return [_rest_field(item) for item in rows.schema]


def _rest_field(item: pa.Field) -> dict[str, Any]:
    if pa.types.is_list(item.type):
        return _rest_field(item.type.value_field.with_name(item.name)) | {"mode": "REPEATED"}
    made: dict[str, Any] = {"name": item.name, "mode": "NULLABLE"}
    if pa.types.is_struct(item.type):
        return made | {"type": "RECORD", "fields": [_rest_field(inner) for inner in item.type]}
    if pa.types.is_timestamp(item.type):
        return made | {"type": "TIMESTAMP" if item.type.tz else "DATETIME"}
    if item.metadata and item.metadata.get(b"ARROW:extension:name") == _JSON:
        return made | {"type": "JSON"}
    return made | {"type": next((kind for test, kind in _KINDS if test(item.type)), "STRING")}


def rest_rows(rows: pa.Table) -> list[dict[str, Any]]:
    """Rows as getQueryResults has them, times in microseconds."""
    moments = {f.name for f in rows.schema if pa.types.is_timestamp(f.type) and f.type.tz}
    columns = [rows[name].cast(pa.int64()).to_pylist() if name in moments else rows[name].to_pylist() for name in rows.column_names]
    return [{"f": [{"v": None if value is None else str(value)} for value in row]} for row in zip(*columns, strict=True)]
