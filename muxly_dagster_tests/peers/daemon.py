"""Dagster's own scheduler over a project that is loaded in this process, at whatever time a test says it is."""

import datetime as dt
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.scheduler.instigation import ScheduleInstigatorData
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceLoadTarget
from dagster._daemon.daemon import SchedulerDaemon  # before the scheduler, which it imports in a circle
from dagster._scheduler.scheduler import launch_scheduled_runs

_FILE = """
from pathlib import Path

from muxly_dagster.defs.project import project_definitions
from muxly_dagster.settings import Settings

folder = Path({folder!r})
settings = Settings(folder / "muxly.yaml", folder / "home", {url!r}, str(folder / "lake"))
defs = project_definitions(settings, {environ!r})
"""
_LOG = logging.getLogger(SchedulerDaemon.daemon_type())
_CONFIG = "telemetry: {enabled: false}\n"


class _InProcess(WorkspaceLoadTarget):
    def __init__(self, file: Path) -> None:
        self._file = file

    def create_origins(self) -> list[InProcessCodeLocationOrigin]:
        origin = LoadableTargetOrigin(python_file=str(self._file), attribute="defs", working_directory=str(self._file.parent))
        return [InProcessCodeLocationOrigin(origin, location_name="muxly")]


@dataclass
class Scheduler:
    """Dagster's scheduler. What it has seen in earlier rounds is forgotten by `restart`, as when its daemon was down."""

    context: WorkspaceProcessContext
    iterations: dict[str, Any] = field(default_factory=dict)

    @property
    def instance(self) -> dg.DagsterInstance:
        """Dagster's memory."""
        return self.context.instance

    def restart(self) -> None:
        """Begin as a new process does."""
        self.iterations = {}

    def look(self, now: dt.datetime) -> None:
        """Evaluate what is due as of a moment."""
        for error in launch_scheduled_runs(self.context, _LOG, now, self.iterations):
            if error is not None:
                raise AssertionError(str(error))

    def switch_on(self, now: dt.datetime) -> None:
        """Let all schedules begin anew at a moment, as if they had been switched off until then."""
        for state in self.instance.all_instigator_state():
            data = state.instigator_data
            assert isinstance(data, ScheduleInstigatorData)
            begun = ScheduleInstigatorData(data.cron_schedule, now.timestamp())
            self.instance.update_instigator_state(state.with_data(begun))
        self.restart()

    def ticks(self, schedule: str) -> list[tuple[dt.datetime, str, str]]:
        """The ticks of a schedule, the oldest first: when, how it ended, why it was skipped."""
        states = [state for state in self.instance.all_instigator_state() if state.instigator_name == schedule]
        found = [tick for state in states for tick in self.instance.get_ticks(state.instigator_origin_id, state.selector_id)]
        told = [(dt.datetime.fromtimestamp(t.timestamp, dt.UTC), t.status.value.lower(), t.skip_reason or "") for t in found]
        return sorted(told)


@contextmanager
def scheduler(folder: Path, environ: Mapping[str, str] | None = None, url: str = "") -> Iterator[Scheduler]:
    """A scheduler over the project in a folder; runs that it asks for wait in the queue of an instance that nobody empties."""
    file = folder / "muxly_definitions.py"
    file.write_text(_FILE.format(folder=str(folder), url=url or f"sqlite:///{folder}/home/state.db", environ=dict(environ or {})))
    home = folder / "dagster"
    home.mkdir()
    (home / "dagster.yaml").write_text(_CONFIG)
    with warnings.catch_warnings(), dg.DagsterInstance.from_config(str(home)) as instance:
        # Dagster reads what it has deprecated itself.
        warnings.filterwarnings("ignore", "Property `ScheduleDefinition.environment_vars`", DeprecationWarning)
        with WorkspaceProcessContext(instance, _InProcess(file)) as context:
            yield Scheduler(context)
