"""Killed at any moment, whatever the destinations and their policies: nothing is lost, and what comes twice has the same id."""

import json
import multiprocessing
import random
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from muxly_dagster.state import State
from muxly_dagster_tests.road import crash_policies as crash
from muxly_dagster_tests.road.receiver import is_refused, serve, taken

KILLED = -9
KEYS = {str(v) for v in range(crash.RECORDS)}


@pytest.fixture(scope="module")
def processes() -> Iterator[multiprocessing.context.ForkServerContext]:
    yield multiprocessing.get_context("forkserver")


@dataclass
class Outside:
    """What the road delivers to: a folder with everything, and the ports of two receivers."""

    processes: multiprocessing.context.ForkServerContext
    folder: Path
    hook: int
    likes: int

    def run(self, *, seconds: float | None = None) -> int | None:
        """Deliver in a child; kill it after so many seconds. Answers its exit code."""
        child = self.processes.Process(target=crash.run_once, args=(self.folder, self.hook, self.likes))
        child.start()
        child.join(seconds)
        if seconds is not None:
            child.kill()
            child.join()
        return child.exitcode

    def run_and_die(self, point: str, when: str, occurrence: int) -> bool:
        """Deliver in a child that kills itself; answers whether it came to that."""
        arguments = (self.folder, self.hook, self.likes, point, when, occurrence)
        child = self.processes.Process(target=crash.run_and_die, args=arguments)
        child.start()
        child.join()
        return child.exitcode == KILLED


@pytest.fixture
def outside(processes: multiprocessing.context.ForkServerContext, tmp_path: Path) -> Iterator[Outside]:
    receivers, ports = [], []
    for name in ("hook", "likes"):
        here, there = processes.Pipe()
        receiver = processes.Process(target=serve, args=(there, tmp_path / f"{name}.log"), daemon=True)
        receiver.start()
        receivers.append(receiver)
        ports.append(here.recv())
    yield Outside(processes, tmp_path, *ports)
    for receiver in receivers:
        receiver.kill()
        receiver.join()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("point", list(crash.POINTS))
def test_killed_at_every_step(outside: Outside, point: str, when: str) -> None:
    killed = [outside.run_and_die(point, when, occurrence) for occurrence in (1, 2, 4)]
    assert any(killed)
    assert outside.run() == 0
    everything_arrived(outside.folder)


@pytest.mark.parametrize("seed", range(3))
def test_killed_at_random_moments(outside: Outside, seed: int) -> None:
    moments = random.Random(seed)
    for _ in range(12):
        outside.run(seconds=moments.uniform(0, 0.5))
    assert outside.run() == 0
    everything_arrived(outside.folder)


def everything_arrived(folder: Path) -> None:
    odd = {key for key in KEYS if int(key) % 2}
    refused = {key for key in KEYS if is_refused(int(key))}

    # A webhook may be told twice, by the same id; in strict order, the first time always follows what comes before it.
    hook = taken(folder / "hook.log")
    assert {key for _, key in hook} == odd - refused
    assert len({identity for identity, _ in hook}) == len(odd - refused)
    first = [int(identity.rpartition(":")[2]) for identity in dict.fromkeys(identity for identity, _ in hook)]
    assert first == sorted(first)

    # Files and a database hold every change once.
    lines = [line for path in (folder / "files").rglob("[!.]*.ndjson") for line in path.read_text().splitlines()]
    assert sorted(json.loads(line)["key"] for line in lines) == sorted(KEYS)
    with sqlite3.connect(folder / "warehouse.db") as connection:
        assert sorted(id_ for (id_,) in connection.execute("select id from things")) == sorted(KEYS)
    connection.close()

    # Of what is alike, one was delivered: the first that was not refused.
    groups: dict[int, set[str]] = {}
    for _, key in taken(folder / "likes.log"):
        groups.setdefault(int(key) % crash.GROUPS, set()).add(key)
    expected = {g: next(v for v in range(g, crash.RECORDS, crash.GROUPS) if not is_refused(v)) for g in range(crash.GROUPS)}
    assert groups == {g: {str(v)} for g, v in expected.items()}

    held_back = [g for g in range(crash.GROUPS) if is_refused(g)]
    state = State.open(f"sqlite:///{folder}/state.db", folder)
    counts = {name: tuple(state.ledger.totals(f"out.{name}").values()) for name in ("hook", "files", "warehouse", "likes")}
    everything = crash.RECORDS
    assert counts["hook"] == (everything, len(odd - refused), len(refused), everything - len(odd))
    assert counts["files"] == counts["warehouse"] == (everything, everything, 0, 0)
    assert counts["likes"] == (everything, crash.GROUPS, len(held_back), everything - crash.GROUPS - len(held_back))
    letters = state.ledger.dead_letters("out")
    assert sorted((letter.name, json.loads(letter.record)["key"]) for letter in letters) == sorted(
        [("out.hook", key) for key in refused] + [("out.likes", str(g)) for g in held_back]
    )
    assert state.waiting.all() == []
    assert all(breaker.status == "closed" for breaker in state.breakers.all())
    state.close()
