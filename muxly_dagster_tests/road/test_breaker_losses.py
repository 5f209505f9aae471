"""Breakers and windows let no road stand still for ever, and hold it back only for what its own destination did."""

import dataclasses
import datetime as dt
from typing import Any

import pytest

from muxly_dagster.delivery import TooMuch
from muxly_dagster.delivery.patience import Patience
from muxly_dagster.destination import Delivery, Receipt
from muxly_dagster.errors import ConfigurationError, RetryLater
from muxly_dagster.policy import Breaker
from muxly_dagster.routing import Router, Rule
from muxly_dagster.state import Wait
from muxly_dagster.testing import MemoryDestination
from muxly_dagster_tests.road.acting import Acting, acting, totals
from muxly_dagster_tests.road.lane import BIG, Road, counts, deals


def opened(road: Road) -> Any:
    """A target whose destination failed, and may be tried again by now."""
    target = road.with_policy(breaker={"failures": 1, "pause": "1m"})
    road.store(*deals(1))
    road.memory.go_down(RetryLater("away"))
    with pytest.raises(RetryLater):
        road.deliver(target, attempts=1)
    road.later(minutes=2)
    road.memory.come_up()
    return target


def test_a_run_that_sends_nothing_says_nothing_about_its_destination(road: Road) -> None:
    opened(road)
    nothing_for_it = road.with_policy(BIG, breaker={"failures": 1})
    road.state.ledger.rewind("out.memory", None)
    assert counts(road.deliver(nothing_for_it)) == (1, 0, 0, 1)
    assert road.memory.memory.taken == []
    breaker = road.state.breakers.read("memory")
    assert (breaker.status, breaker.failures) == ("open", 1), "nobody has seen it work"
    assert not breaker.holds(road.now), "the next delivery may try it"


def test_failures_in_a_row_are_counted_although_another_route_has_nothing_to_send(road: Road) -> None:
    failing = road.with_policy(breaker={"failures": 2})
    idle = dataclasses.replace(road.with_policy(Router([Rule("false", ("memory",))]), breaker={"failures": 2}), name="idle.memory")
    road.memory.go_down(RetryLater("away"))
    road.store(*deals(1))
    with pytest.raises(RetryLater):
        road.deliver(failing, attempts=1)
    assert counts(road.deliver(idle)) == (1, 0, 0, 1)
    with pytest.raises(RetryLater):
        road.deliver(failing, attempts=1)
    assert road.state.breakers.read("memory").status == "open"


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit, ValueError])
def test_a_probe_that_is_interrupted_leaves_the_next_one_free(road: Road, interruption: type[BaseException]) -> None:
    opened(road)

    def interrupted(delivery: Delivery) -> Receipt:
        raise interruption

    with pytest.raises(interruption):
        road.deliver(acting(road, interrupted, breaker={"failures": 1}))
    assert counts(road.deliver(road.with_policy())) == (1, 1, 0, 0)
    assert road.state.breakers.read("memory").status == "closed"


def test_a_mistake_before_anything_was_sent_does_not_close_a_breaker(road: Road) -> None:
    opened(road)
    target = road.with_policy(dedupe={"within": "1h", "by": ["no_such_column"]})
    with pytest.raises(ConfigurationError):
        road.deliver(target)
    assert road.state.breakers.read("memory").status == "open"


def test_a_trouble_of_the_state_is_not_counted_as_the_destinations(road: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    target = road.with_policy(breaker={"failures": 1})
    road.store(*deals(1))

    def locked(*_: Any, **__: Any) -> None:
        raise RetryLater("the state database cannot be used now: it is locked")

    with monkeypatch.context() as patch:
        patch.setattr(road.state.ledger, "record", locked)
        with pytest.raises(RetryLater):
            road.deliver(target)
    assert road.state.breakers.read("memory").status == "closed"
    assert road.state.waiting.read("out.memory") is not None, "it is due again all the same"


def test_under_dead_letter_a_destination_that_is_down_does_not_get_the_whole_backlog_shelved(road: Road) -> None:
    target = road.with_policy(on_error="dead_letter", batching={"count": 2}, breaker={"failures": 2, "pause": "1m"})
    road.store(*deals(*range(10)))
    road.memory.go_down(RetryLater("away"))
    with pytest.raises(RetryLater):
        road.deliver(target, attempts=1)
    assert totals(road) == (4, 0, 4, 0), "two batches were shelved before the breaker opened"
    assert road.state.breakers.read("memory").status == "open"
    with pytest.raises(RetryLater):
        road.deliver(target, attempts=1)
    assert totals(road) == (4, 0, 4, 0)
    road.memory.come_up()
    road.later(minutes=2)
    road.deliver(target)
    assert totals(road) == (10, 6, 4, 0)


def test_a_breaker_that_a_fast_clock_opened_is_not_open_for_years(road: Road) -> None:
    target = road.with_policy(breaker={"failures": 1})
    road.store(*deals(1))
    road.later(days=3650)
    road.memory.go_down(RetryLater("away"))
    with pytest.raises(RetryLater):
        road.deliver(target, attempts=1)
    road.memory.come_up()
    road.later(days=-3650)
    assert counts(road.deliver(target)) == (1, 1, 0, 0)


def test_a_wait_is_over_where_nothing_is_left_to_do(road: Road) -> None:
    """Such as after a run that was killed between its last receipt and the end of its wait."""
    target = opened(road)
    road.deliver(target)
    road.state.waiting.put(Wait("out.memory", road.now, "away", 1))
    road.state.breakers.failed("memory", target.destination.breaker, "away", road.now)
    assert counts(road.deliver(target)) == (0, 0, 0, 0)
    assert road.state.waiting.all() == []


@pytest.mark.parametrize("asked", [1e7, 1e12, 1e300])
def test_a_destination_that_asks_for_years_is_tried_tomorrow(asked: float) -> None:
    now = dt.datetime(2026, 11, 27, tzinfo=dt.UTC)
    assert Patience(now=lambda: now).next_try(1, asked) == now + dt.timedelta(days=1)


def test_a_run_ends_when_its_window_closes(road: Road) -> None:
    class Slow(Acting):
        batch_rows = 2

    destination = Slow.model_validate({"window": {"from": "09:00", "to": "17:00"}})
    destination._acts.append(lambda delivery: road.later(minutes=40))
    destination._memory = road.memory.memory
    target = road.target(destination=destination)
    road.store(*deals(*range(10)))
    road.now = dt.datetime(2026, 11, 27, 16, tzinfo=dt.UTC)
    outcome = road.deliver(target)
    assert counts(outcome) == (4, 4, 0, 0)
    assert outcome.metadata["waits"] == "its window is closed"
    morning = dt.datetime(2026, 11, 28, 9, tzinfo=dt.UTC)
    assert road.state.waiting.all() == [Wait("out.memory", morning, "its window is closed")]
    road.now = morning
    assert counts(road.deliver(target)) == (6, 6, 0, 0)
    assert road.ids == [str(number) for number in range(10)]
    assert road.state.waiting.all() == []


def test_runs_that_began_before_a_breaker_opened_do_not_keep_it_open_longer(road: Road) -> None:
    policy = Breaker.model_validate({"failures": 2, "pause": "1m"})
    for _ in range(10):  # ten runs that were under way at the same time
        road.state.breakers.failed("memory", policy, "away", road.now)
    breaker = road.state.breakers.read("memory")
    assert (breaker.failures, breaker.times, breaker.until) == (10, 1, road.now + dt.timedelta(minutes=1))


def test_a_breaker_that_is_switched_off_in_the_project_closes(road: Road) -> None:
    target = opened(road)
    road.memory.go_down(RetryLater("away"))
    never = road.with_policy(breaker={"failures": 0})
    with pytest.raises(RetryLater):
        road.deliver(never, attempts=1)
    assert road.state.breakers.read("memory").status == "closed"
    road.memory.come_up()
    assert counts(road.deliver(target)) == (1, 1, 0, 0)


def test_a_guard_that_stops_a_probe_lets_go_of_it(road: Road) -> None:
    class Mirror(MemoryDestination):
        @property
        def passes_deletes(self) -> bool:
            return True

    destination = Mirror.model_validate({"guard": {"at_least": 1, "deletes": "10%"}, "breaker": {"failures": 1, "pause": "1m"}})
    destination._memory = road.memory.memory
    target = road.target(destination=destination)
    road.store(*deals(*range(10)))
    road.deliver(target)
    road.state.breakers.failed("memory", destination.breaker, "away", road.now)
    road.later(minutes=2)
    road.store(*deals(1), whole=True)
    with pytest.raises(TooMuch):
        road.deliver(target)
    breaker = road.state.breakers.read("memory")
    assert breaker.status == "open" and not breaker.holds(road.now)
