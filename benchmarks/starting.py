"""From a call of a webhook to the first op of the run that it starts, with `muxly dev` on the demo's project.

    python -m benchmarks.starting [--calls 10]

API, code server, web UI and daemon run as `muxly dev` starts them, each at rest when a call comes: the next one is made when the run
before has ended. A call's seconds go from before it is sent to the moment that Dagster notes as the start of the run's first step. Two
calls beforehand are not counted.
"""

import argparse
import contextlib
import os
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.measure import MUXLY, free_port
from muxly_dagster import demo
from muxly_dagster.demo.api import serve
from muxly_dagster.orchestrator import Orchestrator, RunEvent

CALLS = 10
_BEFOREHAND = 2
_SECRET = "benchmark-secret-of-nobody"
_JOB = f"\n  called: {{select: [crm.companies], webhook: {{scheme: bearer, secret: {_SECRET}}}}}\n"
_PATIENCE = 120.0


@dataclass(frozen=True)
class Figure:
    """Seconds of one call: until it was answered, until the run was asked for, had a process, loaded its project and began its first op."""

    answered: float
    asked: float
    process: float
    loaded: float
    first_op: float


def measured(calls: int = CALLS) -> list[Figure]:
    """One figure for each call."""
    with tempfile.TemporaryDirectory() as name, started(Path(name)) as (client, orchestrator):
        figures = [_call(client, orchestrator, number) for number in range(calls + _BEFOREHAND)]
        return figures[_BEFOREHAND:]


@contextlib.contextmanager
def started(folder: Path) -> Iterator[tuple[httpx.Client, Orchestrator]]:
    """`muxly dev` on the demo in this folder, with a job that a webhook starts."""
    demo.copy_project(folder)
    project = folder / "muxly.yaml"
    project.write_text(project.read_text("utf-8").rstrip("\n") + _JOB, "utf-8")
    ports = free_port(), free_port()
    with serve(0, 1) as url:
        environ = {**os.environ, **demo.environment(folder, url), "DAGSTER_HOME": str(folder / "dagster")}
        command = [*MUXLY, "dev", "--port", str(ports[0]), "--api-port", str(ports[1])]
        with (folder / "dev.log").open("wb") as log:
            process = subprocess.Popen(command, cwd=folder, env=environ, stdout=log, stderr=log, start_new_session=True)
        orchestrator = Orchestrator(folder / "dagster")
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{ports[1]}", timeout=30) as client:
                _until(lambda: "Ready after" in (folder / "dev.log").read_text("utf-8"), folder / "dev.log")
                yield client, orchestrator
        finally:
            orchestrator.close()
            process.send_signal(signal.SIGINT)
            process.wait(_PATIENCE)


def _call(client: httpx.Client, orchestrator: Orchestrator, number: int) -> Figure:
    """Call the webhook and wait until its run has ended."""
    sent = time.time()
    answer = client.post("/v1/hooks/called", json={"number": number}, headers={"authorization": f"Bearer {_SECRET}"})
    answered = time.time() - sent
    run_id = answer.raise_for_status().json()["start"]
    _until(lambda: (run := orchestrator.run(run_id)) is not None and run.ended)
    events = orchestrator.events(run_id)

    def at(kind: str, words: str = "") -> float:
        first: RunEvent = next(event for event in events if event.kind == kind and words in event.message)
        return first.at.timestamp() - sent

    return Figure(answered, at("run_starting"), at("engine_event", "Started process"), at("run_start"), at("step_start"))


def _until(condition: Callable[[], object], log: Path | None = None) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(log.read_text("utf-8") if log else "the run does not end")
        time.sleep(0.05)


def main() -> None:
    """Measure, and print each call."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=CALLS)
    figures = measured(parser.parse_args().calls)
    print("answered  asked for  process  loaded  first op")
    for figure in figures:
        print(f"{figure.answered:8.3f}  {figure.asked:9.2f}  {figure.process:7.2f}  {figure.loaded:6.2f}  {figure.first_op:8.2f}")
    print(f"median to the first op: {statistics.median(figure.first_op for figure in figures):.2f} s")


if __name__ == "__main__":
    main()
