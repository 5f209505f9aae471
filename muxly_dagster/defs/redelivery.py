"""The sensor that resumes deliveries whose moment has come: another try, an opening window, a batch that is old enough."""

import datetime as dt

import dagster as dg
import xxhash

from muxly_dagster.assembly import Assembly
from muxly_dagster.defs.failures import dagster_errors
from muxly_dagster.defs.metadata import asset_key
from muxly_dagster.defs.resources import MUXLY
from muxly_dagster.state import Wait

REDELIVERY = "muxly_redelivery"
_SENSOR_SECONDS = 30
_REPEATED = dt.timedelta(minutes=10)
_ALIVE = dt.timedelta(hours=1)
_UNFINISHED = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def redelivery_sensor(assembly: Assembly) -> dg.SensorDefinition:
    """Requests one run for each destination that has something due, so that a slow one holds up no other.

    What is due lies in the state: a restart forgets nothing. A run is requested once for each moment that something waited for; where
    that run came to nothing, killed or never started, once more after ten minutes, and later each further time.
    """
    targets = dict(assembly.targets)

    @dg.sensor(
        name=REDELIVERY,
        asset_selection=dg.AssetSelection.assets(*(asset_key(name) for name in targets)),
        minimum_interval_seconds=_SENSOR_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        required_resource_keys={MUXLY},
        description="Resumes deliveries that failed or were put off, when they are due.",
    )
    def redeliver(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        now = dt.datetime.now(dt.UTC)
        with dagster_errors():
            state = context.resources.muxly.runtime.state
            held_up = {each.destination for each in state.breakers.all() if each.status == "disabled" or each.holds(now)}
            under_way = _under_way(context.instance, now)
            due: dict[str, list[Wait]] = {}
            for wait in state.waiting.due(now):
                target = targets.get(wait.target)
                if target is not None and target.destination_name not in held_up and asset_key(wait.target) not in under_way:
                    due.setdefault(target.destination_name, []).append(wait)
        if not due:
            return dg.SkipReason("nothing is due")
        return dg.SensorResult(run_requests=[_request(destination, waits, now) for destination, waits in due.items()])

    return redeliver


def _under_way(instance: dg.DagsterInstance, now: dt.datetime) -> set[dg.AssetKey]:
    """What runs of this sensor are going to deliver. One that is older may be dead, without anybody having told Dagster."""
    filters = dg.RunsFilter(statuses=_UNFINISHED, tags={"dagster/sensor_name": REDELIVERY}, created_after=now - _ALIVE)
    return {key for run in instance.get_runs(filters) for key in run.asset_selection or ()}


def _request(destination: str, waits: list[Wait], now: dt.datetime) -> dg.RunRequest:
    moments = "|".join(sorted(f"{wait.target}@{wait.until.isoformat()}" for wait in waits))
    late = (now - max(wait.until for wait in waits)) / _REPEATED
    return dg.RunRequest(
        run_key=f"{destination}:{xxhash.xxh3_64_hexdigest(moments.encode())}:{int(late).bit_length()}",
        asset_selection=[asset_key(wait.target) for wait in waits],
        tags={"muxly/redelivery": destination},
    )
