"""Measures how fast what waits in the inbox comes into the lake, and how much memory that takes: SQLite with one and three million events,
Postgres with half a million.

Run: `python -m benchmarks.inbox [--events N]`. Filling the inbox is not measured. Each pull is a process of its own, so that its peak
memory is the pull's alone.
"""

import argparse
import datetime as dt
import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.measure import run
from muxly_dagster import pulling
from muxly_dagster.assembly import Pull
from muxly_dagster.collecting import Lines
from muxly_dagster.connectors.collector import Collector, CollectorPull
from muxly_dagster.lake import Lake
from muxly_dagster.services import Services
from muxly_dagster.state import State
from muxly_dagster.state.posts import Part, Post

_REQUEST = 100
_TOGETHER = 20
"""Requests of a hundred events, and as many of them in one commit as come together under load."""


@dataclass(frozen=True)
class Drained:
    """Events per second, and per CPU second, into the lake; peak memory in MiB."""

    rate: float
    cpu: float
    peak: float


@contextmanager
def filled(events: int, url: str = "") -> Iterator[tuple[Path, str]]:
    """A folder, and the URL of a state (SQLite in that folder unless told otherwise) whose inbox holds so many events."""
    with tempfile.TemporaryDirectory() as folder:
        database = url or f"sqlite:///{folder}/state.db"
        state = State.open(database, Path(folder))
        step = _REQUEST * _TOGETHER
        for first in range(0, events, step):
            state.inbox.put([_post(at, min(at + _REQUEST, events)) for at in range(first, min(first + step, events), _REQUEST)])
            if state.inbox.untidy:
                state.inbox.tidy(dt.datetime.fromtimestamp(0, dt.UTC))
        state.close()
        yield Path(folder), database


def _post(first: int, end: int) -> Post:
    lines = [
        b'{"type": "page_view", "user": {"id": %d, "plan": "pro"}, "url": "https://example.com/products?page=%d",'
        b' "at": "2026-05-01T12:00:00Z", "amount": %d.25, "n": %d}' % (n % 5003, n, n % 1009, n)
        for n in range(first, end)
    ]
    return Post("app", [Part("events", Lines(lines), [f"e-{n}" for n in range(first, end)])])


def drained(folder: Path, database: str, events: int) -> Drained:
    """A pull of everything, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.inbox", "--drain", str(folder), database, "--events", str(events)]
    return Drained(**json.loads(run(command).output))


def _drain(folder: Path, database: str, events: int) -> Drained:
    state = State.open(database, folder)
    connector = Collector.model_validate({}).equipped(Services(inbox=state.inbox, source="app"))
    settings = CollectorPull(stream="events")
    pull = Pull("app.events", "app", connector, settings, connector.stream(settings))
    wall, cpu = time.monotonic(), time.process_time()
    outcome = pulling.pull(Lake(str(folder / "lake")), state, pull, run_id="bench")
    wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    assert (outcome.read, outcome.changed, state.inbox.waiting("app")) == (events, events, {})
    state.close()
    return Drained(events / wall, events / cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--drain", nargs=2, metavar=("FOLDER", "URL"))
    arguments = parser.parse_args()
    if arguments.drain:
        folder, database = arguments.drain
        print(json.dumps(asdict(_drain(Path(folder), database, arguments.events))))
        return
    with filled(arguments.events) as (folder, database):
        print(drained(folder, database, arguments.events))


if __name__ == "__main__":
    main()
