"""Asset checks: those of an asset's own step, and those that are looked at when nothing runs."""

from muxly_dagster.assembly import Assembly
from muxly_dagster.defs.checks.deliveries import delivery_checks
from muxly_dagster.defs.checks.freshness import freshness_checks
from muxly_dagster.defs.checks.standing import StandingCheck


def all_standing(assembly: Assembly) -> list[StandingCheck]:
    """Every check of a project that has to be looked at when nothing runs."""
    return [*freshness_checks(assembly), *delivery_checks(assembly)]
