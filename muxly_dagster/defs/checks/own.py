"""Checks in the asset's own step, which cost no step and no process of their own: is a pull readable, is a delivery complete."""

import dagster as dg

from muxly_dagster.defs.metadata import asset_key
from muxly_dagster.outcome import Outcome

QUARANTINE = "quarantine_rate"
DELIVERY = "delivery_complete"
REFUSED = "refused_share"


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
    """The check that every change was dealt with."""
    return dg.AssetCheckSpec(
        DELIVERY, asset=asset_key(name), description="Every change read was accepted, refused or meant for elsewhere, and none is waiting."
    )


def delivery_result(outcome: Outcome, lag: int) -> dg.AssetCheckResult:
    """How the run just ended stands against it. Only a lost record is an error; waiting ones are in safe keeping."""
    lost = outcome.read - outcome.accepted - outcome.refused - outcome.unrouted
    found = []
    if lost:
        found.append(
            f"{outcome.read:,} records were read, but the receipts answer for {outcome.read - lost:,}: please report this as a bug"
        )
    waits = outcome.metadata.get("waits")
    if lag and not waits:
        found.append(f"{lag:,} changes came in meanwhile and wait for the next run")
    told = f"{outcome.accepted:,} accepted, {outcome.refused:,} refused, {outcome.unrouted:,} meant for elsewhere"
    kept = f"; {lag:,} changes wait: {waits}" if lag and waits else ""
    return dg.AssetCheckResult(
        check_name=DELIVERY,
        passed=not found,
        severity=dg.AssetCheckSeverity.ERROR if lost else dg.AssetCheckSeverity.WARN,
        description="; ".join(found) or told + kept,
        metadata={"waiting": lag, "unaccounted": lost},
    )


def refused_spec(name: str, most: float) -> dg.AssetCheckSpec:
    """The check that at most this share of a delivery's records was refused."""
    return dg.AssetCheckSpec(REFUSED, asset=asset_key(name), description=f"At most {most:.1%} of the records sent are refused.")


def refused_result(outcome: Outcome, most: float) -> dg.AssetCheckResult:
    """How the run just ended stands against it. A warning: refused records are in safe keeping."""
    sent = outcome.accepted + outcome.refused
    share = outcome.refused / sent if sent else 0.0
    found = f"{outcome.refused:,} of {sent:,} records were refused ({share:.1%}; {most:.1%} allowed)"
    see = f"; see `muxly dead-letters list {outcome.asset}`" if outcome.refused else ""
    return dg.AssetCheckResult(
        check_name=REFUSED,
        passed=share <= most,
        severity=dg.AssetCheckSeverity.WARN,
        description=found + see,
        metadata={"refused": outcome.refused, "sent": sent, "share": share, "allowed": most},
    )
