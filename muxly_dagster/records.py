"""The record form: one consistent shape for every change, as Arrow columns inside Muxly and as JSON outside.

In Arrow, the fields of `data` are typed columns and everything else is a column prefixed `_muxly_`. The lake holds eight
types, nothing else: bool, int64, float64, decimal128, string, binary, date32, timestamp[us, UTC]. Nested values are JSON text in
string columns whose field metadata says so, so that a schema stays stable whatever is inside.
"""

import base64
import datetime as dt
import decimal
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

SEQ = "_muxly_seq"
OP = "_muxly_op"
KEY = "_muxly_key"
HASH = "_muxly_hash"
AT = "_muxly_at"
RUN = "_muxly_run"
METADATA = "_muxly_metadata"

Op = Literal["upsert", "delete", "append"]

TIMESTAMP = pa.timestamp("us", tz="UTC")
ENVELOPE = pa.schema(
    [
        pa.field(SEQ, pa.int64(), nullable=False),  # the change's number in its table: 1, 2, 3 ... without gaps
        pa.field(OP, pa.string(), nullable=False),
        pa.field(KEY, pa.string(), nullable=False),
        pa.field(HASH, pa.int64(), nullable=False),
        pa.field(AT, TIMESTAMP, nullable=False),  # when Muxly read it
        pa.field(RUN, pa.string(), nullable=False),
        pa.field(METADATA, pa.string()),  # JSON: quality flags, coercions; null for none
    ]
)
"""The `_muxly_` columns of a lake table. They stand first: Delta keeps statistics of a table's first columns only."""

JSON_FIELD = {b"muxly": b"json"}
_MAX_DECIMAL = 38


def is_json(field: pa.Field) -> bool:
    """Whether a string column holds JSON text of a nested value."""
    return bool(field.metadata) and field.metadata.get(b"muxly") == b"json"


def data_schema(schema: pa.Schema) -> pa.Schema:
    """The data columns of a lake table's schema, without the envelope."""
    return pa.schema([f for f in schema if not f.name.startswith("_muxly_")])


def to_json(value: Any) -> bytes:
    """JSON as Muxly writes it: RFC 3339 UTC times, decimals as text (exact), bytes in base64."""
    return orjson.dumps(value, default=_json_default, option=orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS)


def _json_default(value: Any) -> Any:
    if isinstance(value, decimal.Decimal):
        return str(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, int):
        return str(value)  # beyond 64 bits
    if isinstance(value, dt.timedelta):
        return value.total_seconds()
    if isinstance(value, set | frozenset | tuple):
        return list(value)
    return str(value)


# ---- types ----------------------------------------------------------------------------------------------------------


def lake_type(type_: pa.DataType) -> pa.DataType:
    """The lake's type for any Arrow type; nested ones become (JSON) text. A null type stays null: not known yet."""
    if pa.types.is_null(type_) or type_ in (pa.bool_(), pa.int64(), pa.float64(), pa.string(), pa.binary(), pa.date32()):
        return type_
    if pa.types.is_uint64(type_):
        return pa.decimal128(20, 0)
    if pa.types.is_integer(type_):
        return pa.int64()
    if pa.types.is_floating(type_):
        return pa.float64()
    if pa.types.is_decimal(type_):
        return pa.decimal128(type_.precision, type_.scale) if type_.precision <= _MAX_DECIMAL and type_.scale >= 0 else pa.string()
    if pa.types.is_timestamp(type_):
        return TIMESTAMP
    if pa.types.is_date(type_):
        return pa.date32()
    if pa.types.is_large_binary(type_) or pa.types.is_fixed_size_binary(type_) or pa.types.is_binary_view(type_):
        return pa.binary()
    if pa.types.is_dictionary(type_):
        return lake_type(type_.value_type)
    return pa.string()


def is_nested(type_: pa.DataType) -> bool:
    """Whether values of this Arrow type are objects or lists."""
    return bool(pa.types.is_nested(type_))


def widen(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    """The smallest lake type that holds the values of both; text when nothing narrower does."""
    if a == b or pa.types.is_null(b):
        return a
    if pa.types.is_null(a):
        return b
    kinds = {a, b}
    if kinds == {pa.int64(), pa.float64()}:
        return pa.float64()
    if kinds == {pa.date32(), TIMESTAMP}:
        return TIMESTAMP
    decimals = [t for t in (a, b) if pa.types.is_decimal(t)]
    if decimals and all(t == pa.int64() or pa.types.is_decimal(t) for t in (a, b)):
        scale = max(t.scale for t in decimals)
        whole = max([t.precision - t.scale for t in decimals] + ([19] if pa.int64() in (a, b) else []))
        if whole + scale <= _MAX_DECIMAL:
            return pa.decimal128(whole + scale, scale)
    return pa.string()


def widen_field(a: pa.Field, b: pa.Field) -> pa.Field:
    """Both columns as one. A column that ever held nested values stays JSON text."""
    return pa.field(a.name, widen(a.type, b.type), metadata=JSON_FIELD if is_json(a) or is_json(b) else None)


def widen_schema(a: pa.Schema, b: pa.Schema) -> pa.Schema:
    """The columns of `a`, widened to hold `b`'s too, then what only `b` has."""
    fields = [widen_field(f, b.field(f.name)) if f.name in b.names else f for f in a]
    return pa.schema(fields + [f for f in b if f.name not in a.names])


def cast(column: pa.ChunkedArray, to: pa.Field, *, was_json: bool = False) -> pa.ChunkedArray:
    """The column's values in a wider type. Raises pa.ArrowInvalid where one does not fit exactly."""
    if is_json(to) and not was_json and not pa.types.is_null(column.type):
        values = [None if v is None else to_json(v).decode() for v in column.to_pylist()]
        return pa.chunked_array([pa.array(values, pa.string())])
    if column.type == to.type:
        return column
    if pa.types.is_binary(column.type) and pa.types.is_string(to.type):
        values = [None if v is None else base64.b64encode(v).decode() for v in column.to_pylist()]
        return pa.chunked_array([pa.array(values, pa.string())])
    return pc.cast(column, to.type)


def conform(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """The rows with exactly these data columns, in this order and these types; missing columns are null.

    Raises pa.ArrowInvalid where a value does not fit exactly.
    """
    if rows.schema.equals(schema, check_metadata=True):
        return rows
    columns = [
        cast(rows[f.name], f, was_json=is_json(rows.schema.field(f.name))) if f.name in rows.column_names else pa.nulls(len(rows), f.type)
        for f in schema
    ]
    return pa.table(columns, schema=schema)


def normalise(rows: pa.Table) -> pa.Table:
    """Rows from any Arrow source (a database, Parquet, DuckDB, pandas) in the lake's types. Columns of unknown type are left out."""
    fields, columns = [], []
    for field, column in zip(rows.schema, rows.columns, strict=True):
        if pa.types.is_null(field.type) or field.name.startswith("_muxly_"):
            continue
        type_ = lake_type(field.type)
        if is_nested(field.type):
            values = [None if v is None else to_json(v).decode() for v in column.to_pylist()]
            fields.append(pa.field(field.name, pa.string(), metadata=JSON_FIELD))
            columns.append(pa.chunked_array([pa.array(values, pa.string())]))
            continue
        if pa.types.is_timestamp(field.type) and field.type.tz is None:
            column = pc.assume_timezone(pc.cast(column, pa.timestamp("us"), safe=False), "UTC")
        fields.append(pa.field(field.name, type_, metadata=JSON_FIELD if is_json(field) else None))
        columns.append(column if column.type == type_ else pc.cast(column, type_, safe=not pa.types.is_temporal(type_)))
    return pa.table(columns, schema=pa.schema(fields)) if fields else pa.table({})


# ---- identity -------------------------------------------------------------------------------------------------------

_SEPARATOR, _NULL, _EMPTY = b"\x1f", b"", b"\x01"


def content_hashes(rows: pa.Table) -> npt.NDArray[np.int64]:
    """One 64-bit hash (XXH3) of each row's data, in the table's column order.

    Nulls at the end do not count, so a column added behind the others changes no hash of a row that lacks it.
    """
    if rows.num_columns == 0:
        return np.zeros(len(rows), np.int64)
    texts = [_bytes(column) for column in rows.columns]
    joined = pc.binary_join_element_wise(*texts, pa.scalar(_SEPARATOR, pa.binary()), null_handling="replace", null_replacement=_NULL)
    return _hash64(joined, strip=True)


def hash_texts(texts: pa.ChunkedArray | pa.Array) -> npt.NDArray[np.int64]:
    """One 64-bit hash (XXH3) per text."""
    return _hash64(texts.cast(pa.binary()), strip=False)


def _hash64(values: pa.ChunkedArray | pa.Array, *, strip: bool) -> npt.NDArray[np.int64]:
    digest = xxhash.xxh3_64_intdigest
    items: Iterable[bytes] = values.to_pylist()
    if strip:
        items = [v.rstrip(_SEPARATOR) for v in items]
    return np.fromiter(map(digest, items), np.uint64, count=len(values)).view(np.int64)


def _bytes(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Values as text, with the empty text told apart from null."""
    if not (pa.types.is_string(column.type) or pa.types.is_binary(column.type)):
        if pa.types.is_timestamp(column.type):
            column = column.cast(pa.int64())  # writing out a time costs thirty times as much
        return pc.cast(column, pa.string()).cast(pa.binary())  # no number, time or truth value is written as nothing
    if any(map(_may_hold_empty, column.chunks)):
        empty = pc.equal(pc.binary_length(column), 0)
        return pc.if_else(empty, pa.scalar(_EMPTY, pa.binary()), column.cast(pa.binary()))
    return column.cast(pa.binary())


def _may_hold_empty(texts: pa.Array) -> bool:
    """Whether some text is empty; also true for nulls, which take no more room."""
    if not len(texts):
        return False
    ends = np.frombuffer(texts.buffers()[1], np.int32)[texts.offset : texts.offset + len(texts) + 1]
    return bool((ends[1:] == ends[:-1]).any())


def key_texts(rows: pa.Table, key: Sequence[str]) -> pa.ChunkedArray:
    """Each row's key as text: the value itself, or a JSON list where the key has several columns. Null where a part is null."""
    columns = [rows[name] for name in key]
    if len(columns) == 1:
        return columns[0] if pa.types.is_string(columns[0].type) else pc.cast(columns[0], pa.string())
    lists = zip(*(c.to_pylist() for c in columns), strict=True)
    return pa.chunked_array([pa.array([None if None in values else to_json(values).decode() for values in lists], pa.string())])


def record_id(table: str, table_id: str, seq: int) -> str:
    """The id of a change: the same change has the same id for ever, wherever it went."""
    return f"{table}:{table_id}:{seq}"


def parse_record_id(text: str) -> tuple[str, str, int] | None:
    """Table, table id and seq of a record id; None if the text is none."""
    table, _, rest = text.partition(":")
    table_id, _, seq = rest.partition(":")
    return (table, table_id, int(seq)) if table and table_id and seq.isdigit() else None


def to_records(rows: pa.Table, *, connector_id: str, table: str, table_id: str) -> list[dict[str, Any]]:
    """Rows of a lake table as JSON-ready records `{id, connector_id, stream, op, key, timestamp, data, metadata}`."""
    schema = data_schema(rows.schema)
    shape = f"{xxhash.xxh3_64_intdigest(str(schema).encode()):016x}"
    # Column by column: to ask Arrow for a dict of each row, and datetime for each text, costs twice as much.
    columns = [_parsed(rows[f.name].to_pylist()) if is_json(f) else rows[f.name].to_pylist() for f in schema]
    data = [dict(zip(schema.names, values, strict=True)) for values in zip(*columns, strict=True)] or [{} for _ in range(len(rows))]
    read_at = pc.strftime(rows[AT].cast(pa.timestamp("us")), format="%Y-%m-%dT%H:%M:%SZ")
    envelope = (rows[name] for name in (SEQ, OP, KEY, HASH, RUN, METADATA))
    records = []
    for seq, op, key, hash_, run, more, at, values in zip(*(c.to_pylist() for c in (*envelope, read_at)), data, strict=True):
        metadata: dict[str, Any] = {
            "run": run,
            "seq": seq,
            "schema_hash": shape,
            "content_hash": f"{hash_ & 0xFFFFFFFFFFFFFFFF:016x}",
        }
        if more:
            metadata |= orjson.loads(more)
        records.append(
            {
                "id": record_id(table, table_id, seq),
                "connector_id": connector_id,
                "stream": table,
                "op": op,
                "key": key,
                "timestamp": at,
                "data": values,
                "metadata": metadata,
            }
        )
    return records


def _parsed(texts: list[str | None]) -> list[Any]:
    return [None if text is None else orjson.loads(text) for text in texts]
