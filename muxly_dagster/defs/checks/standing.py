"""Checks that have to be looked at when nothing runs: all in one step, run by a sensor when one of them would turn out otherwise."""

import datetime as dt
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import dagster as dg

from muxly_dagster.defs.failures import dagster_errors
from muxly_dagster.defs.metadata import asset_key
from muxly_dagster.defs.resources import MUXLY, OpenProject

WATCH = "muxly_watch"
"""The sensor's name."""

_SENSOR_SECONDS = 60

Look = Callable[[OpenProject, dg.DagsterInstance, dt.datetime], dg.AssetCheckResult]


@dataclass(frozen=True, slots=True)
class StandingCheck:
    """A check of one asset by its name; `look` gives the result as of a moment (UTC), and costs little."""

    asset: str
    name: str
    description: str
    look: Look

    @property
    def key(self) -> dg.AssetCheckKey:
        """The check as Dagster knows it."""
        return dg.AssetCheckKey(asset_key(self.asset), self.name)

    @property
    def id(self) -> str:
        """The check in the sensor's cursor."""
        return f"{self.asset}:{self.name}"


def standing_checks(checks: Sequence[StandingCheck]) -> dg.AssetChecksDefinition:
    """All of them, in one step."""

    @dg.multi_asset_check(
        name="muxly_standing_checks",
        specs=[dg.AssetCheckSpec(each.name, asset=asset_key(each.asset), description=each.description) for each in checks],
        can_subset=True,
        required_resource_keys={MUXLY},
        description="How old tables are, how long deliveries have waited, and whether their destinations are left alone.",
    )
    def check(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        now = dt.datetime.now(dt.UTC)
        with dagster_errors():
            for each in checks:
                if each.key in context.selected_asset_check_keys:
                    yield each.look(context.resources.muxly, context.instance, now)

    return check


def standing_sensor(checks: Sequence[StandingCheck]) -> dg.SensorDefinition:
    """Runs a check when it would turn out otherwise than last time, and at no other time."""

    @dg.sensor(
        name=WATCH,
        asset_selection=dg.AssetSelection.checks(*(each.key for each in checks)),
        minimum_interval_seconds=_SENSOR_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        required_resource_keys={MUXLY},
        description="Runs a check of freshness, lag or a breaker when it would turn out otherwise than last time.",
    )
    def watch(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        now = dt.datetime.now(dt.UTC)
        with dagster_errors():
            failing = {each.id for each in checks if not each.look(context.resources.muxly, context.instance, now).passed}
        turned = failing ^ set(json.loads(context.cursor)) if context.cursor else {each.id for each in checks}
        if not turned:
            return dg.SkipReason("no check would turn out otherwise")
        return dg.SensorResult(
            run_requests=[dg.RunRequest(asset_check_keys=[each.key for each in checks if each.id in turned])],
            cursor=json.dumps(sorted(failing)),
        )

    return watch
