"""Records that a provider says are gone: deleted once, with their last values, and never one too many."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muxly_dagster import records
from muxly_dagster.connector import Span
from muxly_dagster.errors import MuxlyError
from muxly_dagster.lake import Lake, Writer


def rows(*values: dict[str, Any]) -> pa.Table:
    return records.normalise(pa.Table.from_pylist(list(values)))


def keys(*values: Any) -> pa.Table:
    return rows(*({"id": value} for value in values))


def writer(lake: Lake, key: tuple[str, ...] = ("id",), *, appends: bool = False) -> Writer:
    return lake.writer("crm.things", key=key, run_id="run", contract="evolve", appends=appends, flush_rows=50_000)


def stored(lake: Lake, *values: dict[str, Any]) -> None:
    with writer(lake) as into:
        into.add(rows(*values))
        into.finish(whole=False)


def log(lake: Lake) -> list[tuple[Any, ...]]:
    table = lake.existing("crm.things")
    return [(row["_muxly_op"], row["id"], row["name"]) for row in table.changes(0, table.head).to_pylist()]


def current(lake: Lake) -> dict[Any, Any]:
    return {row["id"]: row["name"] for row in lake.existing("crm.things").current().to_pylist()}


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


def test_a_deleted_record_keeps_its_last_values(lake: Lake) -> None:
    stored(lake, {"id": 1, "name": "Ada"}, {"id": 2, "name": "Bob"})
    with writer(lake) as into:
        into.delete(keys(1))
        assert into.finish(whole=False).deletes == 1
    assert log(lake)[2:] == [("delete", 1, "Ada")]
    assert current(lake) == {2: "Bob"}


def test_a_key_that_is_not_there_is_passed_over(lake: Lake) -> None:
    with writer(lake) as into:
        into.delete(keys(1))  # not even a table
        into.finish(whole=False)
    stored(lake, {"id": 1, "name": "Ada"})
    with writer(lake) as into:
        into.delete(keys(7))
        into.delete(keys(1))
        into.delete(keys(1))
        assert into.finish(whole=False).deletes == 1
    with writer(lake) as into:
        into.delete(keys(1))
        assert into.finish(whole=False).deletes == 0


def test_a_key_of_another_type_that_means_the_same_is_found(lake: Lake) -> None:
    with writer(lake) as into:
        into.add(rows({"id": "1", "name": "Ada"}))
        into.finish(whole=False)
    with writer(lake) as into:
        into.delete(keys(1))
        assert into.finish(whole=False).deletes == 1


def test_a_record_written_and_deleted_in_one_run_leaves_both_changes(lake: Lake) -> None:
    with writer(lake) as into:
        into.add(rows({"id": 1, "name": "Ada"}))
        into.delete(keys(1))
        into.finish(whole=False)
    assert log(lake) == [("upsert", 1, "Ada"), ("delete", 1, "Ada")]
    assert current(lake) == {}


def test_a_record_that_comes_back_before_its_delete_is_written_only_changed(lake: Lake) -> None:
    stored(lake, {"id": 1, "name": "Ada"})
    with writer(lake) as into:
        into.delete(keys(1))
        into.add(rows({"id": 1, "name": "Eve"}))
        into.finish(whole=False)
    assert log(lake)[1:] == [("upsert", 1, "Eve")]


def test_a_span_that_was_read_whole_loses_what_was_not_seen_there(lake: Lake) -> None:
    stored(lake, *({"id": n, "name": f"day {n // 10}"} for n in (10, 11, 20, 21, 30)))
    with writer(lake) as into:
        into.add(rows({"id": 11, "name": "day 1"}, {"id": 22, "name": "day 2"}))
        into.complete(Span("id", 10, 30))
        into.finish(whole=False)
    assert current(lake) == {11: "day 1", 22: "day 2", 30: "day 3"}


def test_a_cleared_span_loses_what_was_seen_too(lake: Lake) -> None:
    with writer(lake) as into:
        into.add(rows({"id": "/a", "name": "folder"}, {"id": "/a/x", "name": "x"}, {"id": "/ab", "name": "other"}))
        into.clear(Span("id", "/a/", "/a0"))
        into.clear(Span("id", "/a/", "/a0"))
        into.add(rows({"id": "/a/y", "name": "y"}))
        into.finish(whole=False)
    assert current(lake) == {"/a": "folder", "/ab": "other", "/a/y": "y"}
    assert [op for op, *_ in log(lake)].count("delete") == 1


def test_a_span_of_a_column_that_is_not_there_holds_nothing(lake: Lake) -> None:
    stored(lake, {"id": 1, "name": "Ada"}, {"id": 2, "name": None})
    with writer(lake) as into:
        into.complete(Span("day", 1, 2))
        into.complete(Span("name", "A", None))
        into.finish(whole=False)
    assert current(lake) == {2: None}


def test_records_without_key_cannot_be_deleted_by_one(lake: Lake) -> None:
    with writer(lake, (), appends=True) as into, pytest.raises(MuxlyError, match="no key"):
        into.delete(keys(1))


steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 5), st.sampled_from("ab")),
        st.tuples(st.just("delete"), st.integers(0, 6), st.none()),
        st.tuples(st.just("clear"), st.integers(0, 5), st.integers(0, 6)),
        st.tuples(st.just("settle"), st.none(), st.none()),
        st.tuples(st.just("commit"), st.none(), st.none()),
    ),
    max_size=12,
)


@settings(max_examples=40, deadline=None)
@given(steps)
def test_whatever_is_added_and_deleted_the_lake_agrees_with_a_dictionary(tmp_path_factory: pytest.TempPathFactory, steps: Any) -> None:
    lake = Lake(str(tmp_path_factory.mktemp("lake")))
    expected: dict[int, str] = {}
    with writer(lake) as into:
        for what, a, b in steps:
            match what:
                case "add":
                    into.add(rows({"id": a, "name": b}))
                    expected[a] = b
                case "delete":
                    into.delete(keys(a))
                    expected.pop(a, None)
                case "clear":
                    into.clear(Span("id", a, b))
                    expected = {n: name for n, name in expected.items() if not a <= n < b}
                case "settle":
                    into.settle()
                case "commit":
                    into.settle()
                    into.commit()
        into.finish(whole=False)
    assert {row["id"]: row["name"] for row in lake.existing("crm.things").current().to_pylist()} == expected


def test_a_record_that_is_alive_is_not_deleted_though_its_row_was_not_given(lake: Lake) -> None:
    stored(lake, *({"id": n, "name": "old"} for n in (1, 2, 3)))
    with writer(lake) as into:
        into.add(rows({"id": 1, "name": "new"}))
        into.alive(keys(1, 2, 7))
        into.complete(Span())
        assert into.finish(whole=False).deletes == 1
    assert current(lake) == {1: "new", 2: "old"}
    assert log(lake)[3:] == [("upsert", 1, "new"), ("delete", 3, "old")]


def test_without_a_key_no_record_can_be_called_alive(lake: Lake) -> None:
    with writer(lake, ()) as into, pytest.raises(MuxlyError, match="no key"):
        into.alive(keys(1))
