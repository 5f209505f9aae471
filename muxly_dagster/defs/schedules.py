"""A job's schedule: when it runs, what of it is made up for after a time in which nothing ran, and how much later than the tick it begins.

Dagster evaluates only the newest of the ticks that came while its daemon was down (dagster/_scheduler/scheduler.py, 1.13): that is
`catch_up: last`. The others of `all` are found here, between that tick and the last one that Dagster dealt with.
"""

import datetime as dt
import uuid
from collections.abc import Iterator
from itertools import islice

import dagster as dg
import xxhash
from dagster._core.scheduler.instigation import InstigatorType, ScheduleInstigatorData, TickStatus

from muxly_dagster.assembly.tags import TICK
from muxly_dagster.assembly.ticks import passed
from muxly_dagster.defs.resources import MUXLY
from muxly_dagster.errors import MuxlyError
from muxly_dagster.measures import parse_duration
from muxly_dagster.project.models import JobSpec
from muxly_dagster.state import State
from muxly_dagster.state.starts import Start

MOST_MADE_UP = 100
"""The most runs that `catch_up: all` makes up for at a time, the newest ones."""

IN_TIME = dt.timedelta(minutes=5)
"""A tick that is evaluated no later than this has not been missed: the daemon looks once a minute, and may be busy."""

_DEALT_WITH = [TickStatus.SUCCESS, TickStatus.SKIPPED]


def job_schedule(name: str, spec: JobSpec, job: dg.JobDefinition | object) -> dg.ScheduleDefinition:
    """The schedule `NAME_schedule`. It leaves out what comes while the job is paused."""

    def evaluate(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        result = decide(context)
        yield from result if isinstance(result, list) else (result,)

    def decide(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
        now, tick = dt.datetime.now(dt.UTC), context.scheduled_execution_time.astimezone(dt.UTC)
        if spec.catch_up == "none" and now - tick > IN_TIME:
            return dg.SkipReason(f"it is too late: it was due at {_said(tick)}, and `catch_up: none` makes up for nothing")
        try:
            state: State = context.resources.muxly.runtime.state
            if state.jobs.is_paused(name):
                return dg.SkipReason(f"the job {name} is paused; resume it with `muxly jobs resume {name}`")
            requests, later = [], []
            for each in [*(_missed(context, f"{name}_schedule", spec, tick) if spec.catch_up == "all" else ()), tick]:
                begins = each + jitter(name, spec, each)
                if begins > now:
                    state.starts.put(Start(start_id(name, each), name, "cron", begins, {TICK: each.isoformat()}))
                    later.append(_said(begins))
                else:
                    requests.append(_request(each))
        except MuxlyError as error:
            # A run that begins without need does less harm than one that never comes; and it waits for the database itself.
            context.log.warning(f"the job begins without being asked whether it is paused, and without jitter: {error}")
            return [_request(tick)]
        return requests or dg.SkipReason(f"it begins at {', '.join(later)} (jitter {spec.jitter})")

    return dg.ScheduleDefinition(
        name=f"{name}_schedule",
        job=job,  # type: ignore[arg-type]  # Dagster's word for an unresolved job is private
        cron_schedule=spec.cron,
        execution_timezone=spec.timezone,
        execution_fn=evaluate,
        required_resource_keys={MUXLY},
        default_status=dg.DefaultScheduleStatus.RUNNING if spec.enabled else dg.DefaultScheduleStatus.STOPPED,
    )


def jitter(name: str, spec: JobSpec, tick: dt.datetime) -> dt.timedelta:
    """How much later than a tick a job begins: the same whenever it is asked, and another one for each tick."""
    if not spec.jitter:
        return dt.timedelta()
    share = xxhash.xxh3_64_intdigest(f"{name}@{tick.astimezone(dt.UTC).isoformat()}".encode()) / 2**64
    return parse_duration(spec.jitter) * share


def start_id(name: str, tick: dt.datetime) -> str:
    """The id of the start of a tick: a tick that is evaluated twice starts one run."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"muxly:cron:{name}@{tick.astimezone(dt.UTC).isoformat()}"))


def _request(tick: dt.datetime) -> dg.RunRequest:
    return dg.RunRequest(run_key=tick.isoformat(), tags={TICK: tick.isoformat()})


def _missed(context: dg.ScheduleEvaluationContext, schedule: str, spec: JobSpec, tick: dt.datetime) -> list[dt.datetime]:
    """The ticks before this one that Dagster has passed over."""
    since = _dealt_with_until(context.instance, schedule, tick)
    if since is None:
        return []
    found = list(islice(passed(spec, since, tick), MOST_MADE_UP + 1))
    if len(found) > MOST_MADE_UP:
        context.log.warning(f"more than {MOST_MADE_UP} runs were missed since {_said(since)}; the newest {MOST_MADE_UP} are made up for")
    return found[:MOST_MADE_UP][::-1]


def _dealt_with_until(instance: dg.DagsterInstance, schedule: str, tick: dt.datetime) -> dt.datetime | None:
    """Until when a schedule's ticks were dealt with before this one; None where it is not Dagster's daemon that evaluates it.

    Dagster itself counts from there: from when the schedule was switched on, from its last checkpoint, from its last tick.
    """
    at = tick.timestamp()
    for held in instance.all_instigator_state(instigator_type=InstigatorType.SCHEDULE):
        data = held.instigator_data
        if held.instigator_name != schedule or not isinstance(data, ScheduleInstigatorData):
            continue
        newest = instance.get_ticks(held.instigator_origin_id, held.selector_id, limit=1)
        if not newest or newest[0].timestamp != at:
            continue  # another code location's schedule of the same name
        before = instance.get_ticks(held.instigator_origin_id, held.selector_id, before=at, limit=1, statuses=_DEALT_WITH)
        since = max(data.start_timestamp or 0, data.last_iteration_timestamp or 0, before[0].timestamp if before else 0)
        return dt.datetime.fromtimestamp(since, dt.UTC) if since else None
    return None


def _said(moment: dt.datetime) -> str:
    return moment.astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
