"""The sensor that sees to it that what is to start does: starts that nobody submitted, or whose run died before it began them."""

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import dagster as dg

from muxly_dagster.assembly import Assembly, select
from muxly_dagster.assembly.tags import read_selection
from muxly_dagster.defs.failures import dagster_errors
from muxly_dagster.defs.metadata import asset_key
from muxly_dagster.defs.resources import MUXLY
from muxly_dagster.errors import BusyError
from muxly_dagster.state import START, Start, State

STARTS = "muxly_starts"
_SENSOR_SECONDS = 5
_MOST_RUNS = 100
_BEGINS_WITHIN = dt.timedelta(minutes=1)
_FINISHED = frozenset({dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED})


def starts_sensor(assembly: Assembly, jobs: Iterable[Any]) -> dg.SensorDefinition:
    """Requests a run for each start that is due and that no run is going to begin; `jobs` are Dagster's.

    It asks Dagster's storage what became of the runs of a start: one that waits in the queue or is on its way is left alone, one that
    somebody cancelled ends the start, one that died is followed by another, later each time. Two runs of one start do no harm, since only
    one of them begins it. What webhooks start waits until the run of the job that is under way has ended. What is gone from the project, a
    job or the assets that one of it was to run, is waited for: Dagster would refuse all requests for the sake of that one.
    """
    known = {name: frozenset(select(assembly, spec.select)) for name, spec in assembly.jobs.items()}

    @dg.sensor(
        name=STARTS,
        jobs=list(jobs),
        minimum_interval_seconds=_SENSOR_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        required_resource_keys={MUXLY},
        description="Starts jobs whose webhook was called, and others that are due, where nobody else has.",
    )
    def start(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        now = _now()
        with dagster_errors():
            state: State = context.resources.muxly.runtime.state
            due = [each for each in state.starts.due(now) if each.job in known and known[each.job].issuperset(read_selection(each.tags))]
            requests = list(_requests(state, context.instance, due, now))
        return dg.SensorResult(run_requests=requests) if requests else dg.SkipReason(_why_not(due))

    return start


def _requests(state: State, instance: dg.DagsterInstance, due: Iterable[Start], now: dt.datetime) -> Iterator[dg.RunRequest]:
    for start in due:
        if start.cause == "cron" and state.jobs.is_paused(start.job):  # its jitter was not over yet when somebody paused the job
            state.starts.cancel(start.id)
            continue
        if _on_its_way(state, instance, start, now) or (start.cause == "webhook" and _under_way(state, start.job)):
            continue
        if state.starts.submitted(start.id, now):
            yield _request(start)


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _request(start: Start) -> dg.RunRequest:
    tags: Mapping[str, str] = {**start.tags, START: start.id}
    selected = [asset_key(name) for name in read_selection(start.tags)]
    return dg.RunRequest(run_key=f"{start.id}:{start.attempts}", job_name=start.job, tags=tags, asset_selection=selected or None)


def _on_its_way(state: State, instance: dg.DagsterInstance, start: Start, now: dt.datetime) -> bool:
    """Whether a run is going to begin the start, or none is wanted any more."""
    records = instance.get_run_records(dg.RunsFilter(tags={START: start.id}), limit=_MOST_RUNS)
    if any(_lives(record, now) for record in records):
        return True
    ended = {record.dagster_run.status: record.dagster_run for record in records}
    if dg.DagsterRunStatus.CANCELED in ended:  # somebody did that: a run that is interrupted otherwise has failed
        state.starts.cancel(start.id)
        return True
    if dg.DagsterRunStatus.SUCCESS in ended:  # a run of nothing that belongs to Muxly
        state.starts.begin(start.id, ended[dg.DagsterRunStatus.SUCCESS].run_id)
        return True
    return False


def _lives(record: dg.RunRecord, now: dt.datetime) -> bool:
    """Whether a run may still begin. One that is not in the queue begins in seconds, or its process is gone and nobody told Dagster."""
    status, updated = record.dagster_run.status, record.update_timestamp
    if status in _FINISHED:
        return False
    moved = updated if updated.tzinfo else updated.replace(tzinfo=dt.UTC)
    return status == dg.DagsterRunStatus.QUEUED or now - moved < _BEGINS_WITHIN


def _under_way(state: State, job: str) -> bool:
    """Whether a run of the job holds its lock."""
    try:
        with state.lock(f"job.{job}"):
            return False
    except BusyError:
        return True


def _why_not(due: list[Start]) -> str:
    jobs = ", ".join(dict.fromkeys(start.job for start in due))
    return f"{jobs}: waiting for a run that is under way" if jobs else "nothing is due"
