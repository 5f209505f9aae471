"""Metrics made of records: counted once whatever is repeated, bounded, and shown so that every scraper can read them."""

import datetime as dt
import json
import math
import operator
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pyarrow as pa
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from pydantic import ValidationError

from muxly_dagster.destination import Receipt
from muxly_dagster.destinations.prometheus import Prometheus, exposing
from muxly_dagster.errors import ConfigurationError
from muxly_dagster.services import MetricStore, OwnMetrics, Services
from muxly_dagster.state import State
from muxly_dagster.testing import DestinationContract, changes, delivery
from muxly_dagster_tests.peers import prometheus as peer

TARGET = "big_deals.warehouse"
OTHER = "small_deals.warehouse"


def made(*metrics: dict[str, Any], store: MetricStore | None = None, **fields: Any) -> Prometheus:
    """A destination from fields as they stand in muxly.yaml."""
    return Prometheus(metrics=metrics, **fields).equipped(Services(metrics=store or OwnMetrics()))


def shown(destination: Prometheus, *targets: str, content_type: str = exposing.OPENMETRICS) -> bytes:
    """What a scraper is given."""
    parts = [destination.shown(target, target) for target in targets or (TARGET,)]
    return exposing.text(exposing.merged(parts), content_type)


def values(destination: Prometheus, *targets: str) -> dict[str, float]:
    """All samples but when they began, written `name{label=value}`."""
    found: dict[str, float] = {}
    for family in parse_openmetrics(shown(destination, *targets).decode()):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            if not sample.name.endswith("_created"):
                found[sample.name + (f"{{{labels}}}" if labels else "")] = sample.value
    return found


ORDERS = {"name": "orders", "type": "counter", "help": "Orders so far.", "labels": ["country"]}
SALES = {"name": "sales", "type": "counter", "unit": "euros", "value": "amount"}
STOCK = {"name": "stock", "type": "gauge", "value": "amount", "labels": {"item": "id"}}


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MetricStore]:
    if request.param == "memory":
        yield OwnMetrics()
        return
    url = f"sqlite:///{tmp_path}/state.db" if request.param == "sqlite" else request.getfixturevalue("postgres")
    state = State.open(url, tmp_path)
    yield state.metrics
    state.close()


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


# ---- gauges ------------------------------------------------------------------------------------------------------------


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


# ---- what is declared --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ({"name": "my-orders"}, "'my-orders' is no metric name: letters, digits and _ only, no digit first; write `my_orders`"),
        ({"name": "2nd"}, "write `_2nd`"),
        ({"name": "shop:orders"}, "has a colon, which Prometheus keeps for recording rules; write `shop_orders`"),
        ({"name": "x" * 300}, "is longer than 200 characters"),
        ({"name": "orders_total", "type": "gauge"}, "orders_total: only a counter's own series end in _total; leave it out"),
        ({"name": "orders_bucket"}, "only a histogram's own series end in _bucket"),
        ({"name": "_total"}, "_total is nothing but an ending"),
        ({"unit": "km/h"}, "'km/h' is no unit"),
        (
            {"labels": ["first name"]},
            "'first name' is no label name: letters, digits and _ only, no digit first; write `{first_name: first name}`",
        ),
        ({"fixed": {"__name__": "x"}}, "begins with __, which Prometheus keeps for itself"),
        ({"labels": ["env"], "fixed": {"env": "prod"}}, "the label env is in `labels` and in `fixed`"),
        ({"type": "histogram", "value": "v", "labels": ["le"]}, "the label le is the histogram's own"),
        ({"type": "summary", "value": "v", "labels": ["quantile"]}, "the label quantile is the summary's own"),
        ({"type": "histogram", "value": "v", "buckets": [5, 1]}, "must be different numbers in ascending order"),
        ({"type": "histogram", "value": "v", "buckets": [float("inf")]}, "needs a bound beside +Inf"),
        ({"buckets": [1]}, "only a histogram has `buckets`"),
        ({"type": "summary"}, "a summary needs `value`, the column to observe"),
        ({"type": "gauge", "counts": "keys"}, "a gauge counts nothing"),
        ({"value": -1}, "a counter's not below 0"),
        ({"value": True}, "must be the name of a column, or a number"),
    ],
)
def test_a_metric_that_cannot_be_is_told_with_the_way_out(metric: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        made({"name": "orders", "type": "counter"} | metric)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"metrics": [ORDERS, ORDERS | {"labels": []}]}, "two metrics are named orders"),
        ({"metrics": [{"name": "w", "type": "histogram", "value": "v"}, {"name": "w_count", "type": "gauge"}]}, "series named w_count"),
        ({"url": "http://x/"}, "`mode: exposition` is scraped and sends nothing"),
        ({"mode": "remote_write"}, "`mode: remote_write` needs `url`"),
        ({"mode": "pushgateway", "url": "ftp://x"}, "must start with https:// or http://"),
        ({"mode": "pushgateway", "url": "http://x", "grouping": {"job": "a"}}, "job is set by `job`"),
        ({"mode": "pushgateway", "url": "http://x", "grouping": {"a b": "a"}}, "'a b' is no label name"),
        ({"mode": "remote_write", "url": "http://x", "metrics": [ORDERS | {"labels": ["instance"]}]}, "the label instance of orders"),
        ({"mode": "remote_write", "url": "http://x", "headers": {"Content-encoding": "gzip"}}, "the protocol itself sets Content-encoding"),
    ],
)
def test_settings_that_do_not_go_together_are_told(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Prometheus(**({"metrics": [ORDERS]} | fields))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("name", "kind", "unit", "family"),
    [
        ("orders", "counter", "", "orders"),
        ("orders_total", "counter", "", "orders"),
        ("sales_euros_total", "counter", "euros", "sales_euros"),
        ("sales", "counter", "euros", "sales_euros"),
        ("wait", "gauge", "seconds", "wait_seconds"),
        ("wait_seconds", "gauge", "seconds", "wait_seconds"),
    ],
)
def test_units_and_endings_come_by_themselves(name: str, kind: str, unit: str, family: str) -> None:
    assert made({"name": name, "type": kind, "unit": unit}).public_name("crm.deals") == family


def test_labels_are_written_as_a_list_or_with_their_columns() -> None:
    schema = Prometheus.model_json_schema()
    for labels in (["country"], {"market": "country"}):
        jsonschema.validate({"metrics": [ORDERS | {"labels": labels}]}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"metrics": [ORDERS | {"labels": 7}]}, schema)
    target = made(ORDERS | {"labels": {"market": "country"}})
    target.deliver(delivery([{"id": 1, "country": "de"}]))
    assert values(target) == {"orders_total{market=de}": 1}


# ---- what is shown -----------------------------------------------------------------------------------------------------

_ODD = ['"quoted"', "back\\slash", "two\nlines", "Grüße, 文字", "", "{a=b},", "\t", "x" * 5_000]


def everything(store: MetricStore | None = None) -> Prometheus:
    """A destination with values in every kind of metric, and labels that have to be escaped."""
    target = made(
        {"name": "orders", "type": "counter", "help": 'Orders "so far" \\ in\nall.', "labels": ["text"]},
        {"name": "level", "type": "gauge", "help": "Level.", "unit": "ratio", "value": "n", "labels": ["text"]},
        {"name": "wait", "type": "histogram", "help": "Wait.", "unit": "seconds", "value": "n", "labels": ["text"]},
        {"name": "cold", "type": "histogram", "help": "Below zero.", "value": "n", "buckets": [-5, 0, 5]},
        {"name": "size", "type": "summary", "help": "Size.", "unit": "bytes", "value": "n"},
        store=store,
    )
    target.deliver(delivery([{"id": n, "text": text, "n": n / 7} for n, text in enumerate(_ODD)]))
    return target


def test_both_formats_say_the_same_and_are_read_by_the_strict_parsers() -> None:
    target = everything()
    modern = {family.name: family for family in parse_openmetrics(shown(target).decode())}
    plain = {family.name: family for family in parse_text(shown(target, content_type=exposing.TEXT).decode())}
    assert [modern[name].type for name in ("orders", "level_ratio", "wait_seconds", "cold", "size_bytes")] == [
        "counter",
        "gauge",
        "histogram",
        "histogram",
        "summary",
    ]
    assert (modern["wait_seconds"].unit, modern["orders"].documentation) == ("seconds", 'Orders "so far" \\ in\nall.')
    for name, family in modern.items():
        samples = [(s.name, s.labels, s.value) for s in family.samples if not s.name.endswith("_created")]
        assert samples == [(s.name, s.labels, s.value) for s in plain[name].samples]
        assert family.type == "gauge" or any(s.name == f"{name}_created" for s in family.samples)
    assert {s.labels["text"] for s in modern["orders"].samples} == set(_ODD)
    assert "cold_sum" not in {s.name for s in modern["cold"].samples}  # a sum that can fall is no counter
    assert shown(target).endswith(b"# EOF\n")


def _shared() -> dict[str, str]:
    """Texts of OpenMetrics' own suite that hold nothing but counters and gauges that records could give."""
    suite = json.loads((Path(peer.__file__).parent / "data" / "openmetrics" / "parser-vectors.json").read_text("utf-8"))
    found = {}
    for vector in suite:
        families = list(parse_openmetrics(vector["text"])) if vector["shouldParse"] else []
        samples = [sample for family in families for sample in family.samples]
        plain = all(
            s.timestamp is None and s.exemplar is None and not math.isnan(s.value) and not s.name.endswith("_created") for s in samples
        )
        if samples and plain and {family.type for family in families} <= {"counter", "gauge"}:
            found[vector["name"]] = vector["text"]
    return found


@pytest.mark.parametrize("content_type", [exposing.OPENMETRICS, exposing.TEXT])
@pytest.mark.parametrize("text", _shared().values(), ids=_shared().keys())
def test_what_openmetrics_own_suite_says_can_be_said_by_records(text: str, content_type: str) -> None:
    for family in parse_openmetrics(text):
        columns = sorted({label for sample in family.samples for label in sample.labels})
        rows = [
            {"id": n, "amount": float(s.value), **{f"l_{name}": s.labels.get(name) for name in columns}}
            for n, s in enumerate(family.samples)
        ]
        schema = pa.schema([("id", pa.int64()), ("amount", pa.float64()), *((f"l_{name}", pa.string()) for name in columns)])
        labels = {name: f"l_{name}" for name in columns}
        kind = {"name": family.name, "type": family.type, "help": family.documentation, "unit": family.unit}
        target = made(kind | {"value": "amount", "labels": labels})
        assert target.deliver(delivery(changes(rows, schema=schema))).refused == ()
        parse = parse_openmetrics if content_type == exposing.OPENMETRICS else parse_text
        (said,) = parse(shown(target, content_type=content_type).decode())
        assert (said.name, said.type, said.documentation) == (family.name, family.type, family.documentation)
        assert content_type == exposing.TEXT or said.unit == family.unit
        key = operator.itemgetter(1)
        found = sorted(((s.value, sorted(s.labels.items())) for s in said.samples if not s.name.endswith("_created")), key=key)
        assert found == sorted(((s.value, sorted(s.labels.items())) for s in family.samples), key=key)


@pytest.mark.skipif(bool(peer.missing("promtool")), reason=peer.missing("promtool"))
def test_promtool_finds_nothing_to_say() -> None:
    assert peer.lint(shown(everything(), content_type=exposing.TEXT)) == ""


@pytest.mark.parametrize(
    ("accept", "modern"),
    [
        ("", False),
        ("*/*", False),
        ("text/html", False),
        ("text/plain;version=0.0.4", False),
        ("application/openmetrics-text", True),
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", True),
        ("application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;q=0.5,*/*;q=0.1", True),
        ("text/plain;version=0.0.4;q=0.5,*/*;q=0.1,application/openmetrics-text;version=1.0.0", True),
        ("application/openmetrics-text;q=0.2,text/plain", False),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;version=9.0.0,text/plain;q=0.5", False),
        ("application/openmetrics-text;q=much,*/*", False),
    ],
)
def test_the_format_is_the_one_that_is_asked_for(accept: str, modern: bool) -> None:
    assert exposing.negotiated(accept) == (exposing.OPENMETRICS if modern else exposing.TEXT)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"name": "orders", "type": "gauge"}, "one is a counter and the other a gauge"),
        ({"name": "wait", "type": "histogram", "value": "n", "buckets": [1]}, "different buckets"),
        ({"name": "sales", "type": "gauge"}, ""),
        ({"name": "orders_total", "type": "counter", "labels": ["plan"]}, ""),
        ({"name": "wait_count", "type": "gauge"}, "would both have series named wait_count"),
    ],
)
def test_metrics_of_two_destinations_that_do_not_go_together_are_told(other: dict[str, Any], said: str) -> None:
    one = made(ORDERS, {"name": "wait", "type": "histogram", "value": "n", "buckets": [1, 2]}).shown("a.m", TARGET)
    two = made(other).shown("b.m", OTHER)
    if not said:
        exposing.check([one, two])
        return
    with pytest.raises(ConfigurationError, match=said):
        exposing.check([one, two])


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
