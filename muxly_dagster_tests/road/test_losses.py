"""Ways in which a road loses records, sends them twice or counts them wrongly: none of them is open."""

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import PrivateAttr

from muxly_dagster.delivery import resync, rewind, skip
from muxly_dagster.destination import Delivery, Receipt, Refusal
from muxly_dagster.errors import ConfigurationError, MuxlyError, RecordRefused, RetryLater
from muxly_dagster.messages import Settled
from muxly_dagster.routing import Router, Rule
from muxly_dagster.testing import MemoryDestination
from muxly_dagster.transforms.filter import Filter
from muxly_dagster_tests.road.acting import Acting, acting, customers, seqs, totals
from muxly_dagster_tests.road.lane import BIG, Road, counts, deals

# ---- answers that are not true ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(lambda given: Receipt(2, (Refusal(99, "no"),)), id="refuses what it was not given"),
        pytest.param(lambda given: Receipt(1, (Refusal(given[0], "no"), Refusal(given[0], "no"))), id="refuses one twice"),
        pytest.param(lambda given: Receipt(3, upto=99), id="answers for what comes later"),
        pytest.param(lambda given: Receipt(1, upto=given[0], ahead=[99]), id="took what it was not given"),
        pytest.param(lambda given: Receipt(2, upto=given[1], ahead=[given[0]]), id="counts one twice"),
        pytest.param(lambda given: Receipt(1, (Refusal(given[2], "no"),), upto=given[1]), id="refuses beyond its end"),
        pytest.param(lambda given: Receipt(0, upto=-1), id="goes back"),
        pytest.param(lambda given: Receipt(4), id="accepts too many"),
    ],
)
def test_a_receipt_about_other_records_is_not_believed(road: Road, answer: Callable[[list[int]], Receipt]) -> None:
    road.store(*deals(1, 2, 3))
    with pytest.raises(MuxlyError, match="this is a mistake in the destination|the destination answered for"):
        road.deliver(acting(road, lambda delivery: answer(seqs(delivery))))
    assert totals(road) == (0, 0, 0, 0)
    table_id = road.lake.existing("crm.deals").table_id
    assert road.state.ledger.ahead("out.memory", table_id) == []
    assert counts(road.deliver(road.with_policy())) == (3, 3, 0, 0)


# ---- likes --------------------------------------------------------------------------------------------------------------

ALIKE: dict[str, Any] = {"dedupe": {"within": "1h", "by": ["customer"]}}


@pytest.mark.parametrize("batching", [{}, {"count": 2}, {"count": 1}])
@pytest.mark.parametrize("whole", [False, True])
def test_a_record_is_not_held_back_for_the_sake_of_one_that_is_refused(road: Road, whole: bool, batching: dict[str, int]) -> None:
    road.store(*customers("a", "b", "a", "c", "a", "b", "c"))
    road.memory.refuse(lambda record: "no" if record["key"] in ("1", "4") else None, whole=whole)
    assert counts(road.deliver(road.with_policy(batching=batching, **ALIKE))) == (7, 3, 2, 2)
    assert sorted(road.ids) == ["2", "3", "7"]
    assert [letter.seq for letter in sorted(road.state.ledger.dead_letters(), key=lambda letter: letter.seq)] == [1, 4]
    assert totals(road) == (7, 3, 2, 2)


def test_each_of_several_alike_is_tried_until_one_is_taken(road: Road) -> None:
    road.store(*customers("a", "a", "a", "a", "b"))
    road.memory.refuse(lambda record: "no" if record["key"] in ("1", "2") else None)
    assert counts(road.deliver(road.with_policy(**ALIKE))) == (5, 2, 2, 1)
    assert sorted(road.ids) == ["3", "5"]
    road.store(*customers("a", "a", "a", "a", "b", "a"))
    assert counts(road.deliver(road.with_policy(**ALIKE))) == (1, 0, 0, 1), "the third was delivered"


def test_what_is_shelved_because_its_destination_is_down_holds_nothing_back(road: Road) -> None:
    road.store(*customers("a", "a"))
    road.memory.go_down(RetryLater("away"))
    outcome = road.deliver(road.with_policy(on_error="dead_letter", breaker={"failures": 0}, **ALIKE), attempts=1)
    assert counts(outcome) == (2, 0, 2, 0)
    assert len(road.state.ledger.dead_letters()) == 2


def test_what_is_shelved_behind_a_refused_record_leaves_out_nothing_that_was_held_back(road: Road) -> None:
    road.store(*customers("a", "b", "a", "c"))
    road.memory.refuse(lambda record: "no" if record["key"] == "1" else None)
    road.memory.go_down(RetryLater("away"), after_records=2)
    outcome = road.deliver(road.with_policy(on_error="dead_letter", breaker={"failures": 0}, **ALIKE), attempts=1)
    assert counts(outcome) == (4, 1, 3, 0)
    assert sorted(letter.seq for letter in road.state.ledger.dead_letters()) == [1, 3, 4]


def test_what_was_taken_ahead_holds_back_what_is_like_it(road: Road) -> None:
    def second_first(delivery: Delivery) -> Receipt | None:
        first, *others = seqs(delivery)
        if first != 1 or not others:
            return None
        road.memory.memory.taken += [record for record in delivery.records() if record["metadata"]["seq"] != 1]
        return Receipt(0, upto=0, retry=RetryLater("away"), ahead=others)

    road.store(*customers("a", "b"))
    target = acting(road, second_first, **ALIKE)
    with pytest.raises(RetryLater):
        road.deliver(target, attempts=1)
    road.store(*customers("a", "b", "b"))
    assert counts(road.deliver(road.with_policy(**ALIKE))) == (3, 2, 0, 1)
    assert sorted(road.ids) == ["1", "2"]


def test_marks_that_hold_nothing_back_any_more_are_forgotten(road: Road) -> None:
    target = road.with_policy(**ALIKE)
    road.store(*customers("a", "b"))
    road.deliver(target)
    road.later(hours=2)
    road.deliver(target)
    with road.state.engine.begin() as connection:
        assert connection.exec_driver_sql("select count(*) from alike").scalar() == 0


# ---- taken already ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ConfigurationError("the address is wrong"), MuxlyError("who knows")])
def test_what_was_taken_beside_a_mistake_is_not_sent_again(road: Road, error: MuxlyError) -> None:
    failing = True

    def first_fails(delivery: Delivery) -> Receipt:
        settled = Settled(delivery)
        shown = [record for record in delivery.records() if not failing or record["key"] != "1"]
        road.memory.memory.taken += shown
        settled.accept(record["metadata"]["seq"] for record in shown)
        return settled.receipt({}, error if failing and len(shown) < len(delivery.rows) else None)

    target = acting(road, first_fails)
    road.store(*deals(1, 2, 3))
    with pytest.raises(type(error)):
        road.deliver(target)
    failing = False
    assert counts(road.deliver(target)) == (3, 3, 0, 0)
    assert road.ids == ["2", "3", "1"]


def test_what_was_taken_ahead_counts_as_accepted_although_the_rules_send_it_elsewhere_by_now(road: Road) -> None:
    def third_ahead(delivery: Delivery) -> Receipt:
        road.memory.memory.taken += [record for record in delivery.records() if record["key"] == "500"]
        return Receipt(0, upto=0, retry=RetryLater("away"), ahead=[3])

    road.store(*deals(1, 2, 500))
    with pytest.raises(RetryLater):
        road.deliver(acting(road, third_ahead), attempts=1)
    small = Router([Rule("amount < 100", ("memory",))])
    assert counts(road.deliver(road.with_policy(small))) == (3, 3, 0, 0)
    assert sorted(road.ids) == ["1", "2", "500"]


def test_what_is_delivered_once_more_is_no_open_dead_letter_any_more(road: Road) -> None:
    target = road.with_policy()
    road.memory.refuse(lambda record: "no" if record["key"] == "2" else None)
    road.store(*deals(1, 2, 3))
    road.deliver(target)
    road.memory.refuse(lambda record: None)
    for again in (resync, rewind):
        again(road.lake, road.state, target)
        road.deliver(target)
        assert [letter.status for letter in road.state.ledger.dead_letters(status=None)] == ["replayed"]
    assert road.ids.count("2") == 1


def test_a_record_that_was_skipped_and_taken_counts_once(road: Road) -> None:
    target = road.with_policy(on_error="stop")
    road.memory.refuse(lambda record: "no" if record["key"] == "2" else None)
    road.store(*deals(1, 2, 3))
    with pytest.raises(MuxlyError):
        road.deliver(target)
    skip(road.state, road.state.ledger.dead_letters())
    table_id = road.lake.existing("crm.deals").table_id
    road.state.ledger.keep_ahead("out.memory", table_id, [2])
    assert counts(road.deliver(target)) == (2, 2, 0, 0)


class Remembering(MemoryDestination):
    """Keeps its offset with its rows."""

    keeps_offset = True
    _held: dict[str, int] = PrivateAttr(default_factory=dict)

    def deliver(self, delivery: Delivery) -> Receipt:
        receipt = super().deliver(delivery)
        self._held[delivery.id] = delivery.upto
        return receipt

    def position(self, delivery_id: str, table_id: str) -> int | None:
        return self._held.get(delivery_id)


def test_a_database_that_was_put_back_from_a_backup_gets_what_came_after_it(road: Road) -> None:
    destination = Remembering.model_validate({})
    target = road.target(BIG, destination=destination)
    for number in range(101, 104):
        road.store(*deals(number))
        road.deliver(target)
    destination.memory.taken[:] = destination.memory.taken[:1]
    destination._held[target.name] = 1
    road.store(*deals(104))
    assert counts(road.deliver(target)) == (3, 3, 0, 0)
    assert [data["id"] for data in destination.data] == ["101", "102", "103", "104"]


def test_a_database_that_was_sent_nothing_for_a_while_is_no_older_copy(road: Road) -> None:
    destination = Remembering.model_validate({})
    target = road.target(BIG, destination=destination)
    road.store(*deals(101))
    road.deliver(target)
    road.store(*deals(1, 2, 3))
    assert counts(road.deliver(target)) == (3, 0, 0, 3)
    assert counts(road.deliver(target)) == (0, 0, 0, 0)


# ---- sizes --------------------------------------------------------------------------------------------------------------


def test_a_batch_that_is_waited_for_is_no_larger_than_a_destination_takes_at_a_time(road: Road) -> None:
    class Small(Acting):
        batch_rows = 3

    destination = Small.model_validate({"batching": {"count": 7, "age": "1h"}})
    destination._memory = road.memory.memory
    target = road.target(destination=destination)
    road.store(*deals(*range(8)))
    assert counts(road.deliver(target)) == (7, 7, 0, 0)
    assert [len(delivery.rows) for delivery in road.memory.memory.deliveries] == [3, 3, 1]


# ---- halving ------------------------------------------------------------------------------------------------------------


def test_a_step_whose_first_record_is_left_out_holds_nothing_back(road: Road) -> None:
    steps = {"": (Filter.parse("id <> '1'"),)}
    road.store(*customers("a", "a"))
    destination = MemoryDestination.model_validate(ALIKE)
    destination._memory = road.memory.memory
    target = road.target(Router([Rule(None, ("memory",))]), destination=destination, steps=steps)
    assert counts(road.deliver(target)) == (2, 1, 0, 1)
    assert road.ids == ["2"]


def test_a_poison_record_among_many_stands_alone_whatever_the_order_of_refusals(road: Road) -> None:
    def picky(delivery: Delivery) -> Receipt | None:
        if any(record["key"] in ("0", "9") for record in delivery.records()) and len(delivery.rows) > 1:
            raise RecordRefused("something is wrong with it")
        return Receipt(0, (Refusal(seqs(delivery)[0], "no"),)) if delivery.records()[0]["key"] in ("0", "9") else None

    road.store(*deals(*range(10)))
    assert counts(road.deliver(acting(road, picky))) == (10, 8, 2, 0)
    assert road.ids == [str(number) for number in range(1, 9)]
