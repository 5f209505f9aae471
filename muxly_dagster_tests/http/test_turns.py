"""Rate budgets that several clients and several processes hold together."""

import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest

from muxly_dagster.errors import MuxlyError, RetryLater
from muxly_dagster.http import Http, Limit, Request, Retries, shared
from muxly_dagster.state import State
from muxly_dagster.state.turns import SharedTurns
from muxly_dagster_tests.http.server import Asked, Server, answer, json_answer

SPAWN = multiprocessing.get_context("spawn")
LEASE = 1.0


def fine(asked: Asked) -> bytes:
    return json_answer({})


def slow(asked: Asked) -> bytes:
    time.sleep(0.02)
    return json_answer({})


def get(path: str, count: int) -> list[Request]:
    return [Request("GET", path) for _ in range(count)]


def busiest(server: Server, seconds: float) -> int:
    """The most arrivals within any stretch of this length, by the server's own clock."""
    times = [asked.at for asked in server.asked]
    return max(sum(start <= at < start + seconds for at in times) for start in times)


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/state.db" if request.param == "sqlite" else str(request.getfixturevalue("postgres"))


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    state = State.open(f"sqlite:///{tmp_path}/state.db", tmp_path)
    yield state
    state.close()


def _process(url: str, home: Path, base: str, path: str, count: int, limits: list[Limit], ready: Barrier) -> None:
    """A process of its own that asks as fast as it may."""
    state = State.open(url, home)
    with Http(base, limits=limits, turns=SharedTurns(state.engine, LEASE), account="crm") as http:
        ready.wait()
        list(http.each(get(path, count), 16))
    state.close()


@contextmanager
def processes(number: int, url: str, home: Path, base: str, path: str, count: int, limits: list[Limit]) -> Iterator[list[Any]]:
    """So many processes that begin together; all have ended afterwards."""
    ready = SPAWN.Barrier(number)
    started = [SPAWN.Process(target=_process, args=(url, home, base, path, count, limits, ready)) for _ in range(number)]
    for process in started:
        process.start()
    try:
        yield started
    finally:
        for process in started:
            process.join(60)
            process.kill()


def until(condition: Callable[[], object]) -> None:
    """Wait for something that comes, or fail after long."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_three_processes_together_stay_within_the_limits_of_their_account(url: str, tmp_path: Path) -> None:
    limits = [Limit(requests=6, window=1.2), Limit(concurrency=2)]
    with Server(slow) as server, processes(3, url, tmp_path, server.url, "/", 5, limits) as started:
        pass
    assert [process.exitcode for process in started] == [0, 0, 0]
    assert len(server.asked) == 15
    assert server.most_at_once <= 2
    # What arrives is what started a moment ago: half of the window leaves room for a busy machine, and alone each would send all at once.
    assert busiest(server, 0.6) <= 6


def test_clients_of_one_account_share_a_pace(state: State) -> None:
    with Server(fine) as server, ThreadPoolExecutor(3) as threads:

        def ask(_: int) -> None:
            with Http(server.url, limits=[Limit(per_second=20)], turns=state.turns, account="crm") as http:
                list(http.each(get("/", 10), 8))

        list(threads.map(ask, range(3)))
    assert len(server.asked) == 30
    times = [asked.at for asked in server.asked]
    assert times[-1] - times[0] >= 1.1  # 29 steps of 50 ms are 1.45 s; each on its own would need 0.45 s


def test_places_of_a_killed_process_come_back(url: str, tmp_path: Path) -> None:
    let_go = threading.Event()

    def hold(asked: Asked) -> bytes:
        if asked.path == "/hold":
            let_go.wait(60)
        return json_answer({})

    limits = [Limit(concurrency=2)]
    state = State.open(url, tmp_path)
    turns = SharedTurns(state.engine, LEASE)
    with (
        Server(hold) as server,
        ThreadPoolExecutor(1) as threads,
        Http(server.url, limits=limits, turns=turns, account="crm") as http,
        processes(1, url, tmp_path, server.url, "/hold", 2, limits) as [process],
    ):
        until(lambda: server.running == 2)
        mine = threads.submit(http.get, "/mine")
        time.sleep(0.5)
        assert [asked.path for asked in server.asked] == ["/hold", "/hold"]
        process.kill()
        assert mine.result(60).status == 200
        let_go.set()
    state.close()


def test_clients_of_one_process_share_their_account_and_others_have_their_own(state: State) -> None:
    limits = [Limit(requests=4, window=60)]
    with Server(fine) as server, Http(server.url, limits=limits, turns=state.turns, account="crm") as first:
        list(first.each(get("/first", 3), 3))
        with (
            ThreadPoolExecutor(1) as threads,
            Http(server.url, limits=limits, turns=state.turns, account="crm") as second,
            Http(server.url, limits=limits, turns=state.turns, account="shop") as other,
        ):
            second.get("/second")
            waits = threads.submit(second.get, "/second")
            list(other.each(get("/other", 4), 4))
            second.close()
            with pytest.raises(RetryLater, match="stopped"):
                waits.result()
    assert sorted(asked.path for asked in server.asked) == ["/first"] * 3 + ["/other"] * 4 + ["/second"]


def test_what_a_client_leaves_over_is_free_at_once(state: State) -> None:
    limits = [Limit(requests=100, window=600)]
    with Server(fine) as server:
        for _ in range(4):
            with Http(server.url, limits=limits, turns=state.turns, account="crm") as http:
                list(http.each(get("/", 25), 8))
    assert len(server.asked) == 100


def test_one_client_alone_asks_the_database_now_and_then_and_not_for_each_request(state: State) -> None:
    calls: list[int] = []

    class Counted(SharedTurns):
        def reserve(self, *args, **more):  # type: ignore[no-untyped-def]
            grant = super().reserve(*args, **more)
            calls.append(grant.count)
            return grant

    with (
        Server(fine) as server,
        Http(server.url, limits=[Limit(requests=400, window=60)], turns=Counted(state.engine), account="crm") as http,
    ):
        for request in get("/", 300):
            http.request(request)
    assert len(server.asked) == 300
    assert len(calls) <= 60
    assert max(calls) > 10


def test_a_wait_that_the_server_asks_for_holds_for_the_other_clients_too(state: State) -> None:
    def reply(asked: Asked) -> bytes:
        return answer(429, Retry_After="1") if asked.path == "/limited" and asked.number == 1 else json_answer({})

    limits = [Limit(per_second=50)]
    quick = Retries(attempts=3, base=0.001)
    with (
        Server(reply) as server,
        ThreadPoolExecutor(1) as threads,
        Http(server.url, limits=limits, turns=state.turns, account="crm", retries=quick) as one,
        Http(server.url, limits=limits, turns=state.turns, account="crm", retries=quick) as two,
    ):
        limited = threads.submit(one.get, "/limited")
        until(lambda: state.turns.paused(list(one._budgets._names.values())))  # type: ignore[attr-defined]
        two.get("/other")
        limited.result()
    other = next(asked for asked in server.asked if asked.path == "/other")
    assert other.at - server.asked[0].at >= 0.9


def test_a_limit_of_some_paths_leaves_the_others_alone(state: State) -> None:
    limits = [Limit(path="/search/*", requests=2, window=600), Limit(concurrency=4)]
    with (
        Server(fine) as server,
        ThreadPoolExecutor(1) as threads,
        Http(server.url, limits=limits, turns=state.turns, account="crm") as http,
    ):
        list(http.each(get("/search/a", 2), 2))
        waits = threads.submit(http.get, "/search/b")
        list(http.each(get("/list", 20), 8))
        http.close()
        with pytest.raises(RetryLater):
            waits.result()
    assert len(server.asked) == 22


def test_a_state_that_cannot_be_used_is_said_and_nobody_waits_for_ever(tmp_path: Path) -> None:
    class Broken(SharedTurns):
        def reserve(self, *args, **more):  # type: ignore[no-untyped-def]
            raise RetryLater("the state database cannot be used now", do="free some space")

    state = State.open(f"sqlite:///{tmp_path}/state.db", tmp_path)
    with Server(fine) as server, Http(server.url, limits=[Limit(per_second=5)], turns=Broken(state.engine), account="crm") as http:
        for _ in range(2):
            with pytest.raises(MuxlyError, match="cannot be used now"):
                http.get("/")
    state.close()
    assert server.asked == []


class Down:
    """Turns whose database is gone; `asked` counts how often it was tried, `answers` lets a try end."""

    def __init__(self) -> None:
        self.asked = 0
        self.answers = threading.Event()
        self.answers.set()

    def reserve(self, *_: Any) -> Any:
        self.asked += 1
        self.answers.wait()
        raise RetryLater("the state database cannot be used now", do="wait")

    settle = slots = pause = reserve

    def paused(self, budgets: Any) -> dict[str, float]:
        return {}


def test_a_database_that_is_gone_is_not_asked_without_a_breath() -> None:
    """By clients whose requests have all been told, and who are still open."""
    down = Down()
    with Http("http://127.0.0.1:9", limits=[Limit(per_second=100)], turns=down, account="crm") as http:
        with pytest.raises(RetryLater, match="state database"):
            http.get("/")
        before = down.asked
        time.sleep(0.3)
        assert down.asked <= before + 3


def test_a_database_that_never_answers_does_not_keep_a_client_from_closing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it holds runs out by itself."""
    monkeypatch.setattr(shared, "_PARTING", 0.1)
    down = Down()
    down.answers.clear()
    with ThreadPoolExecutor(1) as threads:
        http = Http("http://127.0.0.1:9", limits=[Limit(per_second=100)], turns=down, account="crm")
        asking = threads.submit(http.get, "/")
        while not down.asked:
            time.sleep(0.001)
        http.close()
        with pytest.raises(RetryLater):
            asking.result()
    assert not down.answers.is_set()
    down.answers.set()
