"""How the BigQuery stand-in writes: load jobs, and scripts of GoogleSQL with transactions, run by DuckDB over copies of the tables."""

import base64
import datetime as dt
import decimal
import email.parser
import email.policy
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet
import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from muxly_dagster_tests.peers import bigquery_sql as sql
from muxly_dagster_tests.peers.bigquery_sql import Refused, Relation

_BIG = pa.decimal256(76, 38)
_TYPES = {
    "INTEGER": pa.int64(),
    "FLOAT": pa.float64(),
    "BOOLEAN": pa.bool_(),
    "STRING": pa.string(),
    "JSON": pa.string(),
    "BYTES": pa.binary(),
    "DATE": pa.date32(),
    "TIMESTAMP": pa.timestamp("us", "UTC"),
    "DATETIME": pa.timestamp("us"),
    "NUMERIC": pa.decimal128(38, 9),
    "BIGNUMERIC": _BIG,
}
_NAMES = {"INT64": "INTEGER", "FLOAT64": "FLOAT", "BOOL": "BOOLEAN"}
_ALTERED = {("INTEGER", "NUMERIC"), ("INTEGER", "BIGNUMERIC"), ("INTEGER", "FLOAT"), ("NUMERIC", "BIGNUMERIC"), ("NUMERIC", "FLOAT")}
"""What ALTER COLUMN SET DATA TYPE allows."""


def is_script(query: str) -> bool:
    """Whether this is more than one SELECT."""
    try:
        parsed = [each for each in sqlglot.parse(query, read="bigquery") if each is not None]
    except SqlglotError:
        return False
    return len(parsed) > 1 or not isinstance(parsed[0], exp.Query)


def schema(fields: Sequence[Mapping[str, Any]]) -> pa.Schema:
    """Columns as the API describes them, in the types that hold their values here."""
    return pa.schema([_field(each) for each in fields])


def _field(each: Mapping[str, Any]) -> pa.Field:
    kind = _NAMES.get(each["type"], each["type"])
    if kind not in _TYPES:
        raise Refused(400, "invalid", f"Invalid field type {kind} for field {each['name']}")
    metadata = {b"ARROW:extension:name": b"google:sqlType:json"} if kind == "JSON" else None
    return pa.field(each["name"], _TYPES[kind], metadata=metadata)


# ---- statements --------------------------------------------------------------------------------------------------------


def script(
    tables: dict[str, Relation], query: str, parameters: Sequence[dict[str, Any]], *, dry: bool, breaks: Sequence[str] = ()
) -> sql.Made:
    """Run statements one after the other; within a transaction, all or nothing. Raises Refused, and nothing of what failed is kept.

    Statements of a kind in `breaks` (INSERT) fail as when a machine of Google's goes down.
    """
    try:
        parsed = [each for each in sqlglot.parse(query, read="bigquery") if each is not None]
    except SqlglotError as error:
        raise Refused(400, "invalidQuery", f"Syntax error: {str(error).splitlines()[0]}") from None
    values = {parameter["name"].lower(): parameter for parameter in parameters}
    kind = "SCRIPT" if len(parsed) > 1 else parsed[0].key.upper()
    made = _Session(tables, breaks).run(parsed, values, dry=dry)
    return sql.Made(made, kind, 0)


class _Session:
    """Copies of the tables that the statements name, and which of them have changed since they were last stored."""

    def __init__(self, tables: dict[str, Relation], breaks: Sequence[str]) -> None:
        self._tables, self._breaks = tables, breaks
        self._held: dict[str, Relation] = {}
        self._changed: set[str] = set()
        self._open = False

    def run(self, statements: Sequence[exp.Expression], values: dict[str, dict[str, Any]], *, dry: bool) -> pa.Table | None:
        result = None
        with sql.opened() as connection:
            for statement in statements:
                if statement.key.upper() in self._breaks:
                    raise Refused(400, "backendError", f"The job encountered an error during execution of {statement.key.upper()}")
                if isinstance(statement, exp.Transaction):
                    self._open = True
                elif isinstance(statement, exp.Commit):
                    self._open = False
                    self._store(connection)
                elif isinstance(statement, exp.Alter) and not dry:
                    self._alter(statement)
                elif not isinstance(statement, exp.Create | exp.Alter):
                    result = self._one(connection, statement, values)
                    if not self._open and not dry:
                        self._store(connection)
            if self._open:
                raise Refused(400, "invalidQuery", "Transaction was left open by the script and has been rolled back")
        return result

    def _one(self, connection: duckdb.DuckDBPyConnection, statement: exp.Expression, values: dict[str, dict[str, Any]]) -> pa.Table | None:
        settled = sql.settled(statement, values)
        target = settled.this if isinstance(settled, exp.Insert | exp.Merge | exp.Delete | exp.Update) else None
        written = target.find(exp.Table) if target is not None else None
        for table in list(settled.find_all(exp.Table)):
            if not table.name:
                continue
            name = self._load(connection, table)
            if table is written:
                self._changed.add(name)
            table.replace(exp.Table(this=exp.to_identifier(name, quoted=True), alias=table.args.get("alias")))
        try:
            made = connection.sql(settled.sql("duckdb"))
            return sql.as_google(made.to_arrow_table()) if isinstance(settled, exp.Query) and made is not None else None
        except duckdb.Error as error:
            said = str(error).splitlines()[0]
            if "Malformed JSON" in said:
                raise Refused(400, "invalidQuery", f"Invalid JSON: failed to parse: {said}") from None
            raise Refused(400, "invalidQuery", said) from None

    def _load(self, connection: duckdb.DuckDBPyConnection, table: exp.Table) -> str:
        parts = [part for item in table.parts for part in item.name.split(".")]
        name = ".".join(parts[-2:])
        if name not in self._tables:
            raise Refused(404, "notFound", f"Not found: Table {':'.join(parts[:-2])}:{name} was not found in location EU")
        if name not in self._held:
            relation = self._tables[name]
            self._held[name] = relation
            connection.register("_copied", _in(relation.at(None)))
            connection.execute(f'CREATE TEMP TABLE "{name}" AS SELECT * FROM _copied')
            connection.unregister("_copied")
        return name

    def _store(self, connection: duckdb.DuckDBPyConnection) -> None:
        made = {}
        for name in self._changed:
            relation = self._held[name]
            rows = relation.at(None)
            stored = _out(connection.sql(f'SELECT * FROM "{name}"').to_arrow_table(), rows.schema)
            _required(stored, relation.fields)
            made[name] = stored
        for name, stored in made.items():
            self._held[name].versions.append((dt.datetime.now(dt.UTC), stored))
        self._changed.clear()

    def _alter(self, statement: exp.Alter) -> None:
        parts = [part for item in statement.this.parts for part in item.name.split(".")]
        relation = self._tables[".".join(parts[-2:])]
        for action in statement.args["actions"]:
            name, kind = action.this.name, action.args["dtype"].sql("bigquery")
            kind = _NAMES.get(kind, kind)
            field = next(each for each in relation.fields if each["name"] == name)
            if (field["type"], kind) not in _ALTERED:
                raise Refused(400, "invalidQuery", f"ALTER TABLE ALTER COLUMN SET DATA TYPE requires that {field['type']} is assignable")
            field["type"] = kind
            rows = relation.at(None)
            number = rows.schema.get_field_index(name)
            column = rows[name].cast(pa.float64(), safe=False) if kind == "FLOAT" else _decimals(rows[name], _TYPES[kind])
            relation.versions.append((dt.datetime.now(dt.UTC), rows.set_column(number, pa.field(name, _TYPES[kind]), column)))


def _decimals(values: pa.ChunkedArray, type_: pa.DataType) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array([None if v is None else decimal.Decimal(v) for v in values.to_pylist()], type_)])


def _in(rows: pa.Table) -> pa.Table:
    """For DuckDB, whose decimals end at 38 digits: wider ones as text, each number in one way."""
    columns = [
        pa.chunked_array([pa.array([None if v is None else f"{v:f}" for v in column.to_pylist()], pa.string())])
        if pa.types.is_decimal256(column.type)
        else column
        for column in rows.columns
    ]
    return pa.table(columns, names=rows.column_names)


def _out(rows: pa.Table, into: pa.Schema) -> pa.Table:
    columns = []
    for field, column in zip(into, rows.columns, strict=True):
        if pa.types.is_decimal256(field.type):
            column = _decimals(column, field.type)
        columns.append(column.cast(field.type))
    return pa.table(columns, schema=into)


def _required(rows: pa.Table, fields: Sequence[Mapping[str, Any]]) -> None:
    for each in fields:
        if each.get("mode") == "REQUIRED" and rows[each["name"]].null_count:
            raise Refused(400, "invalidQuery", f"Required field {each['name']} cannot be null")


# ---- uploads and loads -------------------------------------------------------------------------------------------------


def parts(content_type: str, body: bytes) -> tuple[Any, bytes]:
    """Metadata and file of a multipart upload (RFC 2387)."""
    head = f"Content-Type: {content_type}\r\n\r\n".encode()
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
    metadata, media = message.iter_parts()
    boundary = message.get_boundary().encode()
    # The parser would take a file for text: it is cut out of the body instead.
    start = body.index(b"\r\n\r\n", body.index(b"--" + boundary, 2)) + 4
    end = body.rindex(b"\r\n--" + boundary + b"--")
    assert media.get_content_type() == "*/*"
    return json.loads(metadata.get_content()), body[start:end]


def load(tables: dict[str, Relation], settings: Mapping[str, Any], content: bytes) -> None:
    """Add the rows of a file to its table. Raises Refused with the reason that the job ends with."""
    to = settings["destinationTable"]
    name = f"{to['datasetId']}.{to['tableId']}"
    if name not in tables:
        raise Refused(404, "notFound", f"Not found: Table {to['projectId']}:{name}")
    relation = tables[name]
    held = relation.at(None)
    fields = {each["name"]: each for each in relation.fields or sql.rest_fields(held)}
    given = {each["name"]: each for each in settings["schema"]["fields"]}
    for column, each in given.items():
        if column not in fields:
            raise Refused(400, "invalid", f"Provided Schema does not match Table {name}. Cannot add fields (field: {column})")
        for what in ("type", "mode"):
            if each.get(what, "NULLABLE") != fields[column].get(what, "NULLABLE"):
                was, now = fields[column].get(what), each.get(what)
                raise Refused(
                    400, "invalid", f"Provided Schema does not match Table {name}. Field {column} has changed {what} from {was} to {now}"
                )
    rows = _parquet(content, given) if settings["sourceFormat"] == "PARQUET" else _lines(content, given)
    whole = pa.table(
        [
            rows[field.name] if field.name in rows.column_names else pa.chunked_array([pa.nulls(len(rows), field.type)])
            for field in held.schema
        ],
        schema=held.schema,
    )
    for column, each in fields.items():
        if each.get("mode") == "REQUIRED" and whole[column].null_count:
            raise Refused(400, "invalid", f"Error while reading data, error message: Required column {column} contains a null value.")
        longest = int(each.get("maxLength", 0))
        if longest and (pc.max(pc.utf8_length(whole[column])).as_py() or 0) > longest:
            raise Refused(400, "invalid", f"Error while reading data, error message: Value of {column} has more than the maximum length")
    relation.versions.append((dt.datetime.now(dt.UTC), pa.concat_tables([held, whole])))


def _parquet(content: bytes, fields: Mapping[str, Mapping[str, Any]]) -> pa.Table:
    rows = pyarrow.parquet.read_table(io.BytesIO(content))
    columns = []
    for column, values in zip(rows.column_names, rows.columns, strict=True):
        kind = fields[column]["type"]
        if kind == "JSON":
            raise Refused(400, "invalid", "Unsupported field type: JSON")
        decimals = kind in ("NUMERIC", "BIGNUMERIC") and pa.types.is_decimal(values.type)
        if not decimals and values.type != _TYPES[kind]:
            raise Refused(400, "invalid", f"Error while reading data, error message: Parquet column '{column}' has type {values.type}")
        columns.append(values.cast(_TYPES[kind]) if decimals else values)
    return pa.table(columns, schema=schema([fields[column] for column in rows.column_names]))


def _lines(content: bytes, fields: Mapping[str, Mapping[str, Any]]) -> pa.Table:
    columns: dict[str, list[Any]] = {name: [] for name in fields}
    for line in content.splitlines():
        row = json.loads(line, parse_float=decimal.Decimal)
        if set(row) - set(fields):
            raise Refused(400, "invalid", f"Error while reading data, error message: No such field: {(set(row) - set(fields)).pop()}")
        for name, each in fields.items():
            columns[name].append(_value(row.get(name), each["type"]))
    wanted = schema(list(fields.values()))
    return pa.table([pa.array(columns[field.name], field.type) for field in wanted], schema=wanted)


def _value(value: Any, kind: str) -> Any:
    if value is None:
        return None
    match kind:
        case "INTEGER":
            return int(value) if isinstance(value, str) else int(float(value))  # Google reads a number as a double
        case "JSON":
            return json.dumps(value, separators=(",", ":"), ensure_ascii=False, default=float)
        case "FLOAT":
            return float(value)
        case "NUMERIC" | "BIGNUMERIC":
            return decimal.Decimal(value)
        case "BYTES":
            return base64.b64decode(value)
        case "DATE":
            return dt.date.fromisoformat(value)
        case "TIMESTAMP":
            return dt.datetime.strptime(value, "%Y-%m-%d %H:%M:%S.%f UTC").replace(tzinfo=dt.UTC)
        case "DATETIME":
            return dt.datetime.fromisoformat(value)
    return value
