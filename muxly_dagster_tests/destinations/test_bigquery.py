"""Rows and offset arrive together or not at all, in a BigQuery table that follows the source; Google's own client does the talking."""

import datetime as dt
import decimal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import orjson
import pyarrow as pa
import pytest
from pydantic import ValidationError

from muxly_dagster import records
from muxly_dagster.destination import Receipt
from muxly_dagster.destinations.bigquery import Bigquery
from muxly_dagster.destinations.bigquery.landing import column_name
from muxly_dagster.errors import ConfigurationError
from muxly_dagster.testing import EVERY_TYPE, DestinationContract, changes, delivery
from muxly_dagster_tests.destinations.bigquery_lab import Cuts, Warehouse, impatient, warehouse, without_record_columns
from muxly_dagster_tests.peers.discovery import Discovery


@pytest.fixture
def mart(monkeypatch: pytest.MonkeyPatch) -> Iterator[Warehouse]:
    impatient(monkeypatch)
    with warehouse() as found:
        yield found


class BigqueryContract(DestinationContract):
    mode = "upsert"

    @pytest.fixture
    def destination(self, mart: Warehouse) -> Bigquery:
        return mart.destination(mode=self.mode)

    def stored(self, destination: Bigquery) -> list[dict[str, Any]]:
        return [without_record_columns(row) for row in self.mart.rows()]

    @pytest.fixture(autouse=True)
    def _somewhere(self, mart: Warehouse) -> None:
        self.mart = mart

    def away(self) -> Bigquery:
        return self.mart.destination(mode=self.mode, api_endpoint="http://127.0.0.1:1")

    def wrong(self) -> Bigquery:
        return self.mart.destination(mode=self.mode, owner="stranger")

    def interrupted(self) -> Bigquery:
        self.mart.bigquery.watch = Cuts("/upload/", "after", times=1)
        return self.mart.destination(mode=self.mode)


class TestBigqueryUpsert(BigqueryContract):
    pass


class TestBigqueryMirror(BigqueryContract):
    mode = "mirror"


class TestBigqueryReplace(BigqueryContract):
    mode = "replace"


class TestBigqueryAppend(BigqueryContract):
    mode = "append"
    keeps = "changes"


# ---- modes


def test_append_adds_every_change_by_one_load_job_straight_into_the_table(mart: Warehouse) -> None:
    receipt = mart.destination(mode="append").deliver(delivery([{"id": 1}, {"id": 1}, {"id": 1}], ops=["upsert", "upsert", "delete"]))
    assert (receipt.accepted, receipt.detail["rows_written"], receipt.detail["table"]) == (3, 3, "lab.mart.crm_deals")
    assert [(r["_muxly_seq"], r["_muxly_op"]) for r in mart.rows()] == [(1, "upsert"), (2, "upsert"), (3, "delete")]
    (load,) = mart.loads()
    assert load["destinationTable"]["tableId"] == "crm_deals" and load["sourceFormat"] == "PARQUET"
    assert load["id"].endswith("-0-3-0")
    assert not any("MERGE" in statement for statement in mart.statements())


def test_upsert_merges_from_a_stage_that_is_gone_afterwards_and_would_expire(mart: Warehouse) -> None:
    mart.destination().deliver(delivery([{"id": 1, "n": 1}, {"id": 2, "n": 2}]))
    mart.destination().deliver(delivery([{"id": 2, "n": 3}, {"id": 3, "n": 4}], after=2))
    assert mart.rows() == [{"id": 1, "n": 1}, {"id": 2, "n": 3}, {"id": 3, "n": 4}]
    assert mart.stages() == []
    made = [e.sent for e in mart.bigquery.asked("/tables") if e.method == "POST" and "stage" in e.sent["tableReference"]["tableId"]]
    assert len(made) == 2 and all(int(stage["expirationTime"]) for stage in made)
    transactions = [s for s in mart.statements() if s.startswith("BEGIN TRANSACTION") and "MERGE" in s and "COMMIT TRANSACTION" in s]
    assert len(transactions) == 2


def test_upsert_keeps_what_the_source_deleted(mart: Warehouse) -> None:
    mart.destination().deliver(delivery([{"id": 1}, {"id": 2}, {"id": 1}], ops=["upsert", "upsert", "delete"]))
    mart.destination().deliver(delivery([{"id": 2}], ops=["delete"], after=3))
    assert mart.rows() == [{"id": 1}, {"id": 2}]
    assert mart.destination().position("big_deals.warehouse", "0b8e1f9c") == 4


def test_mirror_deletes_what_the_source_deleted_and_nothing_else(mart: Warehouse) -> None:
    mart.put([{"name": "id", "type": "INTEGER"}, {"name": "note", "type": "STRING"}], [{"id": 77, "note": "by hand"}])
    destination = mart.destination(mode="mirror")
    destination.deliver(delivery([{"id": 1}, {"id": 2}]))
    receipt = destination.deliver(delivery([{"id": 1}, {"id": 3}, {"id": 3}], ops=["delete", "delete", "upsert"], after=2))
    assert (receipt.accepted, receipt.detail["rows_written"], receipt.detail["rows_deleted"]) == (3, 1, 1)
    assert [r["id"] for r in mart.rows()] == [2, 3, 77]


def test_upsert_deletes_where_it_is_told_to(mart: Warehouse) -> None:
    destination = mart.destination(deletes=True)
    destination.deliver(delivery([{"id": 1}, {"id": 2}]))
    destination.deliver(delivery([{"id": 1}], ops=["delete"], after=2))
    assert [r["id"] for r in mart.rows()] == [2]
    assert destination.passes_deletes and mart.destination(mode="mirror").passes_deletes and not mart.destination().passes_deletes


@pytest.mark.parametrize("key", [("id",), ()])
def test_replace_empties_the_table_once_before_the_first_delivery_of_a_series(mart: Warehouse, key: tuple[str, ...]) -> None:
    mart.put([{"name": "id", "type": "INTEGER"}], [{"id": 77}])
    destination = mart.destination(mode="replace")
    ops = None if key else ["append"]

    def send(number: int, **more: Any) -> None:
        destination.deliver(delivery([{"id": number}], key=key, ops=ops, **more))  # type: ignore[arg-type]

    send(1, after=5)
    send(2, after=6)
    send(3, after=0, delivery_id="big_deals.warehouse/a-replayed-letter")
    assert [r["id"] for r in mart.rows()] == [1, 2, 3]
    send(9, table_id="the lake table was built anew")
    assert [r["id"] for r in mart.rows()] == [9]


@pytest.mark.parametrize("mode", ["append", "upsert"])
def test_a_letter_that_is_refused_again_after_a_rewind_can_be_replayed_again(mart: Warehouse, mode: str) -> None:
    """Its id is the same as before, and so would be the offset of its first replay."""
    destination = mart.destination(mode=mode)

    def replay(text: str) -> Receipt:
        return destination.deliver(delivery([{"id": 2, "text": text}], after=1, delivery_id="big_deals.warehouse/letter"))

    destination.deliver(delivery([{"id": 1, "text": "a"}]))
    assert replay("b").detail["rows_written"] == 1
    assert replay("b").detail["repeated"]
    destination.rewind("big_deals.warehouse", "0b8e1f9c", 0)
    assert replay("corrected").detail["rows_written"] == 1
    assert replay("corrected").detail["repeated"]
    texts = [row["text"] for row in mart.rows() if row["id"] == 2]
    assert texts == (["b", "corrected"] if mode == "append" else ["corrected"])


def test_only_where_changes_are_added_a_key_has_several_rows(mart: Warehouse) -> None:
    assert [mart.destination(mode=mode).one_row_per_key for mode in ("append", "upsert", "mirror", "replace")] == [False, True, True, True]


def test_a_table_without_a_key_is_known_by_muxlys_own(mart: Warehouse) -> None:
    destination = mart.destination(mode="mirror")
    destination.deliver(delivery([{"id": 1}, {"id": 1}], key=()))
    assert len(mart.rows()) == 2
    gone = changes([{"id": 1}], key=(), ops=["delete"], first=3).set_column(2, records.ENVELOPE.field(records.KEY), pa.array(["#1"]))
    destination.deliver(delivery(gone, key=(), after=2))
    assert mart.rows() == [{"id": 1, "_muxly_key": "#2"}]


def test_events_without_a_key_are_added_as_they_are(mart: Warehouse) -> None:
    destination = mart.destination()
    destination.deliver(delivery([{"id": 1}, {"id": 1}], key=(), ops=["append", "append"]))
    destination.deliver(delivery([{"id": 1}], key=(), ops=["append"], after=2))
    assert mart.rows() == [{"id": 1}] * 3


def test_a_composite_key_identifies_a_row(mart: Warehouse) -> None:
    rows = [{"id": 1, "region": "eu", "n": 1}, {"id": 1, "region": "us", "n": 2}, {"id": 1, "region": "eu", "n": 3}]
    destination = mart.destination(mode="mirror")
    destination.deliver(delivery(rows, key=("id", "region")))
    destination.deliver(delivery([{"id": 1, "region": "us", "n": 2}], key=("id", "region"), ops=["delete"], after=3))
    assert mart.rows() == [{"id": 1, "region": "eu", "n": 3}]
    assert mart.bigquery.tables["mart.crm_deals"].key == ["id", "region"]


def test_a_table_that_is_all_key_can_be_upserted(mart: Warehouse) -> None:
    mart.destination().deliver(delivery([{"id": 1}]))
    mart.destination().deliver(delivery([{"id": 1}, {"id": 2}], after=1))
    assert mart.rows() == [{"id": 1}, {"id": 2}]


def test_record_columns_carry_what_muxly_knows(mart: Warehouse) -> None:
    mart.destination(record_columns=["seq", "op", "key", "hash", "at", "run", "metadata"]).deliver(delivery([{"id": 1}]))
    assert {name for name in mart.rows()[0] if name.startswith("_muxly_")} == set(records.ENVELOPE.names)


# ---- exactly once


@pytest.mark.parametrize("mode", ["append", "mirror"])
def test_a_stretch_that_was_delivered_is_not_applied_again(mart: Warehouse, mode: str) -> None:
    destination = mart.destination(mode=mode)
    stretch = delivery([{"id": 1}, {"id": 2}])
    destination.deliver(stretch)
    receipt = destination.deliver(stretch)
    assert (receipt.accepted, receipt.detail["repeated"]) == (2, True)
    assert [r["id"] for r in mart.rows()] == [1, 2]


@pytest.mark.parametrize("mode", ["append", "mirror"])
def test_of_a_stretch_that_was_half_delivered_only_the_rest_is_applied(mart: Warehouse, mode: str) -> None:
    destination = mart.destination(mode=mode)
    destination.deliver(delivery([{"id": 1}, {"id": 2}]))
    receipt = destination.deliver(delivery([{"id": 1}, {"id": 2}, {"id": 3}]))
    assert (receipt.accepted, receipt.detail["rows_written"]) == (3, 1)
    assert [r["id"] for r in mart.rows()] == [1, 2, 3]


@pytest.mark.parametrize("mode", ["append", "upsert"])
def test_the_position_can_be_set_back_to_deliver_again(mart: Warehouse, mode: str) -> None:
    destination = mart.destination(mode=mode)
    stretch = delivery([{"id": 1}, {"id": 2}])
    destination.rewind(stretch.id, stretch.table_id, 0)
    destination.deliver(stretch)
    mart.bigquery.put("mart.crm_deals", mart.table().slice(0, 0))
    destination.rewind(stretch.id, stretch.table_id, 1)
    assert destination.position(stretch.id, stretch.table_id) == 1
    destination.deliver(stretch)
    assert [r["id"] for r in mart.rows()] == [2]


@pytest.mark.parametrize("mode", ["append", "upsert"])
def test_a_dataset_that_was_made_anew_gets_everything_though_the_jobs_are_remembered(mart: Warehouse, mode: str) -> None:
    destination = mart.destination(mode=mode)
    stretch = delivery([{"id": 1}, {"id": 2}])
    destination.deliver(stretch)
    mart.bigquery.tables.clear()
    assert destination.position(stretch.id, stretch.table_id) is None
    destination.deliver(stretch)
    assert [r["id"] for r in mart.rows()] == [1, 2]


@pytest.mark.parametrize("mode", ["append", "upsert"])
def test_the_same_delivery_from_many_threads_is_applied_once(mart: Warehouse, mode: str) -> None:
    stretch = delivery([{"id": n} for n in range(50)])
    destination = mart.destination(mode=mode)
    with ThreadPoolExecutor(4) as threads:
        receipts = list(threads.map(lambda _: destination.deliver(stretch), range(4)))
    assert [r.accepted for r in receipts] == [50] * 4
    assert [r["id"] for r in mart.rows()] == list(range(50))


def test_offsets_that_no_longer_count_are_cleared_away(mart: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    from muxly_dagster.destinations.bigquery import offsets

    monkeypatch.setattr(offsets, "_PRUNED_AT", 3)
    destination = mart.destination()
    for n in range(6):
        destination.deliver(delivery([{"id": n}], after=n))
    destination.deliver(delivery([{"id": 9}], after=0, delivery_id="another.warehouse"))
    assert destination.position("big_deals.warehouse", "0b8e1f9c") == 6
    held = mart.table("_muxly_offsets").to_pylist()
    assert len([r for r in held if r["delivery"] == "big_deals.warehouse"]) <= 4
    assert len([r for r in held if r["delivery"] == "another.warehouse"]) == 1


# ---- types and names


def test_columns_get_bigquerys_types(mart: Warehouse) -> None:
    schema = pa.schema(
        [
            pa.field("id", pa.int64()),
            pa.field("wide", pa.decimal128(38, 20)),
            pa.field("narrow", pa.decimal128(12, 2)),
            pa.field("doc", pa.string(), metadata=records.JSON_FIELD),
            pa.field("at", records.TIMESTAMP),
        ]
    )
    wide, narrow = decimal.Decimal("123456789012345678.12345678901234567890"), decimal.Decimal("1.25")
    mart.destination().deliver(delivery(changes([{"id": 1, "wide": wide, "narrow": narrow, "doc": {"a": [1, None]}}], schema=schema)))
    assert mart.kinds() == {"id": "INTEGER", "wide": "BIGNUMERIC", "narrow": "NUMERIC", "doc": "JSON", "at": "TIMESTAMP"}
    (row,) = mart.rows()
    assert (row["wide"], row["narrow"], orjson.loads(row["doc"])) == (wide, narrow, {"a": [1, None]})


def test_append_with_json_columns_goes_by_json_lines_exactly(mart: Warehouse) -> None:
    schema = pa.schema({"id": pa.int64(), **{name: type_ for name, (type_, _) in EVERY_TYPE.items()}, "doc": pa.string()})
    row = {"id": 1, **{name: value for name, (_, value) in EVERY_TYPE.items()}, "doc": {"a": ["ü", 9007199254740993]}}
    strange = {"id": 2, "a_float": float("-inf"), "doc": []}
    mart.destination(mode="append").deliver(delivery(changes([row, strange, {"id": 3}], schema=schema)))
    assert mart.loads()[0]["sourceFormat"] == "NEWLINE_DELIMITED_JSON"
    first, second, third = map(without_record_columns, mart.rows())
    assert first == row | {"doc": '{"a":["ü",9007199254740993]}'}
    assert (second["a_float"], second["doc"]) == (float("-inf"), "[]")
    assert [name for name, value in third.items() if value is not None] == ["id"]


def test_json_lines_hold_what_a_json_number_or_a_line_could_not(mart: Warehouse) -> None:
    """Google reads a JSON number as a double, wants four digits in a year, and takes a line's end for the end of a row."""
    schema = pa.schema(
        [
            pa.field("id", pa.int64()),
            pa.field("first", records.TIMESTAMP),
            pa.field("doc", pa.string(), metadata=records.JSON_FIELD),
        ]
    )
    beginning = dt.datetime(1, 1, 1, tzinfo=dt.UTC)
    rows = changes([{"id": 9007199254740993, "first": beginning, "doc": {}}, {"id": -(2**63)}], schema=schema)
    pretty = pa.array(['{\r\n  "a": "b\\n"\n}', None], pa.string())
    rows = rows.set_column(rows.column_names.index("doc"), schema.field("doc"), pretty)
    mart.destination(mode="append", record_columns=[]).deliver(delivery(rows))
    assert mart.rows() == [
        {"id": -(2**63), "first": None, "doc": None},
        {"id": 9007199254740993, "first": beginning, "doc": '{"a":"b\\n"}'},
    ]


def test_a_column_cannot_be_named_as_what_a_stage_says_of_its_rows(mart: Warehouse) -> None:
    with pytest.raises(ConfigurationError, match="_muxly_gone"):
        mart.destination(columns={"amount": "_Muxly_gone"}).deliver(delivery([{"id": 1, "amount": 1}]))


def test_names_that_bigquery_does_not_take_are_mapped(mart: Warehouse) -> None:
    mart.destination(columns={"amount": "deal_amount"}).deliver(delivery([{"id": 1, "amount": 5, "Straße-nr.": 1, "2nd": 2}]))
    assert list(mart.kinds()) == ["id", "deal_amount", "Stra_e_nr_", "_2nd"]
    assert column_name("_PARTITIONTIME") == "c_PARTITIONTIME"
    assert len(column_name("x" * 400)) == 300 and column_name("x" * 400) != column_name("x" * 401)


@pytest.mark.parametrize("other", ["ID", "i d", "i.d"])
def test_two_columns_of_one_name_are_refused(mart: Warehouse, other: str) -> None:
    same = {"ID": "id", "i d": "i_d", "i.d": "i_d"}[other]
    with pytest.raises(ConfigurationError, match=f"columns {same} and {other} of crm.deals would both be named {same}"):
        mart.destination().deliver(delivery([{same: 1, other: 2}], key=(same,)))


def test_tables_can_be_partitioned_and_clustered(mart: Warehouse) -> None:
    destination = mart.destination(mode="append", partition_by="_muxly_at", partition_unit="month", cluster_by=["id"])
    destination.deliver(delivery([{"id": 1}]))
    made = mart.bigquery.tables["mart.crm_deals"].partitioning
    assert made == {"timePartitioning": {"type": "MONTH", "field": "_muxly_at"}, "clustering": {"fields": ["id"]}}
    with pytest.raises(ConfigurationError, match="no column nowhere"):
        mart.destination(table="other", cluster_by=["nowhere"]).deliver(delivery([{"id": 1}], delivery_id="b"))
    with pytest.raises(ConfigurationError, match="column id is INT64, and partitions go by a date or time"):
        mart.destination(table="other", partition_by="id").deliver(delivery([{"id": 1}], delivery_id="c"))


# ---- configuration


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mode": "append", "deletes": True}, "deletes none"),
        ({"mode": "mirror", "deletes": False}, "use `mode: upsert` to keep it"),
        ({"columns": {"a": "b c"}}, "'b_c' would do"),
        ({"dataset": "lab.mart"}, "the project has a field of its own"),
        ({"table": "mart.deals"}, "project and dataset have fields of their own"),
        ({"table": "x`; DROP"}, "no table's name"),
        ({"project": "A B"}, "no project's id"),
        ({"api_endpoint": "http://example.com"}, "must begin with https"),
    ],
)
def test_fields_that_cannot_work_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Bigquery.model_validate({"dataset": "mart"} | fields)


def test_key_columns_must_be_there(mart: Warehouse) -> None:
    with pytest.raises(ConfigurationError, match="the key column id"):
        mart.destination().deliver(delivery(changes([{"name": "Ada"}], key=("name",))))


def test_what_is_sent_is_what_googles_own_description_knows(mart: Warehouse) -> None:
    for mode in ("append", "mirror"):
        destination = mart.destination(mode=mode, table=mode, partition_by="day")
        schema = pa.schema([pa.field("id", pa.int64()), pa.field("day", pa.date32())])
        destination.deliver(delivery(changes([{"id": 1}], schema=schema), delivery_id=mode))
        destination.plan(delivery([{"id": 1, "new": "x" * 6_000_000}], after=1, delivery_id=mode))
        destination.deliver(delivery([{"id": 1, "new": "x" * 6_000_000}], after=1, delivery_id=mode))
        assert destination.check().status == "ok"
    discovery = Discovery("bigquery", "v2")
    answered = [e for e in mart.bigquery.exchanges if e.status == 200]  # a DELETE has no answer to hold against it
    assert len(answered) > 30
    for exchange in answered:
        assert discovery.violations(exchange.method, exchange.path, exchange.query, exchange.sent, exchange.answer) == []
