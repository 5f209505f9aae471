"""The destination in memory keeps the contract itself, and misbehaves as it is told."""

from typing import Any

import pytest

from muxly_dagster.errors import RecordRefused, RetryLater, SignInError
from muxly_dagster.testing import EVERY_TYPE, DestinationContract, MemoryDestination, delivery


def _too_big(record: dict[str, Any]) -> str | None:
    return "too big" if record["data"]["amount"] > 10 else None


class TestMemory(DestinationContract):
    keeps = "changes"
    columns = tuple(name for name in EVERY_TYPE if name not in ("a_decimal", "some_bytes", "a_date", "a_time"))

    @pytest.fixture
    def destination(self) -> MemoryDestination:
        return MemoryDestination()

    def stored(self, destination: MemoryDestination) -> list[dict[str, Any]]:
        return destination.data

    def away(self) -> MemoryDestination:
        memory = MemoryDestination()
        memory.go_down()
        return memory


def test_a_refused_record_is_named_and_the_others_are_taken() -> None:
    memory = MemoryDestination()
    memory.refuse(_too_big)
    receipt = memory.deliver(delivery([{"id": 1, "amount": 5}, {"id": 2, "amount": 11}, {"id": 3, "amount": 7}]))
    assert receipt.accepted == 2
    assert [(r.seq, r.reason) for r in receipt.refused] == [(2, "too big")]
    assert [r["id"] for r in memory.data] == [1, 3]


def test_a_batch_can_be_refused_as_a_whole_so_that_the_road_must_halve_it() -> None:
    memory = MemoryDestination()
    memory.refuse(_too_big, whole=True)
    with pytest.raises(RecordRefused, match="too big"):
        memory.deliver(delivery([{"id": 1, "amount": 5}, {"id": 2, "amount": 11}]))
    assert memory.data == []


def test_going_down_in_the_middle_confirms_what_was_taken() -> None:
    memory = MemoryDestination()
    memory.go_down(after_records=2)
    receipt = memory.deliver(delivery([{"id": 1}, {"id": 2}, {"id": 3}]))
    assert (receipt.accepted, receipt.upto) == (2, 2)
    assert isinstance(receipt.retry, RetryLater)
    with pytest.raises(RetryLater):
        memory.deliver(delivery([{"id": 3}], after=2))
    memory.come_up()
    assert memory.deliver(delivery([{"id": 3}], after=2)).accepted == 1
    assert [r["id"] for r in memory.data] == [1, 2, 3]


def test_it_fails_the_way_it_is_told() -> None:
    memory = MemoryDestination()
    memory.go_down(SignInError("the token expired"))
    with pytest.raises(SignInError, match="the token expired"):
        memory.deliver(delivery([{"id": 1}]))
    assert memory.check().what == "the token expired"
