"""A lake, a state and a destination in memory: a road of a test's own, with a clock that it can turn."""

import datetime as dt
from pathlib import Path
from typing import Any

from muxly_dagster.assembly import Target
from muxly_dagster.delivery import NO_LEAVE, Leave, Patience, deliver
from muxly_dagster.destination import Destination
from muxly_dagster.lake import Lake
from muxly_dagster.outcome import Outcome
from muxly_dagster.project.models import RouteSpec
from muxly_dagster.routing import Router, Rule
from muxly_dagster.state import State
from muxly_dagster.testing import MemoryDestination
from muxly_dagster_tests.road.scripted import rows

BIG = Router([Rule("amount > 100", ("memory",), name="big")], ("archive",))
EVERYTHING = Router([Rule(None, ("memory", "archive"))])


class Road:
    """Deliveries of `crm.deals` to `out.memory`, unless told otherwise. `now` is the clock's time; nothing ever sleeps."""

    def __init__(self, folder: Path) -> None:
        self.lake = Lake(str(folder / "lake"))
        self.state = State.open(f"sqlite:///{folder}/state.db", folder)
        self.memory = MemoryDestination()
        self.waited: list[float] = []
        self.now = dt.datetime.now(dt.UTC)

    def store(self, *values: dict[str, Any], whole: bool = False) -> None:
        with self.lake.writer("crm.deals", key=("id",), run_id="pull") as writer:
            writer.add(rows(*values))
            writer.finish(whole=whole)

    def target(self, router: Router = EVERYTHING, name: str = "memory", destination: Destination | None = None, **fields: Any) -> Target:
        spec = RouteSpec.model_validate({"from": "crm.deals", "to": name})
        return Target(f"out.{name}", "out", spec, "crm.deals", ("id",), "hubspot", name, destination or self.memory, router, **fields)

    def with_policy(self, router: Router = EVERYTHING, **policy: Any) -> Target:
        """The target with fields of its destination as they stand in muxly.yaml; what it takes goes into `memory` all the same."""
        destination = MemoryDestination(**policy)
        destination._memory = self.memory.memory
        return self.target(router, destination=destination)

    def patience(self, attempts: int = 3) -> Patience:
        return Patience(attempts=attempts, base=0.01, cap=5.0, sleep=self.waited.append, now=lambda: self.now)

    def deliver(self, target: Target | None = None, attempts: int = 3, leave: Leave = NO_LEAVE) -> Outcome:
        return deliver(self.lake, self.state, target or self.target(), run_id="run", patience=self.patience(attempts), leave=leave)

    def later(self, **length: float) -> None:
        self.now += dt.timedelta(**length)

    @property
    def ids(self) -> list[str]:
        """What was taken, in order."""
        return [data["id"] for data in self.memory.data]


def counts(outcome: Outcome) -> tuple[int, int, int, int]:
    return outcome.read, outcome.accepted, outcome.refused, outcome.unrouted


def deals(*numbers: int, **more: Any) -> list[dict[str, Any]]:
    """Deals whose number is their key and their amount."""
    return [{"id": str(number), "amount": number, **more} for number in numbers]
