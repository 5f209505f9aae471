"""The sql connector's news: pulls by cursor miss nothing, wherever the last one ended."""

from pathlib import Path
from typing import Any

import pytest

from muxly_dagster.connector import Span
from muxly_dagster.errors import ConfigurationError
from muxly_dagster_tests.connectors.databases import batches, last_cursor, on_mariadb, on_postgres, on_sqlite, rows


@pytest.fixture(params=["postgres", "mariadb", "sqlite"])
def events(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Any]:
    """A database with a table `things (id, at)`, and how to run statements in it."""
    table = "create table things (id int primary key, at timestamp null default null)"
    if request.param == "sqlite":
        url = on_sqlite(tmp_path / "db", table)
        return url, lambda *statements: on_sqlite(tmp_path / "db", *statements)
    url = str(request.getfixturevalue(request.param))
    run = {"postgres": on_postgres, "mariadb": on_mariadb}[request.param]
    run(url, table.replace("timestamp", "timestamp(6)" if request.param == "mariadb" else "timestamptz"))
    return url, lambda *statements: run(url, *statements)


def add(*items: tuple[int, str | None]) -> str:
    values = ", ".join(f"({number}, {'null' if at is None else repr(at)})" for number, at in items)
    return f"insert into things values {values}"


def test_later_pulls_read_what_came_since_and_the_last_value_again(events: tuple[str, Any]) -> None:
    url, run = events
    run(
        "set time_zone = '+00:00'" if url.startswith("mysql") else "select 1",
        add((1, "2024-01-01 10:00:00"), (2, "2024-01-01 11:00:00.25")),
    )
    first = batches(url, cursor="at")
    assert [row["id"] for row in rows(first)] == [1, 2]
    run(
        "set time_zone = '+00:00'" if url.startswith("mysql") else "select 1",
        add((3, "2024-01-01 11:00:00.25"), (4, "2024-01-01 12:00:00")),
    )
    second = batches(url, last_cursor(first), cursor="at")
    assert sorted(row["id"] for row in rows(second)) == [2, 3, 4]
    third = batches(url, last_cursor(second), cursor="at")
    assert [row["id"] for row in rows(third)] == [4]
    assert last_cursor(third) == last_cursor(second)


def test_without_a_key_nothing_is_read_twice(postgres: str) -> None:
    on_postgres(postgres, "create table things (n bigint)", "insert into things values (1), (2), (2)")
    first = batches(postgres, cursor="n")
    on_postgres(postgres, "insert into things values (3)")
    assert rows(batches(postgres, last_cursor(first), cursor="n")) == [{"n": 3}]


@pytest.mark.parametrize("batch_rows", [1, 2, 3, 4, 7, 100])
def test_every_cursor_on_the_way_is_a_place_to_go_on_from(postgres: str, batch_rows: int) -> None:
    values = [1, 1, 1, 2, 3, 3, 4, 4, 4, 4, 4, 5, 6, 6]
    on_postgres(postgres, "create table things (n bigint)", *[f"insert into things values ({n})" for n in values])
    found = batches(postgres, cursor="n", batch_rows=batch_rows)
    assert [row["n"] for row in rows(found)] == values
    for end, batch in enumerate(found, 1):
        if batch.cursor is not None:
            rest = batches(postgres, batch.cursor, cursor="n")
            assert [row["n"] for row in rows(found[:end])] + [row["n"] for row in rows(rest)] == values
    assert found[-1].cursor == {"column": "n", "value": "6"}


def test_rows_without_a_cursor_value_are_read_every_time_or_set_aside(events: tuple[str, Any], postgres: str) -> None:
    url, run = events
    run(add((1, None), (2, "2024-01-01 10:00:00")))
    first = batches(url, cursor="at")
    assert [row["id"] for row in rows(first)] == [1, 2]
    run(add((3, None)))
    again = batches(url, last_cursor(first), cursor="at")
    assert [row["id"] for row in rows(again)] == [1, 3, 2]
    on_postgres(postgres, "create table keyless (n int)", "insert into keyless values (null), (1)")
    found = batches(postgres, table="keyless", cursor="n")
    assert rows(found) == [{"n": 1}]
    assert ["set `key`" in bad.reason for batch in found for bad in batch.unreadable] == [True]


@pytest.mark.parametrize(("lookback", "expected"), [("", [4]), ("30m", [3, 4]), ("1d12h", [2, 3, 4]), ("100w", [1, 2, 3, 4])])
def test_lookback_reads_again_what_may_have_come_late(events: tuple[str, Any], lookback: str, expected: list[int]) -> None:
    url, run = events
    run(add((1, "2023-01-01 00:00:00"), (2, "2024-01-01 10:00:00"), (3, "2024-01-02 11:45:00"), (4, "2024-01-02 12:00:00")))
    cursor = last_cursor(batches(url, cursor="at"))
    found = batches(url, cursor, cursor="at", lookback=lookback)
    assert [row["id"] for row in rows(found)] == expected
    assert {str(batch.cursor) for batch in found if batch.cursor is not None} == {str(cursor)}


def test_lookback_on_a_number(postgres: str) -> None:
    on_postgres(postgres, "create table things (id int primary key)", "insert into things select generate_series(1, 20)")
    found = batches(postgres, {"column": "id", "value": "20"}, cursor="id", lookback=3)
    assert [row["id"] for row in rows(found)] == [17, 18, 19, 20]


def test_a_query_can_say_itself_what_is_new(events: tuple[str, Any]) -> None:
    url, run = events
    run(add((1, "2024-01-01 10:00:00"), (2, "2024-01-02 10:00:00")))
    query = "select id, at from things where :cursor is null or at >= :cursor"
    first = batches(url, query=query, cursor="at", key=["id"])
    assert [row["id"] for row in rows(first)] == [1, 2]
    assert [row["id"] for row in rows(batches(url, last_cursor(first), query=query, cursor="at", key=["id"]))] == [2]


def test_the_cursor_of_another_column_is_not_taken_for_this_one(postgres: str) -> None:
    on_postgres(postgres, "create table things (id int primary key, n int)")
    with pytest.raises(ConfigurationError, match="went by n, not by id"):
        batches(postgres, {"column": "n", "value": "1"}, cursor="id")


def test_a_sqlite_cursor_goes_by_the_text_as_it_is_stored(tmp_path: Path) -> None:
    url = on_sqlite(
        tmp_path / "db",
        "create table things (id integer primary key, at datetime)",
        add((1, "2024-01-01T10:00:00Z"), (2, "2024-01-01T11:00:00Z")),
    )
    cursor = last_cursor(batches(url, cursor="at"))
    assert cursor == {"column": "at", "value": "2024-01-01T11:00:00Z"}
    assert [row["id"] for row in rows(batches(url, cursor, cursor="at", lookback="1h"))] == [1, 2]


# ---- several columns, and keys that are gone ------------------------------------------------------------------------


@pytest.mark.parametrize("batch_rows", [1, 2, 3, 100])
def test_a_composite_cursor_goes_on_in_the_middle_of_equal_times(events: tuple[str, Any], batch_rows: int) -> None:
    url, run = events
    same = "2024-01-01 10:00:00"
    run(add((5, same), (1, same), (4, same), (2, "2023-01-01 00:00:00"), (3, "2024-01-02 00:00:00")))
    found = batches(url, cursor=["at", "id"], batch_rows=batch_rows)
    assert [row["id"] for row in rows(found)] == [2, 1, 4, 5, 3]
    places = [(end, batch.cursor) for end, batch in enumerate(found, 1) if batch.cursor is not None]
    assert len(places) >= min(5, 5 // batch_rows)
    for end, cursor in places:
        rest = [row["id"] for row in rows(batches(url, cursor, cursor=["at", "id"]))]
        done = [row["id"] for row in rows(found[:end])]
        assert [*done, *rest[rest[:1] == done[-1:] :]] == [2, 1, 4, 5, 3], "the row at the cursor may come again, no other"


def test_without_a_key_a_composite_cursor_reads_strictly_on(postgres: str) -> None:
    on_postgres(postgres, "create table things (a int, b int)", "insert into things values (1, 1), (1, 2), (2, null), (2, 1)")
    (bad, *first) = batches(postgres, cursor=["a", "b"])
    assert [unreadable.text for unreadable in bad.unreadable] == ['{"a":2,"b":null}']
    assert last_cursor(first) == {"column": ["a", "b"], "value": ["2", "1"]}
    on_postgres(postgres, "insert into things values (2, 0), (2, 2), (3, 0)")
    assert [(row["a"], row["b"]) for row in rows(batches(postgres, last_cursor(first), cursor=["a", "b"]))] == [(2, 2), (3, 0)]


def test_lookback_of_a_composite_cursor_counts_on_its_first_column(postgres: str) -> None:
    on_postgres(postgres, "create table things (a int, id int primary key)", "insert into things values (1, 9), (5, 8), (9, 1), (9, 3)")
    found = batches(postgres, {"column": ["a", "id"], "value": ["9", "3"]}, cursor=["a", "id"], lookback=4)
    assert sorted((row["a"], row["id"]) for row in rows(found)) == [(5, 8), (9, 1), (9, 3)]


def test_keys_are_compared_after_the_first_pull_and_as_often_as_asked(events: tuple[str, Any]) -> None:
    url, run = events
    run(add((1, None), (2, "2024-01-02 10:00:00")))
    first = batches(url, cursor="at", deletes="keys")
    assert [batch.alive for batch in first if batch.alive is not None] == []
    run("delete from things where id = 1")
    second = batches(url, last_cursor(first), cursor="at", deletes="keys", deletes_every="1d")
    alive = [batch.alive.to_pylist() for batch in second if batch.alive is not None]
    assert (alive, second[-1].complete) == ([[{"id": 2}]], (Span(),))
    assert last_cursor(second)["value"] == last_cursor(first)["value"]
    third = batches(url, last_cursor(second), cursor="at", deletes="keys", deletes_every="1d")
    assert not [batch for batch in third if batch.alive is not None or batch.complete]
    assert last_cursor(third)["compared"] == last_cursor(second)["compared"]
    fourth = batches(url, last_cursor(third), cursor="at", deletes="keys")
    assert fourth[-1].complete


def test_a_key_that_cannot_be_read_is_not_taken_for_compared(postgres: str) -> None:
    on_postgres(
        postgres, "create table things (day date primary key, n int)", "insert into things values ('infinity', 1), ('2024-01-01', 2)"
    )
    found = batches(postgres, {"column": "n", "value": "2"}, cursor="n", deletes="keys")
    assert [bad.reason.partition(":")[0] for batch in found for bad in batch.unreadable] == ["day"]
    assert found[-1].cursor is None, "what is quarantined is in no lake, so nothing is deleted, and the next pull compares again"


def test_keys_cannot_be_compared_without_a_key(postgres: str) -> None:
    on_postgres(postgres, "create table things (n int)")
    with pytest.raises(ConfigurationError, match="no key"):
        batches(postgres, cursor="n", deletes="keys")
