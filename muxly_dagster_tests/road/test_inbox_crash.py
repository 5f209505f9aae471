"""The promise of collected events: whenever a pull is killed, each is in the lake once, and the inbox is empty behind it."""

import multiprocessing
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from muxly_dagster import records
from muxly_dagster.lake import Lake
from muxly_dagster.state import State
from muxly_dagster_tests.road import inbox_crash as crash

KILLED = -9
EVENTS = 150


@pytest.fixture(scope="module")
def processes() -> Iterator[multiprocessing.context.ForkServerContext]:
    yield multiprocessing.get_context("forkserver")


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/state.db" if request.param == "sqlite" else str(request.getfixturevalue("postgres"))


@pytest.fixture
def state(database: str, tmp_path: Path) -> Iterator[State]:
    state = State.open(database, tmp_path)
    yield state
    state.close()


@pytest.mark.parametrize("point", list(crash.POINTS))
def test_killed_at_every_step(
    processes: multiprocessing.context.ForkServerContext, tmp_path: Path, database: str, state: State, point: str
) -> None:
    crash.put(state, 0, EVENTS)
    killed = posted = 0
    for when in ("before", "after"):
        for occurrence in (1, 2):
            killed += run(processes, crash.run_and_die, tmp_path, database, point, when, occurrence) == KILLED
            posted += 1
            crash.put(state, posted * EVENTS, 20)  # events come in while the pull is down
    assert killed == 4
    assert run(processes, crash.run_once, tmp_path, database) == 0
    expected = {*range(EVENTS), *(n for more in range(1, posted + 1) for n in range(more * EVENTS, more * EVENTS + 20))}
    everything_is_there_once(tmp_path, state, expected)


def test_killed_at_random_moments(
    processes: multiprocessing.context.ForkServerContext, tmp_path: Path, database: str, state: State
) -> None:
    moments, posted = random.Random(5), 0
    for _ in range(8):
        crash.put(state, posted, 60)
        posted += 60
        child = processes.Process(target=crash.run_once, args=(tmp_path, database))
        child.start()
        child.join(moments.uniform(0.05, 0.6))
        child.kill()
        child.join()
    assert run(processes, crash.run_once, tmp_path, database) == 0
    everything_is_there_once(tmp_path, state, set(range(posted)))


def run(processes: multiprocessing.context.ForkServerContext, target: Callable[..., None], *arguments: object) -> int | None:
    child = processes.Process(target=target, args=arguments)
    child.start()
    child.join()
    return child.exitcode


def everything_is_there_once(folder: Path, state: State, expected: set[int]) -> None:
    log = Lake(str(folder / "lake")).existing(crash.PULL).changes(0, 1 << 40)
    assert sorted(log["n"].to_pylist()) == sorted(expected)
    assert log["_id"].to_pylist() == [f"e-{n}" for n in log["n"].to_pylist()]
    assert set(log[records.OP].to_pylist()) == {"append"}
    assert state.inbox.waiting("app") == {}
    letters = state.ledger.dead_letters(crash.PULL, limit=10_000)
    assert len(letters) == len({letter.record for letter in letters}) > EVENTS // 7
