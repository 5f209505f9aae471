"""A route to four targets with rules, batches and likes held back, that a child process delivers and that may be killed at any moment."""

import tempfile
from pathlib import Path
from typing import Any

from muxly_dagster import delivery, pulling
from muxly_dagster.assembly import Pull, Target
from muxly_dagster.connector import Stream
from muxly_dagster.destination import Destination
from muxly_dagster.destinations.database import Database
from muxly_dagster.destinations.file import File
from muxly_dagster.destinations.webhook import Webhook
from muxly_dagster.lake import Lake
from muxly_dagster.project.models import RouteSpec
from muxly_dagster.routing import Router, Rule
from muxly_dagster.state import Ledger, State
from muxly_dagster.state.breakers import Breakers
from muxly_dagster.state.waiting import Waiting
from muxly_dagster_tests.road.crash import die_at
from muxly_dagster_tests.road.scripted import batches, rows, scripted

BATCHES, SIZE, GROUPS = 8, 50, 40
RECORDS = BATCHES * SIZE

POINTS: dict[str, tuple[type, str]] = {
    "webhook": (Webhook, "deliver"),
    "files": (File, "deliver"),
    "database": (Database, "deliver"),
    "ledger": (Ledger, "record"),
    "breaker": (Breakers, "admit"),
    "wait": (Waiting, "clear"),
}
"""Where a run can be cut: between any two of these, and before and after each."""

_ROUTER = Router(
    [
        Rule("v % 2 = 1", ("hook", "files", "warehouse"), name="odd"),
        Rule("v % 2 = 0", ("files", "warehouse"), name="even"),
        Rule(None, ("likes",), name="groups"),
    ],
    match="all",
)


def run_once(folder: Path, hook: int, likes: int) -> None:
    """Pull, and deliver to all targets, from wherever the last run got to; `hook` and `likes` are ports of receivers."""
    tempfile.tempdir = str(folder)  # who is killed cleans nothing up
    lake, state = Lake(str(folder / "lake")), State.open(f"sqlite:///{folder}/state.db", folder)
    pulling.pull(lake, state, _pull(), run_id="run", flush_rows=SIZE * 2)
    for target in targets(folder, hook, likes):
        delivery.deliver(lake, state, target, run_id="run")
    state.close()


def run_and_die(folder: Path, hook: int, likes: int, point: str, when: str, occurrence: int) -> None:
    """Run, and kill this very process with SIGKILL before or after the n-th time it comes by a point."""
    die_at(*POINTS[point], when, occurrence)
    run_once(folder, hook, likes)


def targets(folder: Path, hook: int, likes: int) -> list[Target]:
    """Those of the route `out`."""
    return [
        _target("hook", Webhook, url=f"http://127.0.0.1:{hook}/", allow_private=True, order="strict", batching={"count": 30}),
        _target("files", File, path=str(folder / "files"), format="ndjson", batching={"count": 70}),
        _target("warehouse", Database, url=f"sqlite:///{folder}/warehouse.db", mode="upsert", table="things", batching={"bytes": "4kB"}),
        _target("likes", Webhook, url=f"http://127.0.0.1:{likes}/", allow_private=True, dedupe={"within": "1d", "by": ["g"]}),
    ]


def _pull() -> Pull:
    tables = [rows(*(_record(n * SIZE + m) for m in range(SIZE))) for n in range(BATCHES)]
    return scripted(batches(*tables, cursors=True), Stream("things", ("id",), sync="cursor"))


def _record(v: int) -> dict[str, Any]:
    return {"id": str(v), "v": v, "g": v % GROUPS}


def _target(name: str, type_: type[Destination], **fields: Any) -> Target:
    spec = RouteSpec.model_validate({"from": "crm.things", "to": name})
    return Target(f"out.{name}", "out", spec, "crm.things", ("id",), "scripted", name, type_.model_validate(fields), _ROUTER)
