"""Columns get the type of what arrives and become wider when something else comes, and no value changes by that."""

import base64
import datetime as dt
import decimal
from typing import Any

import pyarrow as pa
import pytest

from muxly_dagster.errors import ConfigurationError, RecordRefused
from muxly_dagster.testing import EVERY_TYPE, changes, delivery
from muxly_dagster_tests.destinations.warehouse import Server

TYPES = {
    "postgres": "bigint, boolean, bigint, double precision, numeric(38,9), text, bytea, date, timestamp with time zone",
    "sqlite": "BIGINT, BOOLEAN, BIGINT, DOUBLE, TEXT, TEXT, BLOB, TEXT, TEXT",
    "mariadb": "bigint(20), tinyint(1), bigint(20), double, decimal(38,9), longtext, longblob, date, datetime(6)",
    "duckdb": "BIGINT, BOOLEAN, BIGINT, DOUBLE, DECIMAL(38,9), VARCHAR, BLOB, DATE, TIMESTAMP WITH TIME ZONE",
}


def test_the_table_gets_a_type_for_every_column(own_server: Server) -> None:
    schema = pa.schema([pa.field("id", pa.int64()), *(pa.field(n, t) for n, (t, _) in EVERY_TYPE.items())])
    own_server.destination().deliver(delivery(changes([{"id": 1}], schema=schema)))
    assert ", ".join(own_server.types().values()) == TYPES[own_server.kind]


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


WIDENED = [
    (1, 1.5, [1, 1.5]),
    (1, decimal.Decimal("1.10"), [decimal.Decimal("1.00"), decimal.Decimal("1.10")]),
    (decimal.Decimal("1.1"), decimal.Decimal("100.25"), [decimal.Decimal("1.10"), decimal.Decimal("100.25")]),
    (7, "007", ["7", "007"]),
    (0.1 + 0.2, "x", ["0.30000000000000004", "x"]),
    (True, "007", ["true", "007"]),
    (dt.datetime(2026, 1, 1, 5, tzinfo=dt.UTC), "soon", ["2026-01-01T05:00:00.000000Z", "soon"]),
    (b"\x00\xff" * 60, "text", [base64.b64encode(b"\x00\xff" * 60).decode(), "text"]),
    ({"a": 1}, "plain", ['{"a":1}', "plain"]),
    ("text", 5, ["text", "5"]),
    ("text", dt.datetime(2026, 1, 2, 3, tzinfo=dt.UTC), ["text", "2026-01-02T03:00:00.000000Z"]),
]


@pytest.mark.parametrize(("first", "then", "kept"), WIDENED)
@pytest.mark.parametrize("kind", ["mariadb", "duckdb"])
def test_a_column_widens_without_changing_a_value(
    request: pytest.FixtureRequest, kind: str, first: Any, then: Any, kept: list[Any]
) -> None:
    server: Server = request.getfixturevalue(f"{kind}_server")
    destination = server.destination(indexes=[["id", "value"]] if not isinstance(first, bytes | dict) else [])
    destination.deliver(delivery([{"id": 1, "value": first}]))
    receipt = destination.deliver(delivery([{"id": 2, "value": then}], after=1))
    destination.deliver(delivery([{"id": 2, "value": then}], after=2))
    assert [r["value"] for r in server.rows()] == kept
    if not isinstance(first, str) and not (kind == "mariadb" and isinstance(first, dict)):
        assert receipt.detail["table_changes"] and "changed column value" in receipt.detail["table_changes"][0]


def test_a_date_becomes_a_time(own_server: Server) -> None:
    destination = own_server.destination()
    destination.deliver(delivery([{"id": 1, "value": dt.date(2026, 1, 1)}]))
    destination.deliver(delivery([{"id": 2, "value": dt.datetime(2026, 1, 2, 3, tzinfo=dt.UTC)}], after=1))
    assert [str(r["value"])[:13].replace("T", " ") for r in own_server.rows()] in (
        ["2026-01-01 00", "2026-01-02 03"],
        ["2026-01-01", "2026-01-02 03"],
    )


def test_a_database_that_cannot_widen_columns_says_what_to_do(generic_sqlite_server: Server) -> None:
    destination = generic_sqlite_server.destination()
    destination.deliver(delivery([{"id": 1, "value": 1}]))
    with pytest.raises(ConfigurationError, match="column value is BIGINT in the table, but what arrives is") as caught:
        destination.deliver(delivery([{"id": 2, "value": "x"}], after=1))
    assert "change the column" in str(caught.value)


def test_a_key_that_becomes_text_stays_the_key(own_server: Server) -> None:
    server = own_server
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


def test_types_can_be_asked_for(own_server: Server) -> None:
    destination = own_server.destination(types={"code": "varchar(3)", "amount": "decimal(12,2)"}, columns={"code": "short"})
    row = {"id": 1, "code": "abc", "amount": decimal.Decimal("1.50")}
    if own_server.kind == "sqlite":  # which would make a number of 15 digits of it
        with pytest.raises(ConfigurationError, match="`types` makes column amount"):
            destination.deliver(delivery([row]))
        assert own_server.types() == {}
        return
    destination.deliver(delivery([row]))
    destination.deliver(delivery([row | {"id": 2}], after=1))
    assert [(r["short"], r["amount"]) for r in own_server.rows()] == [("abc", row["amount"])] * 2
    assert own_server.types()["amount"].lower() in ("decimal(12,2)", "numeric(12,2)")
    if own_server.kind in ("postgres", "mariadb"):  # DuckDB does not hold to lengths
        with pytest.raises(RecordRefused, match=r"(?i)too long|truncated"):
            destination.deliver(delivery([row | {"id": 3, "code": "abcd"}], after=2))


def test_a_type_that_cannot_hold_what_arrives_is_a_mistake(server: Server) -> None:
    with pytest.raises(ConfigurationError, match="`types` makes column name"):
        server.destination(types={"name": "integer"}).deliver(delivery([{"id": 1, "name": "Ada"}]))
