"""One small project that a child process runs and that may be killed at any moment."""

import os
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from muxly_dagster import delivery, pulling, transforming
from muxly_dagster.assembly import Pull, Target, Transform
from muxly_dagster.connector import Stream
from muxly_dagster.destinations.database import Database
from muxly_dagster.lake import Lake, Writer
from muxly_dagster.project.models import RouteSpec, TransformSpec
from muxly_dagster.routing import Router, Rule
from muxly_dagster.state import Ledger, State
from muxly_dagster.state.cursors import Cursors
from muxly_dagster_tests.road.scripted import batches, rows, scripted

BATCHES, SIZE = 12, 50
RECORDS = BATCHES * SIZE

POINTS: dict[str, tuple[type, str]] = {
    "cursor row": (Cursors, "write"),
    "lake commit": (Writer, "_store"),
    "destination": (Database, "deliver"),
    "ledger": (Ledger, "record"),
}
"""Where a run can be cut: between any two of these, and before and after each."""


def run_once(folder: Path, database_url: str) -> None:
    """Pull, transform and deliver, from wherever the last run got to."""
    tempfile.tempdir = str(folder)  # who is killed cleans nothing up
    lake, state = Lake(str(folder / "lake")), State.open(f"sqlite:///{folder}/state.db", folder)
    pulling.pull(lake, state, _pull(), run_id="run", flush_rows=SIZE * 2)
    transforming.transform(lake, _transform(), run_id="run", progress=None)
    for table, name in (("crm.things", "raw"), ("doubled", "derived")):
        delivery.deliver(lake, state, _target(table, name, database_url), run_id="run")
    state.close()


def run_and_die(folder: Path, database_url: str, point: str, when: str, occurrence: int) -> None:
    """Run, and kill this very process with SIGKILL before or after the n-th time it comes by a point."""
    die_at(*POINTS[point], when, occurrence)
    run_once(folder, database_url)


def die_at(owner: type, name: str, when: str, occurrence: int) -> None:
    """From now on, kill this very process before or after the n-th call of a method."""
    original: Callable[..., Any] = getattr(owner, name)
    seen = 0

    def deadly(*arguments: Any, **options: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == occurrence and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*arguments, **options)
        if seen == occurrence and when == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, deadly)


def _pull() -> Pull:
    tables = [rows(*({"id": f"{n}-{m}", "v": n * SIZE + m} for m in range(SIZE))) for n in range(BATCHES)]
    return scripted(batches(*tables, cursors=True), Stream("things", ("id",), sync="cursor"))


def _transform() -> Transform:
    spec = TransformSpec(sql="select id, v * 2 as w from crm.things", key=["id"])
    return Transform("doubled", spec, ("crm.things",), ("id",))


def _target(table: str, name: str, url: str) -> Target:
    destination = Database.model_validate({"url": url, "mode": "append", "table": name})
    return Target(
        name=f"{name}.warehouse",
        route=name,
        spec=RouteSpec.model_validate({"from": table, "to": "warehouse"}),
        table=table,
        key=("id",),
        connector_id="scripted",
        destination_name="warehouse",
        destination=destination,
        router=Router([Rule(None, ("warehouse",))]),
    )
