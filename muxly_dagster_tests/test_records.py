"""The record form: exact values, stable hashes, one JSON shape."""

import datetime as dt
import decimal

import orjson
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muxly_dagster import records
from muxly_dagster.lake import Lake

_values = st.one_of(st.none(), st.text(), st.integers(-(2**63), 2**63 - 1), st.booleans())


def test_any_arrow_type_becomes_a_lake_type() -> None:
    table = pa.table(
        {
            "small": pa.array([1], pa.int8()),
            "big": pa.array([2**64 - 1], pa.uint64()),
            "half": pa.array([0.5], pa.float32()),
            "money": pa.array([decimal.Decimal("1.10")], pa.decimal128(10, 2)),
            "naive": pa.array([dt.datetime(2026, 1, 2, 3, 4, 5)], pa.timestamp("ns")),
            "zoned": pa.array([dt.datetime(2026, 1, 2, 3, 4, 5)], pa.timestamp("s", tz="Europe/Berlin")),
            "day": pa.array([dt.date(2026, 1, 2)], pa.date64()),
            "text": pa.array(["x"], pa.large_string()),
            "kind": pa.array(["a"]).dictionary_encode(),
            "nested": pa.array([{"a": [1, decimal.Decimal("2.5")]}], pa.struct([("a", pa.list_(pa.decimal128(5, 1)))])),
            "unknown": pa.nulls(1),
            "_muxly_seq": pa.array([1]),
        }
    )
    lake = records.normalise(table)
    assert {f.name: str(f.type) for f in lake.schema} == {
        "small": "int64",
        "big": "decimal128(20, 0)",
        "half": "double",
        "money": "decimal128(10, 2)",
        "naive": "timestamp[us, tz=UTC]",
        "zoned": "timestamp[us, tz=UTC]",
        "day": "date32[day]",
        "text": "string",
        "kind": "string",
        "nested": "string",
    }
    assert lake["nested"].to_pylist() == ['{"a":["1.0","2.5"]}']
    assert records.is_json(lake.schema.field("nested"))
    assert lake["naive"].to_pylist() == [dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)]


_types = st.sampled_from(
    [
        pa.null(),
        pa.bool_(),
        pa.int64(),
        pa.float64(),
        pa.string(),
        pa.binary(),
        pa.date32(),
        records.TIMESTAMP,
        pa.decimal128(10, 2),
        pa.decimal128(38, 0),
    ]
)


@given(_types, _types, _types)
def test_widening_is_the_same_in_any_order(a: pa.DataType, b: pa.DataType, c: pa.DataType) -> None:
    assert records.widen(a, b) == records.widen(b, a)
    assert records.widen(a, a) == a
    widest = records.widen(records.widen(a, b), c)
    assert records.widen(widest, a) in (widest, pa.string())


@given(st.lists(st.tuples(_values, st.text(), st.integers(-9, 9)), min_size=1, max_size=20, unique=True))
def test_different_rows_have_different_hashes(rows: list[tuple[object, str, int]]) -> None:
    texts = [None if row[0] is None else str(row[0]).rstrip("\x1f") for row in rows]
    table = pa.table({"n": [row[2] for row in rows], "t": [row[1] for row in rows], "v": pa.array(texts, pa.string())})
    distinct = len({tuple(row.values()) for row in table.to_pylist()})
    assert len(set(records.content_hashes(table).tolist())) == distinct


@given(st.lists(st.tuples(st.text(), st.integers()), min_size=1, max_size=20))
def test_a_column_of_nulls_at_the_end_changes_no_hash(rows: list[tuple[str, int]]) -> None:
    table = pa.table({"t": [row[0] for row in rows], "n": [row[1] % 2**60 for row in rows]})
    wider = table.append_column("new", pa.nulls(len(rows), pa.string()))
    assert records.content_hashes(wider).tolist() == records.content_hashes(table).tolist()


def test_hashes_stay_what_they_are_from_release_to_release() -> None:
    table = pa.table({"id": ["1", "2"], "n": pa.array([1, None]), "x": [0.5, 2.0], "ok": [True, False], "none": pa.array([None, ""])})
    assert [f"{value & 0xFFFFFFFFFFFFFFFF:016x}" for value in records.content_hashes(table).tolist()] == [
        "3b8e88975579c980",
        "d196e9ef4115eacf",
    ]


def test_keys_of_several_columns_are_json_lists() -> None:
    table = pa.table({"a": [1, None], "b": ["x", "y"]})
    assert records.key_texts(table, ["a", "b"]).to_pylist() == ['[1,"x"]', None]
    assert records.key_texts(table, ["a"]).to_pylist() == ["1", None]


def test_the_json_record_form(tmp_path: object) -> None:
    lake = Lake(f"{tmp_path}/lake")
    schema = pa.schema(
        [
            ("id", pa.int64()),
            ("amount", pa.decimal128(20, 2)),
            pa.field("tags", pa.string(), metadata=records.JSON_FIELD),
            ("raw", pa.binary()),
        ]
    )
    with lake.writer("crm.deals", key=("id",), run_id="run-1") as writer:
        writer.add(pa.table([[2**60 + 1], [decimal.Decimal("10.10")], ['{"a":[1]}'], [b"\x00\xff"]], schema=schema), {"sampled": True})
        writer.finish(whole=True)
    table = lake.existing("crm.deals")
    [record] = records.to_records(table.changes(0, 1), connector_id="hubspot", table="crm.deals", table_id=table.table_id)
    read = orjson.loads(records.to_json(record))
    assert read["data"] == {"id": 2**60 + 1, "amount": "10.10", "tags": {"a": [1]}, "raw": "AP8="}
    assert {name: read[name] for name in ("connector_id", "stream", "op", "key")} == {
        "connector_id": "hubspot",
        "stream": "crm.deals",
        "op": "upsert",
        "key": str(2**60 + 1),
    }
    assert records.parse_record_id(read["id"]) == ("crm.deals", table.table_id, 1)
    assert read["metadata"]["sampled"] is True
    assert dt.datetime.fromisoformat(read["timestamp"]).utcoffset() == dt.timedelta(0)


@pytest.mark.parametrize("text", ["", "crm.deals", "crm.deals:abc", "crm.deals:abc:x", "crm.deals 1001"])
def test_what_is_no_record_id(text: str) -> None:
    assert records.parse_record_id(text) is None
