"""Rows and offset arrive together or not at all, in a table that follows the source, in every kind of database."""

import dataclasses
import datetime as dt
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from muxly_dagster import records
from muxly_dagster.delivery import Patience
from muxly_dagster.destination import Receipt
from muxly_dagster.destinations.database import Database
from muxly_dagster.errors import ConfigurationError, RecordRefused
from muxly_dagster.testing import EVERY_TYPE, DestinationContract, changes, delivery
from muxly_dagster_tests.destinations.warehouse import Server, database


def _without_record_columns(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if not name.startswith("_muxly_")}


class DatabaseContract(DestinationContract):
    def stored(self, destination: Database) -> list[dict[str, Any]]:
        return [_without_record_columns(row) for row in Server(destination.url.get_secret_value()).rows()]


class TestPostgresUpsert(DatabaseContract):
    @pytest.fixture
    def destination(self, postgres: str) -> Database:
        return database(url=postgres)

    def away(self) -> Database:
        return database(url="postgresql://someone:a-password@127.0.0.1:1/warehouse")


class TestPostgresMirror(DatabaseContract):
    @pytest.fixture
    def destination(self, postgres: str) -> Database:
        return database(url=postgres, mode="mirror")


class TestPostgresAppend(DatabaseContract):
    keeps = "changes"

    @pytest.fixture
    def destination(self, postgres: str) -> Database:
        return database(url=postgres, mode="append")


class TestSqliteUpsert(DatabaseContract):
    columns = tuple(name for name in EVERY_TYPE if name not in ("a_decimal", "a_date", "a_time"))

    @pytest.fixture
    def destination(self, tmp_path: Path) -> Database:
        return database(url=f"sqlite:///{tmp_path / 'warehouse.db'}")


class TestSqliteReplace(DatabaseContract):
    columns = TestSqliteUpsert.columns

    @pytest.fixture
    def destination(self, tmp_path: Path) -> Database:
        return database(url=f"sqlite:///{tmp_path / 'warehouse.db'}", mode="replace")


class TestSqliteAppend(DatabaseContract):
    keeps = "changes"
    columns = TestSqliteUpsert.columns

    @pytest.fixture
    def destination(self, tmp_path: Path) -> Database:
        return database(url=f"sqlite:///{tmp_path / 'warehouse.db'}", mode="append")


class TestMariaDbUpsert(DatabaseContract):
    @pytest.fixture
    def destination(self, mariadb: str) -> Database:
        return database(url=mariadb)

    @pytest.fixture(autouse=True)
    def _server(self, mariadb: str) -> None:
        self.url = mariadb

    def stored(self, destination: Database) -> list[dict[str, Any]]:
        return [_as_the_lake_has_it(row) for row in super().stored(destination)]

    def away(self) -> Database | None:
        return database(url="mysql://someone:a-password@127.0.0.1:1/warehouse")

    def wrong(self) -> Database:
        return database(url=self.url.replace("root@", "somebody:a-wrong-password@"))


class TestMariaDbMirror(TestMariaDbUpsert):
    @pytest.fixture
    def destination(self, mariadb: str) -> Database:
        return database(url=mariadb.replace("mysql://", "mariadb://"), mode="mirror")


class TestMariaDbAppend(TestMariaDbUpsert):
    keeps = "changes"

    @pytest.fixture
    def destination(self, mariadb: str) -> Database:
        return database(url=mariadb.replace("mysql://", "mysql+pymysql://"), mode="append")


class TestDuckDbUpsert(DatabaseContract):
    @pytest.fixture
    def destination(self, tmp_path: Path) -> Database:
        return database(url=f"duckdb:///{tmp_path / 'warehouse.duckdb'}")


class TestDuckDbReplace(DatabaseContract):
    @pytest.fixture
    def destination(self, tmp_path: Path) -> Database:
        return database(url=f"duckdb:///{tmp_path / 'warehouse.duckdb'}", mode="replace")


class TestDuckDbAppend(DatabaseContract):
    keeps = "changes"

    @pytest.fixture
    def destination(self, tmp_path: Path) -> Database:
        return database(url=f"duckdb:///{tmp_path / 'warehouse.duckdb'}", mode="append")


class TestGenericSqlite(DatabaseContract):
    columns = TestSqliteUpsert.columns

    @pytest.fixture
    def destination(self, tmp_path: Path) -> Database:
        return database(url=f"sqlite+pysqlite:///{tmp_path / 'warehouse.db'}", mode="mirror")

    def stored(self, destination: Database) -> list[dict[str, Any]]:
        return [_as_the_lake_has_it(row) for row in super().stored(destination)]


class TestGenericMariaDb(TestMariaDbUpsert):
    @pytest.fixture(autouse=True)
    def _server(self, mariadb: str) -> None:
        self.url = mariadb.replace("mysql://", "mysql+pymysql://")

    @pytest.fixture
    def destination(self, generic_mariadb_server: Server) -> Database:
        return generic_mariadb_server.destination(mode="mirror")

    def away(self) -> None:
        return None


class TestGenericPostgres(DatabaseContract):
    @pytest.fixture
    def destination(self, generic_postgres_server: Server) -> Database:
        return generic_postgres_server.destination(mode="append")

    keeps = "changes"


def _as_the_lake_has_it(row: dict[str, Any]) -> dict[str, Any]:
    """Truth is a number there, and times are in UTC without saying so."""
    truth = {"a_bool": bool(row["a_bool"])} if row.get("a_bool") is not None else {}
    zoned = {name: value.replace(tzinfo=dt.UTC) for name, value in row.items() if isinstance(value, dt.datetime)}
    return row | truth | zoned


# ---- modes


def test_upsert_keeps_what_the_source_deleted(server: Server) -> None:
    receipt = server.destination().deliver(delivery([{"id": 1}, {"id": 2}, {"id": 1}], ops=["upsert", "upsert", "delete"]))
    assert receipt.accepted == 3
    server.destination().deliver(delivery([{"id": 2}], ops=["delete"], after=3))
    assert server.rows() == [{"id": 1}, {"id": 2}]


def test_mirror_deletes_what_the_source_deleted_and_nothing_else(server: Server) -> None:
    server.run("create table crm_deals (id bigint primary key, note text)")
    server.run("insert into crm_deals values (77, 'by hand')")
    destination = server.destination(mode="mirror")
    destination.deliver(delivery([{"id": 1}, {"id": 2}]))
    receipt = destination.deliver(delivery([{"id": 1}, {"id": 3}, {"id": 3}], ops=["delete", "delete", "upsert"], after=2))
    assert (receipt.accepted, receipt.detail["rows_deleted"]) == (3, 1)
    assert [r["id"] for r in server.rows()] == [2, 3, 77]


def test_upsert_deletes_where_it_is_told_to(server: Server) -> None:
    destination = server.destination(deletes=True)
    destination.deliver(delivery([{"id": 1}, {"id": 2}]))
    destination.deliver(delivery([{"id": 1}], ops=["delete"], after=2))
    assert [r["id"] for r in server.rows()] == [2]


def test_replace_empties_the_table_once_before_the_first_delivery_of_a_series(server: Server) -> None:
    server.run("create table crm_deals (id bigint primary key)")
    server.run("insert into crm_deals values (77)")
    destination = server.destination(mode="replace")
    destination.deliver(delivery([{"id": 1}], after=5))
    destination.deliver(delivery([{"id": 2}], after=6))
    destination.deliver(delivery([{"id": 3}], after=0, delivery_id="big_deals.warehouse/a-replayed-letter"))
    assert [r["id"] for r in server.rows()] == [1, 2, 3]
    destination.deliver(delivery([{"id": 9}], table_id="the lake table was built anew"))
    assert [r["id"] for r in server.rows()] == [9]


def test_append_writes_every_change_with_its_operation(server: Server) -> None:
    server.destination(mode="append").deliver(delivery([{"id": 1}, {"id": 1}, {"id": 1}], ops=["upsert", "upsert", "delete"]))
    found = server.run("select id, _muxly_seq, _muxly_op from crm_deals order by _muxly_seq")
    assert [tuple(r.values()) for r in found] == [(1, 1, "upsert"), (1, 2, "upsert"), (1, 3, "delete")]


def test_a_table_without_a_key_is_known_by_muxlys_own(server: Server) -> None:
    destination = server.destination(mode="mirror")
    destination.deliver(delivery([{"id": 1}, {"id": 1}], key=()))
    assert len(server.rows()) == 2
    gone = changes([{"id": 1}], key=(), ops=["delete"], first=3).set_column(2, records.ENVELOPE.field(records.KEY), pa.array(["#1"]))
    destination.deliver(delivery(gone, key=(), after=2))
    assert server.rows() == [{"_muxly_key": "#2", "id": 1}]


def test_events_without_a_key_are_added_as_they_are(server: Server) -> None:
    destination = server.destination()
    destination.deliver(delivery([{"id": 1}, {"id": 1}], key=(), ops=["append", "append"]))
    destination.deliver(delivery([{"id": 1}], key=(), ops=["append"], after=2))
    assert server.rows() == [{"id": 1}] * 3


def test_columns_and_tables_can_have_other_names(server: Server) -> None:
    destination = server.destination(table="Big Deals", columns={"id": "deal id", "amount": 'am"ount'}, record_columns=["run"])
    destination.deliver(delivery([{"id": 1, "amount": 5}, {"id": 1, "amount": 6}]))
    assert server.run('select * from "Big Deals"') == [{"deal id": 1, 'am"ount': 6, "_muxly_run": "run-1"}]


def test_a_composite_key_identifies_a_row(server: Server) -> None:
    rows = [{"id": 1, "region": "eu", "n": 1}, {"id": 1, "region": "us", "n": 2}, {"id": 1, "region": "eu", "n": 3}]
    destination = server.destination(mode="mirror")
    destination.deliver(delivery(rows, key=("id", "region")))
    destination.deliver(delivery([{"id": 1, "region": "us", "n": 2}], key=("id", "region"), ops=["delete"], after=3))
    assert server.rows() == [{"id": 1, "region": "eu", "n": 3}]


def test_a_table_that_is_all_key_can_be_upserted(server: Server) -> None:
    server.destination().deliver(delivery([{"id": 1}]))
    server.destination().deliver(delivery([{"id": 1}, {"id": 2}], after=1))
    assert server.rows() == [{"id": 1}, {"id": 2}]


# ---- exactly once


def test_a_stretch_that_was_delivered_is_not_applied_again(server: Server) -> None:
    destination = server.destination(mode="append")
    stretch = delivery([{"id": 1}, {"id": 2}])
    destination.deliver(stretch)
    receipt = destination.deliver(stretch)
    assert (receipt.accepted, receipt.detail["repeated"]) == (2, True)
    assert [r["id"] for r in server.rows()] == [1, 2]


def test_of_a_stretch_that_was_half_delivered_only_the_rest_is_applied(server: Server) -> None:
    destination = server.destination(mode="append")
    destination.deliver(delivery([{"id": 1}, {"id": 2}]))
    receipt = destination.deliver(delivery([{"id": 1}, {"id": 2}, {"id": 3}]))
    assert (receipt.accepted, receipt.detail["rows_written"]) == (3, 1)
    assert [r["id"] for r in server.rows()] == [1, 2, 3]


def test_the_position_can_be_set_back_to_deliver_again(server: Server) -> None:
    destination = server.destination()
    stretch = delivery([{"id": 1}, {"id": 2}])
    destination.rewind(stretch.id, stretch.table_id, 0)
    destination.deliver(stretch)
    server.run("delete from crm_deals")
    destination.rewind(stretch.id, stretch.table_id, 1)
    assert destination.position(stretch.id, stretch.table_id) == 1
    destination.deliver(stretch)
    assert [r["id"] for r in server.rows()] == [2]


def test_a_letter_that_is_refused_again_after_a_rewind_can_be_replayed_again(server: Server) -> None:
    """Its replay has a position of its own, which must not say of the second time that it was delivered before."""
    destination = server.destination(mode="append")
    stretch = delivery([{"id": 1}])
    letters = [dataclasses.replace(stretch, id=f"{stretch.id}{name}") for name in ("/0123456789abcdef", "_of_another/0123456789abcdef")]
    for letter in letters:
        destination.deliver(letter)
    server.run("delete from crm_deals")
    destination.rewind(stretch.id, stretch.table_id, 0)
    for letter in letters:
        destination.deliver(letter)
    assert [r["id"] for r in server.rows()] == [1], "the other delivery was not set back"


def as_the_road_does(attempt: Callable[[], Receipt]) -> Receipt:
    """Again where a trouble passes: MariaDB tells nothing of a table that another connection is making at that moment."""
    return Patience(attempts=20, base=0.02, cap=0.2).retrying(attempt)


def test_the_same_delivery_from_many_threads_is_applied_once(server: Server) -> None:
    stretch = delivery([{"id": n} for n in range(500)])
    destination = server.destination(mode="append")
    with ThreadPoolExecutor(4) as threads:
        receipts = list(threads.map(lambda _: as_the_road_does(lambda: destination.deliver(stretch)), range(4)))
    assert [r.accepted for r in receipts] == [500] * 4
    assert len(server.rows()) == 500


def test_different_deliveries_into_one_table_do_not_get_in_each_others_way(server: Server) -> None:
    def deliver(n: int) -> None:
        rows = [{"id": i, "from": n} for i in (range(200) if n % 2 else range(199, -1, -1))]
        as_the_road_does(lambda: server.destination().deliver(delivery(rows, delivery_id=f"route_{n}.warehouse")))

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(deliver, range(4)))
    assert len(server.rows()) == 200


def test_a_refused_batch_leaves_nothing_behind(server: Server) -> None:
    server.run("create table crm_deals (id bigint primary key, amount bigint not null check (amount < 100))")
    destination = server.destination()
    for bad in ({"id": 2, "amount": 100}, {"id": 2, "amount": None}):
        with pytest.raises(RecordRefused, match="amount"):
            destination.deliver(delivery([{"id": 1, "amount": 1}, bad]))
    assert server.rows() == []
    assert destination.position("big_deals.warehouse", "0b8e1f9c") is None
    assert destination.deliver(delivery([{"id": 1, "amount": 1}])).accepted == 1


# ---- configuration


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"url": "hunter2"}, "must start with postgresql://"),
        ({"url": "duckdb:///"}, "must start with"),
        ({"url": "sqlite:///"}, "must start with"),
        ({"url": "sqlite:///x.db", "schema": "mart"}, "SQLite has no schemas"),
        ({"url": "sqlite:///x.db", "types": {"a": "text; drop table b"}}, "a needs one SQL type"),
        ({"url": "sqlite:///x.db", "indexes": [["a", "a"]]}, "none of them twice"),
        ({"url": "sqlite:///x.db", "mode": "append", "deletes": True}, "deletes none"),
        ({"url": "sqlite:///x.db", "mode": "mirror", "deletes": False}, "use `mode: upsert` to keep it"),
    ],
)
def test_fields_that_cannot_work_are_refused_without_showing_the_address(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message) as caught:
        database(**fields)
    assert "hunter2" not in str(caught.value)


def test_the_address_stays_masked() -> None:
    destination = database(url="postgresql+psycopg2://me:hunter2@db/x")
    assert "hunter2" not in repr(destination) + destination.model_dump_json() + destination.check().tried


def test_an_unknown_url_parameter_is_a_mistake_in_the_configuration(postgres_server: Server) -> None:
    url = postgres_server.url + ("&" if "?" in postgres_server.url else "?") + "colour=red"
    with pytest.raises(ConfigurationError, match="colour"):
        database(url=url).deliver(delivery([{"id": 1}]))


def test_key_columns_must_be_there(server: Server) -> None:
    rows = changes([{"name": "Ada"}], key=("name",))
    with pytest.raises(ConfigurationError, match="the key column id"):
        server.destination().deliver(delivery(rows))


def test_record_columns_carry_what_muxly_knows(server: Server) -> None:
    destination = server.destination(record_columns=["seq", "op", "key", "hash", "at", "run", "metadata"])
    destination.deliver(delivery([{"id": 1}]))
    (row,) = server.rows()
    assert {name for name in row if name.startswith("_muxly_")} == set(records.ENVELOPE.names)
