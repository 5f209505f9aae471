"""Rows and offset arrive together or not at all, in a table that follows the source, in SQLite and in a real Postgres."""

import contextlib
import datetime as dt
import decimal
import os
import select
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import psycopg
import pyarrow as pa
import pytest
from pydantic import ValidationError

from muxly_dagster import records
from muxly_dagster.destinations.database import Database
from muxly_dagster.errors import ConfigurationError, RecordRefused, RetryLater, SignInError
from muxly_dagster.testing import EVERY_TYPE, DestinationContract, changes, delivery


def database(**fields: Any) -> Database:
    """A destination from fields as they stand in muxly.yaml."""
    return Database(**fields)


class Server:
    """A database to deliver to, and a second way to look into it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.postgres = url.startswith("postgres")

    def destination(self, **fields: Any) -> Database:
        return database(url=self.url, **fields)

    def run(self, statement: str) -> list[dict[str, Any]]:
        if self.postgres:
            with psycopg.connect(self.url) as connection:
                cursor = connection.execute(statement)
                names = [d.name for d in cursor.description or ()]
                return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()] if names else []
        with contextlib.closing(sqlite3.connect(self.url.removeprefix("sqlite:///"))) as file, file:
            found = file.execute(statement)
            return [dict(zip([d[0] for d in found.description], row, strict=True)) for row in found.fetchall()] if found.description else []

    def rows(self, table: str = "crm_deals") -> list[dict[str, Any]]:
        return self.run(f"select * from {table} order by id")

    def types(self, table: str = "crm_deals") -> dict[str, str]:
        if self.postgres:
            query = (
                f"select attname, format_type(atttypid, atttypmod) t from pg_attribute where attrelid = '{table}'::regclass and attnum > 0"
            )
            return {r["attname"]: r["t"] for r in self.run(query)}
        return {r["name"]: r["type"] for r in self.run(f"pragma table_info({table})")}


@pytest.fixture(params=["sqlite", "postgres"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Server:
    if request.param == "postgres":
        return Server(request.getfixturevalue("postgres"))
    return Server(f"sqlite:///{tmp_path / 'warehouse.db'}")


@pytest.fixture
def postgres_server(postgres: str) -> Server:
    return Server(postgres)


@pytest.fixture
def sqlite_server(tmp_path: Path) -> Server:
    return Server(f"sqlite:///{tmp_path / 'warehouse.db'}")


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


def test_the_same_delivery_from_many_threads_is_applied_once(server: Server) -> None:
    stretch = delivery([{"id": n} for n in range(500)])
    destination = server.destination(mode="append")
    with ThreadPoolExecutor(4) as threads:
        receipts = list(threads.map(lambda _: destination.deliver(stretch), range(4)))
    assert [r.accepted for r in receipts] == [500] * 4
    assert len(server.rows()) == 500


def test_different_deliveries_into_one_table_do_not_get_in_each_others_way(server: Server) -> None:
    def deliver(n: int) -> None:
        rows = [{"id": i, "from": n} for i in (range(200) if n % 2 else range(199, -1, -1))]
        server.destination().deliver(delivery(rows, delivery_id=f"route_{n}.warehouse"))

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


# ---- tables that change


def test_the_table_gets_a_type_for_every_column(server: Server) -> None:
    schema = pa.schema([pa.field("id", pa.int64()), *(pa.field(n, t) for n, (t, _) in EVERY_TYPE.items())])
    server.destination().deliver(delivery(changes([{"id": 1}], schema=schema)))
    wanted = (
        ["bigint", "boolean", "bigint", "double precision", "numeric(38,9)", "text", "bytea", "date", "timestamp with time zone"]
        if server.postgres
        else ["BIGINT", "BOOLEAN", "BIGINT", "DOUBLE", "TEXT", "TEXT", "BLOB", "TEXT", "TEXT"]
    )
    assert list(server.types().values()) == wanted


def test_sqlite_keeps_what_it_has_no_type_for_as_exact_text(sqlite_server: Server) -> None:
    schema = pa.schema([pa.field("id", pa.int64()), *(pa.field(n, t) for n, (t, _) in EVERY_TYPE.items())])
    row = {"id": 1, **{name: value for name, (_, value) in EVERY_TYPE.items()}}
    sqlite_server.destination().deliver(delivery(changes([row], schema=schema)))
    (found,) = sqlite_server.rows()
    assert found["a_decimal"] == "12345678901234567890123456789.123456789"
    assert found["a_date"] == "1969-12-31"
    assert found["a_time"] == "2026-07-01T12:30:00.123456Z"


def test_nested_values_can_be_searched_in_postgres(postgres_server: Server) -> None:
    postgres_server.destination().deliver(delivery([{"id": 1, "tags": {"colour": "red", "n": 12345678901234567890}}]))
    found = postgres_server.run("select tags ->> 'colour' as colour, tags ->> 'n' as n from crm_deals")
    assert found == [{"colour": "red", "n": "12345678901234567890"}]


@pytest.mark.parametrize(
    ("first", "then", "kept"),
    [
        (1, 1.5, [1, 1.5]),
        (1, decimal.Decimal("1.10"), [decimal.Decimal("1.00"), decimal.Decimal("1.10")]),
        (decimal.Decimal("1.1"), decimal.Decimal("100.25"), [decimal.Decimal("1.10"), decimal.Decimal("100.25")]),
        (7, "007", ["7", "007"]),
        (True, "007", ["true", "007"]),
        (
            dt.date(2026, 1, 1),
            dt.datetime(2026, 1, 2, 3, tzinfo=dt.UTC),
            [dt.datetime(2026, 1, n, 3 * n - 3, tzinfo=dt.UTC) for n in (1, 2)],
        ),
        (b"\x00\xff", "text", ["AP8=", "text"]),
        ("plain", {"a": 1}, ["plain", {"a": 1}]),
        ({"a": 1}, "plain", ['{"a": 1}', "plain"]),
        ("text", 5, ["text", "5"]),
    ],
)
def test_a_postgres_column_widens_as_the_lakes_did(postgres_server: Server, first: Any, then: Any, kept: list[Any]) -> None:
    destination = postgres_server.destination()
    destination.deliver(delivery([{"id": 1, "value": first}]))
    destination.deliver(delivery([{"id": 2, "value": then}], after=1))
    assert [r["value"] for r in postgres_server.rows()] == kept


@pytest.mark.parametrize(
    ("first", "then", "kept"),
    [
        (1, 1.5, [1, 1.5]),
        (7, "007", ["7", "007"]),
        (1.5, decimal.Decimal("1.10"), ["1.5", "1.10"]),
        (True, "007", ["true", "007"]),
        ("text", 0.1 + 0.2, ["text", "0.30000000000000004"]),
        (0.5, 2**53 + 1, [0.5, 2**53 + 1]),
    ],
)
def test_a_sqlite_column_widens_without_changing_a_value(sqlite_server: Server, first: Any, then: Any, kept: list[Any]) -> None:
    destination = sqlite_server.destination()
    destination.deliver(delivery([{"id": 1, "value": first}]))
    sqlite_server.run("create index by_value on crm_deals (value)")
    destination.deliver(delivery([{"id": 2, "value": then}], after=1))
    destination.deliver(delivery([{"id": 2, "value": then}], after=2))
    assert [r["value"] for r in sqlite_server.rows()] == kept
    assert sqlite_server.run("select name from sqlite_master where name = 'by_value'")


def test_a_key_that_becomes_text_stays_the_key(server: Server) -> None:
    destination = server.destination()
    destination.deliver(delivery([{"id": 1}]))
    destination.deliver(delivery([{"id": "1"}, {"id": "A"}], after=1))
    assert server.rows() == [{"id": "1"}, {"id": "A"}]


def test_a_whole_number_too_large_for_a_double_column_is_refused_not_rounded(postgres_server: Server) -> None:
    postgres_server.run("create table crm_deals (id bigint primary key, amount double precision)")
    destination = postgres_server.destination()
    destination.deliver(delivery([{"id": 1, "amount": 2**53}]))
    with pytest.raises(RecordRefused, match="amount"):
        destination.deliver(delivery([{"id": 2, "amount": 2**53 + 1}], after=1))


def test_a_table_of_somebody_elses_gets_missing_columns_and_keeps_its_own(server: Server) -> None:
    server.run("create table crm_deals (id integer, note varchar(20) default 'none')")
    receipt = server.destination().deliver(delivery([{"id": 1, "name": "Ada"}]))
    assert server.rows() == [{"id": 1, "note": "none", "name": "Ada"}]
    assert [change.partition(" (")[0] for change in receipt.detail["table_changes"]] == ["added column name", "added a unique index on id"]


def test_a_column_of_somebody_elses_that_does_not_fit_is_named_with_what_to_do(server: Server) -> None:
    server.run("create table crm_deals (id bigint primary key, amount integer)")
    with pytest.raises(ConfigurationError, match=r"column amount is (?i:integer)") as caught:
        server.destination().deliver(delivery([{"id": 1, "amount": "a lot"}]))
    assert "set another `table`" in str(caught.value)
    assert {k: v.lower() for k, v in server.types().items()} == {"id": "bigint", "amount": "integer"}


def test_text_goes_into_the_types_postgres_reads_from_text(postgres_server: Server) -> None:
    postgres_server.run("create type stage as enum ('open', 'won')")
    postgres_server.run("create table crm_deals (id uuid primary key, stage stage, at timestamp, extra jsonb)")
    row = {"id": "00000000-0000-0000-0000-000000000001", "stage": "won", "at": dt.datetime(2026, 1, 1, 5, tzinfo=dt.UTC), "extra": "[1]"}
    destination = postgres_server.destination(mode="mirror")
    destination.deliver(delivery([row]))
    assert [(str(r["id"]), r["stage"], r["at"], r["extra"]) for r in postgres_server.rows()] == [
        (row["id"], "won", dt.datetime(2026, 1, 1, 5), [1])
    ]
    with pytest.raises(RecordRefused, match='invalid input value for enum stage: "lost"'):
        destination.deliver(delivery([row | {"stage": "lost"}], after=1))
    assert destination.deliver(delivery([row], ops=["delete"], after=1)).detail["rows_deleted"] == 1


@pytest.mark.parametrize("rows", [2, 2_000])
def test_keys_that_the_database_takes_for_one_are_refused_together_and_taken_alone(postgres_server: Server, rows: int) -> None:
    postgres_server.run("create table crm_deals (id character(12) primary key, n bigint)")  # spaces at its end do not count
    destination = postgres_server.destination()
    stretch = [{"id": f"key {n // 2}" + " " * (n % 2), "n": n} for n in range(rows)]
    with pytest.raises(RecordRefused):
        destination.deliver(delivery(stretch))
    destination.deliver(delivery(stretch[:1]))
    destination.deliver(delivery(stretch[1:2], after=1))
    assert len(postgres_server.rows()) == 1


def test_a_first_load_and_a_second_one_leave_each_key_once(postgres_server: Server) -> None:
    destination = postgres_server.destination(mode="mirror")
    destination.deliver(delivery([{"id": n % 3_000, "n": n} for n in range(5_000)]))
    destination.deliver(delivery([{"id": n, "n": -n} for n in range(2_000, 4_000)], after=5_000))
    found = {r["id"]: r["n"] for r in postgres_server.rows()}
    assert found == {n: (-n if n >= 2_000 else n + 3_000) for n in range(4_000)}


def test_duplicates_in_an_existing_table_are_for_a_person_to_remove(server: Server) -> None:
    server.run("create table crm_deals (id bigint)")
    server.run("insert into crm_deals values (1), (1)")
    with pytest.raises(ConfigurationError, match="several rows with the same id"):
        server.destination().deliver(delivery([{"id": 1}]))


def test_without_evolve_the_table_is_left_as_it_is(server: Server) -> None:
    destination = server.destination(evolve=False)
    with pytest.raises(ConfigurationError, match="does not exist"):
        destination.deliver(delivery([{"id": 1}]))
    server.run("create table crm_deals (id bigint primary key)")
    assert destination.deliver(delivery([{"id": 1}])).accepted == 1
    with pytest.raises(ConfigurationError, match="added column name"):
        destination.deliver(delivery([{"id": 2, "name": "Ada"}], after=1))
    assert list(server.types()) == ["id"]


def test_a_view_is_no_place_to_deliver_to(server: Server) -> None:
    server.run("create view crm_deals as select 1 as id")
    with pytest.raises(ConfigurationError, match="view"):
        server.destination().deliver(delivery([{"id": 1}]))


def test_a_postgres_schema_is_created_and_holds_the_offsets(postgres_server: Server) -> None:
    destination = postgres_server.destination(schema="mart")
    destination.deliver(delivery([{"id": 1}]))
    assert postgres_server.rows("mart.crm_deals") == [{"id": 1}]
    assert postgres_server.run("select seq from mart._muxly_offsets") == [{"seq": 1}]
    assert destination.position("big_deals.warehouse", "0b8e1f9c") == 1
    assert destination.public_name("crm.deals") == "mart.crm_deals"


def test_long_column_names_do_not_run_into_each_other_in_postgres(postgres_server: Server) -> None:
    one, other = "x" * 70 + "a", "x" * 70 + "b"
    destination = postgres_server.destination()
    destination.deliver(delivery([{"id": 1, one: "1", other: "2"}]))
    destination.deliver(delivery([{"id": 1, one: "3", other: "4"}], after=1))
    (row,) = postgres_server.rows()
    assert list(row.values()) == [1, "3", "4"]


def test_column_names_that_sqlite_takes_for_one_are_pointed_out(sqlite_server: Server) -> None:
    with pytest.raises(ConfigurationError, match=r"the columns Name and name of crm\.deals"):
        sqlite_server.destination().deliver(delivery([{"id": 1, "Name": "a", "name": "b"}]))
    renamed = sqlite_server.destination(columns={"Name": "other_name"})
    assert renamed.deliver(delivery([{"id": 1, "Name": "a", "name": "b"}])).accepted == 1


# ---- bad input


@pytest.mark.parametrize("text", ["a\x00b", "\\.", "a\n\\.\nb", "\\N", "", " ", "\r\n", '"', "\\x00", "\ufeff", "é" * 5_000_000])
def test_any_text_arrives_as_it_is_or_is_refused_aloud(server: Server, text: str) -> None:
    stretch = delivery([{"id": 1, "text": text}, {"id": 2, "text": "fine"}])
    if server.postgres and "\x00" in text:
        with pytest.raises(RecordRefused, match="0x00"):
            server.destination().deliver(stretch)
        return
    server.destination().deliver(stretch)
    assert [r["text"] for r in server.rows()] == [text, "fine"]


def test_numbers_that_are_none_and_nested_nul_are_taken_or_refused_aloud(postgres_server: Server) -> None:
    destination = postgres_server.destination()
    destination.deliver(delivery([{"id": 1, "x": float("nan")}, {"id": 2, "x": float("inf")}, {"id": 3, "x": 5e-324}]))
    assert [str(r["x"]) for r in postgres_server.rows()] == ["nan", "inf", "5e-324"]
    with pytest.raises(RecordRefused, match="Unicode"):
        destination.deliver(delivery([{"id": 4, "tags": ["\x00"]}], after=3))


def test_a_key_too_long_for_an_index_is_refused_alone(postgres_server: Server) -> None:
    with pytest.raises(RecordRefused, match="index row"):
        postgres_server.destination().deliver(delivery([{"id": os.urandom(6000).hex()}]))


# ---- when the other side does not want to


@contextlib.contextmanager
def peer_that_answers(answer: bytes) -> Iterator[int]:
    """A server that reads what a client says first, answers and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(1000)
                client.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


def test_a_wrong_password_is_a_failed_sign_in_and_is_not_repeated_to_anybody() -> None:
    fields = b'SFATAL\0VFATAL\0C28P01\0Mpassword authentication failed for user "me"\0\0'
    with peer_that_answers(b"E" + (len(fields) + 4).to_bytes(4, "big") + fields) as port:
        destination = database(url=f"postgresql://me:hunter2%40home@127.0.0.1:{port}/x?sslmode=disable")
        with pytest.raises(SignInError, match="password authentication failed") as caught:
            destination.deliver(delivery([{"id": 1}]))
    assert "hunter2" not in repr(caught.value) + str(caught.value) + repr(destination)
    assert caught.value.__suppress_context__


def test_a_user_that_does_not_exist_is_a_failed_sign_in(postgres_server: Server) -> None:
    parts = urlsplit(postgres_server.url)
    url = f"postgresql://nobody_{os.getpid()}:hunter2@{parts.netloc.rpartition('@')[2]}{parts.path}?{parts.query}"
    with pytest.raises(SignInError):
        database(url=url).deliver(delivery([{"id": 1}]))
    check = database(url=url).test_connection()
    assert check.status == "failed"
    assert "hunter2" not in repr(check)


def test_a_database_that_does_not_exist_is_a_mistake_in_the_configuration(postgres_server: Server) -> None:
    head, _, query = postgres_server.url.partition("?")
    with pytest.raises(ConfigurationError, match='database "nowhere" does not exist'):
        database(url=f"{head.rpartition('/')[0]}/nowhere?{query}").deliver(delivery([{"id": 1}]))


def test_missing_rights_are_for_a_person_to_grant(postgres_server: Server) -> None:
    role = f"reader_{os.getpid()}_{threading.get_ident()}"
    postgres_server.run(f"create role {role} login")
    try:
        parts = urlsplit(postgres_server.url)
        destination = database(url=f"postgresql://{role}@{parts.netloc.rpartition('@')[2]}{parts.path}?{parts.query}")
        with pytest.raises(ConfigurationError, match="permission denied"):
            destination.deliver(delivery([{"id": 1}]))
        check = destination.test_connection()
        assert check.status == "failed"
        assert f"GRANT CREATE ON SCHEMA public TO {role};" in check.what
    finally:
        postgres_server.run(f"drop role {role}")


class Proxy:
    """Passes bytes between a client and Postgres, and cuts the line once so many bytes came from the client."""

    def __init__(self, host: str, port: int, cut_after: int) -> None:
        self._to, self.cut_after = (host, port), cut_after
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        # Closing alone would leave the thread in accept().
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                with client, socket.create_connection(self._to) as server, contextlib.suppress(OSError):
                    self._pass_on(client, server)

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        sent = 0
        while True:
            ready, _, _ = select.select([client, server], [], [])
            for side in ready:
                data = side.recv(65536)
                if not data:
                    return
                (server if side is client else client).sendall(data)
                sent += len(data) if side is client else 0
                if sent > self.cut_after:
                    return


@pytest.fixture
def cut_line(postgres: str) -> Iterator[Callable[[int], str]]:
    opened: list[Proxy] = []
    parts = urlsplit(postgres)
    host = parts.hostname or ""
    if not host:
        pytest.skip("this Postgres listens on a socket file only")

    def cut(after: int) -> str:
        proxy = Proxy(host, parts.port or 5432, after)
        opened.append(proxy)
        return f"postgresql://{parts.username}:{quote(parts.password or '')}@127.0.0.1:{proxy.port}{parts.path}?sslmode=disable"

    yield cut
    for proxy in opened:
        proxy.close()


@pytest.mark.parametrize("cut_after", [0, 300, 100_000, 400_000])
def test_a_postgres_that_goes_away_in_mid_delivery_loses_and_doubles_nothing(
    postgres_server: Server, cut_line: Callable[[int], str], cut_after: int
) -> None:
    stretch = delivery([{"id": n, "text": "x" * 500} for n in range(2_000)])
    with pytest.raises(RetryLater, match=r"cannot be reached|could not finish"):
        database(url=cut_line(cut_after), mode="append").deliver(stretch)
    destination = postgres_server.destination(mode="append")
    assert destination.position(stretch.id, stretch.table_id) is None
    assert destination.deliver(stretch).accepted == 2_000
    assert destination.deliver(stretch).detail["repeated"]
    assert len(postgres_server.rows()) == 2_000


def test_a_backend_that_is_killed_asks_for_another_time(postgres_server: Server) -> None:
    """The delivery waits for the table's lock until its backend is shot down."""
    with psycopg.connect(postgres_server.url, autocommit=True) as other, ThreadPoolExecutor(1) as threads:
        other.execute("select pg_advisory_lock(hashtextextended('muxly .crm_deals', 0))")
        future = threads.submit(postgres_server.destination().deliver, delivery([{"id": 1}]))
        waiting = (
            "select pid from pg_stat_activity where application_name = 'muxly' and wait_event = 'advisory' and datname = current_database()"
        )
        while not (found := other.execute(waiting).fetchone()):
            assert not future.done()
        other.execute("select pg_terminate_backend(%s)", [found[0]])
        with pytest.raises(RetryLater):
            future.result()
    assert postgres_server.destination().deliver(delivery([{"id": 1}])).accepted == 1


def test_a_peer_that_is_no_postgres_is_reported_without_a_traceback() -> None:
    with peer_that_answers(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        check = database(url=f"postgresql://a:secret@127.0.0.1:{port}/x?sslmode=disable").test_connection()
    assert check.status == "failed"
    assert "secret" not in repr(check)


def test_a_sqlite_file_that_is_none_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("dear diary, " * 1000)
    destination = database(url=f"sqlite:///{tmp_path / 'notes.txt'}")
    with pytest.raises(ConfigurationError, match="no SQLite database"):
        destination.deliver(delivery([{"id": 1}]))
    assert destination.test_connection().status == "failed"
    assert (tmp_path / "notes.txt").read_text().startswith("dear diary")


def test_checking_a_sqlite_file_does_not_create_it(tmp_path: Path) -> None:
    destination = database(url=f"sqlite:///{tmp_path / 'new' / 'warehouse.db'}")
    assert destination.test_connection().status == "ok"
    assert destination.position("a.b", "c") is None
    assert list(tmp_path.iterdir()) == []


def test_a_full_sqlite_disk_asks_for_room(sqlite_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite itself is told to stop growing the file, which it reports as it does a full disk."""
    connect = sqlite3.connect

    def small(*args: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*args, **options)
        connection.execute("pragma max_page_count = 20")
        return connection

    monkeypatch.setattr(sqlite3, "connect", small)
    with pytest.raises(RetryLater, match="full"):
        sqlite_server.destination().deliver(delivery([{"id": n, "text": "x" * 500} for n in range(1_000)]))
    monkeypatch.undo()
    assert sqlite_server.destination().position("big_deals.warehouse", "0b8e1f9c") is None
    assert sqlite_server.destination().deliver(delivery([{"id": 1}])).accepted == 1


def test_a_locked_sqlite_file_asks_for_another_time(sqlite_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    from muxly_dagster.destinations.database import sqlite

    monkeypatch.setattr(sqlite, "_BUSY_SECONDS", 0.01)
    sqlite_server.destination().deliver(delivery([{"id": 1}]))
    with contextlib.closing(sqlite3.connect(sqlite_server.url.removeprefix("sqlite:///"), isolation_level=None)) as other:
        other.execute("begin immediate")
        with pytest.raises(RetryLater, match="another program"):
            sqlite_server.destination().deliver(delivery([{"id": 2}], after=1))
        other.execute("rollback")
    assert sqlite_server.destination().deliver(delivery([{"id": 2}], after=1)).accepted == 1


def test_a_read_only_sqlite_file_is_for_a_person_to_change(sqlite_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opened read-only, because a file's mode does not stop root, who may run these tests."""
    sqlite_server.run("create table crm_deals (id bigint primary key)")
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda file, **options: connect(f"file:{file}?mode=ro", uri=True, **options))
    with pytest.raises(ConfigurationError, match="read-only"):
        sqlite_server.destination().deliver(delivery([{"id": 1}]))


# ---- configuration


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"url": "mysql://root:hunter2@db/x"}, "must start with postgresql:// or sqlite:///"),
        ({"url": "hunter2"}, "must start with"),
        ({"url": "sqlite:///"}, "must start with"),
        ({"url": "sqlite:///x.db", "schema": "mart"}, "SQLite has no schemas"),
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
    assert "hunter2" not in repr(destination) + destination.model_dump_json() + destination.test_connection().tried


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
