"""A job that a webhook starts, the calls that it gets, and processes that are killed on the way."""

import contextlib
import hashlib
import hmac
import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from muxly_dagster.assembly import load_assembly
from muxly_dagster.defs.project import assembly_definitions
from muxly_dagster.runtime import Runtime
from muxly_dagster.settings import Settings
from muxly_dagster.state import START, State

SECRET = "the-secret-in-use"
PROJECT = f"""
sources:
  hooks: {{connector: webhook, pulls: {{deals: {{job: on_deal}}}}}}
transforms:
  seen: {{python: "deals:seen", from: hooks.deals, key: delivery}}
jobs:
  on_deal: {{select: [hooks.deals+], webhook: {{scheme: github, secret: {SECRET}}}}}
  other: {{select: [hooks.deals]}}
"""
FUNCTION = '''
import pyarrow as pa


def seen(deals: pa.Table, calls) -> pa.Table:
    """The calls that this run was started by."""
    return pa.table({"delivery": pa.array([call.delivery_id for call in calls], pa.string())})
'''


def settings(folder: Path) -> Settings:
    """The project in a folder, written when it is not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "muxly.yaml").exists():
        (folder / "muxly.yaml").write_text(PROJECT)
        (folder / "deals.py").write_text(FUNCTION)
    return Settings.from_environ({}, folder)


def definitions(folder: Path) -> dg.Definitions:
    """What Dagster loads."""
    ours = settings(folder)
    return assembly_definitions(load_assembly(ours.project, {}), ours)


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[Runtime]:
    """The project's runtime."""
    ours = settings(folder)
    with Runtime.of(ours, load_assembly(ours.project, {})) as runtime:
        yield runtime


@contextlib.contextmanager
def remembered(folder: Path) -> Iterator[State]:
    """The project's state."""
    ours = settings(folder)
    state = State.open(ours.database_url, ours.home)
    try:
        yield state
    finally:
        state.close()


def instance(home: Path) -> dg.DagsterInstance:
    """Dagster's memory, which processes share."""
    return dg.DagsterInstance.local_temp(str(home))


def run(
    folder: Path, dagster: dg.DagsterInstance, tags: Mapping[str, str], job: str = "on_deal", run_id: str | None = None
) -> dg.DagsterRun:
    """Run the job in this process; answers the run as it ended."""
    result = (
        definitions(folder).resolve_job_def(job).execute_in_process(instance=dagster, tags=dict(tags), run_id=run_id, raise_on_error=False)
    )
    ended = dagster.get_run_by_id(result.run_id)
    assert ended is not None
    return ended


def signed(delivery: str, body: bytes) -> Mapping[str, str]:
    """The headers of a call."""
    return {"x-github-delivery": delivery, "x-hub-signature-256": f"sha256={hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()}"}


# ---- processes that die ---------------------------------------------------------------------------------------------


def die(*_: Any, **__: Any) -> Any:
    """Leave no time for anything."""
    os.kill(os.getpid(), signal.SIGKILL)


def call_and_die(folder: Path, point: str, delivery: str) -> None:
    """Be called as the API, and be killed between the call's commit and Dagster."""
    from muxly_dagster.state.starts import Starts
    from muxly_dagster_tests.api.called import Recorder, called, post

    class Dying(Recorder):
        submit = die

    if point == "before it is submitted":
        Starts.submitted = die  # type: ignore[method-assign]
    with called(folder, Dying(), PROJECT) as shop:
        post(shop, "/v1/hooks/on_deal", b"{}", signed(delivery, b"{}"))
        shop.service.starting.close()


def run_and_die(folder: Path, home: Path, point: str, start: str) -> None:
    """Be the run of a start, and be killed."""
    from muxly_dagster.defs.resources import OpenProject

    if point == "before it begins":
        OpenProject.begin = die  # type: ignore[method-assign]
    else:
        Runtime.run = die  # type: ignore[method-assign]
    run(folder, instance(home), {START: start}, run_id=start)
