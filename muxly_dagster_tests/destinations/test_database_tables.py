"""Tables follow the source in columns and types, and take any value or refuse it aloud."""

import base64
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


def test_a_table_of_somebody_elses_gets_missing_columns_and_keeps_its_own(server: Server) -> None:
    server.run("create table crm_deals (id integer, note varchar(20) default 'none')")
    receipt = server.destination().deliver(delivery([{"id": 1, "name": "Ada"}]))
    assert server.rows() == [{"id": 1, "note": "none", "name": "Ada"}]
    assert [change.partition(" (")[0] for change in receipt.detail["table_changes"]] == ["added column name", "added a unique index on id"]


def test_a_column_of_somebody_elses_that_does_not_fit_is_named_with_what_to_do(server: Server) -> None:
    server.run("create table crm_deals (id bigint primary key, amount integer)")
    with pytest.raises(ConfigurationError, match=r"column amount is (?i:int)") as caught:
        server.destination().deliver(delivery([{"id": 1, "amount": "a lot"}]))
    assert "set another `table`" in str(caught.value)
    assert [type_.lower().startswith(start) for type_, start in zip(server.types().values(), ("bigint", "int"), strict=True)] == [
        True,
        True,
    ]


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


@pytest.mark.parametrize("kind", ["postgres", "duckdb"])
def test_a_schema_is_created_where_there_are_schemas(request: pytest.FixtureRequest, kind: str) -> None:
    server: Server = request.getfixturevalue(f"{kind}_server")
    destination = server.destination(schema="mart", mode="mirror", indexes=[["name"]])
    destination.deliver(delivery([{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]))
    destination.deliver(delivery([{"id": 1, "name": None}, {"id": 2, "name": 5}], ops=["delete", "upsert"], after=2))
    assert [(r["id"], str(r["name"])) for r in server.rows("mart.crm_deals")] == [(2, "5")]
    assert server.run("select seq from mart._muxly_offsets") == [{"seq": 4}]


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
        with pytest.raises(RecordRefused, match="0x00|NUL"):
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


# ---- what is asked of a table


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


def test_an_index_is_created_once_where_it_is_missing(server: Server) -> None:
    destination = server.destination(indexes=[["stage", "id"], ["stage"]], columns={"stage": "the stage"})
    first = destination.deliver(delivery([{"id": 1, "stage": "open"}]))
    again = destination.deliver(delivery([{"id": 2, "stage": "won"}], after=1))
    assert first.detail["table_changes"] == ["created the table", "added an index on the stage, id", "added an index on the stage"]
    assert "table_changes" not in again.detail
    more = server.destination(indexes=[["stage"], ["id", "stage"]], columns={"stage": "the stage"})
    assert more.deliver(delivery([{"id": 3, "stage": "x"}], after=2)).detail["table_changes"] == ["added an index on id, the stage"]


def test_an_index_over_a_column_that_is_nowhere_is_a_mistake(server: Server) -> None:
    with pytest.raises(ConfigurationError, match="`indexes` names the column colour"):
        server.destination(indexes=[["colour"]]).deliver(delivery([{"id": 1}]))


@pytest.mark.parametrize("alike", [("a", "A"), ("a", "a "), ("e", "é"), ("ss", "ß")])
def test_keys_that_look_alike_stay_apart(own_server: Server, alike: tuple[str, str]) -> None:
    destination = own_server.destination(mode="mirror")
    destination.deliver(delivery([{"id": alike[0], "n": 1}, {"id": alike[1], "n": 2}]))
    destination.deliver(delivery([{"id": alike[1], "n": 3}], after=2))
    assert {r["id"]: r["n"] for r in own_server.rows()} == {alike[0]: 1, alike[1]: 3}
    destination.deliver(delivery([{"id": alike[0]}], ops=["delete"], after=3))
    assert [r["id"] for r in own_server.rows()] == [alike[1]]


@pytest.mark.parametrize("kind", ["mariadb", "generic_mariadb"])
def test_a_table_that_takes_keys_for_one_is_told_so(request: pytest.FixtureRequest, kind: str) -> None:
    server: Server = request.getfixturevalue(f"{kind}_server")
    server.run("create table crm_deals (id varchar(20) character set utf8mb4 collate utf8mb4_general_ci primary key, n bigint)")
    destination = server.destination(mode="mirror")
    with pytest.raises(RecordRefused):
        destination.deliver(delivery([{"id": "a", "n": 1}, {"id": "A", "n": 2}]))
    destination.deliver(delivery([{"id": "a", "n": 1}]))
    for ops in (["upsert"], ["delete"]):
        with pytest.raises(RecordRefused, match="the key 'A' is not 'a'"):
            destination.deliver(delivery([{"id": "A", "n": 2}], ops=ops, after=1))
    assert server.rows() == [{"id": "a", "n": 1}]


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("n tinyint", 300, "Out of range"),
        ("n varchar(2)", "abc", "too long|truncated"),
        ("n varchar(2)", "ab ", "truncated"),
        ("n varchar(9) character set latin1", "\u6587", "Incorrect string value"),
        ("n decimal(5,2)", 10_000, "Out of range"),
        ("n datetime(6)", dt.datetime(1, 1, 1, tzinfo=dt.UTC), None),
        ("n double", float("nan"), "not finite"),
        ("n double", 2**53 + 1, "double"),
        ("n bigint not null", None, "null"),
        ("n bigint, m bigint not null", 1, "default"),
        ("n bigint check (n < 5)", 5, "CONSTRAINT"),
    ],
)
@pytest.mark.parametrize("loads", [True, False])
def test_mysql_changes_no_value_in_silence(
    mariadb_server: Server, monkeypatch: pytest.MonkeyPatch, column: str, value: Any, said: str | None, loads: bool
) -> None:
    without_loading(monkeypatch, loads)
    mariadb_server.run(f"create table crm_deals (id bigint primary key, {column})")
    stretch = delivery([{"id": 1, "n": 1 if value is None else None}, {"id": 2, "n": value}])
    if said is None:
        assert mariadb_server.destination().deliver(stretch).accepted == 2
        assert [r["n"] for r in mariadb_server.rows()] == [None, value.replace(tzinfo=None)]
        return
    with pytest.raises(RecordRefused, match=rf"(?i){said}"):
        mariadb_server.destination().deliver(stretch)
    assert mariadb_server.rows() == []


def without_loading(monkeypatch: pytest.MonkeyPatch, loads: bool) -> None:
    """A server that does not allow LOAD DATA LOCAL, as far as the destination can see."""
    from muxly_dagster.destinations.database.mysql import MySqlSession

    if not loads:
        begin = MySqlSession.__init__

        def without(self: Any, *arguments: Any) -> None:
            begin(self, *arguments)
            self._loads = False

        monkeypatch.setattr(MySqlSession, "__init__", without)


@pytest.mark.parametrize("loads", [True, False])
@pytest.mark.parametrize("rows", [5, 3_000])
def test_mysql_takes_any_value_by_either_way(mariadb_server: Server, monkeypatch: pytest.MonkeyPatch, loads: bool, rows: int) -> None:
    without_loading(monkeypatch, loads)
    texts = ["", "\\N", "a\tb", "a\nb", "\\", "\r", "'", '"', "\x00", "NULL", "\U0001f600", "\x1a", "%s", ",", "\\t"]
    stretch = [
        {"id": n, "text": texts[n % len(texts)], "raw": bytes([n % 256, 39, 92, 0]), "x": n / 7, "d": decimal.Decimal(n) / 8}
        for n in range(rows)
    ]
    destination = mariadb_server.destination(mode="mirror")
    for after in (0, rows):
        destination.deliver(delivery(stretch, after=after))
        assert mariadb_server.rows() == stretch
    destination.deliver(delivery(stretch[:3], ops=["delete"] * 3, after=2 * rows))
    assert mariadb_server.rows() == stretch[3:]


def test_a_row_that_no_packet_holds_is_refused_alone(mariadb_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    without_loading(monkeypatch, False)
    from muxly_dagster.destinations.database import mysql

    monkeypatch.setattr(mysql, "_STATEMENT_BYTES", 20_000)
    destination = mariadb_server.destination()
    with pytest.raises(RecordRefused, match="max_allowed_packet"):
        destination.deliver(delivery([{"id": 1, "text": "x" * 30_000}]))
    destination.deliver(delivery([{"id": n, "text": "x" * 1_000} for n in range(100)]))
    assert len(mariadb_server.rows()) == 100
