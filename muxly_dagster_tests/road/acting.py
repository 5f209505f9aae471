"""Destinations that do what a test says, and what is asked of them."""

from collections.abc import Callable
from typing import Any

from pydantic import PrivateAttr

from muxly_dagster.destination import Delivery, Receipt
from muxly_dagster.routing import Router
from muxly_dagster.testing import MemoryDestination
from muxly_dagster_tests.road.lane import Road


def customers(*named: str) -> list[dict[str, Any]]:
    """Deals 1, 2, 3 ... of these customers."""
    return [{"id": str(number), "customer": name} for number, name in enumerate(named, 1)]


class Acting(MemoryDestination):
    """Does what the test says, instead of or before taking records into memory."""

    _acts: list[Callable[[Delivery], Receipt | None]] = PrivateAttr(default_factory=list)

    def deliver(self, delivery: Delivery) -> Receipt:
        answers = [act(delivery) for act in self._acts]
        return next((answer for answer in answers if answer is not None), None) or super().deliver(delivery)


def acting(road: Road, act: Callable[[Delivery], Receipt | None], router: Router | None = None, **policy: Any) -> Any:
    destination = Acting.model_validate(policy)
    destination._acts.append(act)
    destination._memory = road.memory.memory
    return road.target(destination=destination) if router is None else road.target(router, destination=destination)


def seqs(delivery: Delivery) -> list[int]:
    return [record["metadata"]["seq"] for record in delivery.records()]


def totals(road: Road) -> tuple[int, ...]:
    return tuple(road.state.ledger.totals("out.memory").values())
