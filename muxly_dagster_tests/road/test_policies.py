"""What a destination may say about how it is delivered to: batches, windows, likes held back, what happens to failures."""

import datetime as dt

import pytest
from pydantic import PrivateAttr

from muxly_dagster.delivery import Stopped, lag, replay, skip
from muxly_dagster.destination import Delivery, Receipt, Refusal
from muxly_dagster.errors import ConfigurationError, RetryLater
from muxly_dagster.testing import MemoryDestination
from muxly_dagster_tests.road.lane import BIG, Road, counts, deals


def sizes(road: Road) -> list[int]:
    return [len(delivery.rows) for delivery in road.memory.memory.deliveries]


# ---- batches ------------------------------------------------------------------------------------------------------------


def test_no_delivery_is_larger_than_a_batch(road: Road) -> None:
    road.store(*deals(*range(10)))
    assert counts(road.deliver(road.with_policy(batching={"count": 4}))) == (10, 10, 0, 0)
    assert sizes(road) == [4, 4, 2]
    stretches = [(delivery.after, delivery.upto) for delivery in road.memory.memory.deliveries]
    assert stretches == [(0, 4), (4, 8), (8, 10)]


def test_a_batch_is_about_as_large_as_it_may_be(road: Road) -> None:
    road.store(*deals(*range(8), note="x" * 1000))
    road.deliver(road.with_policy(batching={"bytes": "3kB"}))
    assert len(road.ids) == 8
    assert all(0 < size < 8 for size in sizes(road)), sizes(road)


def test_a_record_larger_than_a_batch_goes_alone(road: Road) -> None:
    road.store(*deals(1, 2, note="x" * 5000))
    road.deliver(road.with_policy(batching={"bytes": "1kB"}))
    assert sizes(road) == [1, 1]


def test_changes_wait_until_the_oldest_is_old_enough_and_then_all_go(road: Road) -> None:
    target = road.with_policy(batching={"age": "1h"})
    road.store(*deals(1))
    road.later(minutes=30)
    outcome = road.deliver(target)
    assert counts(outcome) == (0, 0, 0, 0)
    wait = road.state.waiting.read("out.memory")
    assert wait is not None and wait.why == "a batch is not full yet"
    assert wait.until - road.now < dt.timedelta(minutes=31)
    assert outcome.metadata["waits"] == wait.why
    road.store(*deals(1, 2))
    road.later(minutes=31)
    assert counts(road.deliver(target)) == (2, 2, 0, 0)
    assert sizes(road) == [2]
    assert road.state.waiting.read("out.memory") is None


def test_full_batches_do_not_wait_but_what_is_left_does(road: Road) -> None:
    target = road.with_policy(batching={"count": 3, "age": "1h"})
    road.store(*deals(*range(8)))
    assert counts(road.deliver(target)) == (6, 6, 0, 0)
    assert sizes(road) == [3, 3]
    assert lag(road.lake, road.state, target) == 2
    road.later(hours=2)
    assert counts(road.deliver(target)) == (2, 2, 0, 0)


def test_changes_that_go_elsewhere_do_not_wait(road: Road) -> None:
    target = road.with_policy(BIG, batching={"age": "1h"})
    road.store(*deals(1, 2, 500, 3))
    assert counts(road.deliver(target)) == (2, 0, 0, 2)
    assert lag(road.lake, road.state, target) == 2
    road.later(hours=2)
    assert counts(road.deliver(target)) == (2, 1, 0, 1)
    assert road.ids == ["500"]


# ---- windows ------------------------------------------------------------------------------------------------------------

OFFICE = {"days": "mon-fri", "from": "09:00", "to": "17:00", "timezone": "Europe/Berlin"}


def test_there_are_no_deliveries_outside_the_window(road: Road) -> None:
    target = road.with_policy(window=OFFICE)
    road.store(*deals(1))
    road.now = dt.datetime(2026, 11, 28, 12, tzinfo=dt.UTC)  # a Saturday
    outcome = road.deliver(target)
    assert counts(outcome) == (0, 0, 0, 0)
    monday = dt.datetime(2026, 11, 30, 8, tzinfo=dt.UTC)
    wait = road.state.waiting.read("out.memory")
    assert wait is not None and (wait.until, wait.why) == (monday, "its window is closed")
    assert [each.target for each in road.state.waiting.due(monday)] == ["out.memory"]
    road.now = monday
    assert counts(road.deliver(target)) == (1, 1, 0, 0)
    assert road.state.waiting.read("out.memory") is None


def test_what_fails_is_tried_again_within_the_window(road: Road) -> None:
    road.now = dt.datetime(2026, 11, 27, 15, 59, 50, tzinfo=dt.UTC)  # ten seconds before it closes
    road.store(*deals(1))
    road.memory.go_down()
    with pytest.raises(RetryLater):
        road.deliver(road.with_policy(window=OFFICE))
    wait = road.state.waiting.read("out.memory")
    assert wait is not None and wait.until == dt.datetime(2026, 11, 30, 8, tzinfo=dt.UTC)


# ---- likes --------------------------------------------------------------------------------------------------------------


def test_a_record_like_one_delivered_shortly_before_is_held_back(road: Road) -> None:
    target = road.with_policy(dedupe={"within": "1h", "by": ["customer"]})
    road.store({"id": "1", "customer": "a"}, {"id": "2", "customer": "a"}, {"id": "3", "customer": "b"})
    outcome = road.deliver(target)
    assert counts(outcome) == (3, 2, 0, 1)
    assert outcome.metadata["last_receipt"]["held_back_as_alike"] == [2]
    road.store(*({"id": str(n), "customer": c} for n, c in ((1, "a"), (2, "a"), (3, "b"), (4, "a"), (5, "c"))))
    assert counts(road.deliver(target)) == (2, 1, 0, 1)
    assert road.ids == ["1", "3", "5"]
    road.later(hours=2)
    road.store(*({"id": str(n), "customer": c} for n, c in ((1, "a"), (2, "a"), (3, "b"), (4, "a"), (5, "c"), (6, "a"))))
    assert counts(road.deliver(target)) == (1, 1, 0, 0)


def test_records_are_alike_by_their_key_unless_told_otherwise(road: Road) -> None:
    target = road.with_policy(dedupe={"within": "1d"})
    road.store(*deals(1))
    road.deliver(target)
    road.store({"id": "1", "amount": 2})
    assert counts(road.deliver(target)) == (1, 0, 0, 1)


def test_a_refused_record_holds_back_nothing_that_comes_later(road: Road) -> None:
    target = road.with_policy(dedupe={"within": "1d"})
    road.memory.refuse(lambda record: "no" if record["data"]["amount"] == 1 else None)
    road.store(*deals(1))
    assert counts(road.deliver(target)) == (1, 0, 1, 0)
    road.store({"id": "1", "amount": 2})
    assert counts(road.deliver(target)) == (1, 1, 0, 0)


def test_a_column_that_is_not_there_is_told_with_the_nearest(road: Road) -> None:
    road.store({"id": "1", "customer": "a"})
    with pytest.raises(ConfigurationError, match="dedupe.by: there is no column custmer; did you mean customer"):
        road.deliver(road.with_policy(dedupe={"within": "1d", "by": ["custmer"]}))


# ---- failures -----------------------------------------------------------------------------------------------------------


def test_under_dead_letter_what_still_fails_after_the_attempts_is_shelved(road: Road) -> None:
    target = road.with_policy(on_error="dead_letter")
    road.store(*deals(1, 2))
    road.memory.go_down(RetryLater("the memory is away"))
    assert counts(road.deliver(target)) == (2, 0, 2, 0)
    assert {letter.reason for letter in road.state.ledger.dead_letters()} == {"it could not be delivered: the memory is away"}
    road.memory.come_up()
    letters = road.state.ledger.dead_letters()
    assert replay(road.lake, road.state, target, letters, run_id="again") == {"replayed": 2, "superseded": 0, "refused": 0}
    assert road.ids == ["1", "2"]


def test_under_dead_letter_what_was_taken_before_the_failure_is_not_shelved(road: Road) -> None:
    road.store(*deals(*range(5)))
    road.memory.go_down(RetryLater("the memory is away"), after_records=3)
    assert counts(road.deliver(road.with_policy(on_error="dead_letter"), attempts=1)) == (5, 3, 2, 0)
    assert sorted(letter.seq for letter in road.state.ledger.dead_letters()) == [4, 5]


def test_under_stop_nothing_is_settled_from_the_refused_record_on(road: Road) -> None:
    target = road.with_policy(on_error="stop")
    road.store(*deals(1, 2, 3, 4))
    road.memory.refuse(lambda record: "no such deal" if record["key"] == "3" else None)
    with pytest.raises(Stopped, match="crm.deals:.*:3 was refused.*no such deal"):
        road.deliver(target)
    assert road.state.ledger.totals("out.memory") == {"read": 2, "accepted": 2, "refused": 0, "unrouted": 0}
    [letter] = road.state.ledger.dead_letters()
    assert (letter.seq, letter.status) == (3, "open")
    with pytest.raises(Stopped):
        road.deliver(target)
    road.memory.refuse(lambda record: None)
    assert counts(road.deliver(target)) == (2, 2, 0, 0)
    assert road.ids == ["1", "2", "4", "3"]  # 4 was taken beside the refused one, and is not sent again
    assert [letter.status for letter in road.state.ledger.dead_letters(status=None)] == ["replayed"]


def test_under_stop_a_person_can_pass_over_a_record(road: Road) -> None:
    target = road.with_policy(on_error="stop")
    road.store(*deals(1, 2, 3))
    road.memory.refuse(lambda record: "no" if record["key"] == "2" else None)
    with pytest.raises(Stopped):
        road.deliver(target)
    assert skip(road.state, road.state.ledger.dead_letters()) == 1
    assert counts(road.deliver(target)) == (2, 1, 1, 0)
    assert road.ids == ["1", "3"]
    assert road.state.ledger.totals("out.memory") == {"read": 3, "accepted": 2, "refused": 1, "unrouted": 0}


def test_under_stop_with_a_batch_that_is_refused_as_a_whole_nothing_behind_it_arrives(road: Road) -> None:
    road.store(*deals(*range(10)))
    road.memory.refuse(lambda record: "no" if record["key"] == "4" else None, whole=True)
    with pytest.raises(Stopped):
        road.deliver(road.with_policy(on_error="stop"))
    assert road.ids == ["0", "1", "2", "3"]


# ---- taken ahead ----------------------------------------------------------------------------------------------------------


class Hasty(MemoryDestination):
    """Takes every record but the ones named, which fail, as some of the requests under way at the same time may."""

    _failing: set[str] = PrivateAttr(default_factory=set)

    def deliver(self, delivery: Delivery) -> Receipt:
        shown = delivery.records()
        failing = [record["metadata"]["seq"] for record in shown if record["key"] in self._failing]
        self.memory.taken += [record for record in shown if record["metadata"]["seq"] not in failing]
        if not failing:
            return Receipt(len(shown))
        before = [record["metadata"]["seq"] for record in shown if record["metadata"]["seq"] < failing[0]]
        ahead = [record["metadata"]["seq"] for record in shown if record["metadata"]["seq"] > failing[0]]
        return Receipt(len(before), upto=failing[0] - 1, retry=RetryLater("the third is away"), ahead=ahead)


def test_what_was_taken_ahead_of_a_failure_is_never_sent_again(road: Road) -> None:
    hasty = Hasty()
    hasty._failing.add("2")
    target = road.target(destination=hasty)
    road.store(*deals(0, 1, 2, 3, 4))
    with pytest.raises(RetryLater):
        road.deliver(target, attempts=1)
    assert road.state.ledger.totals("out.memory") == {"read": 2, "accepted": 2, "refused": 0, "unrouted": 0}
    hasty._failing.clear()
    road.store(*deals(0, 1, 2, 3, 4, 5))
    assert counts(road.deliver(target)) == (4, 4, 0, 0)
    assert [record["key"] for record in hasty.memory.taken] == ["0", "1", "3", "4", "2", "5"]
    assert road.state.ledger.totals("out.memory") == {"read": 6, "accepted": 6, "refused": 0, "unrouted": 0}
    assert road.state.ledger.ahead("out.memory", road.lake.existing("crm.deals").table_id) == []


def test_one_refusal_per_record_is_kept_under_the_same_id(road: Road) -> None:
    class Picky(MemoryDestination):
        def deliver(self, delivery: Delivery) -> Receipt:
            return Receipt(0, tuple(Refusal(record["metadata"]["seq"], "never") for record in delivery.records()))

    target = road.target(destination=Picky())
    road.store(*deals(1))
    road.deliver(target)
    [letter] = road.state.ledger.dead_letters()
    assert replay(road.lake, road.state, target, [letter], run_id="again")["refused"] == 1
    [again] = road.state.ledger.dead_letters()
    assert (again.id, again.times) == (letter.id, 2)


def test_under_stop_a_refused_version_is_not_sent_behind_a_newer_one(road: Road) -> None:
    target = road.with_policy(on_error="stop")
    road.store(*deals(1))
    road.store({"id": "1", "amount": 2}, {"id": "2", "amount": 2})
    road.memory.refuse(lambda record: "too small" if record["data"]["amount"] == 1 else None)
    with pytest.raises(Stopped):
        road.deliver(target)
    road.memory.refuse(lambda record: None)
    assert counts(road.deliver(target)) == (3, 2, 1, 0)
    assert [(data["id"], data["amount"]) for data in road.memory.data] == [("1", 2), ("2", 2)]
    letters = road.state.ledger.dead_letters()
    assert replay(road.lake, road.state, target, letters, run_id="again") == {"replayed": 0, "superseded": 1, "refused": 0}


def test_under_stop_a_replay_does_not_bring_back_what_a_newer_version_took_the_place_of(road: Road) -> None:
    target = road.with_policy(on_error="stop")
    road.store(*deals(1))
    road.store({"id": "1", "amount": 2})
    road.memory.refuse(lambda record: "too small" if record["data"]["amount"] == 1 else None)
    with pytest.raises(Stopped):
        road.deliver(target)
    road.memory.refuse(lambda record: None)
    letters = road.state.ledger.dead_letters()
    assert replay(road.lake, road.state, target, letters, run_id="again") == {"replayed": 0, "superseded": 1, "refused": 0}
    assert counts(road.deliver(target)) == (2, 1, 1, 0)
    assert [data["amount"] for data in road.memory.data] == [2]
