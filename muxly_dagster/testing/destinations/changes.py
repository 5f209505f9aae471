"""Changes made by hand, and stretches of them on their way to a destination."""

import datetime as dt
import decimal
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from muxly_dagster import records
from muxly_dagster.destination import Delivery

_READ_AT = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)

EVERY_TYPE: Mapping[str, tuple[pa.DataType, Any]] = {
    "a_bool": (pa.bool_(), True),
    "an_int": (pa.int64(), 2**53 + 1),
    "a_float": (pa.float64(), 0.1),
    "a_decimal": (pa.decimal128(38, 9), decimal.Decimal("12345678901234567890123456789.123456789")),
    "a_text": (pa.string(), 'Grüße, "Ada"\n\t\\N , 文字'),
    "some_bytes": (pa.binary(), b"\x00\xff\\x41"),
    "a_date": (pa.date32(), dt.date(1969, 12, 31)),
    "a_time": (records.TIMESTAMP, dt.datetime(2026, 7, 1, 12, 30, 0, 123456, tzinfo=dt.UTC)),
}
"""A value of each of the lake's types that a careless conversion would change."""


def changes(
    data: Sequence[Mapping[str, Any]],
    *,
    key: Sequence[str] = ("id",),
    ops: Sequence[records.Op] | None = None,
    first: int = 1,
    schema: pa.Schema | None = None,
) -> pa.Table:
    """Rows of a lake table with seqs from `first`, all upserts unless `ops` says otherwise."""
    rows = _rows(data, schema)
    seqs = list(range(first, first + len(rows)))
    keys = records.key_texts(rows, key) if key else pa.array([f"#{n}" for n in seqs])
    envelope = [
        pa.array(seqs, pa.int64()),
        pa.array(ops or ["upsert"] * len(rows), pa.string()),
        keys,
        pa.array(records.content_hashes(rows)),
        pa.array([_READ_AT] * len(rows), records.TIMESTAMP),
        pa.array(["run-1"] * len(rows), pa.string()),
        pa.nulls(len(rows), pa.string()),
    ]
    return pa.table([*envelope, *rows.columns], schema=pa.schema([*records.ENVELOPE, *rows.schema]))


def _rows(data: Sequence[Mapping[str, Any]], schema: pa.Schema | None) -> pa.Table:
    names = schema.names if schema else list(dict.fromkeys(name for row in data for name in row))
    fields, columns = [], []
    for name in names:
        values = [row.get(name) for row in data]
        nested = any(isinstance(v, dict | list) for v in values)
        if nested:
            values = [None if v is None else records.to_json(v).decode() for v in values]
        column = pa.array(values, schema.field(name).type if schema else None)
        fields.append(pa.field(name, column.type, metadata=records.JSON_FIELD if nested else None))
        columns.append(column)
    return records.normalise(pa.table(columns, schema=pa.schema(fields)))


def delivery(
    data: Sequence[Mapping[str, Any]] | pa.Table,
    *,
    key: Sequence[str] = ("id",),
    ops: Sequence[records.Op] | None = None,
    after: int = 0,
    upto: int | None = None,
    delivery_id: str = "big_deals.warehouse",
    table: str = "crm.deals",
    table_id: str = "0b8e1f9c",
) -> Delivery:
    """A stretch of changes that follow `after`, on their way."""
    rows = data if isinstance(data, pa.Table) else changes(data, key=key, ops=ops, first=after + 1)
    end = after + len(rows) if upto is None else upto
    return Delivery(delivery_id, table, table_id, tuple(key), rows, after, end, connector_id="hubspot", run_id="run-1")
