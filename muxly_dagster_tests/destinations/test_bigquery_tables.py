"""The BigQuery table follows the source, other people's tables stay theirs; looking ahead and checking leave nothing behind."""

import datetime as dt
import decimal
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from muxly_dagster import records
from muxly_dagster.destination import Plan
from muxly_dagster.destinations.bigquery import Bigquery
from muxly_dagster.errors import ConfigurationError, RecordRefused
from muxly_dagster.testing import changes, delivery
from muxly_dagster_tests.destinations.bigquery_lab import Warehouse, impatient, warehouse
from muxly_dagster_tests.peers.bigquery import REFRESH_TOKEN
from muxly_dagster_tests.peers.bigquery_sql import Relation


@pytest.fixture
def mart(monkeypatch: pytest.MonkeyPatch) -> Iterator[Warehouse]:
    impatient(monkeypatch)
    with warehouse() as found:
        yield found


def _do(error: ConfigurationError) -> str:
    return error.problems[0].do


_BIG = pa.decimal128(38, 20)

# ---- growing


@pytest.mark.parametrize("mode", ["append", "upsert"])
@pytest.mark.parametrize(
    ("type_", "value", "kind"),
    [
        (pa.decimal128(10, 2), decimal.Decimal("1.25"), "NUMERIC"),
        (_BIG, decimal.Decimal("1.12345678901234567890"), "BIGNUMERIC"),
        (pa.float64(), 1.5, "FLOAT"),
    ],
)
def test_whole_numbers_widen_in_a_table_that_muxly_made(mart: Warehouse, mode: str, type_: pa.DataType, value: Any, kind: str) -> None:
    destination = mart.destination(mode=mode)
    destination.deliver(delivery([{"id": 1, "n": 5}]))
    schema = pa.schema([pa.field("id", pa.int64()), pa.field("n", type_)])
    receipt = destination.deliver(delivery(changes([{"id": 2, "n": value}], schema=schema, first=2), after=1))
    assert receipt.detail["table_changes"] == [f"changed column n to {'FLOAT64' if kind == 'FLOAT' else kind}"]
    assert mart.kinds()["n"] == kind
    assert [row["n"] for row in mart.rows()] == [5, value]


def test_decimals_widen_too(mart: Warehouse) -> None:
    destination = mart.destination()
    narrow, wide = (pa.schema([pa.field("id", pa.int64()), pa.field("n", type_)]) for type_ in (pa.decimal128(10, 2), _BIG))
    destination.deliver(delivery(changes([{"id": 1, "n": decimal.Decimal("1.25")}], schema=narrow)))
    destination.deliver(delivery(changes([{"id": 2, "n": decimal.Decimal("0.00000000000000000001")}], schema=wide, first=2), after=1))
    destination.deliver(delivery([{"id": 3, "n": 2**53 + 1}], after=2))
    assert [row["n"] for row in mart.rows()] == [decimal.Decimal("1.25"), decimal.Decimal("1E-20"), 2**53 + 1]


def test_what_bigquery_cannot_widen_is_told_with_the_statement_to_run(mart: Warehouse) -> None:
    destination = mart.destination()
    destination.deliver(delivery([{"id": 1, "n": 5}]))
    with pytest.raises(ConfigurationError, match="column n is INT64 in the table, but what arrives is STRING") as told:
        destination.deliver(delivery([{"id": 2, "n": "five"}], after=1))
    assert "ALTER TABLE `lab.mart.crm_deals` RENAME COLUMN `n` TO `n_before`;" in _do(told.value)


def test_other_peoples_columns_are_left_alone(mart: Warehouse) -> None:
    mart.put([{"name": "id", "type": "INTEGER"}, {"name": "n", "type": "INTEGER"}])
    with pytest.raises(ConfigurationError, match="column n is INT64 in the table, but what arrives is FLOAT64") as told:
        mart.destination().deliver(delivery([{"id": 1, "n": 0.5}]))
    assert "ALTER TABLE `lab.mart.crm_deals` ALTER COLUMN `n` SET DATA TYPE FLOAT64;" in _do(told.value)
    assert mart.kinds()["n"] == "INTEGER"


def test_a_table_of_ones_own_takes_what_fits_and_gets_new_columns(mart: Warehouse) -> None:
    mart.put(
        [
            {"name": "ID", "type": "INTEGER"},
            {"name": "id", "type": "INTEGER"},
            {"name": "text", "type": "STRING"},
            {"name": "day", "type": "TIMESTAMP"},
            {"name": "local", "type": "DATETIME"},
            {"name": "whole", "type": "NUMERIC"},
            {"name": "mine", "type": "STRING"},
        ][1:]
    )
    schema = pa.schema(
        {"id": pa.int64(), "text": pa.bool_(), "day": pa.date32(), "local": records.TIMESTAMP, "whole": pa.int64(), "new": pa.float64()}
    )
    row = {"id": 1, "text": True, "day": dt.date(2026, 1, 2), "whole": 7, "new": 0.5}
    moment = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
    receipt = mart.destination().deliver(delivery(changes([row | {"local": moment}], schema=schema)))
    assert receipt.detail["table_changes"] == ["added column new (FLOAT64)"]
    (found,) = mart.rows()
    assert (found["text"], found["whole"], found["new"], found["mine"]) == ("true", 7, 0.5, None)
    assert found["day"] == dt.datetime(2026, 1, 2, tzinfo=dt.UTC) and found["local"] == moment.replace(tzinfo=None)


def test_names_are_found_whatever_their_case(mart: Warehouse) -> None:
    mart.put([{"name": "ID", "type": "INTEGER"}, {"name": "Name", "type": "STRING"}])
    destination = mart.destination(mode="mirror")
    destination.deliver(delivery([{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]))
    destination.deliver(delivery([{"id": 1, "name": "a"}, {"id": 2, "name": "c"}], ops=["delete", "upsert"], after=2))
    assert mart.table().to_pylist() == [{"ID": 2, "Name": "c"}]


def test_a_number_that_a_column_would_round_is_refused(mart: Warehouse) -> None:
    mart.put(
        [
            {"name": "id", "type": "INTEGER"},
            {"name": "f", "type": "FLOAT"},
            {"name": "n", "type": "NUMERIC", "precision": "4", "scale": "1"},
        ]
    )
    destination = mart.destination()
    with pytest.raises(RecordRefused, match="column f is FLOAT64"):
        destination.deliver(delivery([{"id": 1, "f": 2**53 + 1}]))
    with pytest.raises(RecordRefused, match=r"column n is NUMERIC\(4, 1\)"):
        destination.deliver(delivery([{"id": 1, "n": 12345}]))
    with pytest.raises(ConfigurationError, match=r"column n is NUMERIC\(4, 1\) in the table, but what arrives is NUMERIC"):
        destination.deliver(delivery([{"id": 1, "n": decimal.Decimal("0.25")}]))


def test_evolve_false_says_what_would_have_been_changed(mart: Warehouse) -> None:
    destination = mart.destination(evolve=False)
    with pytest.raises(ConfigurationError, match="the table does not exist"):
        destination.deliver(delivery([{"id": 1}]))
    mart.put([{"name": "id", "type": "INTEGER"}])
    destination.deliver(delivery([{"id": 1}]))
    with pytest.raises(ConfigurationError, match=r"forbids: added column city \(STRING\)"):
        destination.deliver(delivery([{"id": 2, "city": "Oslo"}], after=1))
    assert list(mart.kinds()) == ["id"]


def test_a_column_that_must_have_a_value_must_be_among_those_that_arrive(mart: Warehouse) -> None:
    required = {"name": "made_by", "type": "STRING", "mode": "REQUIRED"}
    mart.put([{"name": "id", "type": "INTEGER"}, required])
    with pytest.raises(ConfigurationError, match="made_by is REQUIRED") as told:
        mart.destination().deliver(delivery([{"id": 1}]))
    assert "ALTER COLUMN `made_by` DROP NOT NULL" in _do(told.value)


def test_what_is_no_table_is_not_written_to(mart: Warehouse) -> None:
    mart.bigquery.tables["mart.crm_deals"] = Relation(kind="MATERIALIZED_VIEW", view="SELECT 1 AS id")
    with pytest.raises(ConfigurationError, match="no table but a materialized view"):
        mart.destination().deliver(delivery([{"id": 1}]))


@pytest.mark.parametrize("mode", ["append", "mirror"])
def test_a_table_that_is_gone_is_not_made_anew_without_being_told(mart: Warehouse, mode: str) -> None:
    destination = mart.destination(mode=mode)
    destination.deliver(delivery([{"id": 1}]))
    del mart.bigquery.tables["mart.crm_deals"]
    with pytest.raises(ConfigurationError, match="changes up to 1 were delivered before") as told:
        destination.deliver(delivery([{"id": 2}], after=1))
    assert "--from-start" in _do(told.value)
    destination.rewind("big_deals.warehouse", "0b8e1f9c", 0)
    destination.deliver(delivery([{"id": 1}, {"id": 2}]))
    assert [r["id"] for r in mart.rows()] == [1, 2]


def test_a_key_of_nested_values_stays_text(mart: Warehouse) -> None:
    destination = mart.destination(mode="mirror")
    destination.deliver(delivery([{"id": ["a", 1], "n": 1}]))
    destination.deliver(delivery([{"id": ["a", 1], "n": 2}], after=1))
    assert mart.kinds()["id"] == "STRING"
    assert mart.table().to_pylist() == [{"id": '["a",1]', "n": 2}]


def test_a_large_file_goes_up_in_a_resumable_upload(mart: Warehouse) -> None:
    text = random.Random(1).randbytes(6 << 20).hex()
    destination = mart.destination(mode="append")
    destination.deliver(delivery([{"id": 1, "text": text}]))
    assert mart.rows()[0]["text"] == text
    assert [e.query for e in mart.bigquery.asked("/jobs") if "uploadType" in e.query] == [["uploadType"]]
    assert destination.position("big_deals.warehouse", "0b8e1f9c") == 1


# ---- looking ahead


def test_a_plan_counts_what_a_delivery_would_do_and_leaves_nothing_behind(mart: Warehouse) -> None:
    destination = mart.destination(mode="mirror")
    assert destination.plan(delivery([{"id": 1}, {"id": 2}])) == Plan(inserted=2, notes=("created the table",))
    assert mart.bigquery.tables == {}
    destination.deliver(delivery([{"id": 1}, {"id": 2}, {"id": 3}]))
    before = dict(mart.bigquery.tables)
    ahead = delivery(
        [{"id": 1}, {"id": 2}, {"id": 9}, {"id": 4, "new": "x"}, {"id": 4, "new": "y"}],
        ops=["upsert", "delete", "delete", "upsert", "upsert"],
        after=3,
    )
    assert destination.plan(ahead) == Plan(inserted=1, updated=1, deleted=1, notes=("added column new (STRING)",))
    assert mart.bigquery.tables == before and mart.rows() == [{"id": 1}, {"id": 2}, {"id": 3}]
    assert destination.deliver(ahead).accepted == 5
    assert destination.plan(ahead) == Plan()
    assert mart.destination(mode="append", table="log").plan(delivery([{"id": 1}, {"id": 1}], delivery_id="log")) == Plan(
        inserted=2, notes=("created the table",)
    )


def test_a_plan_of_a_replacement_says_that_the_table_is_emptied(mart: Warehouse) -> None:
    mart.put([{"name": "id", "type": "INTEGER"}], [{"id": 1}])
    planned = mart.destination(mode="replace").plan(delivery([{"id": 1}]))
    assert planned == Plan(inserted=1, notes=("empties the table first",))


# ---- signing in and checking


def test_a_check_says_who_and_where_and_leaves_nothing_behind(mart: Warehouse) -> None:
    result = mart.destination().check()
    assert (result.status, result.what) == (
        "ok",
        "signed in as muxly@lab.iam.gserviceaccount.com; lab.mart is in EU, and its tables can be written",
    )
    assert mart.bigquery.tables == {} and mart.bigquery.jobs == {}
    mart.destination().deliver(delivery([{"id": 1}]))
    assert mart.destination(table="crm_deals").check().status == "ok"


@pytest.mark.parametrize(
    ("permission", "there"),
    [
        ("bigquery.jobs.create", False),
        ("bigquery.tables.create", False),
        ("bigquery.tables.updateData", True),
        ("bigquery.datasets.get", True),
    ],
)
def test_a_check_names_the_permission_that_is_missing(mart: Warehouse, permission: str, there: bool) -> None:
    if there:
        mart.destination().deliver(delivery([{"id": 1}]))
    mart.bigquery.denied.add(permission)
    result = mart.destination().check()
    assert result.status == "failed" and permission in result.what and "grant" in result.do


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"location": "US"}, "location"),  # a query runs there all the same, but sees no dataset of another place
        ({"table": "a_view"}, "view"),
    ],
)
def test_a_check_finds_what_no_delivery_could_do(mart: Warehouse, wrong: dict[str, Any], told: str) -> None:
    mart.destination().deliver(delivery([{"id": 1}]))
    mart.bigquery.tables["mart.a_view"] = Relation(kind="VIEW", view="SELECT 1 AS id")
    result = mart.destination(**wrong).check()
    assert result.status == "failed" and told in f"{result.what} {result.do}"


def test_a_check_asks_for_the_permission_to_make_stages_where_the_tables_are_there(mart: Warehouse) -> None:
    mart.destination().deliver(delivery([{"id": 1}]))
    mart.bigquery.denied.add("bigquery.tables.create")
    result = mart.destination(table="crm_deals").check()
    assert result.status == "failed" and "bigquery.tables.create" in result.what


def test_a_check_misses_the_dataset(mart: Warehouse) -> None:
    result = mart.destination(dataset="nowhere").check()
    assert (result.status, result.tried) == ("failed", "dry run of a query, and the dataset lab.nowhere")
    assert "bq mk --dataset" in result.do


def test_a_user_can_sign_in(mart: Warehouse) -> None:
    auth = {"kind": "oauth2", "client_id": "c", "refresh_token": REFRESH_TOKEN, "token_url": f"{mart.bigquery.url}/token"}
    assert mart.destination(auth=auth).deliver(delivery([{"id": 1}])).accepted == 1
    assert "project" in mart.destination(auth=auth, project="").check().what


def test_the_deployments_own_identity_comes_by_dagsters_resource(mart: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = tmp_path / "key.json"
    key.write_text(mart.bigquery.key())
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key))
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", mart.bigquery.url)
    destination = Bigquery.model_validate({"dataset": "mart", "table": "deals"})
    assert destination.deliver(delivery([{"id": 1}])).accepted == 1
    assert (destination.public_name("crm.deals"), mart.destination().public_name("crm.deals")) == ("mart.deals", "lab.mart.crm_deals")
    assert len(mart.rows("deals")) == 1
