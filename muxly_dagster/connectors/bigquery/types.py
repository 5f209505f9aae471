"""BigQuery's types in the lake: Arrow batches as the Storage Read API sends them, without losing a digit.

Source: "Arrow schema details" of the Storage Read API's page; JSON is text there, which the field's metadata says.
"""

import decimal
import math
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from muxly_dagster import records

NUMERIC = pa.decimal128(38, 9)
_SCALAR = {
    "INTEGER": pa.int64(),
    "INT64": pa.int64(),
    "FLOAT": pa.float64(),
    "FLOAT64": pa.float64(),
    "BOOLEAN": pa.bool_(),
    "BOOL": pa.bool_(),
    "STRING": pa.string(),
    "BYTES": pa.binary(),
    "DATE": pa.date32(),
    "DATETIME": records.TIMESTAMP,
    "TIMESTAMP": records.TIMESTAMP,
    "TIME": pa.string(),
    "GEOGRAPHY": pa.string(),
    "INTERVAL": pa.string(),
    "NUMERIC": NUMERIC,
    "BIGNUMERIC": NUMERIC,
}
_EXTENSION = b"ARROW:extension:name"
_JSON = b"google:sqlType:json"
_NUMERIC_UNIT = decimal.Decimal(1).scaleb(-NUMERIC.scale)
_WIDE = decimal.Context(prec=100)


def lake_field(name: str, kind: str, mode: str = "NULLABLE", digits: tuple[int, int] | None = None) -> pa.Field:
    """The lake's column for one of BigQuery's; `digits` are precision and scale, where the column declares them."""
    if mode == "REPEATED" or kind in ("RECORD", "STRUCT", "RANGE", "JSON"):
        return pa.field(name, pa.string(), metadata=records.JSON_FIELD)
    if kind == "BIGNUMERIC" and digits and digits[0] <= NUMERIC.precision:
        return pa.field(name, pa.decimal128(*digits))
    return pa.field(name, _SCALAR.get(kind, pa.string()))


def to_lake(rows: pa.Table, fields: dict[str, pa.Field]) -> pa.Table:
    """The rows in the lake's types; `fields` are the columns as declared. Columns that need no change are not copied.

    A BIGNUMERIC without declared digits is a decimal as wide as NUMERIC where a batch's values all fit exactly, else text. Values
    that would have fitted are written as the lake writes such decimals when it widens their column, so that they do not look changed.
    """
    columns = []
    for field, column in zip(rows.schema, rows.columns, strict=True):
        declared = fields.get(field.name)
        if pa.types.is_nested(field.type):
            texts = [None if value is None else records.to_json(_plain(value, field)).decode() for value in column.to_pylist()]
            columns.append(
                (pa.field(field.name, pa.string(), metadata=records.JSON_FIELD), pa.chunked_array([pa.array(texts, pa.string())]))
            )
        elif pa.types.is_decimal256(field.type):
            column = _decimals(column, declared.type if declared is not None and pa.types.is_decimal128(declared.type) else NUMERIC)
            columns.append((pa.field(field.name, column.type), column))
        elif field.type == pa.month_day_nano_interval():
            texts = [None if value is None else interval_text(value) for value in column.to_pylist()]
            columns.append((pa.field(field.name, pa.string()), pa.chunked_array([pa.array(texts, pa.string())])))
        else:
            is_json = _is_json(field) or (declared is not None and records.is_json(declared))
            columns.append((pa.field(field.name, field.type, metadata=records.JSON_FIELD if is_json else None), column))
    return records.normalise(pa.table([column for _, column in columns], schema=pa.schema([field for field, _ in columns])))


def _is_json(field: pa.Field) -> bool:
    return bool(field.metadata) and field.metadata.get(_EXTENSION) == _JSON


def _decimals(column: pa.ChunkedArray, to: pa.DataType) -> pa.ChunkedArray:
    try:
        return pc.cast(column, to)
    except pa.ArrowInvalid:
        return pa.chunked_array([pa.array(map(_decimal_text, column.to_pylist()), pa.string())])


def _decimal_text(value: decimal.Decimal | None) -> str | None:
    if value is None:
        return None
    narrow = value.quantize(_NUMERIC_UNIT, context=_WIDE)
    if narrow == value and narrow.adjusted() < NUMERIC.precision - NUMERIC.scale:
        return str(narrow)
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _plain(value: Any, field: pa.Field) -> Any:
    """A nested value for JSON: JSON within it as JSON, numbers that JSON has no form for as text."""
    if value is None:
        return None
    type_ = field.type
    if pa.types.is_struct(type_):
        return {inner.name: _plain(value[inner.name], inner) for inner in type_}
    if pa.types.is_list(type_) or pa.types.is_large_list(type_):
        # The metadata of a repeated column's items may stand on the column itself.
        item = field.with_type(type_.value_type) if _is_json(field) else type_.value_field
        return [_plain(item_value, item) for item_value in value]
    if _is_json(field):
        return orjson.Fragment(value)  # as it stands: read and written again, its numbers could lose digits
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, decimal.Decimal):
        return format(value, "f")
    if type_ == pa.month_day_nano_interval():
        return interval_text(value)
    return value


def interval_text(value: Any) -> str:
    """A span of months, days and nanoseconds as BigQuery writes an INTERVAL: `1-2 3 4:5:6.789`."""
    months, days, nanoseconds = value
    sign, micros = "-" if nanoseconds < 0 else "", abs(nanoseconds) // 1000
    seconds, fraction = divmod(micros, 1_000_000)
    tail = f".{fraction:06d}".rstrip("0") if fraction else ""
    years, rest = divmod(abs(months), 12)
    clock = f"{sign}{seconds // 3600}:{seconds // 60 % 60}:{seconds % 60}{tail}"
    return f"{'-' if months < 0 else ''}{years}-{rest} {days} {clock}"
