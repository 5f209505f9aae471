"""The index of marks: what is in it is found, whoever brought it there and whatever became of its segments since."""

import os
import random
from collections.abc import Iterator
from contextlib import closing, nullcontext
from pathlib import Path

import pytest
import sqlalchemy as sa

from muxly_dagster.errors import RetryLater
from muxly_dagster.state import State, tables
from muxly_dagster.state.marks import MarkIndex, segments
from muxly_dagster.state.marks.arrivals import Arrivals
from muxly_dagster.state.marks.batch import Batch
from muxly_dagster.state.marks.filter import MarkFilter
from muxly_dagster.state.posts import MARK

SCOPES = [os.urandom(6) for _ in range(3)]


@pytest.fixture
def other(url: str, tmp_path: Path) -> Iterator[State]:
    """Another process, as it were."""
    with closing(State.open(url, tmp_path)) as found:
        yield found


def some(count: int) -> bytes:
    """New marks of some streams, one behind the other."""
    return b"".join(random.choice(SCOPES) + os.urandom(10) for _ in range(count))


def found(index: MarkIndex, marks: bytes) -> int:
    """How many of some marks are known, of which none is there twice."""
    with index.engine.connect() as connection:
        known = index.known(connection, Batch(marks))
    each = {marks[at : at + MARK] for at in range(0, len(marks), MARK)}
    assert len(known) == len(set(known)) and each.issuperset(known)
    return len(known)


def rows(index: MarkIndex) -> tuple[int, int]:
    """Segments, and the bytes in all buckets."""
    with index.engine.connect() as connection:
        count = connection.scalar(sa.select(sa.func.count()).select_from(tables.inbox_segments))
        size = connection.scalar(sa.select(sa.func.sum(sa.func.length(tables.inbox_buckets.c.marks))))
    return count or 0, int(size or 0)


def work(index: MarkIndex) -> int:
    """All that is due; the steps of it."""
    steps = 0
    while index.work():
        steps += 1
    return steps


@pytest.mark.parametrize("count", [1, 2, 255, 256, 257, 20_000])
def test_what_was_added_is_found_and_nothing_else(state: State, other: State, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muxly_dagster.state.marks.segments._ASKED", 3001)
    marks = some(count)
    state.inbox._index.add(marks, 1000, 1000)
    for each in (state, other):
        index = each.inbox._index
        assert found(index, marks) == count
        assert found(index, marks[-MARK:] + some(500) + marks[: MARK * (count > 1)]) == min(count, 2)
        assert found(index, some(1000)) == 0


def test_a_part_of_a_mark_is_no_mark(state: State) -> None:
    marks = some(200)
    state.inbox._index.add(marks, 1000, 1000)
    with state.inbox._index.engine.connect() as connection:
        there = segments.whole(connection)
        # All in one bucket: what stands across two marks is asked for there.
        assert there[0].buckets == 1
        assert segments.find(connection, there, marks[3:-13]) == set()
        assert segments.find(connection, there, marks) == set(range(200))


def test_many_segments_become_one_and_all_is_known_at_every_step(state: State, other: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muxly_dagster.state.marks.merging._GROWING", (2000, 100_000))
    monkeypatch.setattr("muxly_dagster.state.marks.merging._STEP", 500)
    monkeypatch.setattr("muxly_dagster.state.marks.merging._SWEPT", 5)
    sizes = [1, 3, 300, 700, 1000, 1500, 1999, 10]
    added = [some(size) for size in sizes]
    index = state.inbox._index
    for marks in added[:-1]:
        index.add(marks, 1000, 1000)
    assert work(index) == 0 and rows(index)[0] == 7
    index.add(added[-1], 1000, 1000)
    everything, steps = b"".join(added), 0
    while index.work():
        steps += 1
        assert found(index, everything) == sum(sizes)
        assert found(other.inbox._index, everything) == sum(sizes)
    assert steps > 8
    assert rows(index) == (1, sum(sizes) * MARK)  # nothing is left of the others
    assert found(other.inbox._index, everything + some(100)) == sum(sizes)


def test_segments_of_all_sizes_are_merged_with_such_as_them(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muxly_dagster.state.marks.merging._GROWING", (100, 800))
    index, everything = state.inbox._index, b""
    for _ in range(70):
        marks = some(50)
        index.add(marks, 1000, 1000)
        everything += marks
        work(index)
    with index.engine.connect() as connection:
        assert sorted(each.count for each in segments.whole(connection)) == [50] * 6 + [3200]
    assert found(index, everything) == 3500 == rows(index)[1] // MARK


def test_a_merge_that_was_broken_off_is_done_anew_and_leaves_nothing(state: State, other: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muxly_dagster.state.marks.merging._STEP", 100)
    added = [some(200) for _ in range(8)]
    for marks in added:
        state.inbox._index.add(marks, 1000, 1000)
    for _ in range(4):
        assert state.inbox._index.work()
    assert rows(state.inbox._index) > (8, 1600 * MARK)
    assert work(other.inbox._index) == 0  # one process merges at a time
    state.inbox._index.rest()
    assert work(other.inbox._index) > 8
    assert rows(other.inbox._index) == (1, 1600 * MARK)
    for each in (state, other):
        assert found(each.inbox._index, b"".join(added)) == 1600


def test_two_that_merge_at_once_lose_nothing(state: State, other: State, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock in the database is lost with the connection that holds it."""
    monkeypatch.setattr("muxly_dagster.state.marks.merging._STEP", 100)
    everything = b""
    for number in range(8):
        marks = some(200)
        state.inbox._index.add(marks, number, number)
        everything += marks
    one, two = (each.inbox._index for each in (state, other))
    for index in (one, two):
        index._lock = lambda _name: nullcontext()
    for _ in range(5):
        assert one.work()
    assert two.work()  # takes what is not whole for left behind
    work(one)
    work(two)
    with closing(State.open(url, tmp_path)) as third:
        assert found(third.inbox._index, everything) == 1600


def test_what_a_merge_that_failed_has_written_is_swept(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muxly_dagster.state.marks.merging._STEP", 100)
    for _ in range(8):
        state.inbox._index.add(some(200), 1000, 1000)
    index, write, written = state.inbox._index, segments.write, []

    def full(connection: sa.Connection, segment: segments.Segment, marks: bytes) -> None:
        written.append(len(marks))
        if len(written) % 5 == 0:
            raise RetryLater("the disk is full")
        write(connection, segment, marks)

    monkeypatch.setattr(segments, "write", full)
    sizes = []
    for _ in range(4):
        with pytest.raises(RetryLater):
            work(index)
        index.rest()
        sizes.append(rows(index)[1])
    assert sizes[-1] < 2 * 1600 * MARK and len(written) == 20
    monkeypatch.setattr(segments, "write", write)
    work(index)
    assert rows(index) == (1, 1600 * MARK)


def test_ids_are_forgotten_in_time_however_few_come_a_day(state: State) -> None:
    index, day = state.inbox._index, 24 * 3600
    for today in range(40):
        marks = [some(5) for _ in range(3)]
        for number, each in enumerate(marks):
            index.add(each, today * day + number * day // 3, today * day + (number + 1) * day // 3)
        if today == 0:
            first = b"".join(marks)
        index.forget((today + 1 - 7) * day)
        work(index)
        if today == 6:
            assert found(index, first) == 15
        if today == 9:
            assert found(index, first) == 0
    assert rows(index)[0] <= 3 * 9


def test_old_segments_are_forgotten_and_swept(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muxly_dagster.state.marks.merging._SWEPT", 3)
    index = state.inbox._index
    old, new = some(3000), some(2000)
    index.add(old, 1000, 1000)
    index.add(new, 2000, 2000)
    work(index)
    index.forget(1500)
    assert (found(index, old), found(index, new)) == (0, 2000)
    assert work(index) > 2
    assert rows(index) == (1, 2000 * MARK)
    assert work(index) == 0


def test_a_filter_learns_what_others_added_and_what_they_merged(state: State, other: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muxly_dagster.state.marks.index._MANY", 5)
    monkeypatch.setattr("muxly_dagster.state.marks.index._LEARNED", 70)
    index = other.inbox._index
    added = [some(500) for _ in range(7)]
    for marks in added:
        state.inbox._index.add(marks, 1000, 1000)
    everything = b"".join(added)
    assert not index.is_asked_much
    assert found(index, everything) == 3500 and index.is_asked_much  # they are in no filter of this process
    assert work(index) == 7 * 2  # of two buckets each
    assert found(index, everything) == 3500 and not index.is_asked_much
    own = some(500)
    index.add(own, 1000, 1000)
    assert found(index, everything + own) == 4000 and not index.is_asked_much
    work(state.inbox._index)  # it merges all
    assert rows(index)[0] == 1
    assert found(index, everything + own + some(50)) == 4000
    assert not index.is_asked_much  # what it was merged of is in the filter


def test_what_is_merged_and_swept_while_it_is_learned_is_not_taken_for_learned(
    state: State, other: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muxly_dagster.state.marks.index._MANY", 5)
    monkeypatch.setattr("muxly_dagster.state.marks.index._LEARNED", 70)
    added = [some(500) for _ in range(8)]
    for marks in added:
        state.inbox._index.add(marks, 1000, 1000)
    everything, index = b"".join(added), other.inbox._index
    assert found(index, everything) == 4000
    assert index.work()  # a part of the first
    work(state.inbox._index)
    assert rows(index)[0] == 1
    work(index)
    assert found(index, everything) == 4000
    work(index)
    assert found(index, everything) == 4000 and not index.is_asked_much


def test_what_is_learned_while_it_is_asked_for_is_found(state: State, other: State, monkeypatch: pytest.MonkeyPatch) -> None:
    marks = some(500)
    state.inbox._index.add(marks, 1000, 1000)
    index = other.inbox._index
    monkeypatch.setattr("muxly_dagster.state.marks.index._MANY", 5)
    assert found(index, marks) == 500
    whole = segments.whole

    def meanwhile(connection: sa.Connection) -> list[segments.Segment]:
        """By the other thread, after the filter was asked and before it is known what there is."""
        monkeypatch.setattr(segments, "whole", whole)
        assert work(index) > 0
        return whole(connection)

    monkeypatch.setattr(segments, "whole", meanwhile)
    assert found(index, marks) == 500
    assert segments.whole is whole


def test_a_filter_grows_before_it_lets_everything_through(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muxly_dagster.state.marks.index.SIZES", (128, 1024, 8192))
    index = state.inbox._index
    index._learned.__init__(128)  # type: ignore[misc]
    everything = b""
    for number in range(20):
        marks = some(100)
        index.add(marks, 1000 + number, 1000 + number)
        everything += marks
        work(index)
        assert found(index, everything) == len(everything) // MARK
    assert index._learned.filter.size == 8192 and not index._learned.filter.is_full
    steps = work(index)
    assert steps == 0  # there is no larger one
    index.forget(1019)
    for number in range(30):  # what is forgotten has no place in the filter for ever
        index.add(some(100), 2000 + number, 2000 + number)
        index.forget(2000 + number)
        work(index)
    assert index._learned.filter.count <= 2100


@pytest.mark.parametrize("asked", [1, 8, 9, 5000])
def test_arrivals_are_known_and_nothing_else_however_many_are_asked_for(asked: int) -> None:
    arrivals, rows = Arrivals(), [some(size) for size in (1, 2000, 1, 2999)]
    assert (len(arrivals), arrivals.known(Batch(rows[0])), arrivals.all()) == (0, [], b"")
    for number, row in enumerate(rows):
        arrivals.add(Batch(row))
        # Some of them are taken apart, and others come behind.
        assert (
            list(arrivals.known(Batch(row[: asked * MARK] + some(100)))) == [row[at : at + MARK] for at in range(0, len(row), MARK)][:asked]
        )
        assert sum(len(arrivals.known(Batch(row[-MARK:]))) for row in rows) == number + 1
    assert len(arrivals) == 5001 and arrivals.all() == b"".join(rows)
    more = Arrivals()
    more.take(arrivals)
    assert len(more.known(Batch(b"".join(rows)))) == len(more) == 5001


def test_what_stands_across_two_arrivals_is_none_of_them() -> None:
    arrivals, whole = Arrivals(), some(1)
    arrivals.add(Batch(whole[8:] + whole + whole[:8]))  # `whole` across the first two, and across the last two
    arrivals.add(Batch(some(3)))
    arrivals._filter.add(Batch(whole))  # the filter is wrong about it
    assert arrivals.known(Batch(whole)) == []
    arrivals.add(Batch(whole))
    assert arrivals.known(Batch(whole)) == [whole]


def test_a_filter_knows_what_was_added_and_little_else() -> None:
    filter, inside, outside = MarkFilter(1 << 12), some(1024), some(20_000)
    filter.add(Batch(inside))
    assert filter.perhaps(Batch(inside)) == list(range(1024)) and not filter.is_full
    assert len(filter.perhaps(Batch(outside))) < 100
    filter.add(Batch(some(1)))
    assert filter.is_full and filter.count == 1025
    assert filter.perhaps(Batch(b"")) == []
