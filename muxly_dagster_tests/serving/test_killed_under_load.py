"""The promise of the whole: API, daemon, runs and code server are killed under load, and everything acknowledged is kept, once."""

import os
import re
import signal
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest

from muxly_dagster.defs.inbox import INBOX
from muxly_dagster.runtime import Runtime
from muxly_dagster.serving import home
from muxly_dagster.settings import Settings
from muxly_dagster.state import START
from muxly_dagster_tests.cli.started import Started, started
from muxly_dagster_tests.serving.load import Load

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc to find what is to be killed")

JOB, SECRET = "on_push", "a-long-secret-for-this-test"
PROJECT = f"""
sources:
  app:
    connector: collector
    pulls: {{events: {{}}, devices: {{key: [serial]}}}}
  hooks:
    connector: webhook
    pulls: {{pushes: {{job: {JOB}}}}}
routes:
  events_out: {{from: app.events, to: [log]}}
  devices_out: {{from: app.devices, to: [mirror]}}
  pushes_out: {{from: hooks.pushes, to: [log]}}
destinations:
  log: {{type: database, url: "sqlite:///out.db", mode: append}}
  mirror: {{type: database, url: "sqlite:///mirror.db", mode: upsert}}
jobs:
  {JOB}: {{select: [hooks.pushes+], webhook: {{scheme: github, secret: {SECRET}}}}}
"""
PULL = "hooks.pushes"
STARTED_PROCESS = re.compile(r"Started process for run \(pid: (\d+)\)")
EVENTS, CALLS = 100, 10
"""What is acknowledged before the next one is killed."""
UNFINISHED = [
    status
    for status in dg.DagsterRunStatus
    if status not in (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
]
DID = {dg.DagsterEventType.STEP_SUCCESS, dg.DagsterEventType.ASSET_MATERIALIZATION}
API, DAEMON, CODE_SERVER, CODE = "serve api --fd", "dagster._daemon run", "serving.code_server", "dagster api grpc"


@pytest.mark.timeout(600)
def test_whatever_is_killed_under_load_all_that_was_acknowledged_is_kept_once(tmp_path: Path) -> None:
    (tmp_path / "muxly.yaml").write_text(PROJECT, "utf-8")
    with started(tmp_path, "serve", "all", "--no-web", "--api-port", "0") as served:
        served.until_said("Ready after")
        load = Load(served.address("API"), JOB, SECRET)
        with home.opened(tmp_path / ".muxly" / "dagster") as dagster, opened(tmp_path) as runtime:
            scene = Scene(served, load, dagster, runtime)
            with load.running():
                scene.kill(API, "api")
                scene.kill_a_run({"dagster/sensor_name": INBOX})
                scene.kill(DAEMON, "daemon")
                scene.kill_a_run({"muxly/job": JOB})
                scene.kill_with_its_runs(CODE_SERVER)
                scene.kill_with_its_runs(CODE)
                scene.kill(API, "api")
                scene.goes_on()
            assert load.wrong == []
            assert load.troubles, "the API was killed while it was asked"
            scene.comes_to_rest()
            everything_is_in_the_lake_once(runtime, load)
            everything_is_delivered_once(tmp_path, load)
            every_start_was_begun_by_one_run(tmp_path, dagster)
        served.process.send_signal(signal.SIGTERM)
        assert served.ends() == 0
        assert served.processes() == {}


@dataclass
class Scene:
    """What is killed, and what shows how far all has come."""

    served: Started
    load: Load
    dagster: dg.DagsterInstance
    runtime: Runtime

    def kill(self, words: str, name: str) -> None:
        """Kill a process of the supervisor's under load, and wait until it is back."""
        self.goes_on()
        back = self.served.said.count(f"{name} is up again")
        os.kill(self.served.child(words), signal.SIGKILL)
        self.served.until_said(f"{name} is up again", back + 1)

    def kill_a_run(self, tags: Mapping[str, str]) -> None:
        """Kill the process of a run under load, and wait until Dagster knows; another one, if this one had just ended."""
        self.goes_on()
        while True:
            run, process = self.served.until(lambda: self.living_run(tags), f"a run lives, of {tags}")
            os.kill(process, signal.SIGKILL)
            if self.end_of(run) == dg.DagsterRunStatus.FAILURE:
                return

    def kill_with_its_runs(self, words: str) -> None:
        """Kill the code server while it has a run under way."""
        self.goes_on()
        back = self.served.said.count("code is up again")
        run, _ = self.served.until(lambda: self.living_run({}), "a run lives")
        os.kill(self.served.child(words), signal.SIGKILL)
        self.served.until_said("code is up again", back + 1)
        self.end_of(run)

    def living_run(self, tags: Mapping[str, str]) -> tuple[str, int] | None:
        """A run that is under way and has begun its start, if it has one; and its process."""
        for run in self.dagster.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED], tags=dict(tags))):
            said = " ".join(entry.message for entry in self.dagster.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT))
            process = STARTED_PROCESS.search(said)
            start = self.runtime.state.starts.find(run.tags.get(START, ""))
            if process and int(process[1]) in self.served.processes() and (start is None or start.run_id == run.run_id):
                return run.run_id, int(process[1])
        return None

    def end_of(self, run: str) -> dg.DagsterRunStatus:
        """Wait for the end of a run."""

        def ended() -> dg.DagsterRunStatus | None:
            found = self.dagster.get_run_by_id(run)
            return found.status if found and found.is_finished else None

        status: dg.DagsterRunStatus = self.served.until(ended, f"Dagster knows that the run {run} has ended")
        return status

    def goes_on(self) -> None:
        """Wait until so much more was acknowledged."""
        events, calls = self.load.acknowledged

        def more() -> bool:
            assert self.load.wrong == []
            now = self.load.acknowledged
            return now[0] >= events + EVENTS and now[1] >= calls + CALLS

        self.served.until(more, f"events and calls are acknowledged: {self.load.acknowledged}, {self.load.troubles[-3:]}")

    def comes_to_rest(self) -> None:
        """Wait until nothing is left to do."""
        state = self.runtime.state
        self.served.until(lambda: not state.inbox.waiting("app"), "the inbox is empty")
        self.served.until(lambda: not state.starts.open(JOB), "no start is open")
        self.served.until(lambda: not any(map(self.runtime.lag, self.runtime.assembly.targets)), "all is delivered")
        self.served.until(lambda: not self.dagster.get_runs(dg.RunsFilter(statuses=UNFINISHED)), "no run is under way")


@contextmanager
def opened(folder: Path) -> Iterator[Runtime]:
    with Runtime.open(Settings.from_environ({}, folder), {}) as runtime:
        yield runtime


def everything_is_in_the_lake_once(runtime: Runtime, load: Load) -> None:
    """Every event as one change of its table, of each device the newest version, every call."""
    logs = {name: runtime.lake.existing(name).changes(0, 1 << 40) for name in ("app.events", "app.devices", PULL)}
    once(logs["app.events"]["_id"].to_pylist(), load.events)
    once(logs[PULL]["delivery_id"].to_pylist(), load.calls)
    assert repeated(logs["app.devices"]["_id"].to_pylist()) == []
    devices = runtime.query("select serial, version from app.devices")
    assert dict(zip(devices["serial"].to_pylist(), devices["version"].to_pylist(), strict=True)) == load.newest


def everything_is_delivered_once(folder: Path, load: Load) -> None:
    with closing(sqlite3.connect(folder / "out.db")) as log, closing(sqlite3.connect(folder / "mirror.db")) as mirror:
        once([id for (id,) in log.execute("select _id from app_events")], load.events)
        once([id for (id,) in log.execute("select delivery_id from hooks_pushes")], load.calls)
        assert dict(mirror.execute("select serial, version from app_devices")) == load.newest


def every_start_was_begun_by_one_run(folder: Path, dagster: dg.DagsterInstance) -> None:
    """Each start has ended, and no run but the one that it names has done anything for it; each call belongs to one of them."""
    with closing(sqlite3.connect(folder / ".muxly" / "state.db")) as state:
        starts = dict(state.execute("select id, run_id from starts where ended = 'begun'"))
        assert state.execute("select count(*) from starts").fetchone() == (len(starts),)
        assert {start for (start,) in state.execute("select start from calls")} <= set(starts)
    for start, begun_by in starts.items():
        runs = dagster.get_runs(dg.RunsFilter(tags={START: start}))
        did = [run.run_id for run in runs if dagster.all_logs(run.run_id, of_type=DID)]
        assert begun_by in {run.run_id for run in runs}
        assert did in ([], [begun_by])
    assert len(starts) > 1


def once(found: Iterable[str], acknowledged: Iterable[str]) -> None:
    """Neither missing nor there more than once, nor of unknown origin."""
    found, acknowledged = Counter(found), Counter(acknowledged)
    assert (found - acknowledged, acknowledged - found) == (Counter(), Counter())


def repeated(ids: Iterable[str]) -> list[str]:
    return [id for id, times in Counter(ids).items() if times > 1]
