"""One open connection to Dagster: its instance, and the code server that has the project loaded."""

import datetime as dt
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import dagster as dg

from muxly_dagster.errors import ConfigurationError, RetryLater
from muxly_dagster.orchestrator import dagster_private as private
from muxly_dagster.orchestrator.run import Lines, Materialization, Run, RunEvent, Status
from muxly_dagster.orchestrator.troubles import dagster_troubles
from muxly_dagster.orchestrator.words import IMPLICIT_JOB, STATUSES, asset_name, event_of, materialization_of, run_of

_SECONDS_UNTIL_FORGOTTEN = 30.0
"""A run that is written and not launched for so long was left by a process that died in between."""

_SECONDS_BETWEEN_LOOKS = 0.25
_SECONDS_BETWEEN_SIGNS_OF_LIFE = 5.0
_MOST_PLANS = 500
_LEAST_READ = 100


class Orchestrator:
    """Opened when it is first needed: an API process starts although Dagster is down. Any thread may use it.

    `home` is Dagster's home. `code_server` is the address (host:port, or the path of a socket) of a server that has the project loaded, as
    `dagster code-server start` opens it. Without one the orchestrator starts a server of its own, for what workspace.yaml in Dagster's home
    or in the working folder names, or for the project itself.
    """

    def __init__(self, home: Path, code_server: str = "") -> None:
        self._home, self._address = home, code_server
        self._lock = threading.Lock()
        self._opened: dg.DagsterInstance | None = None
        self._server: private.CodeServer | None = None
        self._plans: dict[str, Mapping[str, tuple[str, ...]]] = {}

    def submit(self, job: str, run_id: str, tags: Mapping[str, str], select: Sequence[str] = ()) -> None:
        """Start a run of a job (of some of its assets only) at once, under this id; a run that has the id already is left alone.

        It waits in Dagster's queue where limits are reached. Raises ConfigurationError for a job or an asset that Dagster does not know,
        RetryLater where Dagster cannot be reached or could not load the project. A run that is there but could not be launched has failed.
        """
        with dagster_troubles():
            instance = self._instance()
            there = instance.get_run_record_by_id(run_id)
            if there is not None and not _is_left_behind(there):
                return
            code, selector = self._find(job, select)
            if there is None:
                try:
                    private.create(instance, code, selector, run_id, tags)
                except private.DagsterRunAlreadyExists:
                    return
            private.launch(instance, code, run_id)

    def runs(self, *, job: str = "", statuses: Sequence[Status] = (), after: str = "", limit: int = 100) -> list[Run]:
        """Runs, the newest first, behind the run with the id `after`."""
        wanted = [theirs for theirs, ours in STATUSES.items() if ours in statuses]
        with dagster_troubles():
            instance = self._instance()
            records = instance.get_run_records(dg.RunsFilter(job_name=job or None, statuses=wanted), limit, cursor=after or None)
            return [run_of(record, self._assets(instance, record.dagster_run)) for record in records]

    def run(self, run_id: str) -> Run | None:
        """One run."""
        with dagster_troubles():
            instance = self._instance()
            record = instance.get_run_record_by_id(run_id)
            return None if record is None else run_of(record, self._assets(instance, record.dagster_run))

    def materializations(self, run_id: str) -> list[Materialization]:
        """What a run has made of its assets so far."""
        with dagster_troubles():
            instance = self._instance()
            if not instance.has_run(run_id):
                return []
            found = instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
            return [made for entry in found if (made := materialization_of(entry))]

    def cancel(self, run_id: str) -> None:
        """Ask a run to end. Raises ConfigurationError for one that has ended or is not there, RetryLater where nobody can tell its process.

        A run whose process is gone, or that cannot be reached when it is asked for the second time, is marked as canceled.
        """
        with dagster_troubles():
            instance = self._instance()
            run = _known(instance, run_id)
            if run.is_finished:
                raise ConfigurationError(f"the run {run_id} has ended already: {STATUSES[run.status]}")
            asked_before = run.status == dg.DagsterRunStatus.CANCELING
            try:
                reached = instance.run_coordinator.cancel_run(run_id)
            except private.DagsterUserCodeProcessError:
                reached = False  # The code server knows nothing of it: the process that ran it is gone.
            except private.DagsterUserCodeUnreachableError as error:
                if not asked_before:
                    do = "try again when Dagster's code server runs; asked a second time, the run is marked as canceled"
                    raise RetryLater("the process of the run cannot be reached, so nobody told it to end", do=do) from error
                reached = False
            run = _known(instance, run_id)
            if not reached and not run.is_finished:
                instance.report_run_canceled(run, message="marked as canceled: no process runs it")

    def retry(self, run_id: str) -> str:
        """Run what failed of a run again, and what was to come behind it; answers the new run's id. The tags stay.

        Raises ConfigurationError where there is nothing to retry, or the job is gone; RetryLater as `submit`.
        """
        with dagster_troubles():
            instance = self._instance()
            run = _known(instance, run_id)
            if not run.is_finished:
                raise ConfigurationError(f"the run {run_id} has not ended", do="cancel it first, or wait")
            if run.status == dg.DagsterRunStatus.SUCCESS:
                raise ConfigurationError(f"nothing of the run {run_id} failed", do="start the job again")
            origin = run.remote_job_origin
            selected = sorted(asset_name(key) for key in run.asset_selection or ())
            code, selector = self._find(run.job_name, selected, origin.location_name if origin else "")
            try:
                new = private.reexecute(instance, code, selector, run)
            except private.DagsterInvalidSubsetError:
                raise ConfigurationError(f"nothing is left to do of the run {run_id}", do="start the job again") from None
            private.launch(instance, code, new)
            return new

    def lines(self, run_id: str, after: str = "", limit: int = 1000) -> Lines:
        """The next lines of a run's log behind a cursor. Raises ConfigurationError for a run that is not there."""
        with dagster_troubles():
            instance = self._instance()
            ended = _known(instance, run_id).is_finished  # Asked first: what an ended run had to say is in its log.
            found: list[RunEvent] = []
            more = True
            while more and len(found) < limit:
                place = private.cursor_behind(_storage_id(after)) if after else None
                page = instance.get_records_for_run(run_id, place, limit=max(_LEAST_READ, limit))
                for record in page.records:
                    after = str(record.storage_id)
                    event = event_of(after, record.event_log_entry)
                    if event:
                        found.append(event)
                    if len(found) == limit:
                        break
                more = page.has_more or (bool(page.records) and after != str(page.records[-1].storage_id))
            return Lines(tuple(found), after, more or not ended)

    def events(self, run_id: str, after: str = "", limit: int = 1000) -> list[RunEvent]:
        """The next lines of a run's log."""
        return list(self.lines(run_id, after, limit).events)

    def follow(self, run_id: str, after: str = "") -> Iterator[RunEvent | None]:
        """The lines of a run's log as they come, until it has ended; None now and then while there are none."""
        said = time.monotonic()
        while True:
            lines = self.lines(run_id, after)
            yield from lines.events
            if lines.events:
                said = time.monotonic()
            after = lines.cursor
            if not lines.more:
                return
            if time.monotonic() - said > _SECONDS_BETWEEN_SIGNS_OF_LIFE:
                said = time.monotonic()
                yield None
            if not lines.events:
                time.sleep(_SECONDS_BETWEEN_LOOKS)

    def reload(self) -> None:
        """Have the code server load the project anew, and wait until it has. Dagster's web server and daemon notice by themselves.

        Raises ConfigurationError where the project does not load: no run can start then until it is corrected and loaded again, so look at
        the project first. RetryLater where the server cannot be reached.
        """
        with dagster_troubles(loading=True):
            try:
                self._code_server().reload()
            except NotImplementedError:
                do = "start it by `dagster code-server start`, or start it again"
                raise ConfigurationError("this code server cannot load the project anew", do=do, where=self._address) from None

    def heartbeats(self) -> Mapping[str, dt.datetime]:
        """When each kind of Dagster's daemon (SCHEDULER, SENSOR, QUEUED_RUN_COORDINATOR, ...) last said that it lives."""
        with dagster_troubles():
            beats = self._instance().get_daemon_heartbeats()
            return {kind: dt.datetime.fromtimestamp(beat.timestamp, dt.UTC) for kind, beat in beats.items()}

    def close(self) -> None:
        """Give back what was opened. A code server of our own ends when its runs have."""
        with self._lock:
            server, self._server = self._server, None
            instance, self._opened = self._opened, None
        if server is not None:
            server.close()
        if instance is not None:
            instance.dispose()

    def _instance(self) -> dg.DagsterInstance:
        with self._lock:
            if self._opened is None:
                if not self._home.is_dir():
                    raise RetryLater(f"Dagster's home {self._home} is not there", do="start Dagster by `muxly dev` or `muxly serve`")
                self._opened = dg.DagsterInstance.from_config(str(self._home))
            return self._opened

    def _code_server(self) -> private.CodeServer:
        instance = self._instance()
        with self._lock:
            if self._server is None:
                files = (self._home / "workspace.yaml", Path("workspace.yaml"))
                self._server = private.CodeServer(instance, self._address, next((file for file in files if file.is_file()), None))
            return self._server

    def _find(self, job: str, select: Sequence[str], location: str = "") -> tuple[private.Code, "private.JobSubsetSelector"]:
        """Where a job is in what the code server has loaded now. Raises ConfigurationError."""
        code = self._code_server().current()
        selector = code.selector(job)
        if selector is None:
            raise ConfigurationError(f"Dagster knows no job {job}", do="look at the jobs of muxly.yaml, and reload the project")
        keys = [dg.AssetKey(name.replace("/", ".").split(".")) for name in select]
        there = code.assets(selector)
        if job != IMPLICIT_JOB and (unknown := set(keys) - there):
            raise ConfigurationError(f"the job {job} has no {_names(unknown)}", do=f"choose of {_names(there)}")
        return code, code.selector(job, keys, location) or code.selector(job, keys) or selector

    def _assets(self, instance: dg.DagsterInstance, run: dg.DagsterRun) -> tuple[str, ...]:
        """What a run is about: the assets that were chosen, or those of the steps that it takes."""
        if run.asset_selection and run.step_keys_to_execute is None:
            return tuple(sorted(map(asset_name, run.asset_selection)))
        if run.execution_plan_snapshot_id is None:
            return ()
        steps = self._plan(instance, run.execution_plan_snapshot_id)
        taken = run.step_keys_to_execute or steps
        return tuple(sorted({name for step in taken for name in steps.get(step, ())}))

    def _plan(self, instance: dg.DagsterInstance, snapshot_id: str) -> Mapping[str, tuple[str, ...]]:
        """The assets of each step of a plan."""
        if snapshot_id not in self._plans:
            if len(self._plans) >= _MOST_PLANS:
                self._plans = {}
            self._plans[snapshot_id] = private.assets_of_steps(instance, snapshot_id)
        return self._plans[snapshot_id]


def _names(keys: Iterable[dg.AssetKey]) -> str:
    return ", ".join(sorted(map(asset_name, keys)))


def _known(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRun:
    run = instance.get_run_by_id(run_id)
    if run is None:
        raise ConfigurationError(f"there is no run {run_id}")
    return run


def _is_left_behind(record: dg.RunRecord) -> bool:
    """Whether a run was written by a process that died before it launched it."""
    age = dt.datetime.now(dt.UTC) - record.create_timestamp.astimezone(dt.UTC)
    return record.dagster_run.status == dg.DagsterRunStatus.NOT_STARTED and age.total_seconds() > _SECONDS_UNTIL_FORGOTTEN


def _storage_id(cursor: str) -> int:
    if not cursor.isdecimal() or len(cursor) > 18:
        raise ConfigurationError("this is no place in a run's log", do="use a cursor as it was given")
    return int(cursor)
