"""Any value arrives as it is or is refused aloud, and keys that look alike stay apart."""

import datetime as dt
import decimal
import os
from typing import Any

import pytest

from muxly_dagster.errors import RecordRefused
from muxly_dagster.testing import delivery
from muxly_dagster_tests.destinations.warehouse import Server


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
