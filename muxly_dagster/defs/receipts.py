"""What a delivery's materialization tells: its counts, how long answers took, what was answered, the dead letters."""

import statistics
from typing import Any

import dagster as dg

from muxly_dagster.defs.metadata import outcome_metadata
from muxly_dagster.outcome import Outcome
from muxly_dagster.runtime import Runtime

_SHOWN = 20
_LONGEST = 300


def receipt_metadata(outcome: Outcome, runtime: Runtime, counts: tuple[str, ...]) -> dict[str, Any]:
    """Metadata of a delivery: its counts, seconds that its deliveries took, the last answer, the target's open dead letters as a table."""
    seconds: list[float] = outcome.metadata.get("latency", [])
    told = outcome_metadata(outcome, counts)
    told |= {"deliveries": len(seconds), "response": dg.MetadataValue.json(told.pop("last_receipt", {}))}
    told.pop("latency", None)
    if seconds:
        told |= {"latency": statistics.median(seconds), "latency_longest": max(seconds)}
    told["dead_letters_open"] = runtime.state.ledger.count_open(outcome.asset)
    letters = runtime.state.ledger.dead_letters(outcome.asset, limit=_SHOWN)
    if letters:
        rows = [{"id": each.id, "record": each.record_id, "reason": each.reason[:_LONGEST], "at": each.at} for each in letters]
        told["dead_letters"] = dg.MetadataValue.table([dg.TableRecord(row) for row in rows])
        commands = (f"`muxly dead-letters {verb} {outcome.asset}`" for verb in ("list", "replay"))
        told["dead_letters_see"] = dg.MetadataValue.md(", ".join(commands))
    return told
