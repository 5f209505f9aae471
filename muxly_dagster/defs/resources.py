"""What runs are given by Dagster: the open project, the sources and destinations by name, and the lake's IO manager."""

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg

from muxly_dagster.assembly import Assembly
from muxly_dagster.defs.io_manager import DestinationIOManager, LakeIOManager
from muxly_dagster.errors import BusyError
from muxly_dagster.intake import Call
from muxly_dagster.outcome import Watch
from muxly_dagster.runtime import Runtime
from muxly_dagster.settings import Settings
from muxly_dagster.state import START

MUXLY = "muxly"
LAKE_IO_MANAGER = "lake_io_manager"
_RESERVED = frozenset({MUXLY, LAKE_IO_MANAGER, "io_manager"})
_TRIES = 10
_SECONDS_BETWEEN_TRIES = 0.05


class OpenProject:
    """The project's runtime, opened when a run first asks for it: loading definitions touches neither lake nor database."""

    def __init__(self, settings: Settings, assembly: Assembly, watch: Watch | None = None) -> None:
        self.watch, self.assembly = watch, assembly
        self._settings = settings
        self._runtime: Runtime | None = None
        self._may_run: str | None = None
        self._held = contextlib.ExitStack()

    @property
    def runtime(self) -> Runtime:
        """The open runtime. Raises MuxlyError when the database cannot be opened."""
        if self._runtime is None:
            self._runtime = Runtime.of(self._settings, self.assembly)
        return self._runtime

    def begin(self, run: dg.DagsterRun) -> str:
        """Begin the start that a run was requested for, before it does anything; why it must do nothing, in words, or empty.

        A run that repeats another one has the start of that one. Raises RetryLater where the state cannot be reached.
        """
        if self._may_run is None:
            spec = self.assembly.jobs.get(run.job_name)
            if spec is not None and spec.webhook is not None:
                self._hold(f"job.{run.job_name}")
            start, starts = run.tags.get(START), self.runtime.state.starts
            if start is None or starts.begin(start, run.root_run_id or run.run_id, repeated=run.root_run_id is not None):
                self._may_run = ""
            else:
                found = starts.find(start)
                by = f"was begun by the run {found.run_id}" if found and found.run_id else "was cancelled" if found else "is not known here"
                self._may_run = f"The start {start} of this run {by}, so this run does nothing. To run the job again, launch it anew."
        return self._may_run

    def calls(self, run: dg.DagsterRun) -> Iterator[Call]:
        """The calls of its webhook that a run was started by, in order; none where something else started it."""
        start = run.tags.get(START)
        return self.runtime.state.calls.of_start(start) if start else iter(())

    def _hold(self, name: str) -> None:
        """Hold a lock until the run has ended, where no run beside this one does. Who starts the next run looks at it, for a moment."""
        for _ in range(_TRIES):
            try:
                self._held.enter_context(self.runtime.state.lock(name))
                return
            except BusyError:
                time.sleep(_SECONDS_BETWEEN_TRIES)

    def close(self) -> None:
        """Give back what was opened, if anything was."""
        self._held.close()
        if self._runtime is not None:
            self._runtime.__exit__(None, None, None)
            self._runtime = None


def project_resource(settings: Settings, assembly: Assembly, watch: Watch | None = None) -> dg.ResourceDefinition:
    """The resource `muxly`. It has no configuration, so nothing of the settings reaches Dagster's snapshots."""

    def opened(_context: dg.InitResourceContext) -> Iterator[OpenProject]:
        project = OpenProject(settings, assembly, watch)
        try:
            yield project
        finally:
            project.close()

    return dg.ResourceDefinition(opened, description="The project: its lake, its state, and everything muxly.yaml declares.")


def lake_io_manager() -> dg.IOManagerDefinition:
    """The IO manager `lake_io_manager`, which reads and writes tables of the project's lake."""

    def opened(context: dg.InitResourceContext) -> LakeIOManager:
        project: OpenProject = context.resources.muxly
        return LakeIOManager(lambda: project.runtime.lake)

    return dg.IOManagerDefinition(
        opened,
        required_resource_keys={MUXLY},
        description="Assets as tables of the lake, read as pandas, pyarrow or DuckDB.",
    )


def destination_io_manager(destination: str) -> dg.IOManagerDefinition:
    """The IO manager of a bulk destination: assets are kept in the lake, and what changed is delivered."""

    def opened(context: dg.InitResourceContext) -> DestinationIOManager:
        project: OpenProject = context.resources.muxly
        return DestinationIOManager(lambda: project.runtime, destination)

    return dg.IOManagerDefinition(
        opened,
        required_resource_keys={MUXLY},
        description=f"Assets as tables of the lake, and what changed in them delivered to {destination}.",
    )


def resource_names(assembly: Assembly) -> tuple[dict[str, str], dict[str, str]]:
    """What sources and destinations are called among Dagster's resources, which share one set of names.

    Each goes by its own name. A destination called like a source becomes `NAME_destination`; what is called like a resource that
    Dagster or Muxly needs gets a suffix too.
    """
    taken = set(_RESERVED) | set(assembly.sources) | set(assembly.destinations)
    sources = {name: _free(name, "source", taken) if name in _RESERVED else name for name in assembly.sources}
    clashing = _RESERVED | set(assembly.sources)
    destinations = {name: _free(name, "destination", taken) if name in clashing else name for name in assembly.destinations}
    return sources, destinations


def _free(name: str, suffix: str, taken: set[str]) -> str:
    free = f"{name}_{suffix}"
    while free in taken:
        free = f"{free}_{suffix}"
    taken.add(free)
    return free


def project_resources(settings: Settings, assembly: Assembly, watch: Watch | None = None) -> Mapping[str, Any]:
    """All resources of a project; `watch` looks on while assets run in this process."""
    sources, destinations = resource_names(assembly)
    bulk = [name for name, destination in assembly.destinations.items() if destination.bulk]
    return {
        **{f"{destinations[name]}_io_manager": destination_io_manager(name) for name in bulk},
        MUXLY: project_resource(settings, assembly, watch),
        LAKE_IO_MANAGER: lake_io_manager(),
        **{sources[name]: connector for name, connector in assembly.sources.items()},
        **{destinations[name]: destination for name, destination in assembly.destinations.items()},
    }
