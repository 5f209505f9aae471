"""What there is to tell of a run: what failed of it and why, in Muxly's words, and what to do."""

import datetime as dt
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import dagster as dg

from muxly_dagster.assembly.notices import Notice
from muxly_dagster.defs.maintenance import Ours
from muxly_dagster.messages import shorten
from muxly_dagster.orchestrator.words import asset_name, in_words

_MOST = 5
_LONGEST = 500
_SEE = "see its log in Dagster"


@dataclass(frozen=True, slots=True)
class Watched:
    """Whose runs are told of, what their steps are called in Muxly, and where people find Dagster's UI."""

    ours: Ours
    steps: Mapping[str, str]
    web_url: str = ""


def notice_of(instance: dg.DagsterInstance, watched: Watched, run_id: str, seq: int, log: str, *, recovered: bool) -> Notice | None:
    """The notice of a run; None where Dagster no longer knows it."""
    record = instance.get_run_record_by_id(run_id)
    if record is None:
        return None
    run = record.dagster_run
    job = run.job_name if run.job_name in watched.ours.jobs else ""
    failures = [] if recovered else list(_failures(instance, watched, run_id))
    whom = job or _assets(run) or "a run"
    return Notice(
        seq=seq,
        log=log,
        run_id=run_id,
        job=job,
        status="recovered" if recovered else "failed",
        title=f"{whom} works again" if recovered else f"{whom} failed",
        what="It succeeded, after a run that had failed." if recovered else _said(failures),
        do="" if recovered else next((do for _, _, do in failures if do), _SEE),
        failed=", ".join(step for step, _, _ in failures if step),
        started_at=_moment(record.start_time),
        ended_at=_moment(record.end_time),
        url=f"{watched.web_url.rstrip('/')}/runs/{run_id}" if watched.web_url else "",
    )


def _failures(instance: dg.DagsterInstance, watched: Watched, run_id: str) -> Iterator[tuple[str, str, str]]:
    """What failed, why, and what to do; of the run itself where no step of it failed."""
    found = False
    for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_FAILURE):
        event = entry.dagster_event
        if event is None:
            continue
        found = True
        data = event.step_failure_data
        step = watched.steps.get(event.step_key or "", event.step_key or "")
        told = data.user_failure_data
        if told is not None and told.description:
            what = _text(told.metadata, "what") or told.description
            where = _text(told.metadata, "where")
            yield step, f"{where}: {what}" if where else what, _text(told.metadata, "do")
        else:
            yield step, in_words(data.error)[0] if data.error else "it failed", ""
    for entry in [] if found else instance.all_logs(run_id, of_type=dg.DagsterEventType.RUN_FAILURE):
        event = entry.dagster_event
        error = getattr(event.event_specific_data, "error", None) if event else None
        yield "", in_words(error)[0] if error else (event.message if event and event.message else "the run failed"), ""


def _said(failures: list[tuple[str, str, str]]) -> str:
    lines = [shorten(f"{step}: {what}" if step else what, _LONGEST) for step, what, _ in failures[:_MOST]]
    more = [f"and {len(failures) - _MOST} more"] if len(failures) > _MOST else []
    return "\n".join([*lines, *more]) or "The run failed."


def _text(metadata: Mapping[str, Any], name: str) -> str:
    value = metadata.get(name)
    return str(value.value) if isinstance(value, dg.TextMetadataValue) and value.value else ""


def _assets(run: dg.DagsterRun) -> str:
    names = sorted(asset_name(key) for key in run.asset_selection or ())
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _moment(seconds: float | None) -> dt.datetime | None:
    return None if seconds is None else dt.datetime.fromtimestamp(seconds, dt.UTC)
