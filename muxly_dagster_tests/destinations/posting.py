"""A child process that delivers a table of the lake to a webhook, and may be killed at any moment."""

from pathlib import Path

import pyarrow as pa

from muxly_dagster import delivery
from muxly_dagster.assembly import Target
from muxly_dagster.destinations.webhook import Webhook
from muxly_dagster.lake import Lake
from muxly_dagster.project.models import RouteSpec
from muxly_dagster.routing import Router, Rule
from muxly_dagster.state import State

NAME, TABLE = "out.hook", "crm.deals"


def run(folder: Path, url: str, batch: int, count: int) -> None:
    """Store so many records, unless that is done; deliver what is not confirmed yet."""
    lake, state = Lake(f"{folder}/lake"), State.open(f"sqlite:///{folder}/state.db", folder)
    if lake.table(TABLE) is None:
        with lake.writer(TABLE, key=("id",), run_id="pull") as writer:
            writer.add(pa.table({"id": range(count), "name": [f"Deal {n}" for n in range(count)]}))
            writer.finish(whole=False)
    hook = Webhook.model_validate({"url": url, "allow": ["127.0.0.1"], "concurrency": 8, "batch": batch, "batching": {"count": 40}})
    spec = RouteSpec.model_validate({"from": TABLE, "to": "hook"})
    target = Target(NAME, "out", spec, TABLE, ("id",), "hubspot", "hook", hook, Router([Rule(None, ("hook",))]))
    delivery.deliver(lake, state, target, run_id="run")
    state.close()


def accepted(folder: Path) -> int:
    """How many records are confirmed."""
    state = State.open(f"sqlite:///{folder}/state.db", folder)
    totals = state.ledger.totals(NAME, table_id=Lake(f"{folder}/lake").existing(TABLE).table_id)
    state.close()
    return totals["accepted"]
