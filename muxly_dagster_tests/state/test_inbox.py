"""The inbox stores each event once, in order, in few transactions; and lets go of what is in the lake."""

import datetime as dt
import os
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from muxly_dagster.collecting import Gathered
from muxly_dagster.errors import RetryLater
from muxly_dagster.state import State, tables
from muxly_dagster.state.marks import MarkIndex
from muxly_dagster.state.posts import Part, Post

ALL = 1 << 40
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def post(*ids: str, stream: str = "signups", source: str = "app", key: bytes = b"", body: bytes = b"") -> Post:
    """A request with an event for each id ("" for an event without one); each event says its place."""
    lines = [b'{"n":%d}' % number for number in range(len(ids))]
    part = Part.of(source, Gathered(stream, lines, list(ids), range(len(ids))))
    return Post(source, [part], key, body, lambda post: f"accepted {post.kept[0].accepted}")


def ids(state: State, stream: str = "signups", source: str = "app") -> list[str]:
    return [id for parcel in state.inbox.parcels(source, stream, 0, ALL) for id in parcel.ids]


def settle(state: State) -> None:
    state.inbox._marks.settle(state.inbox._turn)


def test_events_of_one_stream_become_one_parcel_in_their_order(state: State) -> None:
    posts = [post("a", "b"), post("x", stream="visits"), post("c"), post("a", source="shop")]
    state.inbox.put(posts)
    [parcel] = state.inbox.parcels("app", "signups", 0, ALL)
    assert (parcel.ids, parcel.body) == (("a", "b", "c"), b'{"n":0}\n{"n":1}\n{"n":0}')
    assert abs(parcel.received_at - dt.datetime.now(dt.UTC)) < dt.timedelta(minutes=5)
    assert [each.kept[0].seq for each in posts] == [parcel.seq, posts[1].kept[0].seq, parcel.seq, posts[3].kept[0].seq]
    assert (ids(state, "visits"), ids(state, source="shop"), ids(state, "other")) == (["x"], ["a"], [])


def test_what_was_refused_is_kept_beside(state: State) -> None:
    refused = [('{"plan":7}', "plan: 7 is no string"), ("{}", "a line\nbreak")]
    state.inbox.put([Post("app", [Part.of("app", Gathered("signups"), refused)])])
    [parcel] = state.inbox.parcels("app", "signups", 0, ALL)
    assert (parcel.ids, parcel.body, parcel.refused) == ((), b"", tuple(refused))
    assert state.inbox.waiting("app") == {"signups": 2}


def test_an_id_is_stored_once_within_a_request_between_requests_and_later(state: State) -> None:
    first, second, third = post("a", "b", "a"), post("b", "c"), post("a", stream="visits")
    state.inbox.put([first, second, third])
    assert [(each.kept[0].accepted, each.kept[0].duplicate) for each in (first, second, third)] == [(2, 1), (1, 1), (1, 0)]
    later = post("c", "d", "a")
    state.inbox.put([later])
    assert (later.kept[0].accepted, later.kept[0].duplicate) == (1, 2)
    again = post("d")
    state.inbox.put([again])
    assert (again.kept[0].accepted, again.kept[0].seq) == (0, 0)
    assert ids(state) == ["a", "b", "c", "d"]
    assert state.inbox.parcels("app", "signups", 0, ALL)[-1].body == b'{"n":1}'


def test_events_without_an_id_get_ones_of_their_own_in_order(state: State) -> None:
    state.inbox.put([post("", "", "x", ""), post("", "")])
    found = ids(state)
    own = [id for id in found if id != "x"]
    assert len(set(own)) == 5 and found[2] == "x"
    assert own[:3] == sorted(own[:3])
    assert all(id[14] == "7" and len(id) == 36 for id in own)


def test_another_process_knows_what_one_has_stored(state: State, url: str, tmp_path: Path) -> None:
    other = State.open(url, tmp_path)
    try:
        for each, name in ((state, "a"), (other, "b"), (state, "c")):
            each.inbox.put([post(name)])
        repeated = post("a", "b", "c", "d")
        other.inbox.put([repeated])
        assert repeated.kept[0].duplicate == 3
        state.inbox.put([twice := post("d")])
        assert twice.kept[0].duplicate == 1
    finally:
        other.close()


def test_ids_are_known_while_they_are_indexed_and_afterwards_to_all_and_after_a_restart(
    state: State, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"id-{number}" for number in range(20_000)]
    other = State.open(url, tmp_path)
    index = state.inbox._index
    seen = []

    def between() -> None:
        for each in (state, other):
            each.inbox.put([again := post("id-0", "id-9999", "id-19999", f"new-{len(seen)}")])
            seen.append(again.kept[0].duplicate)

    def killed(marks: bytes, since: int, at: int) -> None:
        between()
        MarkIndex.add(index, marks, since, at)
        between()
        raise KeyboardInterrupt

    try:
        for at in range(0, len(names), 5000):
            state.inbox.put([post(*names[at : at + 5000])])
        other.inbox.put([post("id-0")])
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(index, "add", killed)
            settle(state)
        between()
        settle(state)
        between()
        assert len(seen) == 8 and set(seen) == {3}
        for each in (state, other):
            each.inbox.put([again := post(*names[::100], *(f"new-{number}" for number in range(len(seen))))])
            assert again.kept[0].accepted == 0
        with index.engine.connect() as connection:
            assert connection.scalar(sa.select(sa.func.sum(tables.inbox_segments.c.count))) >= len(names)
    finally:
        other.close()
    third = State.open(url, tmp_path)
    third.inbox.put([again := post(*names)])
    third.close()
    assert again.kept[0].duplicate == len(names)


def test_a_process_indexes_when_much_is_recent_and_others_leave_it_to_it(state: State, url: str, tmp_path: Path) -> None:
    other = State.open(url, tmp_path)
    try:
        for each in (state, other):
            each.inbox._marks._most = 10
        state.inbox.put([post(*map(str, range(8)))])
        other.inbox.put([post(*map(str, range(8, 16)))])
        state.inbox.put([post("16")])
        assert (state.inbox.untidy, other.inbox.untidy) == (False, True)
        other.inbox.tidy(EPOCH)
        assert not other.inbox.untidy
        state.inbox.put([again := post(*map(str, range(18)))])
        assert again.kept[0].accepted == 1
        assert not state.inbox.untidy  # two are recent now
    finally:
        other.close()


def test_ids_and_keys_are_forgotten_after_a_while(state: State) -> None:
    later = dt.datetime.now(dt.UTC) + dt.timedelta(days=1)
    state.inbox.put([post("a", "b"), post("c", key=b"k" * 16, body=b"f" * 16)])
    state.inbox.tidy(EPOCH)
    state.inbox.put([known := post("a")])
    assert known.kept[0].duplicate == 1
    state.inbox.tidy(later)  # brings them where they can be forgotten
    state.inbox.tidy(later)
    state.inbox.put([post("a"), post("c", key=b"k" * 16, body=b"g" * 16)])
    assert ids(state) == ["a", "b", "c", "a", "c"]


def test_more_ids_than_memory_should_hold_are_told_to_come_again_until_they_are_indexed(state: State) -> None:
    state.inbox._marks._most = 10
    state.inbox.put([post(*map(str, range(90)))])
    with pytest.raises(RetryLater, match="more new ids"):
        state.inbox.put([post("new")])
    assert state.inbox.untidy and len(ids(state)) == 90
    state.inbox.tidy(EPOCH)
    state.inbox.put([again := post("new", "0", "89")])
    assert (again.kept[0].accepted, again.kept[0].duplicate) == (1, 2)


def test_a_request_is_told_what_it_was_told_before_and_nothing_is_stored(state: State) -> None:
    first = post("a", "b", key=b"k" * 16, body=b"f" * 16)
    state.inbox.put([first])
    same, other, in_group, like_it = (
        post("a", "b", key=b"k" * 16, body=b"f" * 16),
        post("c", key=b"k" * 16, body=b"g" * 16),
        post("d", "", key=b"l" * 16, body=b"h" * 16),
        post("d", "", key=b"l" * 16, body=b"h" * 16),
    )
    state.inbox.put([same, other, in_group, like_it])
    assert same.earlier == other.earlier == (b"f" * 16, "accepted 2")
    assert in_group.earlier is None and like_it.earlier == (b"h" * 16, "accepted 2")
    assert ids(state)[:3] == ["a", "b", "d"] and len(ids(state)) == 4


def test_parcels_come_in_portions_and_are_let_go_of(state: State) -> None:
    for number in range(7):
        state.inbox.put([post(*(f"{number}-{each}" for each in range(100)))])
    sizes = [len(parcel.body) for parcel in state.inbox.parcels("app", "signups", 0, ALL)]
    assert len(sizes) == 7
    seen: list[str] = []
    at, rounds = 0, 0
    while parcels := state.inbox.parcels("app", "signups", at, sizes[0] * 3):
        seen += [parcel.ids[0] for parcel in parcels]
        at, rounds = parcels[-1].seq, rounds + 1
    assert seen == [f"{number}-0" for number in range(7)] and 2 < rounds < 7
    assert len(state.inbox.parcels("app", "signups", 0, 1)) == 1
    third = state.inbox.parcels("app", "signups", 0, ALL)[2].seq
    state.inbox.put([post("x", stream="visits")])
    state.inbox.let_go("app", "signups", third)
    assert state.inbox.waiting("app") == {"signups": 400, "visits": 1}
    assert state.inbox.ends([("app", "signups"), ("app", "nothing")]) == {("app", "signups"): (third + 1, third + 4)}
    state.inbox.let_go("app", "signups", ALL)
    assert state.inbox.waiting("app") == {"visits": 1}
    state.inbox.put([again := post("0-0", "new")])
    assert again.kept[0].duplicate == 1 and again.kept[0].seq > third + 4  # no number is given twice


def test_many_parcels_are_let_go_of_in_slices(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muxly_dagster.state.inbox._SLICE", 100)
    monkeypatch.setattr("muxly_dagster.state.inbox._ROWS", 3)
    for number in range(11):
        state.inbox.put([post(f"{number}-{'x' * (number % 5) * 30}")])
    [*_, before, last] = state.inbox.parcels("app", "signups", 0, ALL)
    state.inbox.let_go("app", "signups", before.seq)
    assert [parcel.seq for parcel in state.inbox.parcels("app", "signups", 0, ALL)] == [last.seq]


def test_the_depth_says_what_waits(state: State) -> None:
    assert (state.inbox.depth(), state.inbox.size()) == ([], 0)
    state.inbox.put([post("a", "b"), post("x", source="shop")])
    state.inbox.put([post("c")])
    deep, shop = state.inbox.depth()
    assert (deep.source, deep.stream, deep.parcels, deep.events) == ("app", "signups", 2, 3)
    assert (shop.source, shop.events) == ("shop", 1)
    assert deep.bytes + shop.bytes == state.inbox.size() > 30
    assert deep.oldest <= shop.oldest <= dt.datetime.now(dt.UTC)


def test_a_reader_with_a_cursor_misses_nothing_while_several_store(state: State, url: str, tmp_path: Path) -> None:
    """Four writers with connections of their own; the reader goes on behind the last seq that it saw."""
    writers = [State.open(url, tmp_path) for _ in range(4)]
    threads = [
        threading.Thread(target=lambda w=w, s=s: [s.inbox.put([post(f"{w}-{n}-a", f"{w}-{n}-b")]) for n in range(40)])  # type: ignore[misc]
        for w, s in enumerate(writers)
    ]
    seen: list[str] = []
    at = 0
    try:
        for thread in threads:
            thread.start()
        while True:
            over = not any(thread.is_alive() for thread in threads)
            parcels = state.inbox.parcels("app", "signups", at, ALL)
            seen += [id for parcel in parcels for id in parcel.ids]
            at = parcels[-1].seq if parcels else at
            if over and not parcels:
                break
    finally:
        for thread in threads:
            thread.join()
        for each in writers:
            each.close()
    assert len(seen) == len(set(seen)) == 4 * 40 * 2
    for writer in range(4):
        own = [id for id in seen if id.startswith(f"{writer}-")]
        assert own == [f"{writer}-{n}-{half}" for n in range(40) for half in "ab"]


def test_a_full_disk_stores_nothing_and_says_so(tmp_path: Path) -> None:
    state = State.open(f"sqlite:///{tmp_path}/state.db", tmp_path)
    big = Post("app", [Part.of("app", Gathered("signups", [os.urandom(1_000_000)], ["big"], (0,)))])
    with state.inbox_engine.connect() as connection:
        # In the only connection of the pool: a limit on the file's pages stands for a disk that is full.
        pages = connection.exec_driver_sql("pragma page_count").scalar_one()
        connection.exec_driver_sql(f"pragma max_page_count={pages + 10}")
    with pytest.raises(RetryLater, match="full") as error:
        state.inbox.put([post("a"), big])
    assert "free some space" in error.value.do
    assert ids(state) == []
    state.inbox.put([small := post("a", "b")])
    assert small.kept[0].accepted == 2
    state.close()


def test_the_index_is_opened_before_others_have_to_wait(tmp_path: Path) -> None:
    """To open it may have to wait for a process that itself waits for whoever stores events."""
    state = State.open(f"sqlite:///{tmp_path}/state.db", tmp_path)
    opened = state.inbox._index._beside
    assert opened is not None

    def watched() -> sa.Engine:
        with closing(sqlite3.connect(tmp_path / "state-inbox.db", timeout=0)) as other:
            other.execute("begin immediate")
        return opened()

    state.inbox._index._beside = watched
    state.inbox.put([post("a")])
    assert ids(state) == ["a"]
    state.close()


def test_opening_waits_for_nobody_who_stores(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/state.db"
    State.open(url, tmp_path).close()
    with closing(sqlite3.connect(tmp_path / "state-inbox.db", isolation_level=None)) as storing:
        storing.execute("begin immediate")
        State.open(url, tmp_path).close()


def test_reading_waits_for_nobody_who_stores(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/state.db"
    state, other = State.open(url, tmp_path), State.open(url, tmp_path)
    state.inbox.put([post("a")])
    with other.inbox_engine.begin():  # holds the lock for writing
        assert ids(state) == ["a"]
        assert state.inbox.waiting("app") == {"signups": 1} and len(state.inbox.depth()) == 1
        assert len(state.inbox.ends([("app", "signups")])) == 1
    state.close()
    other.close()


def test_bodies_come_back_as_they_were_however_they_are_kept(state: State) -> None:
    lines = [b'{"n":"%b"}' % (b"%d" % n * size) for n, size in enumerate((0, 1013, 1014, 1015, 5000, 2_000_000))]
    lines.append(b'{"n":"%b"}' % os.urandom(20_000).hex().encode())
    for number, line in enumerate(lines):
        state.inbox.put([Post("app", [Part.of("app", Gathered("signups", [line], [f"id-{number}"], (0,)))])])
    with state.inbox_engine.begin() as connection:  # as it was kept before bodies were compressed
        row = {"source": "app", "stream": "signups", "received_at": tables.now(), "count": 1, "size": 9, "ids": "old", "refused": ""}
        connection.execute(sa.insert(tables.inbox).values(body=lines[4], **row))
        kept = [bytes(body) for body in connection.scalars(sa.select(tables.inbox.c.body).order_by(tables.inbox.c.seq))]
    assert [parcel.body for parcel in state.inbox.parcels("app", "signups", 0, ALL)] == [*lines, lines[4]]
    assert kept[0] == lines[0] and len(kept[5]) < 2000 < len(kept[6]) < len(lines[6])
    assert state.inbox.size() == sum(map(len, lines)) + len("id-0") * len(lines) + 9
