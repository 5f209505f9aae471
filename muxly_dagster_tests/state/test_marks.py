"""No process takes an event for a new one that another one has stored, whoever brings marks into the index meanwhile."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from muxly_dagster.collecting import Gathered
from muxly_dagster.state import State, tables
from muxly_dagster.state.posts import Part, Post


@pytest.fixture
def two(url: str, tmp_path: Path) -> Iterator[tuple[State, State]]:
    """Two processes, as it were, of one database."""
    found = State.open(url, tmp_path), State.open(url, tmp_path)
    for number, each in enumerate(found):
        stored(each, f"begin-{number}")
    yield found
    for each in found:
        each.close()


def stored(state: State, *ids: str) -> int:
    """Store events; how many were new."""
    post = Post("app", [Part.of("app", Gathered("signups", [b"{}"] * len(ids), list(ids), range(len(ids))))])
    state.inbox.put([post])
    return post.kept[0].accepted


def settle(state: State) -> None:
    state.inbox._marks.settle(state.inbox._turn)


def test_what_came_and_was_indexed_while_a_process_was_idle_is_known_to_it(two: tuple[State, State]) -> None:
    busy, idle = two
    settle(idle)
    assert stored(idle, "begin-0", "begin-1") == 0
    settle(idle)  # nothing is recent any more
    for name in ("a", "b"):
        assert stored(busy, name) == 1
        settle(busy)
        assert stored(idle, name) == 0


def test_what_another_process_indexes_beside_is_known_to_the_one_that_indexes_too(
    two: tuple[State, State], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = two
    stored(one, "a")
    add = one.inbox._index.add

    def beside(marks: bytes, since: int, at: int) -> None:
        add(marks, since, at)
        stored(other, "b")
        settle(other)

    monkeypatch.setattr(one.inbox._index, "add", beside)
    settle(one)
    assert stored(one, "a", "b") == 0
    assert stored(other, "a", "b", "begin-0", "begin-1") == 0


def test_what_a_process_brings_into_the_index_while_another_one_ends_to_do_so_gets_there(
    two: tuple[State, State], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = two
    stored(one, "a")
    add, added, ends = one.inbox._index.add, threading.Event(), threading.Event()

    def slow(marks: bytes, since: int, at: int) -> None:
        add(marks, since, at)
        added.set()
        ends.wait()

    monkeypatch.setattr(one.inbox._index, "add", slow)
    settling = threading.Thread(target=settle, args=[one])

    class Turn:
        """The first process ends, and the other thread of the second one sees it, before the latter goes on."""

        def __enter__(self) -> None:
            pass

        def __exit__(self, *_: object) -> None:
            if not ends.is_set():
                ends.set()
                settling.join()
                stored(other, "c")

    settling.start()
    added.wait()
    stored(other, "b")  # the first process does not bring this one
    other.inbox._marks.settle(Turn())
    for each in two:
        assert stored(each, "a", "b", "c", "begin-0", "begin-1") == 0


def test_marks_go_into_the_index_between_the_looks_of_no_other_process(two: tuple[State, State]) -> None:
    """In Postgres each statement sees what was committed before it."""
    one, other = two
    if one.engine.dialect.name == "sqlite":
        pytest.skip("has one writer at a time")
    stored(other, "a")
    settling = threading.Thread(target=settle, args=[other])

    def waits() -> bool:
        held = "select count(*) from pg_locks where locktype = 'advisory' and not granted and database = %s"
        with one.engine.connect() as looking:
            own = looking.exec_driver_sql("select oid from pg_database where datname = current_database()").scalar_one()
            return bool(looking.exec_driver_sql(held, (own,)).scalar_one())

    def between(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if "min(inbox_recent.seq)" in statement and not settling.ident:
            settling.start()
            while settling.is_alive() and not waits():
                pass

    sa.event.listen(one.inbox_engine, "after_cursor_execute", between)
    assert stored(one, "a") == 0
    settling.join()
    assert stored(one, "a", "begin-0", "begin-1") == 0


def test_indexing_over_and_over_leaves_next_to_nothing_behind(two: tuple[State, State]) -> None:
    for _ in range(5):
        for each in two:
            settle(each)
    with two[0].inbox_engine.connect() as connection:
        rows = connection.execute(sa.select(tables.inbox_recent)).all()
    assert len(rows) <= 1 and not any(row.marks for row in rows)
