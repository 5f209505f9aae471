"""Starts begin once, calls are kept once and taken by one start, whoever comes at the same time; on SQLite and on Postgres."""

import contextlib
import dataclasses
import datetime as dt
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from muxly_dagster.intake import Call
from muxly_dagster.state import Start, State, tables
from muxly_dagster.state.calls import Kept
from muxly_dagster.state.starts import take_turn
from muxly_dagster_tests.peers.postgres import fresh_database

NOW = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)


def later(**much: float) -> dt.datetime:
    return NOW + dt.timedelta(**much)


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[State]:
    folder = tmp_path_factory.mktemp("state")
    with contextlib.ExitStack() as stack:
        url = f"sqlite:///{folder}/state.db"
        if request.param == "postgres":
            url = stack.enter_context(fresh_database(request.getfixturevalue("postgres_url")))
        state = State.open(url, folder)
        stack.callback(state.close)
        yield state


@pytest.fixture
def state(opened: State) -> State:
    with opened.engine.begin() as connection:
        for table in (tables.calls, tables.starts, tables.jobs):
            connection.execute(sa.delete(table))
    return opened


def a_call(delivery: str, job: str = "on_deal", body: bytes = b"{}", at: dt.datetime = NOW) -> Call:
    return Call(0, str(uuid.uuid5(uuid.NAMESPACE_URL, f"{job} {delivery}")), job, delivery, at, {"x-a": "é"}, "a=1", body)


def put(state: State, delivery: str, job: str = "on_deal", at: dt.datetime = NOW) -> Kept:
    call = a_call(delivery, job, at=at)
    return state.calls.put(call, Start(f"start of {delivery}", job, "webhook", at))


def deliveries(state: State, start: str) -> list[str]:
    return [call.delivery_id for call in state.calls.of_start(start)]


def test_a_start_is_written_down_once(state: State) -> None:
    start = Start("s1", "nightly", "api", NOW, {"who": "me"})
    assert state.starts.put(start)
    assert not state.starts.put(Start("s1", "other", "cron", later(days=1)))
    assert state.starts.find("s1") == start
    assert state.starts.find("s2") is None
    assert state.starts.open("nightly") == [start]
    assert state.starts.put(Start("s2", "nightly", "api", NOW)), "the API may start a job as often as it likes"


def test_one_run_begins_a_start_again_and_again_and_no_other_does(state: State) -> None:
    state.starts.put(Start("s1", "nightly", "cron", NOW))
    assert [state.starts.begin("s1", run) for run in ("r1", "r1", "r2", "r1")] == [True, True, False, True]
    found = state.starts.find("s1")
    assert found is not None and (found.run_id, found.ended) == ("r1", "begun")
    assert state.starts.open("nightly") == state.starts.due(later(days=1)) == []
    assert not state.starts.cancel("s1")
    assert not state.starts.begin("unheard", "r1")


def test_a_cancelled_start_never_begins_and_its_calls_are_passed_over(state: State) -> None:
    put(state, "a")
    assert state.starts.cancel("start of a")
    assert not state.starts.cancel("start of a")
    assert not state.starts.begin("start of a", "r1")
    put(state, "b")
    assert state.starts.begin("start of b", "r2")
    assert deliveries(state, "start of b") == ["b"]
    put(state, "c")
    for _ in range(2):
        assert state.starts.begin("start of a", "r1", repeated=True), "somebody repeats the run that was cancelled"
    assert not state.starts.begin("start of a", "r3", repeated=True)
    assert deliveries(state, "start of a") == ["a"]
    assert state.calls.waiting("on_deal") == 1


def test_what_is_due_is_asked_about_again_later_each_time(state: State) -> None:
    state.starts.put(Start("s1", "nightly", "cron", later(minutes=1)))
    due: Callable[[dt.datetime], list[str]] = lambda at: [start.id for start in state.starts.due(at)]  # noqa: E731
    assert (due(NOW), due(later(minutes=1))) == ([], ["s1"])
    assert state.starts.submitted("s1", later(minutes=1))
    assert not state.starts.submitted("s1", later(minutes=1)), "somebody else is asking Dagster right now"
    assert (due(later(minutes=1, seconds=29)), due(later(minutes=1, seconds=30))) == ([], ["s1"])
    assert state.starts.submitted("s1", later(minutes=2))
    assert (due(later(minutes=2, seconds=59)), due(later(minutes=3))) == ([], ["s1"])
    state.starts.put_back("s1")
    assert due(later(minutes=2)) == ["s1"]
    found = state.starts.find("s1")
    assert found is not None and found.attempts == 2
    state.starts.begin("s1", "r1")
    state.starts.put_back("s1")
    assert due(later(days=1)) == []
    assert not state.starts.submitted("s1", later(days=1))


def test_what_webhooks_start_waits_while_the_job_is_paused(state: State) -> None:
    def pause(paused: bool) -> None:
        with state.engine.begin() as connection:
            tables.ensure(connection, tables.jobs, name="on_deal", spec=None, paused=paused, version=1, created_at="", updated_at="")
            connection.execute(sa.update(tables.jobs).values(paused=paused))

    pause(True)
    assert put(state, "a").paused
    state.starts.put(Start("by hand", "on_deal", "api", NOW))
    assert [start.id for start in state.starts.due(NOW)] == ["by hand"]
    pause(False)
    assert {start.id for start in state.starts.due(NOW)} == {"by hand", "start of a"}
    assert not put(state, "b").paused


def test_calls_come_together_in_one_start_until_it_begins(state: State) -> None:
    first = put(state, "a")
    assert first.opened is not None and first.opened.id == "start of a"
    assert put(state, "b") == Kept()
    assert put(state, "c", job="other").opened is not None
    assert state.calls.waiting("on_deal") == 2
    assert state.starts.begin("start of a", "r1")
    assert put(state, "d").opened is not None, "what comes now is for the next run"
    assert deliveries(state, "start of a") == ["a", "b"]
    assert state.starts.begin("start of a", "r1")
    assert deliveries(state, "start of a") == ["a", "b"], "to begin again takes nothing more"
    assert state.starts.begin("start of d", "r2")
    assert deliveries(state, "start of d") == ["d"]
    assert (state.calls.waiting("on_deal"), state.calls.waiting("other")) == (0, 1)


def test_a_repetition_is_known_and_opens_nothing(state: State) -> None:
    put(state, "a")
    assert put(state, "a") == Kept(known=True)
    state.starts.begin("start of a", "r1")
    assert put(state, "a") == Kept(known=True)
    assert state.starts.open("on_deal") == []
    assert put(state, "a", job="other").known is False


def test_a_call_is_read_as_it_was_kept(state: State) -> None:
    body = bytes(range(256))
    state.calls.put(a_call("a", body=body), Start("s", "on_deal", "webhook", NOW))
    (call,) = state.calls.after("on_deal", 0, 10)
    assert (call.delivery_id, call.body, call.headers, call.query, call.received_at) == ("a", body, {"x-a": "é"}, "a=1", NOW)
    assert state.calls.find("on_deal", "a") == call
    assert state.calls.find("on_deal", "b") is None
    assert state.calls.jobs() == ["on_deal"]


def test_calls_are_read_in_order_and_no_more_than_fit_into_memory(state: State) -> None:
    for number in range(5):
        state.calls.put(a_call(str(number), body=b"x" * (3 << 20)), Start("s", "on_deal", "webhook", NOW))
    page = state.calls.after("on_deal", 0, 10)
    assert [call.delivery_id for call in page] == ["0", "1", "2"]
    assert [call.delivery_id for call in state.calls.after("on_deal", page[-1].seq, 1)] == ["3"]
    state.starts.begin("s", "r")
    assert deliveries(state, "s") == ["0", "1", "2", "3", "4"]


def test_old_calls_are_forgotten_once_they_were_taken_and_stored(state: State) -> None:
    put(state, "a", at=later(days=-10))
    put(state, "b", at=later(days=-10))
    state.starts.begin("start of a", "r1")
    put(state, "waits", at=later(days=-10))
    seq = state.calls.after("on_deal", 0, 1)[0].seq
    assert state.calls.prune("on_deal", later(days=-20)) == 0
    assert state.calls.prune("on_deal", NOW, upto=seq) == 1
    assert state.starts.prune(NOW) == 0, "a call of it is left"
    assert state.calls.prune("on_deal", NOW) == 1
    assert [call.delivery_id for call in state.calls.after("on_deal", 0, 10)] == ["waits"]
    assert state.starts.prune(NOW) == 1
    assert state.starts.find("start of a") is None
    assert state.starts.find("start of waits") is not None


def test_a_call_that_was_forgotten_and_comes_again_finds_a_start(state: State) -> None:
    put(state, "a", at=later(days=-10))
    put(state, "b")
    state.starts.begin("start of a", "r1")
    assert state.calls.prune("on_deal", NOW) == 1
    assert state.starts.prune(NOW) == 0
    again = put(state, "a")
    assert again.opened is not None and again.opened.id != "start of a"
    assert state.starts.begin(again.opened.id, "r2")
    assert deliveries(state, again.opened.id) == ["a"]


def test_calls_that_wait_for_the_disk_are_written_together_and_one_that_cannot_be_hurts_no_other(state: State) -> None:
    broken = dataclasses.replace(a_call("broken"), headers={"x": object()})  # type: ignore[dict-item]
    with ThreadPoolExecutor(12) as threads:
        with state.engine.begin() as connection:
            take_turn(connection, "on_deal")  # nobody else writes meanwhile
            first = threads.submit(put, state, "first")
            futures = [threads.submit(put, state, f"d{number}") for number in range(8)]
            futures += [threads.submit(put, state, "d0")]
            bad = threads.submit(state.calls.put, broken, Start("s", "on_deal", "webhook", NOW))
            while len(state.calls._queue) < 10:
                time.sleep(0.001)
        kept = [first.result(), *(future.result() for future in futures)]
        with pytest.raises(Exception, match="not JSON serializable"):
            bad.result()
    assert sum(each.opened is not None for each in kept) == 1
    assert sum(each.known for each in kept) == 1
    assert state.calls.waiting("on_deal") == 9
    assert put(state, "after").known is False


def test_many_at_once_lose_no_call_and_take_none_twice(state: State) -> None:
    """Callers, runs that begin and a pull that reads, all at the same time."""
    begun: list[str] = []
    read: list[int] = []
    done = threading.Event()

    def call(number: int) -> None:
        put(state, f"d{number:03}")

    def run() -> None:
        while True:
            last = done.is_set()
            for start in state.starts.open("on_deal"):
                if state.starts.begin(start.id, f"run of {start.id}"):
                    begun.append(start.id)
            if last:
                return

    def pull() -> None:
        while True:
            last = done.is_set()
            read.extend(call.seq for call in state.calls.after("on_deal", read[-1] if read else 0, 7))
            if last and not state.calls.after("on_deal", read[-1] if read else 0, 1):
                return

    with ThreadPoolExecutor(8) as threads:
        others = [threads.submit(run), threads.submit(run), threads.submit(pull)]
        for future in [threads.submit(call, number) for number in range(60)]:
            future.result()
        done.set()
        for other in others:
            other.result()
    taken = [delivery for start in dict.fromkeys(begun) for delivery in deliveries(state, start)]
    assert sorted(taken) == [f"d{number:03}" for number in range(60)]
    assert state.calls.waiting("on_deal") == 0
    everything = [call.seq for call in state.calls.after("on_deal", 0, 1000)]
    assert read == everything, "no call turned up behind one that was read already"
