"""A run that would delete or change too much is stopped before it begins."""

from typing import Any

import pytest

from muxly_dagster.delivery import Leave, TooMuch
from muxly_dagster.testing import MemoryDestination
from muxly_dagster_tests.road.lane import BIG, Road, counts, deals


class Mirror(MemoryDestination):
    @property
    def passes_deletes(self) -> bool:
        return True


def mirror(road: Road, **guard: Any) -> Any:
    destination = Mirror(guard=guard)
    destination._memory = road.memory.memory
    return road.target(destination=destination)


def test_a_run_that_would_delete_too_much_is_stopped_before_it_begins(road: Road) -> None:
    target = mirror(road, at_least=5)
    road.store(*deals(*range(20)))
    road.deliver(target)
    taken = len(road.memory.memory.deliveries)
    road.store(*deals(*range(5)), whole=True)
    with pytest.raises(TooMuch, match=r"would delete 15 of 20 rows \(75%\); the guard allows 50%"):
        road.deliver(target)
    assert len(road.memory.memory.deliveries) == taken
    assert counts(road.deliver(target, leave=Leave(past_guard=True))) == (15, 15, 0, 0)


def test_a_guard_lets_through_what_is_within_it(road: Road) -> None:
    target = mirror(road, at_least=5)
    road.store(*deals(*range(20)))
    road.deliver(target)
    road.store(*deals(*range(10)), whole=True)
    assert counts(road.deliver(target)) == (10, 10, 0, 0)


def test_few_rows_are_never_too_much(road: Road) -> None:
    target = mirror(road)
    road.store(*deals(*range(20)))
    road.deliver(target)
    road.store(*deals(1), whole=True)
    assert counts(road.deliver(target)) == (19, 19, 0, 0)


def test_a_record_that_came_back_is_not_deleted(road: Road) -> None:
    target = mirror(road, at_least=2)
    road.store(*deals(*range(10)))
    road.deliver(target)
    road.store(*deals(1), whole=True)
    road.store(*deals(*range(10)))
    assert counts(road.deliver(target)) == (18, 18, 0, 0)


def test_a_guard_of_changes_counts_updates_but_no_new_rows(road: Road) -> None:
    target = mirror(road, changes="30%", at_least=2)
    road.store(*deals(*range(10)))
    assert counts(road.deliver(target)) == (10, 10, 0, 0)
    road.store(*deals(*range(100, 200)))
    assert counts(road.deliver(target)) == (100, 100, 0, 0)
    road.store(*({"id": str(n), "amount": -n} for n in range(100, 150)))
    with pytest.raises(TooMuch, match=r"would change or delete 50 of 110 rows \(45%\); the guard allows 30%"):
        road.deliver(target)


def test_a_guard_counts_the_rows_of_its_own_rule(road: Road) -> None:
    destination = Mirror(guard={"at_least": 5})
    destination._memory = road.memory.memory
    target = road.target(BIG, destination=destination)
    road.store(*deals(*range(91, 111)))  # 91 ... 100 are small, 101 ... 110 big
    road.deliver(target)
    road.store(*deals(*range(91, 103)), whole=True)
    with pytest.raises(TooMuch, match="would delete 8 of 10 rows"):
        road.deliver(target)
