"""The sensor that resumes deliveries whose moment has come: another try, an opening window, a batch that is old enough."""

import datetime as dt

import dagster as dg
import xxhash

from muxly_dagster.assembly import Assembly
from muxly_dagster.defs.failures import dagster_errors
from muxly_dagster.defs.metadata import asset_key
from muxly_dagster.defs.resources import MUXLY
from muxly_dagster.state import BreakerState, Wait

REDELIVERY = "muxly_redelivery"
_SENSOR_SECONDS = 30


def redelivery_sensor(assembly: Assembly) -> dg.SensorDefinition:
    """Requests one run for each destination that has something due, so that a slow one holds up no other.

    What is due lies in the state: a restart forgets nothing. A run is requested once for each moment that something waited for.
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
            held_up = {each.destination for each in state.breakers.all() if _holds_up(each, now)}
            due: dict[str, list[Wait]] = {}
            for wait in state.waiting.due(now):
                target = targets.get(wait.target)
                if target is not None and target.destination_name not in held_up:
                    due.setdefault(target.destination_name, []).append(wait)
        if not due:
            return dg.SkipReason("nothing is due")
        return dg.SensorResult(run_requests=[_request(destination, waits) for destination, waits in due.items()])

    return redeliver


def _holds_up(breaker: BreakerState, now: dt.datetime) -> bool:
    return breaker.status == "disabled" or (breaker.until is not None and breaker.until > now)


def _request(destination: str, waits: list[Wait]) -> dg.RunRequest:
    moments = "|".join(sorted(f"{wait.target}@{wait.until.isoformat()}" for wait in waits))
    return dg.RunRequest(
        run_key=f"{destination}:{xxhash.xxh3_64_hexdigest(moments.encode())}",
        asset_selection=[asset_key(wait.target) for wait in waits],
        tags={"muxly/redelivery": destination},
    )
