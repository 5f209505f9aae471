"""The one place that touches private parts of Dagster, as they are in 1.13.27: code servers, and how runs are made and launched.

What happens here is what Dagster's GraphQL does for "launch run" and "re-execute" (`dagster_graphql.implementation.execution`), and what
its daemon does when it takes a run from the queue (`dagster._daemon.run_coordinator`).
"""

import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import dagster as dg
from dagster._core.definitions.selector import JobSubsetSelector
from dagster._core.errors import (
    DagsterInvalidSubsetError,
    DagsterRunAlreadyExists,
    DagsterUserCodeProcessError,
    DagsterUserCodeUnreachableError,
)
from dagster._core.event_api import EventLogCursor
from dagster._core.events import EngineEventData
from dagster._core.execution.plan.resume_retry import ReexecutionStrategy
from dagster._core.launcher import LaunchRunContext
from dagster._core.remote_origin import CodeLocationOrigin, GrpcServerCodeLocationOrigin, ManagedGrpcPythonEnvCodeLocationOrigin
from dagster._core.remote_representation.code_location import GrpcServerCodeLocation
from dagster._core.remote_representation.external import RemoteExecutionPlan, RemoteJob
from dagster._core.remote_representation.grpc_server_registry import GrpcServerRegistry
from dagster._core.run_coordinator.queued_run_coordinator import QueuedRunCoordinator
from dagster._core.storage.dagster_run import ACTIVE_RUN_STATUSES
from dagster._core.workspace.context import WEBSERVER_GRPC_SERVER_HEARTBEAT_TTL, WorkspaceProcessContext, WorkspaceRequestContext
from dagster._core.workspace.load_target import GrpcServerTarget, ModuleTarget, WorkspaceFileTarget, WorkspaceLoadTarget
from dagster._core.workspace.workspace import CodeLocationEntry, CodeLocationLoadStatus, CurrentWorkspace, DefinitionsSource
from dagster._grpc.client import DagsterGrpcClient
from dagster._grpc.constants import GrpcServerCommand
from dagster._utils.error import serializable_error_info_from_exc_info
from dagster._utils.tags import TagConcurrencyLimitsCounter
from dagster_shared.error import SerializableErrorInfo

__all__ = [
    "LOCATION",
    "Code",
    "CodeServer",
    "DagsterInvalidSubsetError",
    "DagsterRunAlreadyExists",
    "DagsterUserCodeProcessError",
    "DagsterUserCodeUnreachableError",
    "JobSubsetSelector",
    "SerializableErrorInfo",
    "assets_of_steps",
    "create",
    "cursor_behind",
    "launch",
    "reexecute",
]

LOCATION = "muxly"
"""What the project's code location is called, wherever it is served: runs and schedules belong to a location by its name."""

_MODULE = "muxly_dagster.definitions"

_SECONDS_TO_ANSWER = 5
_SECONDS_TO_RELOAD = 180


class Code:
    """What the code servers had loaded at one moment."""

    def __init__(self, instance: dg.DagsterInstance, locations: Mapping[str, GrpcServerCodeLocation]) -> None:
        self._instance, self._locations = instance, locations
        self._workspace = CurrentWorkspace({name: _entry(location) for name, location in locations.items()})
        self._plans: dict[tuple[str, frozenset[dg.AssetKey]], tuple[RemoteJob, RemoteExecutionPlan]] = {}

    @property
    def ids(self) -> dict[str, str]:
        """The id of each server, which is another one after a reload."""
        return {name: location.server_id for name, location in self._locations.items()}

    def context(self) -> WorkspaceRequestContext:
        """The workspace as Dagster's own parts ask for it. They need no process context for what is done with it here."""
        return WorkspaceRequestContext(self._instance, self._workspace, cast(WorkspaceProcessContext, None), None, None, read_only=False)

    def selector(self, job: str, assets: Iterable[dg.AssetKey] = (), location: str = "") -> JobSubsetSelector | None:
        """Where a job is; None where there is none."""
        for name, each in self._locations.items():
            for repository in each.get_repositories().values():
                if repository.has_job(job) and location in ("", name):
                    return JobSubsetSelector(name, repository.name, job, None, list(assets))
        return None

    def assets(self, selector: JobSubsetSelector) -> set[dg.AssetKey]:
        """What a job runs."""
        return set(
            self._locations[selector.location_name].get_repository(selector.repository_name).get_asset_keys_in_job(selector.job_name)
        )

    def job(self, selector: JobSubsetSelector) -> RemoteJob:
        """The job, or the part of it that is selected."""
        return self._locations[selector.location_name].get_job(selector)

    def plan(self, selector: JobSubsetSelector) -> tuple[RemoteJob, RemoteExecutionPlan]:
        """The job and its steps; the same ones as long as this code is loaded."""
        key = (selector.job_name, frozenset(selector.asset_selection or ()))
        if key not in self._plans:
            job = self.job(selector)
            location = self._locations[selector.location_name]
            self._plans[key] = job, location.get_execution_plan(job, {}, None, None, self._instance)
        return self._plans[key]

    def location(self, selector: JobSubsetSelector) -> GrpcServerCodeLocation:
        """The code location of a job."""
        return self._locations[selector.location_name]

    def close(self) -> None:
        """Stop the heartbeats."""
        for location in self._locations.values():
            location.cleanup()


class CodeServer:
    """The code servers that have the project loaded: the one at an address, or one of our own for each location of the workspace."""

    def __init__(self, instance: dg.DagsterInstance, address: str, workspace: Path | None) -> None:
        self._instance = instance
        self._origins: Sequence[CodeLocationOrigin] = _target(address, workspace).create_origins()
        self._lock = threading.Lock()
        self._registry: GrpcServerRegistry | None = None
        self._code: Code | None = None

    def current(self) -> Code:
        """What is loaded now. Raises Dagster's own errors where a server cannot be reached, or could not load the project."""
        with self._lock:
            clients = {origin.location_name: self._client(origin) for origin in self._origins}
            ids = {name: client.get_server_id(timeout=_SECONDS_TO_ANSWER) for name, client in clients.items()}
            if self._code is None or self._code.ids != ids:
                code = Code(self._instance, {origin.location_name: self._location(origin) for origin in self._origins})
                if self._code is not None:
                    self._code.close()
                self._code = code
            return self._code

    def reload(self) -> Code:
        """Have the servers load the project anew. Raises Dagster's own errors, NotImplementedError for a server that cannot."""
        with self._lock:
            for origin in self._origins:
                if isinstance(origin, ManagedGrpcPythonEnvCodeLocationOrigin):
                    self._servers().reload_grpc_endpoint(origin)
                else:
                    _reload(self._client(origin))
        return self.current()

    def close(self) -> None:
        """End the servers of our own, once their runs have ended."""
        if self._code is not None:
            self._code.close()
        if self._registry is not None:
            self._registry.__exit__(None, None, None)  # type: ignore[no-untyped-call]

    def _client(self, origin: CodeLocationOrigin) -> DagsterGrpcClient:
        if isinstance(origin, ManagedGrpcPythonEnvCodeLocationOrigin):
            return self._servers().get_grpc_endpoint(origin).create_client()
        return cast(GrpcServerCodeLocationOrigin, origin).create_client()

    def _location(self, origin: CodeLocationOrigin) -> GrpcServerCodeLocation:
        if not isinstance(origin, ManagedGrpcPythonEnvCodeLocationOrigin):
            return GrpcServerCodeLocation(origin, self._instance, watch_server=False)
        end = self._servers().get_grpc_endpoint(origin)
        return GrpcServerCodeLocation(
            origin,
            self._instance,
            host=end.host,
            port=end.port,
            socket=end.socket,
            heartbeat=True,
            watch_server=False,
            grpc_server_registry=self._servers(),
        )

    def _servers(self) -> GrpcServerRegistry:
        if self._registry is None:
            self._registry = GrpcServerRegistry(
                self._instance.get_ref(),
                GrpcServerCommand.API_GRPC,
                heartbeat_ttl=WEBSERVER_GRPC_SERVER_HEARTBEAT_TTL,
                startup_timeout=self._instance.code_server_process_startup_timeout,
                wait_for_processes_on_shutdown=False,
                log_level="WARNING",
            )
        return self._registry


def create(instance: dg.DagsterInstance, code: Code, selector: JobSubsetSelector, run_id: str, tags: Mapping[str, str]) -> None:
    """Write a run into Dagster's storage, not started. Raises DagsterRunAlreadyExists."""
    job, plan = code.plan(selector)
    instance.create_run(
        job_name=selector.job_name,
        run_id=run_id,
        run_config={},
        status=dg.DagsterRunStatus.NOT_STARTED,
        tags={**job.tags, **tags},
        root_run_id=None,
        parent_run_id=None,
        step_keys_to_execute=plan.execution_plan_snapshot.step_keys_to_execute,
        execution_plan_snapshot=plan.execution_plan_snapshot,
        job_snapshot=job.job_snapshot,
        parent_job_snapshot=job.parent_job_snapshot,
        asset_selection=selector.asset_selection,
        asset_check_selection=selector.asset_check_selection,
        resolved_op_selection=None,
        op_selection=None,
        remote_job_origin=job.get_remote_origin(),
        job_code_origin=job.get_python_origin(),
        asset_graph=code.context().asset_graph,
    )


def reexecute(instance: dg.DagsterInstance, code: Code, selector: JobSubsetSelector, run: dg.DagsterRun) -> str:
    """Write a run that does again what failed of another one, and what came behind it. Raises DagsterInvalidSubsetError for nothing."""
    made = instance.create_reexecuted_run(
        parent_run=run,
        request_context=code.context(),
        code_location=code.location(selector),
        remote_job=code.job(selector),
        strategy=ReexecutionStrategy.FROM_FAILURE,
        use_parent_run_tags=True,
    )
    return made.run_id


def launch(instance: dg.DagsterInstance, code: Code, run_id: str) -> None:
    """Start a run that is written: at once where the queue has room for it, else by the queue. A run that cannot be started has failed."""
    run = _run(instance, run_id)
    if not isinstance(instance.run_coordinator, QueuedRunCoordinator) or _must_wait(instance, run):
        instance.submit_run(run_id, code.context())
        return
    starting = dg.DagsterEvent(event_type_value=dg.DagsterEventType.RUN_STARTING.value, job_name=run.job_name)
    instance.report_dagster_event(starting, run_id=run_id)
    run = _run(instance, run_id)
    if _must_wait(instance, run):  # Others started runs at the same moment: the queue sees to the order.
        instance.report_dagster_event(dg.DagsterEvent.job_enqueue(run), run_id=run_id)
        return
    try:
        instance.run_launcher.launch_run(LaunchRunContext(dagster_run=run, workspace=code.context()))
    except Exception:
        if _run(instance, run_id).status == dg.DagsterRunStatus.STARTING:
            told = serializable_error_info_from_exc_info(sys.exc_info())
            instance.report_engine_event("could not be started", run, EngineEventData.engine_error(told))
            instance.report_run_failed(run)
        raise


def assets_of_steps(instance: dg.DagsterInstance, snapshot_id: str) -> dict[str, tuple[str, ...]]:
    """The assets that each step of an execution plan makes, by the name of the step."""
    plan = instance.get_execution_plan_snapshot(snapshot_id)
    keys = {step.key: [out.properties.asset_key for out in step.outputs if out.properties] for step in plan.steps}
    return {step: tuple(".".join(key.path) for key in made if key) for step, made in keys.items()}


def cursor_behind(storage_id: int) -> str:
    """A place in a run's log, as Dagster's storage wants it."""
    return EventLogCursor.from_storage_id(storage_id).to_string()


def _must_wait(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether a run is better left to the queue: limits are reached, others wait already, or pools must be looked at."""
    limits = instance.get_concurrency_config().run_queue_config
    active = [each for each in instance.get_runs(dg.RunsFilter(statuses=ACTIVE_RUN_STATUSES)) if each.run_id != run.run_id]
    if limits is None or (limits.max_concurrent_runs != -1 and len(active) >= limits.max_concurrent_runs):
        return True
    pools = run.run_op_concurrency is not None
    blocked = TagConcurrencyLimitsCounter(limits.tag_concurrency_limits, active).is_blocked(run)
    return pools or blocked or instance.get_runs_count(dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED])) > 0


def _run(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRun:
    run = instance.get_run_by_id(run_id)
    if run is None:
        raise LookupError(f"the run {run_id} is not there any more")
    return run


def _target(address: str, workspace: Path | None) -> WorkspaceLoadTarget:
    if address:
        host, _, port = address.rpartition(":")
        if port.isdigit() and host:
            return GrpcServerTarget(host.removeprefix("[").removesuffix("]"), int(port), None, LOCATION)
        return GrpcServerTarget("localhost", None, address.removeprefix("unix:"), LOCATION)
    if workspace is not None:
        return WorkspaceFileTarget([str(workspace)])
    return ModuleTarget(_MODULE, None, None, LOCATION)


def _reload(client: DagsterGrpcClient) -> None:
    try:
        client.reload_code(timeout=_SECONDS_TO_RELOAD)
    except DagsterUserCodeUnreachableError as error:
        cause: Any = error.__cause__
        if hasattr(cause, "code") and cause.code().name == "UNIMPLEMENTED":
            raise NotImplementedError from None
        raise


def _entry(location: GrpcServerCodeLocation) -> CodeLocationEntry:
    return CodeLocationEntry(
        origin=location.origin,
        code_location=location,
        load_error=None,
        load_status=CodeLocationLoadStatus.LOADED,
        display_metadata=location.get_display_metadata(),
        update_timestamp=time.time(),
        version_key=location.server_id,
        definitions_source=DefinitionsSource.CODE_SERVER,
    )
