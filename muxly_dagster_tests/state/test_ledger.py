"""The ledger moves offsets together with their receipts and dead letters."""

import pytest

from muxly_dagster.errors import BusyError
from muxly_dagster.state import Beside, DeadLetter, Ledger, Offset, State, StoredReceipt, tables


@pytest.fixture
def ledger(state: State) -> Ledger:
    return state.ledger


def receipt(after: int, upto: int, table_id: str = "t1", refused: int = 0) -> StoredReceipt:
    return StoredReceipt(
        "big.warehouse", table_id, after, upto, upto - after, upto - after - refused, refused, 0, 0.1, {"status": 200}, "run"
    )


def letter(seq: int, name: str = "big.warehouse") -> DeadLetter:
    return DeadLetter("delivery", name, "too long", "{}", "run", record_id=f"crm.deals:t1:{seq}", table_id="t1", seq=seq)


def test_a_receipt_moves_the_offset(ledger: Ledger) -> None:
    assert ledger.offset("big.warehouse") is None
    ledger.record(receipt(0, 10))
    ledger.record(receipt(10, 15, refused=1), [letter(12)])
    assert ledger.offset("big.warehouse") == Offset("t1", 15)
    assert ledger.totals("big.warehouse") == {"read": 15, "accepted": 14, "refused": 1, "unrouted": 0}
    assert [(r.after, r.upto) for r in ledger.receipts("big.warehouse", table_id="t1", seq=10)] == [(0, 10)]


def test_a_receipt_for_what_is_already_done_is_refused_whole(ledger: Ledger) -> None:
    ledger.record(receipt(0, 10))
    with pytest.raises(BusyError):
        ledger.record(receipt(5, 12, refused=1), [letter(6)])
    assert ledger.offset("big.warehouse") == Offset("t1", 10)
    assert ledger.dead_letters() == []


def test_a_table_that_was_made_anew_starts_over(ledger: Ledger) -> None:
    ledger.record(receipt(0, 10))
    ledger.record(receipt(0, 3, table_id="t2"))
    assert ledger.offset("big.warehouse") == Offset("t2", 3)


def test_the_same_letter_twice_counts_twice_and_is_open_again(ledger: Ledger) -> None:
    ledger.shelve([letter(1)])
    ledger.close([letter(1)], "replayed")
    assert ledger.dead_letters() == []
    ledger.shelve([letter(1)])
    [found] = ledger.dead_letters("big")
    assert (found.times, found.status) == (2, "open")
    assert ledger.dead_letter(found.id[:6]) == found
    assert ledger.dead_letter("nothing") is None


def test_a_whole_pull_resolves_what_it_did_not_fail_on_again(ledger: Ledger) -> None:
    ledger.shelve([DeadLetter("pull", "crm.deals", "half a JSON", text, run) for text, run in (("a", "run1"), ("b", "run2"))])
    ledger.resolve_unseen("crm.deals", "run2")
    assert [found.record for found in ledger.dead_letters("crm")] == ["b"]


def test_an_offset_can_be_rewound(ledger: Ledger) -> None:
    ledger.record(receipt(0, 10))
    ledger.rewind("big.warehouse", Offset("t1", 4))
    assert ledger.offset("big.warehouse") == Offset("t1", 4)
    ledger.rewind("big.warehouse", None)
    assert ledger.offset("big.warehouse") is None


def test_marks_are_remembered_by_when_they_were_delivered_last(ledger: Ledger) -> None:
    ledger.keep_ahead("big.warehouse", "t1", [3], ["a", "b", "a"])
    before = tables.now()
    ledger.record(receipt(0, 2), beside=Beside(marks=["b", "c"]))
    assert ledger.alike("big.warehouse", ["a", "b", "c", "d"], "2000") == {"a", "b", "c"}
    assert ledger.alike("big.warehouse", ["a", "b", "c"], before) == {"b", "c"}
    assert ledger.alike("other.warehouse", ["a"], "2000") == set()
    ledger.forget_alike("big.warehouse", before)
    assert ledger.alike("big.warehouse", ["a", "b", "c"], "2000") == {"b", "c"}


def test_an_offset_that_is_set_back_leaves_what_was_taken_ahead(ledger: Ledger) -> None:
    ledger.record(receipt(0, 10), beside=Beside(ahead=[12]))
    ledger.set_back("big.warehouse", 4)
    assert ledger.offset("big.warehouse") == Offset("t1", 4)
    assert ledger.ahead("big.warehouse", "t1") == [12]


def test_the_last_delivery_that_was_taken_whole(ledger: Ledger) -> None:
    assert ledger.last_sent("big.warehouse", "t1", 100) == 0
    ledger.record(receipt(0, 10))
    ledger.record(receipt(10, 20, refused=1))
    assert ledger.last_sent("big.warehouse", "t1", 100) == 10
    assert ledger.last_sent("big.warehouse", "t1", 9) == 0
    assert ledger.last_sent("big.warehouse", "t2", 100) == 0
