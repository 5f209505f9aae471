"""Whether deliveries keep up, and whether their destinations are being delivered to at all."""

import datetime as dt
from functools import lru_cache

import dagster as dg

from muxly_dagster.assembly import Assembly, Target
from muxly_dagster.defs.checks.standing import StandingCheck
from muxly_dagster.defs.metadata import asset_key
from muxly_dagster.defs.resources import OpenProject
from muxly_dagster.measures import parse_duration
from muxly_dagster.state import BreakerState, State

LAG = "delivery_lag"
BREAKER = "breaker_closed"


def delivery_checks(assembly: Assembly) -> list[StandingCheck]:
    """For each target whether its breaker is closed, and, where its destination says `max_lag`, whether it keeps up."""
    lags = [_lag(target) for target in assembly.targets.values() if target.destination.max_lag]
    return lags + [_breaker(target) for target in assembly.targets.values()]


def _lag(target: Target) -> StandingCheck:
    allowed = parse_duration(target.destination.max_lag)

    def look(project: OpenProject, instance: dg.DagsterInstance, now: dt.datetime) -> dg.AssetCheckResult:
        lag, oldest = project.runtime.behind(target.name)
        age = now - oldest if oldest is not None else dt.timedelta()
        wait = project.runtime.state.waiting.read(target.name) if lag else None
        waits = f"; {wait.why}, until {wait.until:%Y-%m-%d %H:%M:%S} UTC" if wait is not None else ""
        found = f"{lag:,} changes wait, the oldest for {str(age).partition('.')[0]}{waits}" if lag else "nothing waits"
        return dg.AssetCheckResult(
            asset_key=asset_key(target.name),
            check_name=LAG,
            passed=age <= allowed,
            severity=dg.AssetCheckSeverity.WARN,
            description=f"{found}; {allowed} allowed",
            metadata={"waiting": lag, "age_seconds": age.total_seconds(), "allowed_seconds": allowed.total_seconds()},
        )

    return StandingCheck(target.name, LAG, f"No change has waited longer than {allowed}.", look)


@lru_cache(maxsize=1)
def _breakers(state: State, now: dt.datetime) -> dict[str, BreakerState]:
    """All breakers as of one look at all checks, read once."""
    return {each.destination: each for each in state.breakers.all()}


def _breaker(target: Target) -> StandingCheck:
    def look(project: OpenProject, instance: dg.DagsterInstance, now: dt.datetime) -> dg.AssetCheckResult:
        stands = _breakers(project.runtime.state, now).get(target.destination_name, BreakerState(target.destination_name))
        until = f" until {stands.until:%Y-%m-%d %H:%M:%S} UTC" if stands.until is not None else ""
        told = f"{target.destination_name} is {stands.status}{until} after {stands.failures} failed deliveries in a row: {stands.reason}"
        see = f"; `muxly destinations resume {target.destination_name}` delivers to it again"
        return dg.AssetCheckResult(
            asset_key=asset_key(target.name),
            check_name=BREAKER,
            passed=stands.status == "closed",
            severity=dg.AssetCheckSeverity.ERROR if stands.status == "disabled" else dg.AssetCheckSeverity.WARN,
            description=f"{target.destination_name} is delivered to" if stands.status == "closed" else told + see,
            metadata={"breaker": stands.status, "failures": stands.failures},
        )

    return StandingCheck(target.name, BREAKER, f"Deliveries to {target.destination_name} are not held up by earlier failures.", look)
