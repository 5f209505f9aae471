"""Whether tables that say how old they may be are fresh."""

import datetime as dt
from dataclasses import dataclass
from typing import Any

import dagster as dg

from muxly_dagster.assembly import Assembly
from muxly_dagster.defs.checks.standing import StandingCheck
from muxly_dagster.defs.metadata import asset_key
from muxly_dagster.defs.resources import OpenProject
from muxly_dagster.measures import parse_duration

FRESHNESS = "freshness"


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


def freshness_checks(assembly: Assembly) -> list[StandingCheck]:
    """One check for each pull and transform that says how old it may be."""

    def check(name: str, allowed: dt.timedelta) -> StandingCheck:
        def look(project: OpenProject, instance: dg.DagsterInstance, now: dt.datetime) -> dg.AssetCheckResult:
            return freshness_of(name, allowed, project, instance).result(now)

        return StandingCheck(name, FRESHNESS, f"The last success is at most {allowed} ago.", look)

    return [check(name, allowed) for name, allowed in freshness_limits(assembly).items()]
