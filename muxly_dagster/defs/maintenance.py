"""The daily job that keeps the lake compact and Dagster's run history from growing for ever."""

import contextlib
import datetime as dt
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from muxly_dagster.defs.failures import dagster_errors
from muxly_dagster.defs.resources import MUXLY

MAINTENANCE = "muxly_maintenance"
_EVERY_NIGHT = "17 3 * * *"
_PAGE = 200
_FINISHED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]


@dataclass(frozen=True, slots=True)
class Ours:
    """The jobs and assets of a project: a Dagster instance may hold the runs of other projects too."""

    jobs: frozenset[str]
    assets: frozenset[dg.AssetKey]

    def owns(self, run: dg.DagsterRun) -> bool:
        """Whether a run is of one of our jobs, or of nothing but our assets and their checks."""
        if run.job_name in self.jobs:
            return True
        chosen = set(run.asset_selection or ()) | {check.asset_key for check in run.asset_check_selection or ()}
        return bool(chosen) and chosen <= self.assets


def prune_runs(instance: dg.DagsterInstance, ours: Ours, before: dt.datetime) -> dict[str, int]:
    """Delete our finished runs, with their event logs, that were created before this time.

    The run of each asset's latest materialization stays, however old: Dagster takes what it shows of the asset from there.
    """
    keep = _runs_shown(instance, ours.assets)
    old = [run.run_id for run in _finished_runs(instance, before) if ours.owns(run)]
    doomed = [run_id for run_id in old if run_id not in keep]
    for run_id in doomed:
        _forget(instance, run_id)
    return {"deleted": len(doomed), "kept": len(old) - len(doomed)}


def _forget(instance: dg.DagsterInstance, run_id: str) -> None:
    """Delete a run, its events and what its steps printed."""
    instance.compute_log_manager.delete_logs(prefix=[run_id])
    # Dagster's SQLite storage empties a run's event database, but leaves its file of 140 KB lying about.
    shard = getattr(instance.event_log_storage, "path_for_shard", None)
    instance.delete_run(run_id)
    if shard is not None:
        with contextlib.suppress(OSError):  # another process has it open, where that matters
            Path(shard(run_id)).unlink(missing_ok=True)


def _finished_runs(instance: dg.DagsterInstance, before: dt.datetime) -> Iterator[dg.DagsterRun]:
    filters, cursor = dg.RunsFilter(statuses=_FINISHED, created_before=before), None
    while page := instance.get_run_records(filters=filters, limit=_PAGE, cursor=cursor):
        yield from (record.dagster_run for record in page)
        cursor = page[-1].dagster_run.run_id


def _runs_shown(instance: dg.DagsterInstance, assets: Collection[dg.AssetKey]) -> set[str]:
    keys = list(assets)
    shown: set[str] = set()
    for start in range(0, len(keys), _PAGE):
        for record in instance.get_asset_records(keys[start : start + _PAGE]):
            latest = record.asset_entry.last_materialization
            if latest is not None:
                shown.add(latest.run_id)
    return shown


def maintenance_job(ours: Ours, days: int) -> dg.JobDefinition:
    """The job `muxly_maintenance`. `days` is how long run history is kept."""

    @dg.op(required_resource_keys={MUXLY}, description="Merges the small files of lake tables and removes those nobody needs any more.")
    def tidy_lake(context: dg.OpExecutionContext) -> None:
        with dagster_errors(context.retry_number):
            done: dict[str, Any] = context.resources.muxly.runtime.maintain()
        context.add_output_metadata({"tables": done})

    @dg.op(required_resource_keys={MUXLY}, description=f"Deletes calls of webhooks older than {days} days that were run for and pulled.")
    def prune_calls(context: dg.OpExecutionContext) -> None:
        with dagster_errors(context.retry_number):
            counts: dict[str, int] = context.resources.muxly.runtime.forget_calls(dt.datetime.now(dt.UTC) - dt.timedelta(days=days))
        context.add_output_metadata({"calls": counts})

    @dg.op(description=f"Deletes runs older than {days} days with their logs, except each asset's latest materialization.")
    def prune_run_history(context: dg.OpExecutionContext) -> None:
        counts = prune_runs(context.instance, ours, dt.datetime.now(dt.UTC) - dt.timedelta(days=days))
        context.add_output_metadata(dict(counts))

    @dg.job(name=MAINTENANCE, executor_def=dg.in_process_executor, description="Keeps the lake compact and Dagster's run history short.")
    def maintenance() -> None:
        tidy_lake()
        prune_calls()
        prune_run_history()

    return maintenance


def maintenance_schedule(job: dg.JobDefinition) -> dg.ScheduleDefinition:
    """Every night; the hour is UTC."""
    return dg.ScheduleDefinition(
        name=f"{MAINTENANCE}_schedule", job=job, cron_schedule=_EVERY_NIGHT, default_status=dg.DefaultScheduleStatus.RUNNING
    )
