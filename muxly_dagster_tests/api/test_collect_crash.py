"""API processes killed with SIGKILL under load, alone and beside another one: what was acknowledged is in the inbox once, and what was not
is stored once by its repetition."""

import contextlib
import random
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from muxly_dagster.state import State
from muxly_dagster_tests.api.collecting_process import process
from muxly_dagster_tests.peers.prometheus import until

PROJECT = "sources: {app: {connector: collector, pulls: [signups]}}"
SENDERS, ENOUGH = 6, 40


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    (tmp_path / "muxly.yaml").write_text(PROJECT)
    return f"sqlite:///{tmp_path}/state.db" if request.param == "sqlite" else str(request.getfixturevalue("postgres"))


@pytest.fixture
def state(database: str, tmp_path: Path) -> Iterator[State]:
    found = State.open(database, tmp_path / "looking")
    yield found
    found.close()


class Sender(threading.Thread):
    """Posts events one by one or some at a time, and notes which requests were acknowledged, until its server is gone."""

    def __init__(self, name: str, url: str) -> None:
        super().__init__()
        self.prefix, self.url = name, url
        self.acknowledged: list[list[str]] = []
        self.unsure: list[str] = []

    def run(self) -> None:
        with httpx.Client(timeout=60) as client:
            for number in range(100_000):
                ids = [f"{self.prefix}-{number}-{each}" for each in range(1 if number % 3 else 20)]
                try:
                    post(client, self.url, ids)
                except httpx.TransportError:
                    self.unsure = ids
                    return
                self.acknowledged.append(ids)


def post(client: httpx.Client, url: str, ids: list[str]) -> dict[str, int]:
    answer = client.post(f"{url}/v1/collect/app/signups", json=[{"id": id} for id in ids])
    assert answer.status_code == 202, answer.text
    said: dict[str, int] = answer.json()
    return said


def stored(state: State) -> list[str]:
    return [id for parcel in state.inbox.parcels("app", "signups", 0, 1 << 40) for id in parcel.ids]


@contextlib.contextmanager
def sending(*urls: str) -> Iterator[list[Sender]]:
    """Senders under way, and over at the end: by then their servers are gone."""
    senders = [Sender(f"{random.getrandbits(32):x}", urls[number % len(urls)]) for number in range(SENDERS)]
    for sender in senders:
        sender.start()
    try:
        until(lambda: all(len(sender.acknowledged) >= ENOUGH for sender in senders), "the load")
        yield senders
    finally:
        for sender in senders:
            sender.join()


def test_a_killed_process_has_stored_what_it_acknowledged_and_repetitions_are_known(database: str, state: State, tmp_path: Path) -> None:
    with process(tmp_path, database) as (victim, url), sending(url) as senders:
        victim.kill()
        victim.wait()
    found = Counter(stored(state))
    acknowledged = [ids for sender in senders for ids in sender.acknowledged]
    assert set(found.values()) == {1}
    assert {id for ids in acknowledged for id in ids} <= set(found)
    for sender in senders:  # a request is stored as a whole or not at all
        assert len(set(sender.unsure) & set(found)) in (0, len(sender.unsure))
    with process(tmp_path, database) as (_, url), httpx.Client(timeout=60) as client:
        for ids in [*(sender.unsure for sender in senders), *random.sample(acknowledged, 20)]:
            said = post(client, url, ids)
            assert said["duplicate"] == len(set(ids) & set(found)) and said["accepted"] + said["duplicate"] == len(ids)
    assert Counter(stored(state)) == Counter({id for sender in senders for ids in [*sender.acknowledged, sender.unsure] for id in ids})


def test_another_process_goes_on_and_knows_what_the_killed_one_stored(database: str, state: State, tmp_path: Path) -> None:
    with process(tmp_path, database) as (one, first), process(tmp_path, database) as (two, second), sending(first, second) as senders:
        one.kill()
        one.wait()
        left = [sender for sender in senders if sender.url == first]
        for sender in left:
            sender.join()
        with httpx.Client(timeout=60) as client:
            for sender in left:
                for ids in [sender.unsure, sender.acknowledged[-1], sender.acknowledged[0]]:
                    said = post(client, second, ids)
                    assert said["accepted"] + said["duplicate"] == len(ids)
                    assert ids is sender.unsure or said["accepted"] == 0
        two.kill()
        two.wait()
    found = Counter(stored(state))
    assert set(found.values()) == {1}
    assert {id for sender in senders for ids in sender.acknowledged for id in ids} <= set(found)
    assert {id for sender in left for id in sender.unsure} <= set(found)
