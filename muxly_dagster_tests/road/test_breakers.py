"""Destinations that keep failing are left alone, tried again by one run, and switched off where they say that they are gone."""

import datetime as dt
from typing import Any

import pytest

from muxly_dagster.delivery import Leave
from muxly_dagster.errors import ConfigurationError, GoneError, RetryLater, SignInError
from muxly_dagster.routing import Router, Rule
from muxly_dagster_tests.road.lane import Road, counts, deals


def failing_run(road: Road, target: Any, error: type[Exception] = RetryLater, leave: Leave = Leave()) -> Exception:  # noqa: B008 (frozen)
    with pytest.raises(error) as caught:
        road.deliver(target, attempts=1, leave=leave)
    return caught.value


def test_a_breaker_opens_after_failures_in_a_row_and_one_delivery_tries_it(road: Road) -> None:
    target = road.with_policy(breaker={"failures": 2, "pause": "1m", "longest": "3m"})
    road.store(*deals(1))
    road.memory.go_down(RetryLater("the memory is away"))
    for _ in range(2):
        failing_run(road, target)
    tried = len(road.memory.memory.deliveries)
    error = failing_run(road, target)
    assert "is left alone for a while after 2 failed deliveries in a row: the memory is away" in str(error)
    assert len(road.memory.memory.deliveries) == tried, "an open breaker lets nothing through"
    assert road.state.breakers.read("memory").status == "open"
    for minutes in (1, 2, 3, 3):  # each time twice as long, up to the longest
        road.later(minutes=minutes, seconds=-1)
        failing_run(road, target)
        assert len(road.memory.memory.deliveries) == tried
        road.later(seconds=1)
        failing_run(road, target)
        tried += 1
        assert len(road.memory.memory.deliveries) == tried
    road.memory.come_up()
    road.later(minutes=3)
    assert counts(road.deliver(target)) == (1, 1, 0, 0)
    assert road.state.breakers.read("memory").status == "closed"


def test_a_breaker_is_shared_by_all_routes_to_a_destination(road: Road) -> None:
    policy = {"breaker": {"failures": 1}}
    road.store(*deals(1))
    road.memory.go_down()
    failing_run(road, road.with_policy(**policy))
    other = road.with_policy(Router([Rule(None, ("memory",))]), **policy)
    tried = len(road.memory.memory.deliveries)
    failing_run(road, other)
    assert len(road.memory.memory.deliveries) == tried


def test_only_one_run_at_a_time_tries_an_open_breaker(road: Road) -> None:
    target = road.with_policy(breaker={"failures": 1, "pause": "1m"})
    road.store(*deals(1))
    road.memory.go_down()
    failing_run(road, target)
    road.later(minutes=2)
    road.state.breakers.admit("memory", road.now)  # somebody else's probe
    assert "is being tried by another run" in str(failing_run(road, target))
    road.later(hours=1)  # whoever made the probe is dead by now
    road.memory.come_up()
    assert counts(road.deliver(target)) == (1, 1, 0, 0)


def test_a_person_who_runs_it_by_hand_is_not_kept_waiting(road: Road) -> None:
    target = road.with_policy(breaker={"failures": 1})
    road.store(*deals(1))
    road.memory.go_down()
    failing_run(road, target)
    road.memory.come_up()
    assert counts(road.deliver(target, leave=Leave(by_hand=True))) == (1, 1, 0, 0)


def test_refused_credentials_open_the_breaker_and_a_mistake_in_the_project_does_not(road: Road) -> None:
    target = road.with_policy(breaker={"failures": 1})
    road.store(*deals(1))
    road.memory.go_down(ConfigurationError("there is no such table"))
    failing_run(road, target, ConfigurationError)
    assert road.state.breakers.read("memory").status == "closed"
    road.memory.go_down(SignInError("the token is refused"))
    failing_run(road, target, SignInError)
    assert road.state.breakers.read("memory").status == "open"


def test_a_destination_that_is_gone_is_switched_off_until_it_is_resumed(road: Road) -> None:
    target = road.with_policy()
    road.store(*deals(1))
    road.memory.go_down(GoneError("the endpoint answers 410"))
    failing_run(road, target, GoneError)
    road.memory.come_up()
    road.later(days=30)
    error = failing_run(road, target, GoneError, Leave(by_hand=True))
    assert "was switched off: the endpoint answers 410" in str(error)
    road.state.breakers.resume("memory", road.now)
    assert counts(road.deliver(target)) == (1, 1, 0, 0)


def test_a_target_with_nothing_to_do_does_not_fail_because_its_destination_is_left_alone(road: Road) -> None:
    target = road.with_policy(breaker={"failures": 1})
    road.store(*deals(1))
    road.deliver(target)
    road.state.breakers.failed("memory", target.destination.breaker, "away", road.now)
    assert counts(road.deliver(target)) == (0, 0, 0, 0)


def test_a_failed_delivery_is_due_again_later_each_time(road: Road) -> None:
    target = road.with_policy(breaker={"failures": 0})
    road.store(*deals(1))
    road.memory.go_down(RetryLater("away"))
    waits = []
    for _ in range(3):
        failing_run(road, target)
        wait = road.state.waiting.read("out.memory")
        assert wait is not None and wait.why == "away"
        waits.append((wait.until - road.now).total_seconds())
    assert 15 <= waits[0] <= 30 and 30 <= waits[1] <= 60 and 60 <= waits[2] <= 120
    road.memory.go_down(RetryLater("come back tomorrow", after=86_400))
    failing_run(road, target)
    assert [each.target for each in road.state.waiting.due(road.now + dt.timedelta(hours=23))] == []
    road.memory.come_up()
    road.deliver(target)
    assert road.state.waiting.all() == []
