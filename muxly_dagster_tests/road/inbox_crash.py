"""A pull of collected events that a child process runs and that may be killed at any moment."""

import os
from pathlib import Path

import orjson

from muxly_dagster import pulling
from muxly_dagster.assembly import Pull
from muxly_dagster.collecting import Lines
from muxly_dagster.connectors.collector import Collector, CollectorPull, reading
from muxly_dagster.lake import Lake, Writer
from muxly_dagster.services import Services
from muxly_dagster.state import State
from muxly_dagster.state.cursors import Cursors
from muxly_dagster.state.inbox import SharedInbox
from muxly_dagster.state.posts import Part, Post
from muxly_dagster_tests.road.crash import die_at

PULL = "app.signups"

POINTS: dict[str, tuple[type, str]] = {
    "parcels": (SharedInbox, "parcels"),
    "cursor row": (Cursors, "write"),
    "lake commit": (Writer, "_store"),
    "let go": (SharedInbox, "let_go"),
}
"""Where a run can be cut: between any two of these, and before and after each."""

_PAGE = 600
"""Bytes that are read at once, so that a run of few events has many steps."""


def put(state: State, first: int, count: int, *, size: int = 7) -> None:
    """Post events with the ids `e-FIRST`, `e-FIRST+1` ..., some in a request; one more in each of them is refused."""
    posts = []
    for start in range(first, first + count, size):
        numbers = range(start, min(start + size, first + count))
        lines = [orjson.dumps({"id": f"e-{n}", "n": n, "text": "x" * (n % 40)}) for n in numbers]
        refused = [(f'{{"bad": {start}}}', "n is missing")]
        posts.append(Post("app", [Part("signups", Lines(lines), [f"e-{n}" for n in numbers], refused=refused)]))
    for post in posts:
        state.inbox.put([post])


def run_once(folder: Path, database_url: str) -> None:
    """Pull, from wherever the last run got to."""
    reading._PAGE = _PAGE
    state = State.open(database_url, folder)
    connector = Collector.model_validate({}).equipped(Services(inbox=state.inbox, source="app"))
    settings = CollectorPull(stream="signups")
    pull = Pull(PULL, "app", connector, settings, connector.stream(settings))
    pulling.pull(Lake(str(folder / "lake")), state, pull, run_id=f"run-{os.getpid()}", flush_rows=20)
    state.close()


def run_and_die(folder: Path, database_url: str, point: str, when: str, occurrence: int) -> None:
    """Run, and kill this very process with SIGKILL before or after the n-th time it comes by a point."""
    die_at(*POINTS[point], when, occurrence)
    run_once(folder, database_url)
