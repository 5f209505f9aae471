"""Metrics made of records: counted once whatever is repeated, bounded, and nothing that does not fit."""

import datetime as dt
import random
from typing import Any

import pyarrow as pa
import pytest

from muxly_dagster.destination import Receipt
from muxly_dagster.destinations.prometheus import Prometheus, exposing
from muxly_dagster.errors import ConfigurationError
from muxly_dagster.services import MetricStore, OwnMetrics
from muxly_dagster.testing import DestinationContract, changes, delivery
from muxly_dagster_tests.destinations.metering import ORDERS, OTHER, SALES, STOCK, TARGET, made, values


class TestExposition(DestinationContract):
    """A gauge whose label is the key keeps one series for each record. What a record's other columns hold is not in it, so the tests that
    read them back look at the keys alone."""

    columns = ()

    @pytest.fixture
    def destination(self) -> Prometheus:
        return made({"name": "record", "type": "gauge", "labels": ["id"]})

    def stored(self, destination: Prometheus) -> list[dict[str, Any]]:
        parts = [destination.shown(target, target) for target in (TARGET, OTHER)]
        return [{"id": int(dict(series.labels)["id"])} for _, found in exposing.merged(parts) for series in found]

    def test_what_is_delivered_arrives(self, destination: Any) -> None:
        receipt = destination.deliver(delivery([{"id": 1, "name": "Ada"}, {"id": 2, "name": None}]))
        assert (receipt.accepted, receipt.refused, receipt.upto, receipt.retry) == (2, (), None, None)
        assert self.stored(destination) == [{"id": 1}, {"id": 2}]

    def test_the_last_change_of_a_key_wins(self) -> None:
        target = made({"name": "record", "type": "gauge", "labels": ["id"], "value": "n"})
        target.deliver(delivery([{"id": 1, "n": 1}, {"id": 1, "n": 2}]))
        assert target.deliver(delivery([{"id": 1, "n": 3}], after=2)).accepted == 1
        assert values(target) == {"record{id=1}": 3}

    def test_a_column_that_appears_later_is_taken(self, destination: Any) -> None:
        destination.deliver(delivery([{"id": 1}]))
        destination.deliver(delivery([{"id": 2, "city": "Berlin"}], after=1))
        assert self.stored(destination) == [{"id": 1}, {"id": 2}]


# ---- what is counted ---------------------------------------------------------------------------------------------------


def test_the_four_kinds_say_what_records_hold(store: MetricStore) -> None:
    target = made(
        ORDERS,
        SALES,
        STOCK,
        {"name": "wait", "type": "histogram", "unit": "seconds", "value": "wait", "buckets": [1, 5]},
        {"name": "size", "type": "summary", "value": "wait", "fixed": {"env": "prod"}},
        store=store,
    )
    rows = [
        {"id": 1, "country": "de", "amount": 10.5, "wait": 0.5},
        {"id": 2, "country": "de", "amount": 2.0, "wait": 1.0},
        {"id": 3, "country": "fr", "amount": 1.25, "wait": 60.0},
    ]
    receipt = target.deliver(delivery(rows))
    assert receipt == Receipt(3, (), {"records_counted": 3, "series_made": 8, "series_ended": 0})
    assert values(target) == {
        "orders_total{country=de}": 2,
        "orders_total{country=fr}": 1,
        "sales_euros_total": 13.75,
        "stock{item=1}": 10.5,
        "stock{item=2}": 2,
        "stock{item=3}": 1.25,
        "wait_seconds_bucket{le=1.0}": 2,
        "wait_seconds_bucket{le=5.0}": 2,
        "wait_seconds_bucket{le=+Inf}": 3,
        "wait_seconds_count": 3,
        "wait_seconds_sum": 61.5,
        "size_count{env=prod}": 3,
        "size_sum{env=prod}": 61.5,
    }


@pytest.mark.parametrize("seed", range(8))
def test_however_often_stretches_are_repeated_every_change_counts_once(seed: int, store: MetricStore) -> None:
    """The road may come again from any confirmed offset, in stretches cut anew, and everything may be sent once more."""
    chance = random.Random(seed)
    target = made(ORDERS, SALES, {"name": "wait", "type": "histogram", "value": "amount", "buckets": [10, 50]}, store=store)
    rows = [{"id": n, "country": chance.choice("abc"), "amount": chance.randrange(100)} for n in range(60)]
    table = changes(rows)
    for _ in range(40):
        after = chance.randrange(60)
        upto = chance.randrange(after, 60) + 1
        target.deliver(delivery(table.slice(after, upto - after), after=after, upto=upto))
        if chance.random() < 0.1:
            target.rewind(TARGET, "0b8e1f9c", 0)
    target.deliver(delivery(table))
    found = values(target)
    assert {name: value for name, value in found.items() if name.startswith("orders")} == {
        f"orders_total{{country={c}}}": sum(row["country"] == c for row in rows) for c in "abc"
    }
    assert found["sales_euros_total"] == sum(row["amount"] for row in rows)
    assert found["wait_bucket{le=10.0}"] == sum(row["amount"] <= 10 for row in rows)
    assert (found["wait_count"], found["wait_sum"]) == (60, sum(row["amount"] for row in rows))


def test_changes_far_apart_and_in_great_number_are_each_counted(store: MetricStore) -> None:
    target = made({"name": "records", "type": "counter"}, store=store)
    for first in (1, 65_530, 200_000):
        rows = changes([{"id": n} for n in range(20)], first=first)
        for _ in range(2):
            target.deliver(delivery(rows, after=first - 1, upto=first + 19))
    assert values(target) == {"records_total": 60}


def test_a_resync_counts_nothing_twice_and_a_new_metric_from_the_beginning(store: MetricStore) -> None:
    rows = delivery([{"id": n, "country": "de", "amount": n} for n in range(1, 5)])
    made(ORDERS, store=store).deliver(rows)
    grown = made(ORDERS, SALES, store=store)
    more = delivery([{"id": 9, "country": "de", "amount": 100}], after=4)
    grown.deliver(more)
    assert values(grown) == {"orders_total{country=de}": 5, "sales_euros_total": 100}
    grown.rewind(TARGET, "0b8e1f9c", 0)
    assert grown.position(TARGET, "0b8e1f9c") is None
    grown.deliver(rows)
    grown.deliver(more)
    assert values(grown) == {"orders_total{country=de}": 5, "sales_euros_total": 110}
    assert grown.position(TARGET, "0b8e1f9c") == 5


def test_a_metric_that_is_made_otherwise_begins_anew(store: MetricStore) -> None:
    rows = delivery([{"id": 1, "country": "de", "plan": "pro"}, {"id": 2, "country": "fr", "plan": "pro"}])
    made(ORDERS, store=store).deliver(rows)
    by_plan = made(ORDERS | {"labels": ["plan"]}, store=store)
    assert values(by_plan) == {}  # what was counted by country is not shown as if it were by plan
    by_plan.rewind(TARGET, "0b8e1f9c", 0)
    by_plan.deliver(rows)
    assert values(by_plan) == {"orders_total{plan=pro}": 2}
    helped = made(ORDERS | {"labels": ["plan"], "help": "Other words."}, store=store)
    assert values(helped) == {"orders_total{plan=pro}": 2}
    raised = made(ORDERS | {"labels": ["plan"], "version": 2}, store=store)
    raised.deliver(delivery([{"id": 3, "country": "de", "plan": "pro"}], after=2))
    assert values(raised) == {"orders_total{plan=pro}": 1}


def test_a_table_that_was_made_anew_is_counted_anew(store: MetricStore) -> None:
    target = made(ORDERS, STOCK | {"value": 1}, store=store)
    target.deliver(delivery([{"id": n, "country": "de"} for n in range(3)]))
    target.deliver(delivery([{"id": 1, "country": "de"}], table_id="another"))
    assert values(target) == {"orders_total{country=de}": 1, "stock{item=1}": 1}
    assert target.position(TARGET, "0b8e1f9c") is None
    assert target.position(TARGET, "another") == 1


def test_a_metric_that_is_no_longer_declared_is_forgotten(store: MetricStore) -> None:
    made(ORDERS, SALES, store=store).deliver(delivery([{"id": 1, "country": "de", "amount": 1}]))
    made(ORDERS, store=store).deliver(delivery([{"id": 2, "country": "de"}], after=1))
    with store.open(TARGET) as book:
        assert {series.metric for series in book.series()} == {"orders"}
        assert set(book.definitions()) == {"orders"}


def test_a_record_can_be_counted_once_whatever_becomes_of_it(store: MetricStore) -> None:
    target = made(ORDERS | {"counts": "keys"}, store=store)
    target.deliver(delivery([{"id": 1, "country": "de"}, {"id": 1, "country": "de"}, {"id": 2, "country": "de"}]))
    target.deliver(delivery([{"id": 2, "country": "fr"}, {"id": 3, "country": "fr"}], after=3))
    assert values(target) == {"orders_total{country=de}": 2, "orders_total{country=fr}": 1}
    each_change = made(ORDERS, store=OwnMetrics())
    each_change.deliver(delivery([{"id": 1, "country": "de"}, {"id": 1, "country": "de"}]))
    assert values(each_change) == {"orders_total{country=de}": 2}


def test_a_deleted_record_takes_nothing_from_a_counter(store: MetricStore) -> None:
    target = made(ORDERS, store=store)
    target.deliver(delivery([{"id": 1, "country": "de"}]))
    assert target.deliver(delivery([{"id": 1, "country": "de"}], ops=["delete"], after=1)).accepted == 1
    assert values(target) == {"orders_total{country=de}": 1}


def test_two_routes_add_up_and_of_gauges_the_newest_is_shown(store: MetricStore) -> None:
    total = {"name": "level", "type": "gauge", "value": "amount"}
    wait = {"name": "wait", "type": "histogram", "value": "amount", "buckets": [2]}
    target = made(SALES, total, wait, store=store, timestamp="day")
    target.deliver(delivery([{"id": 1, "amount": 1, "day": dt.date(2026, 3, 2)}]))
    target.deliver(delivery([{"id": 1, "amount": 5, "day": dt.date(2026, 3, 1)}], delivery_id=OTHER))
    found = values(target, TARGET, OTHER)
    assert (found["sales_euros_total"], found["level"], found["wait_sum"], found["wait_bucket{le=2.0}"]) == (6, 1, 6, 1)


# ---- what is refused ---------------------------------------------------------------------------------------------------


def test_more_series_than_allowed_are_refused_with_the_labels_and_what_to_do(store: MetricStore) -> None:
    target = made(ORDERS, SALES, store=store, max_series=2)
    rows = [{"id": n, "country": country, "amount": 1} for n, country in enumerate(["de", "fr", "it", "de"])]
    receipt = target.deliver(delivery(rows))
    assert (receipt.accepted, [refusal.seq for refusal in receipt.refused]) == (3, [3])
    reason = receipt.refused[0].reason
    assert 'orders has 2 series already, the most that `max_series` allows, and {country="it"}' in reason
    assert values(target) == {
        "orders_total{country=de}": 2,
        "orders_total{country=fr}": 1,
        "sales_euros_total": 3,
    }  # in all metrics, or in none
    wider = made(ORDERS | {"max_series": 3}, SALES, store=store, max_series=2)
    replayed = delivery([{"id": 2, "country": "it", "amount": 1}], after=2, delivery_id=f"{TARGET}/0a1b2c")
    assert wider.deliver(replayed).accepted == 1
    assert wider.deliver(replayed).accepted == 1
    assert values(wider)["orders_total{country=it}"] == 1
    assert values(wider)["sales_euros_total"] == 4


def test_a_crash_before_the_ledger_loses_no_dead_letter_and_counts_nothing_twice(store: MetricStore) -> None:
    """The offset stops short of the first refused record, so the road comes by it again; what came behind it is not counted twice."""
    target = made(SALES, store=store)
    rows = changes([{"id": 1, "amount": 1}, {"id": 2, "amount": -5}, {"id": 3, "amount": 2}])
    assert [refusal.seq for refusal in target.deliver(delivery(rows)).refused] == [2]
    assert target.position(TARGET, "0b8e1f9c") == 1
    again = target.deliver(delivery(rows.slice(1), after=1, upto=3))
    assert (again.accepted, [refusal.seq for refusal in again.refused]) == (1, [2])
    assert values(target) == {"sales_euros_total": 3}
    target.deliver(delivery([{"id": 4, "amount": 1}], after=3))
    assert target.position(TARGET, "0b8e1f9c") == 4


@pytest.mark.parametrize(
    ("metric", "value", "reason"),
    [
        (SALES, -1, "amount is -1, and a counter takes nothing below 0"),
        (SALES, None, "amount is empty, so there is nothing to count"),
        (SALES, float("inf"), "amount is inf, which no sum can hold"),
        (SALES, "much", "amount is 'much', which is no number"),
        (SALES, b"\x00", "which is no number"),
        (SALES, {"a": 1}, "which is no number"),
        ({"name": "w", "type": "summary", "value": "amount"}, -1, "a summary takes nothing below 0"),
        ({"name": "w", "type": "histogram", "value": "amount"}, -1, "a histogram takes nothing below 0"),
    ],
)
def test_a_value_that_no_metric_can_take_is_refused_with_its_reason(metric: dict[str, Any], value: Any, reason: str) -> None:
    target = made(metric)
    column = pa.schema([pa.field("id", pa.int64()), pa.field("amount", pa.float64())]) if value is None else None
    receipt = target.deliver(delivery(changes([{"id": 1, "amount": value}], schema=column)))
    assert receipt.accepted == 0
    assert reason in receipt.refused[0].reason
    assert values(target) == {}


def test_records_without_a_value_can_be_passed_over(store: MetricStore) -> None:
    target = made(SALES | {"nulls": "skip"}, store=store)
    assert target.deliver(delivery([{"id": 1, "amount": None}, {"id": 2, "amount": 4}])).accepted == 2
    assert values(target) == {"sales_euros_total": 4}


def test_values_of_every_type_become_numbers_or_labels() -> None:
    moment = dt.datetime(2026, 7, 1, 12, 30, 0, 500_000, tzinfo=dt.UTC)
    row = {"id": 1, "flag": True, "day": dt.date(1970, 1, 2), "moment": moment, "text": " 2.5 ", "tags": ["a"], "none": None, "n": 0.1}
    kinds = {"flag": 1, "day": 86_400, "moment": moment.timestamp(), "text": 2.5, "id": 1, "n": 0.1}
    target = made(*({"name": f"v_{name}", "type": "gauge", "value": name} for name in kinds))
    target.deliver(delivery([row]))
    assert values(target) == {f"v_{name}": value for name, value in kinds.items()}
    schema = pa.schema([pa.field("id", pa.int64()), pa.field("none", pa.string())])
    labelled = made({"name": "it", "type": "gauge", "labels": ["flag", "day", "moment", "tags", "n"]})
    labelled.deliver(delivery([row]))
    assert values(labelled) == {'it{day=1970-01-02,flag=true,moment=2026-07-01T12:30:00.500000Z,n=0.1,tags=["a"]}': 1}
    empty = made({"name": "it", "type": "gauge", "labels": ["none"]})
    empty.deliver(delivery(changes([{"id": 1, "none": None}], schema=schema)))
    assert values(empty) == {"it{none=}": 1}


@pytest.mark.parametrize(
    ("fields", "setting"),
    [({"labels": ["contry"]}, "metrics.orders.labels.contry"), ({"labels": [], "value": "amuont"}, "metrics.orders.value")],
)
def test_a_column_that_is_not_there_is_named_with_the_one_that_is_alike(fields: dict[str, Any], setting: str) -> None:
    target = made(ORDERS | fields)
    with pytest.raises(ConfigurationError, match=setting) as caught:
        target.deliver(delivery([{"id": 1, "country": "de", "amount": 1}]))
    assert "country" in str(caught.value) if "labels" in setting else "amount" in str(caught.value)


# ---- looking ahead -----------------------------------------------------------------------------------------------------


def test_what_would_happen_is_told_and_does_not(store: MetricStore) -> None:
    target = made(STOCK, store=store)
    target.deliver(delivery([{"id": 1, "amount": 1}]))
    before = values(target)
    stretch = delivery(
        [{"id": 1, "amount": 1}, {"id": 2, "amount": 2}, {"id": 3, "amount": None}], ops=["delete", "upsert", "upsert"], after=1
    )
    planned = target.plan(stretch)
    assert (planned.updated, planned.deleted, planned.refused, planned.notes) == (1, 1, 0, ("1 series would be new",))
    (message,) = target.render(stretch)
    assert 'stock{item="2"} 2.0' in message.text
    assert values(target) == before
    assert target.position(TARGET, "0b8e1f9c") == 1
