"""Gauges show what is so now: a record that is gone, moves or has no value leaves none behind."""

import datetime as dt

from muxly_dagster.services import MetricStore, OwnMetrics
from muxly_dagster.testing import delivery
from muxly_dagster_tests.destinations.metering import STOCK, made, values


def test_a_deleted_record_ends_its_gauge_unless_told_otherwise(store: MetricStore) -> None:
    rows = delivery([{"id": 1, "amount": 1}, {"id": 2, "amount": 2}])
    gone = delivery([{"id": 1, "amount": 1}], ops=["delete"], after=2)
    target = made(STOCK, store=store)
    target.deliver(rows)
    assert target.passes_deletes
    assert target.deliver(gone).detail["series_ended"] == 1
    assert values(target) == {"stock{item=2}": 2}
    target.deliver(delivery([{"id": 1, "amount": 7}], after=3))
    target.deliver(gone)  # an old deletion, once more: the record is back since
    assert values(target) == {"stock{item=1}": 7, "stock{item=2}": 2}
    keeping = made(STOCK, deletes=False)
    keeping.deliver(rows)
    keeping.deliver(gone)
    assert not keeping.passes_deletes
    assert values(keeping) == {"stock{item=1}": 1, "stock{item=2}": 2}


def test_a_record_that_moves_to_other_labels_leaves_no_gauge_behind(store: MetricStore) -> None:
    target = made({"name": "deal", "type": "gauge", "value": "amount", "labels": ["id", "stage"]}, store=store, max_series=1)
    target.deliver(delivery([{"id": 1, "stage": "open", "amount": 5}]))
    receipt = target.deliver(delivery([{"id": 1, "stage": "won", "amount": 6}], after=1))
    assert values(target) == {"deal{id=1,stage=won}": 6}
    assert receipt.refused == ()  # the place it left is free
    target.deliver(delivery([{"id": 1, "stage": "lost", "amount": 6}], ops=["delete"], after=2))
    assert values(target) == {}


def test_a_gauge_without_a_value_ends_and_one_of_appended_records_is_found_by_its_labels(store: MetricStore) -> None:
    target = made(STOCK, store=store)
    target.deliver(delivery([{"id": 1, "amount": 4.0}, {"id": 2, "amount": 4.0}]))
    target.deliver(delivery([{"id": 1, "amount": None}, {"id": 2, "amount": float("nan")}, {"id": 3, "amount": 1.0}], after=2))
    assert values(target) == {"stock{item=3}": 1}
    appended = made(STOCK, store=OwnMetrics())
    appended.deliver(delivery([{"id": 1, "amount": 4.0}, {"id": 2, "amount": 4.0}], ops=["append"] * 2, key=()))
    appended.deliver(delivery([{"id": 1, "amount": None}, {"id": 9, "amount": 2.0}], ops=["append"] * 2, key=(), after=2))
    assert values(appended) == {"stock{item=2}": 4, "stock{item=9}": 2}


def test_a_gauge_can_be_below_zero_and_beyond_all_numbers(store: MetricStore) -> None:
    target = made(STOCK, store=store)
    infinite = [{"id": n, "amount": amount} for n, amount in enumerate([-1.5, float("inf"), float("-inf"), 2.0**60 + 1])]
    assert target.deliver(delivery(infinite)).refused == ()
    assert list(values(target).values()) == [-1.5, float("inf"), float("-inf"), 2.0**60]


def test_with_a_column_of_times_the_newest_time_wins(store: MetricStore) -> None:
    target = made({"name": "users", "type": "gauge", "value": "amount"}, store=store, timestamp="day")
    target.deliver(delivery([{"id": 3, "amount": 30, "day": dt.date(2026, 1, 3)}, {"id": 1, "amount": 10, "day": dt.date(2026, 1, 1)}]))
    assert values(target) == {"users": 30}
    target.deliver(delivery([{"id": 3, "amount": 31, "day": dt.date(2026, 1, 3)}], after=2))
    assert values(target) == {"users": 31}
    gone = [{"id": n, "amount": 1, "day": dt.date(2026, 1, n)} for n in (1, 3)]
    target.deliver(delivery(gone[:1], ops=["delete"], after=3))
    assert values(target) == {"users": 31}  # it was not this record's value
    target.deliver(delivery(gone[1:], ops=["delete"], after=4))
    assert values(target) == {}
