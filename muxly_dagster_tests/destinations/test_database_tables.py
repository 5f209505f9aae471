"""Tables follow the source in columns and types, and take any value or refuse it aloud."""

import datetime as dt
import decimal
import os
from typing import Any

import pyarrow as pa
import pytest

from muxly_dagster.errors import ConfigurationError, RecordRefused
from muxly_dagster.testing import EVERY_TYPE, changes, delivery
from muxly_dagster_tests.destinations.warehouse import Server

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
