"""The road in: nothing lost, nothing repeated, nothing dropped in silence."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from muxly_dagster.connector import Batch, Stream, Unreadable
from muxly_dagster.errors import BusyError, MuxlyError, RetryLater
from muxly_dagster.lake import Lake
from muxly_dagster.outcome import Outcome
from muxly_dagster.pulling import pull
from muxly_dagster.state import State
from muxly_dagster_tests.road.scripted import asked, batches, rows, scripted

BY_CURSOR = Stream("things", ("id",), sync="cursor")


class Road:
    def __init__(self, folder: Path) -> None:
        self.lake = Lake(str(folder / "lake"))
        self.state = State.open(f"sqlite:///{folder}/state.db", folder)
        self.runs = 0

    def run(self, what: Any, **options: Any) -> Outcome:
        self.runs += 1
        return pull(self.lake, self.state, what, run_id=f"run {self.runs}", **options)

    def current(self) -> list[dict[str, Any]]:
        return sorted(self.lake.existing("crm.things").current().to_pylist(), key=str)


@pytest.fixture
def road(tmp_path: Path) -> Iterator[Road]:
    road = Road(tmp_path)
    yield road
    road.state.close()


def test_a_pull_counts_what_it_read_and_what_changed(road: Road) -> None:
    outcome = road.run(scripted(batches(rows({"id": "1"}, {"id": "2"}), rows({"id": "2"}))))
    assert (outcome.read, outcome.changed, outcome.refused) == (3, 2, 0)
    assert road.run(scripted(batches(rows({"id": "1"}, {"id": "2"})))).changed == 0


def test_a_cursor_is_handed_back_in_the_next_run(road: Road) -> None:
    what = scripted(batches(rows({"id": "1"}), rows({"id": "2"}), cursors=True), BY_CURSOR)
    road.run(what)
    road.run(what)
    assert asked(what) == [None, 2]
    assert len(road.current()) == 2


def test_a_cursor_moves_even_when_nothing_changed(road: Road) -> None:
    road.run(scripted(batches(rows({"id": "1"}), cursors=True), BY_CURSOR))
    what = scripted(lambda cursor: iter([Batch(rows({"id": "1"}), cursor=9)]), BY_CURSOR)
    road.run(what)
    road.run(what)
    assert asked(what) == [1, 9]


def test_a_cursor_is_kept_before_there_is_any_record(road: Road) -> None:
    what = scripted(lambda cursor: iter([Batch(rows({"id": "1"}).slice(0, 0), cursor=9)]), BY_CURSOR)
    road.run(what)
    road.run(what)
    later = scripted(lambda cursor: iter([Batch(rows({"id": "1"}), cursor=10)]), BY_CURSOR)
    road.run(later)
    road.run(later)
    assert (asked(what), asked(later)) == ([None, 9], [9, 10])
    assert road.current() == [{"id": "1"}]


def test_a_pull_that_breaks_keeps_what_is_safe_and_goes_on_there(road: Road) -> None:
    def breaks(cursor: Any) -> Iterator[Batch]:
        yield Batch(rows({"id": "1"}), cursor=1)
        yield Batch(rows({"id": "2"}), cursor=None)
        raise RetryLater("the provider went away")

    with pytest.raises(RetryLater):
        road.run(scripted(breaks, BY_CURSOR))
    what = scripted(batches(rows({"id": "1"}), rows({"id": "2"}), cursors=True), BY_CURSOR)
    outcome = road.run(what)
    assert asked(what) == [1]
    assert (outcome.read, outcome.changed) == (1, 0)
    assert [row["id"] for row in road.current()] == ["1", "2"]


def test_keyless_appends_behind_the_cursor_wait_for_the_next_one(road: Road) -> None:
    stream = Stream("things", (), sync="cursor")

    def breaks(cursor: Any) -> Iterator[Batch]:
        yield Batch(rows({"v": "a"}), cursor=1)
        yield Batch(rows({"v": "b"}), cursor=None)
        raise RetryLater("the provider went away")

    with pytest.raises(RetryLater):
        road.run(scripted(breaks, stream))
    road.run(scripted(batches(rows({"v": "a"}), rows({"v": "b"}), cursors=True), stream))
    assert road.current() == [{"v": "a"}, {"v": "b"}]


def test_a_long_pull_checkpoints_on_the_way(road: Road) -> None:
    tables = [rows(*({"id": f"{n}-{m}"} for m in range(10))) for n in range(10)]
    road.run(scripted(batches(*tables, cursors=True), BY_CURSOR), flush_rows=20)
    assert road.lake.existing("crm.things").cursor_version == 5


def test_what_cannot_be_read_is_in_quarantine_and_the_rest_goes_on(road: Road) -> None:
    def half(cursor: Any) -> Iterator[Batch]:
        yield Batch(rows({"id": "1"}), unreadable=(Unreadable('{"id":', "half a JSON"),))
        yield Batch(rows({"id": None, "v": 2}, {"id": "3", "v": 3}))

    outcome = road.run(scripted(half))
    assert (outcome.read, outcome.changed, outcome.refused) == (4, 2, 2)
    reasons = {letter.reason: letter.record for letter in road.state.ledger.dead_letters("crm.things")}
    assert reasons == {"half a JSON": '{"id":', "the record has no key: id is null": '{"id":null,"v":2}'}


def test_nothing_is_deleted_while_records_cannot_be_read(road: Road) -> None:
    road.run(scripted(batches(rows({"id": "1"}, {"id": "2"}))))
    road.run(scripted(lambda _: iter([Batch(rows({"id": "1"}), unreadable=(Unreadable('{"id": "2", ', "half a JSON"),))])))
    assert [row["id"] for row in road.current()] == ["1", "2"]
    outcome = road.run(scripted(batches(rows({"id": "1"}))))
    assert outcome.metadata["deletes"] == 1
    assert road.state.ledger.dead_letters("crm.things") == []


def test_a_lake_table_deleted_by_hand_is_noticed(road: Road) -> None:
    what = scripted(batches(rows({"id": "1"}), cursors=True), BY_CURSOR)
    road.run(what)
    shutil.rmtree(road.lake.path("crm.things"))
    with pytest.raises(MuxlyError, match="the lake table crm.things is gone") as error:
        road.run(what)
    assert "muxly run crm.things --from-start" in error.value.do
    road.run(what, from_start=True)
    assert asked(what) == [None, None]
    assert len(road.current()) == 1


def test_two_runs_of_one_pull_at_once_are_one(road: Road) -> None:
    def meets_itself(cursor: Any) -> Iterator[Batch]:
        with pytest.raises(BusyError, match="another run of pull.crm.things is going on"):
            road.run(scripted(batches(rows({"id": "2"}))))
        yield Batch(rows({"id": "1"}))

    road.run(scripted(meets_itself))
    assert road.current() == [{"id": "1"}]


def test_an_empty_stream_makes_an_empty_table(road: Road) -> None:
    outcome = road.run(scripted(batches()))
    assert (outcome.read, outcome.changed) == (0, 0)
    assert road.lake.existing("crm.things").head == 0
    road.run(scripted(batches(rows({"id": "1"}))))
    assert road.current() == [{"id": "1"}]


def test_batch_metadata_goes_into_each_record(road: Road) -> None:
    road.run(scripted(lambda _: iter([Batch(rows({"id": "1"}), metadata={"sampled": True})])))
    assert road.lake.existing("crm.things").changes(0, 1)["_muxly_metadata"].to_pylist() == ['{"sampled":true}']


def test_progress_is_told(road: Road) -> None:
    told: list[tuple[str, int]] = []
    road.run(scripted(batches(rows({"id": "1"}), rows({"id": "2"}))), progress=lambda name, count: told.append((name, count)))
    assert told == [("crm.things", 1), ("crm.things", 2)]
