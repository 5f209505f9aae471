"""Dagster's runs, events and errors in people's words."""

import datetime as dt
import logging
import re
from collections.abc import Mapping

import dagster as dg
from dagster import DagsterEventType as Type
from dagster import DagsterRunStatus

from muxly_dagster.orchestrator.dagster_private import SerializableErrorInfo
from muxly_dagster.orchestrator.run import Materialization, Run, RunEvent, Status

IMPLICIT_JOB = "__ASSET_JOB"
"""The job in which Dagster runs assets that somebody chose by hand."""

STATUSES: Mapping[DagsterRunStatus, Status] = {
    DagsterRunStatus.QUEUED: "queued",
    DagsterRunStatus.SUSPENDED: "queued",
    DagsterRunStatus.NOT_STARTED: "starting",
    DagsterRunStatus.MANAGED: "starting",
    DagsterRunStatus.STARTING: "starting",
    DagsterRunStatus.STARTED: "started",
    DagsterRunStatus.SUCCESS: "success",
    DagsterRunStatus.FAILURE: "failure",
    DagsterRunStatus.CANCELING: "canceling",
    DagsterRunStatus.CANCELED: "canceled",
}

_HIDDEN = frozenset(
    {
        Type.ASSET_MATERIALIZATION_PLANNED,
        Type.ASSET_CHECK_EVALUATION_PLANNED,
        Type.STEP_INPUT,
        Type.STEP_OUTPUT,
        Type.HANDLED_OUTPUT,
        Type.LOADED_INPUT,
        Type.LOGS_CAPTURED,
        Type.RESOURCE_INIT_STARTED,
        Type.RESOURCE_INIT_SUCCESS,
        Type.STEP_WORKER_STARTING,
        Type.STEP_WORKER_STARTED,
    }
)
"""What Dagster notes for itself."""

_PLAIN = {
    Type.RUN_ENQUEUED: "waits in the queue",
    Type.RUN_STARTING: "is being started",
    Type.RUN_START: "has started",
    Type.RUN_SUCCESS: "succeeded",
    Type.RUN_CANCELING: "is being canceled",
    Type.RUN_CANCELED: "was canceled",
}
_BOILERPLATE = frozenset({None, "", "Sending run termination request.", "Canceling run from the queue."})
_FAILED = frozenset({Type.RUN_FAILURE, Type.STEP_FAILURE, Type.RESOURCE_INIT_FAILURE, Type.HOOK_ERRORED})
_OUR_ERROR = re.compile(r"^(muxly_dagster\.errors\.\w+|dagster\._core\.definitions\.events\.Failure): ")


def run_of(record: dg.RunRecord, assets: tuple[str, ...] = ()) -> Run:
    """One run, with the assets that it is about."""
    run = record.dagster_run
    return Run(
        id=run.run_id,
        job="" if run.job_name.startswith(IMPLICIT_JOB) else run.job_name,
        status=STATUSES[run.status],
        created_at=record.create_timestamp.astimezone(dt.UTC),
        started_at=_moment(record.start_time),
        ended_at=_moment(record.end_time),
        tags={name: value for name, value in run.tags.items() if not name.startswith(".dagster/")},
        assets=assets,
        retry_of=run.parent_run_id or "",
        first=run.root_run_id or "",
    )


def asset_name(key: dg.AssetKey) -> str:
    """An asset as Muxly calls it: `crm.contacts`."""
    return ".".join(key.path)


def event_of(cursor: str, entry: dg.EventLogEntry) -> RunEvent | None:
    """One line of a log; None for what nobody reads."""
    event = entry.dagster_event
    at = dt.datetime.fromtimestamp(entry.timestamp, dt.UTC)
    if event is None:
        trace = entry.error_info.to_string() if entry.error_info else ""
        return RunEvent(cursor, at, logging.getLevelName(entry.level).lower(), entry.step_key or "", "log", entry.user_message, error=trace)
    if event.event_type in _HIDDEN:
        return None
    message, error = _told(event)
    return RunEvent(
        cursor,
        at,
        _level(event),
        step=event.step_key or "",
        kind=event.event_type_value.lower().replace("pipeline_", "run_"),
        message=message,
        asset=asset_name(event.asset_key) if event.asset_key else "",
        error=error,
    )


def materialization_of(entry: dg.EventLogEntry) -> Materialization | None:
    """What a materialization counts: whole numbers and seconds, by Muxly's own names."""
    made = entry.asset_materialization
    if made is None:
        return None
    values = {name: value.value for name, value in made.metadata.items() if isinstance(value, dg.IntMetadataValue | dg.FloatMetadataValue)}
    counts = {name.removeprefix("dagster/"): value for name, value in values.items() if value is not None}
    return Materialization(asset_name(made.asset_key), dt.datetime.fromtimestamp(entry.timestamp, dt.UTC), counts)


def in_words(error: SerializableErrorInfo) -> tuple[str, bool]:
    """What went wrong at bottom, and whether Muxly says so itself (no stack is needed then)."""
    chain = [error]
    while (below := chain[-1].cause or chain[-1].context) is not None:
        chain.append(below)
    for each in reversed(chain):
        if _OUR_ERROR.match(each.message):
            return _OUR_ERROR.sub("", each.message).strip(), True
    return chain[-1].message.strip(), False


def _told(event: dg.DagsterEvent) -> tuple[str, str]:
    """The message of an event, and a stack trace where the message does not say it all."""
    if event.event_type in _PLAIN:
        why = f": {event.message}" if event.event_type == Type.RUN_CANCELING and event.message not in _BOILERPLATE else ""
        return f"{_PLAIN[event.event_type]}{why}", ""
    if event.event_type == Type.STEP_START:
        return f"{event.step_key} has started", ""
    if event.event_type == Type.STEP_SUCCESS:
        return f"{event.step_key} succeeded", ""
    if event.event_type == Type.ASSET_MATERIALIZATION:
        return _stored(event), ""
    if event.event_type == Type.ASSET_CHECK_EVALUATION:
        return _checked(event), ""
    data = event.event_specific_data
    first = getattr(data, "first_step_failure_event", None)
    if event.event_type == Type.RUN_FAILURE and first is not None:
        return f"failed at {first.step_key}", ""
    failure = getattr(data, "user_failure_data", None)
    if failure is not None and failure.description:
        return f"{event.step_key} failed: {failure.description}", ""
    error = getattr(data, "error", None)
    if not isinstance(error, SerializableErrorInfo):
        return event.message or event.event_type_value, ""
    said, ours = in_words(error)
    return f"{_head(event)}{said}", "" if ours else error.to_string()


def _head(event: dg.DagsterEvent) -> str:
    if event.event_type == Type.STEP_UP_FOR_RETRY:
        wait = getattr(event.event_specific_data, "seconds_to_wait", None) or 0
        return f"{event.step_key} tries again in {wait:.0f} seconds: "
    if event.event_type == Type.STEP_FAILURE:
        return f"{event.step_key} failed: "
    return f"{event.message}: " if event.message and event.event_type != Type.ENGINE_EVENT else ""


def _stored(event: dg.DagsterEvent) -> str:
    made = event.step_materialization_data.materialization
    counts = [
        f"{value.value:,} {name}"
        for name, value in made.metadata.items()
        if isinstance(value, dg.IntMetadataValue) and value.value is not None and "/" not in name
    ]
    return f"{asset_name(made.asset_key)}: {', '.join(counts) or 'done'}"


def _checked(event: dg.DagsterEvent) -> str:
    found = event.asset_check_evaluation_data
    verdict = "passed" if found.passed else "did not pass"
    said = f": {found.description}" if found.description else ""
    return f"check {found.check_name} of {asset_name(found.asset_key)} {verdict}{said}"


def _level(event: dg.DagsterEvent) -> str:
    if event.event_type in _FAILED or (event.event_type == Type.ENGINE_EVENT and event.is_engine_event and event.engine_event_data.error):
        return "error"
    if event.event_type == Type.ASSET_CHECK_EVALUATION and not event.asset_check_evaluation_data.passed:
        return "warning"
    if event.event_type == Type.STEP_UP_FOR_RETRY:
        return "warning"
    return "debug" if event.event_type == Type.ENGINE_EVENT else "info"


def _moment(seconds: float | None) -> dt.datetime | None:
    return None if seconds is None else dt.datetime.fromtimestamp(seconds, dt.UTC)
