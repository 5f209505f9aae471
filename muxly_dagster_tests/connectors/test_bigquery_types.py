"""BigQuery's types arrive in the lake without losing a digit."""

import datetime as dt
import decimal
import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

from muxly_dagster import records
from muxly_dagster.connectors.bigquery.types import interval_text, lake_field, to_lake
from muxly_dagster_tests.connectors.lab import Lab, lab

D = decimal.Decimal
JSON = {"ARROW:extension:name": "google:sqlType:json"}
BIG = pa.decimal256(76, 38)
RANGE = pa.struct([("start", pa.date32()), ("end", pa.date32())])


@pytest.fixture
def peer() -> Iterator[Lab]:
    with lab() as found:
        yield found


CASES: list[tuple[str, pa.Field, Any, pa.DataType, Any]] = [
    ("INT64", pa.field("x", pa.int64()), 2**63 - 1, pa.int64(), 2**63 - 1),
    ("FLOAT64", pa.field("x", pa.float64()), 0.1, pa.float64(), 0.1),
    ("BOOL", pa.field("x", pa.bool_()), True, pa.bool_(), True),
    ("STRING", pa.field("x", pa.string()), "Ø\x00", pa.string(), "Ø\x00"),
    ("BYTES", pa.field("x", pa.binary()), b"\xff\x00", pa.binary(), b"\xff\x00"),
    ("NUMERIC", pa.field("x", pa.decimal128(38, 9)), D("12345678901234567890123456789.123456789"), pa.decimal128(38, 9), None),
    ("DATE", pa.field("x", pa.date32()), dt.date(1, 1, 1), pa.date32(), dt.date(1, 1, 1)),
    ("TIME", pa.field("x", pa.time64("us")), dt.time(1, 2, 3, 4), pa.string(), "01:02:03.000004"),
    (
        "DATETIME",
        pa.field("x", pa.timestamp("us")),
        dt.datetime(9999, 12, 31, 23, 59, 59, 999999),
        records.TIMESTAMP,
        dt.datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=dt.UTC),
    ),
    ("TIMESTAMP", pa.field("x", records.TIMESTAMP), dt.datetime(2026, 1, 1, microsecond=1, tzinfo=dt.UTC), records.TIMESTAMP, None),
    ("GEOGRAPHY", pa.field("x", pa.string()), "POINT(1 2)", pa.string(), "POINT(1 2)"),
    ("INTERVAL", pa.field("x", pa.month_day_nano_interval()), (14, 3, 14_706_789_000_000), pa.string(), "1-2 3 4:5:6.789"),
]


@pytest.mark.parametrize(("kind", "field", "value", "type_", "expected"), CASES, ids=[case[0] for case in CASES])
def test_every_type_has_its_place(peer: Lab, kind: str, field: pa.Field, value: Any, type_: pa.DataType, expected: Any) -> None:
    peer.bigquery.put("shop.orders", pa.table([pa.array([value, None], field.type)], schema=pa.schema([field])))
    peer.bigquery.tables["shop.orders"].fields = [{"name": "x", "type": kind, "mode": "NULLABLE"}]
    found = pa.concat_tables([batch.rows for batch in peer.batches()])
    assert found.schema == pa.schema([pa.field("x", type_)])
    assert value is not None and [row for row in found["x"].to_pylist() if row is not None] == [value if expected is None else expected]
    assert lake_field("x", kind).type == type_


def test_json_stays_json_as_it_was_written(peer: Lab) -> None:
    column = pa.array(['{"a":12345678901234567890.5}', "null", None])
    peer.bigquery.put("shop.orders", pa.table([column], schema=pa.schema([pa.field("doc", pa.string(), metadata=JSON)])))
    found = pa.concat_tables([batch.rows for batch in peer.batches(streams=1)])
    assert records.is_json(found.schema.field("doc"))
    assert found["doc"].to_pylist() == column.to_pylist()


def test_nested_values_are_json_with_exact_numbers() -> None:
    inner = pa.struct(
        [
            pa.field("n", pa.decimal128(38, 9)),
            pa.field("big", BIG),
            pa.field("doc", pa.string(), metadata=JSON),
            pa.field("at", records.TIMESTAMP),
            pa.field("raw", pa.binary()),
            pa.field("odd", pa.float64()),
            pa.field("span", pa.month_day_nano_interval()),
        ]
    )
    value = {
        "n": D("1.5"),
        "big": D("1E-38"),
        "doc": '{"n":1234567890123456789012.25}',
        "at": dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
        "raw": b"\xff",
        "odd": float("nan"),
        "span": (0, 0, -1_000_000),
    }
    found = to_lake(pa.table({"x": pa.array([[value], None], pa.list_(inner))}), {})
    assert records.is_json(found.schema.field("x"))
    text, missing = found["x"].to_pylist()
    assert missing is None
    assert json.loads(text, parse_float=D) == [
        {
            "n": "1.500000000",
            "big": "0." + "0" * 37 + "1",
            "doc": {"n": D("1234567890123456789012.25")},
            "at": "2026-01-01T00:00:00Z",
            "raw": "/w==",
            "odd": "NaN",
            "span": "0-0 0 -0:0:0.001",
        }
    ]


def test_a_list_of_json_and_a_range() -> None:
    repeated = pa.field("docs", pa.list_(pa.field("item", pa.string(), metadata=JSON)))
    marked = pa.field("marked", pa.list_(pa.string()), metadata=JSON)
    table = pa.table(
        [
            pa.array([["1", '{"a":2}']], repeated.type),
            pa.array([["[3]"]], marked.type),
            pa.array([{"start": dt.date(2026, 1, 1), "end": None}], RANGE),
        ],
        schema=pa.schema([repeated, marked, pa.field("days", RANGE)]),
    )
    assert to_lake(table, {}).to_pylist() == [{"docs": '[1,{"a":2}]', "marked": "[[3]]", "days": '{"start":"2026-01-01","end":null}'}]


def _bignumeric(*values: str, declared: pa.Field | None = None) -> pa.ChunkedArray:
    table = pa.table({"x": pa.array([D(value) for value in values], BIG)})
    return to_lake(table, {"x": declared} if declared is not None else {})["x"]


def test_a_bignumeric_is_a_decimal_where_it_fits_and_text_where_it_does_not() -> None:
    assert _bignumeric("1.5", "-12345678901234567890123456789").type == pa.decimal128(38, 9)
    assert _bignumeric("0.0000000001").to_pylist() == ["0.0000000001"]
    assert _bignumeric("1" * 38).to_pylist() == ["1" * 38]
    declared = lake_field("x", "BIGNUMERIC", digits=(30, 20))
    assert _bignumeric("1.00000000000000000001", declared=declared).type == pa.decimal128(30, 20)


@pytest.mark.parametrize("value", ["1" + "0" * 30, "-12" + "0" * 36, "0"])
def test_a_large_bignumeric_without_a_fraction_keeps_its_zeros(value: str) -> None:
    """BIGNUMERIC(P, 0) comes with no digits behind the point."""
    whole, wider = pa.decimal256(38, 0), pa.decimal256(60, 0)
    for type_ in (whole, wider):
        found = to_lake(pa.table({"x": pa.array([D(value)], type_)}), {})["x"]
        assert [D(str(one)) for one in found.to_pylist()] == [D(value)]


@pytest.mark.parametrize("value", ["1.5", "0", "-0.000000001", "123456789", "-12345678901234567890123456789.000000001"])
def test_a_bignumeric_that_becomes_text_reads_as_the_lakes_own_decimals_do(value: str) -> None:
    as_decimal, as_text = pa.table({"x": _bignumeric(value)}), pa.table({"x": _bignumeric(value, "0.0000000001")})
    widened = records.conform(as_decimal, pa.schema([("x", pa.string())]))
    assert widened["x"][0] == as_text["x"][0]
    assert D(as_text["x"][0].as_py()) == D(value)


@pytest.mark.parametrize(
    ("months", "days", "nanoseconds", "text"),
    [(0, 0, 0, "0-0 0 0:0:0"), (-14, -3, 0, "-1-2 -3 0:0:0"), (120000, 3660000, 87_840_000 * 3600 * 10**9, "10000-0 3660000 87840000:0:0")],
)
def test_intervals_are_written_as_bigquery_does(months: int, days: int, nanoseconds: int, text: str) -> None:
    assert interval_text((months, days, nanoseconds)) == text


def test_columns_that_need_no_change_are_not_copied() -> None:
    table = pa.table({"id": pa.array([1, 2], pa.int64()), "text": ["a", "b"]})
    kept = to_lake(table, {})
    for name in table.column_names:
        before, after = table[name].chunk(0).buffers(), kept[name].chunk(0).buffers()
        assert [b and b.address for b in before] == [b and b.address for b in after]
