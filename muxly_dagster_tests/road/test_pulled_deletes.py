"""What a provider says is gone: deleted before the cursor counts, and not while records cannot be read."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from muxly_dagster.connector import Batch, Span, Stream, Unreadable
from muxly_dagster.errors import RetryLater
from muxly_dagster.lake import Lake
from muxly_dagster.pulling import pull
from muxly_dagster.state import State
from muxly_dagster_tests.road.scripted import asked, rows, scripted

DELTA = Stream("things", ("id",), sync="delta")


class Road:
    def __init__(self, folder: Path) -> None:
        self.lake = Lake(str(folder / "lake"))
        self.state = State.open(f"sqlite:///{folder}/state.db", folder)

    def run(self, *batches: Any) -> Any:
        def play(cursor: Any) -> Iterator[Batch]:
            for batch in batches:
                if isinstance(batch, Exception):
                    raise batch
                yield batch

        what = scripted(play, DELTA)
        return pull(self.lake, self.state, what, run_id="run"), asked(what)[0]

    def ids(self) -> list[str]:
        return sorted(row["id"] for row in self.lake.existing("crm.things").current().to_pylist())


@pytest.fixture
def road(tmp_path: Path) -> Iterator[Road]:
    road = Road(tmp_path)
    road.run(Batch(rows({"id": "1"}, {"id": "2"}, {"id": "3"}), cursor="a"))
    yield road
    road.state.close()


NONE = rows({"id": "1"}).slice(0, 0)


def test_deletes_count_as_changes_and_come_with_the_cursor(road: Road) -> None:
    outcome, cursor = road.run(Batch(NONE, cursor="b", deletes=rows({"id": "2"}, {"id": "9"})))
    assert (outcome.changed, outcome.metadata["deletes"], cursor) == (1, 1, "a")
    assert road.ids() == ["1", "3"]
    assert road.run()[1] == "b"


def test_a_pull_that_breaks_behind_a_delete_does_not_move_past_it(road: Road) -> None:
    with pytest.raises(RetryLater):
        road.run(Batch(NONE, deletes=rows({"id": "2"})), RetryLater("gone", do="wait"))
    outcome, cursor = road.run(Batch(NONE, cursor="b", deletes=rows({"id": "2"})))
    assert cursor == "a"
    assert (outcome.changed, road.ids()) == (0, ["1", "3"])


def test_everything_read_anew_deletes_what_was_not_seen(road: Road) -> None:
    road.run(Batch(rows({"id": "1"}, {"id": "4"}), complete=(Span(),), cursor="b"))
    assert road.ids() == ["1", "4"]


def test_nothing_is_deleted_as_unseen_while_a_record_could_not_be_read(road: Road) -> None:
    outcome, _ = road.run(Batch(rows({"id": "1"}), unreadable=(Unreadable("{", "broken"),), complete=(Span(),), cursor="b"))
    assert (outcome.refused, outcome.metadata["deletes"]) == (1, 0)
    assert road.ids() == ["1", "2", "3"]


BROKEN = (Unreadable("{", "broken"),)


def test_a_cursor_does_not_pass_deletions_that_could_not_be_told(road: Road) -> None:
    road.run(Batch(rows({"id": "1"}), unreadable=BROKEN), Batch(NONE, cursor="b", complete=(Span(),)), Batch(NONE, cursor="c"))
    outcome, cursor = road.run(Batch(rows({"id": "1"}), cursor="b", complete=(Span(),)))
    assert (cursor, outcome.metadata["deletes"], road.ids()) == ("a", 2, ["1"])
    assert road.run()[1] == "b"


def test_where_nothing_can_be_gone_a_record_that_cannot_be_read_holds_no_cursor(road: Road) -> None:
    everything = rows({"id": "1"}, {"id": "2"}, {"id": "3"})
    road.run(Batch(everything, unreadable=BROKEN, cursor="b", complete=(Span(),)))
    assert road.run()[1] == "b"
    road.run(Batch(everything.slice(0, 2), unreadable=BROKEN, cursor="c", complete=(Span("id", "1", "3"),)))  # 3 lies beyond
    assert road.run()[1] == "c"


def test_a_cleared_span_goes_before_the_rows_of_its_batch(road: Road) -> None:
    road.run(Batch(rows({"id": "2"}, {"id": "5"}), cleared=(Span("id", "2", "4"),), cursor="b"))
    assert road.ids() == ["1", "2", "5"]


def test_flags_of_records_are_counted(road: Road) -> None:
    flagged = Batch(rows({"id": "4"}, {"id": "5"}), metadata={"sampled": True, "note": ""})
    outcome, _ = road.run(flagged, Batch(rows({"id": "6"}), metadata={"sampled": True}))
    assert outcome.metadata["flags"] == {"sampled": 3}
