"""Asset checks: is a pull readable, is a delivery complete, is a table fresh."""

import datetime as dt
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import dagster as dg

from muxly_dagster.assembly import Assembly
from muxly_dagster.defs.failures import dagster_errors
from muxly_dagster.defs.metadata import asset_key
from muxly_dagster.defs.resources import MUXLY, OpenProject
from muxly_dagster.measures import parse_duration
from muxly_dagster.outcome import Outcome

QUARANTINE = "quarantine_rate"
DELIVERY = "delivery_complete"
FRESHNESS = "freshness"
FRESHNESS_SENSOR = "muxly_freshness"
_SENSOR_SECONDS = 60


# ---- in the asset's own step: they cost no step and no process of their own


def quarantine_spec(name: str, most: float) -> dg.AssetCheckSpec:
    """The check that at most this share of a pull's records was unreadable."""
    return dg.AssetCheckSpec(QUARANTINE, asset=asset_key(name), description=f"At most {most:.1%} of the records read are in quarantine.")


def quarantine_result(outcome: Outcome, most: float) -> dg.AssetCheckResult:
    """How the run just ended stands against it."""
    rate = outcome.refused / outcome.read if outcome.read else 0.0
    found = f"{outcome.refused:,} of {outcome.read:,} records could not be read ({rate:.1%}; {most:.1%} allowed)"
    see = f"; see `muxly dead-letters list {outcome.asset}`" if outcome.refused else ""
    return dg.AssetCheckResult(
        check_name=QUARANTINE,
        passed=rate <= most,
        description=found + see,
        metadata={"quarantined": outcome.refused, "read": outcome.read, "rate": rate, "allowed": most},
    )


def delivery_spec(name: str) -> dg.AssetCheckSpec:
    """The check that every change was dealt with and none was refused."""
    return dg.AssetCheckSpec(
        DELIVERY,
        asset=asset_key(name),
        description="Every change read was accepted, refused or meant for elsewhere; none was refused; none is waiting.",
    )


def delivery_result(outcome: Outcome, lag: int) -> dg.AssetCheckResult:
    """How the run just ended stands against it. Only a lost record is an error; refused and waiting ones are in safe keeping."""
    lost = outcome.read - outcome.accepted - outcome.refused - outcome.unrouted
    found = []
    if lost:
        found.append(
            f"{outcome.read:,} records were read, but the receipts answer for {outcome.read - lost:,}: please report this as a bug"
        )
    if outcome.refused:
        found.append(f"{outcome.refused:,} records were refused; see `muxly dead-letters list {outcome.asset}`")
    if lag:
        found.append(f"{lag:,} changes came in meanwhile and wait for the next run")
    return dg.AssetCheckResult(
        check_name=DELIVERY,
        passed=not found,
        severity=dg.AssetCheckSeverity.ERROR if lost else dg.AssetCheckSeverity.WARN,
        description="; ".join(found) or f"{outcome.accepted:,} accepted, {outcome.unrouted:,} meant for elsewhere",
        metadata={"refused": outcome.refused, "waiting": lag, "unaccounted": lost},
    )


# ---- freshness: has to be looked at when nothing runs


@dataclass(frozen=True, slots=True)
class Freshness:
    """How old a table may be, and how old it is. `last` is the last success; None if there was none."""

    name: str
    allowed: dt.timedelta
    last: dt.datetime | None

    def is_fresh(self, now: dt.datetime) -> bool:
        """Whether the last success is recent enough."""
        return self.last is not None and now - self.last <= self.allowed

    def result(self, now: dt.datetime) -> dg.AssetCheckResult:
        """As Dagster shows it."""
        told: dict[str, Any] = {"allowed_seconds": self.allowed.total_seconds()}
        if self.last is not None:
            told["last_success"] = dg.MetadataValue.timestamp(self.last)
            told["age_seconds"] = (now - self.last).total_seconds()
        age = f"the last success was at {self.last:%Y-%m-%d %H:%M:%S} UTC" if self.last else "it has never succeeded"
        return dg.AssetCheckResult(
            asset_key=asset_key(self.name),
            check_name=FRESHNESS,
            passed=self.is_fresh(now),
            severity=dg.AssetCheckSeverity.WARN,
            description=f"{age}; it may be {self.allowed} old",
            metadata=told,
        )


def freshness_of(name: str, allowed: dt.timedelta, project: OpenProject, instance: dg.DagsterInstance) -> Freshness:
    """A pull's last success as the state remembers it, whoever ran it; a transform's as Dagster does."""
    runtime = project.runtime
    if name in runtime.assembly.pulls:
        return Freshness(name, allowed, runtime.last_pull(name))
    event = instance.get_latest_materialization_event(asset_key(name))
    return Freshness(name, allowed, dt.datetime.fromtimestamp(event.timestamp, dt.UTC) if event else None)


def freshness_limits(assembly: Assembly) -> dict[str, dt.timedelta]:
    """The pulls and transforms that say how old they may be."""
    said = {name: pull.settings.freshness for name, pull in assembly.pulls.items()}
    said |= {name: transform.spec.freshness for name, transform in assembly.transforms.items()}
    return {name: parse_duration(text) for name, text in said.items() if text}


def freshness_checks(limits: Mapping[str, dt.timedelta]) -> dg.AssetChecksDefinition:
    """One check for each of these assets, all in one step."""

    @dg.multi_asset_check(
        name="muxly_freshness_checks",
        specs=[
            dg.AssetCheckSpec(FRESHNESS, asset=asset_key(name), description=f"The last success is at most {allowed} ago.")
            for name, allowed in limits.items()
        ],
        can_subset=True,
        required_resource_keys={MUXLY},
        description="How old the tables are that say how old they may be.",
    )
    def check(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        now = dt.datetime.now(dt.UTC)
        chosen = {key.asset_key for key in context.selected_asset_check_keys}
        with dagster_errors():
            for name, allowed in limits.items():
                if asset_key(name) in chosen:
                    yield freshness_of(name, allowed, context.resources.muxly, context.instance).result(now)

    return check


def freshness_sensor(limits: Mapping[str, dt.timedelta]) -> dg.SensorDefinition:
    """Runs the freshness check of an asset when it would turn out otherwise than last time, and at no other time."""

    @dg.sensor(
        name=FRESHNESS_SENSOR,
        asset_selection=dg.AssetSelection.checks(*(freshness_key(name) for name in limits)),
        minimum_interval_seconds=_SENSOR_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        required_resource_keys={MUXLY},
        description="Checks the freshness of an asset when it has become too old, and when it is fresh again.",
    )
    def watch(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        now = dt.datetime.now(dt.UTC)
        with dagster_errors():
            known = [freshness_of(name, allowed, context.resources.muxly, context.instance) for name, allowed in limits.items()]
        overdue = {each.name for each in known if not each.is_fresh(now)}
        turned = overdue ^ set(json.loads(context.cursor)) if context.cursor else set(limits)
        if not turned:
            return dg.SkipReason("nothing has become too old or fresh again")
        return dg.SensorResult(
            run_requests=[dg.RunRequest(asset_check_keys=[freshness_key(name) for name in limits if name in turned])],
            cursor=json.dumps(sorted(overdue)),
        )

    return watch


def freshness_key(name: str) -> dg.AssetCheckKey:
    """The freshness check of a pull or transform."""
    return dg.AssetCheckKey(asset_key(name), FRESHNESS)
