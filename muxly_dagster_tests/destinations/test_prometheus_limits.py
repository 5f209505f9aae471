"""One odd record is refused and spoils nothing for those that come after it; nothing that a receiver did not take is called accepted."""

import datetime as dt
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from muxly_dagster.destinations.prometheus import Prometheus, exposing
from muxly_dagster.http import Retries
from muxly_dagster.services import MetricStore, OwnMetrics, Services
from muxly_dagster.state import State
from muxly_dagster.testing import delivery
from muxly_dagster_tests.peers.prometheus import Writer, until

TARGET = "big_deals.warehouse"
SALES = {"name": "sales", "type": "counter", "value": "amount"}
LEVEL = {"name": "level", "type": "gauge", "value": "amount"}


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MetricStore]:
    if request.param == "memory":
        yield OwnMetrics()
        return
    state = State.open(f"sqlite:///{tmp_path}/state.db", tmp_path)
    yield state.metrics
    state.close()


def made(*metrics: dict[str, Any], store: MetricStore | None = None, **fields: Any) -> Prometheus:
    return Prometheus(metrics=metrics, **fields).equipped(Services(metrics=store or OwnMetrics()))


def writing(receiver: Writer, *metrics: dict[str, Any], **fields: Any) -> Prometheus:
    return made(*metrics, mode="remote_write", url=receiver.url, retries=Retries(attempts=1), **fields)


def text(destination: Prometheus, *targets: str) -> str:
    return exposing.text(exposing.merged([destination.shown(target, target) for target in targets or (TARGET,)])).decode()


def _on(year: int, day: int = 1) -> dt.datetime:
    return dt.datetime(year, 1, day, tzinfo=dt.UTC)


def test_a_time_in_the_future_is_refused_and_leaves_the_series_where_it_was(receiver: Writer) -> None:
    """A receiver takes no sample of the future, and would take none that has to come behind it."""
    target = writing(receiver, SALES, LEVEL, timestamp="day")
    receipt = target.deliver(delivery([{"day": _on(2020), "amount": 1}, {"day": _on(2999), "amount": 2}], key=()))
    assert [(r.seq, r.reason) for r in receipt.refused] == [(2, "day is 2999-01-01 00:00:00 UTC, which is in the future")]
    assert target.deliver(delivery([{"day": _on(2020, 2), "amount": 4}], key=(), after=2)).refused == ()
    for name in ("sales_total", "level"):
        assert [at // 1000 for at, _ in receiver.history(name)] == [int(_on(2020, day).timestamp()) for day in (1, 2)]
    assert receiver.values("sales_total") == {(): 5}


@pytest.mark.parametrize("moment", [1e16, 1e300, -1e20, 253402300800.0])
def test_a_time_that_no_calendar_has_is_refused(store: MetricStore, moment: float) -> None:
    target = made(SALES, LEVEL, store=store, timestamp="at")
    receipt = target.deliver(delivery([{"id": 1, "at": moment, "amount": 1}, {"id": 2, "at": 5.0, "amount": 2}]))
    assert [(r.seq, r.reason) for r in receipt.refused] == [(1, f"at is {moment!r}, which is no time")]
    assert "sales_total 2.0" in text(target)


@pytest.mark.parametrize("kind", ["counter", "histogram", "summary"])
def test_values_too_large_to_be_added_up_are_refused(store: MetricStore, kind: str) -> None:
    target = made({"name": "size", "type": kind, "value": "amount"}, store=store)
    receipt = target.deliver(delivery([{"id": 1, "amount": 1.7e308}, {"id": 2, "amount": 1.7e308}, {"id": 3, "amount": 3.0}]))
    assert [(r.seq, r.reason) for r in receipt.refused] == [(seq, "size: amount is 1.7e+308, which no sum can hold") for seq in (1, 2)]
    assert " 3.0" in text(target)


@pytest.mark.parametrize("written", ["1_000", "\u0661\u0662", "0x10", "1e5 euros"])
def test_text_that_is_no_number_elsewhere_is_none_here(written: str) -> None:
    receipt = made(SALES).deliver(delivery([{"id": 1, "amount": written}]))
    assert [r.reason for r in receipt.refused] == [f"sales: amount is {written!r}, which is no number"]


def test_a_time_of_long_ago_is_a_label_with_four_digits_of_its_year() -> None:
    target = made({"name": "people", "type": "counter", "labels": ["born"]})
    target.deliver(delivery([{"id": 1, "born": _on(1)}]))
    assert 'born="0001-01-01T00:00:00Z"' in text(target)


@pytest.mark.parametrize("partial", [False, True])
@pytest.mark.parametrize("batch", [1, 2, 100])
def test_what_a_receiver_has_newer_values_of_is_not_accepted_however_it_is_sent(receiver: Writer, batch: int, partial: bool) -> None:
    """The state was lost: nobody here knows how far the receiver is."""
    receiver.partial = partial
    writing(receiver, LEVEL, timestamp="day").deliver(delivery([{"id": 9, "day": _on(2020, 9), "amount": 9}]))
    late = [{"id": day, "day": _on(2020, day), "amount": day} for day in (1, 2, 3)]
    receipt = writing(receiver, LEVEL, timestamp="day", batch=batch).deliver(delivery(late))
    assert (receipt.accepted, [r.seq for r in receipt.refused]) == (0, [1, 2, 3])
    assert [value for _, value in receiver.history("level")] == [9]


def test_an_empty_label_is_the_same_as_none_where_two_routes_meet() -> None:
    store = OwnMetrics()
    plain, by_country = {"name": "orders", "type": "counter"}, {"name": "orders", "type": "counter", "labels": ["country"]}
    one, other = made(plain, store=store), made(by_country, store=store)
    one.deliver(delivery([{"id": 1}], delivery_id="one.numbers"))
    other.deliver(delivery([{"id": 1, "country": ""}, {"id": 2, "country": "de"}], delivery_id="other.numbers"))
    parts = [one.shown("one", "one.numbers"), other.shown("other", "other.numbers")]
    assert sorted(line for line in exposing.text(exposing.merged(parts)).decode().splitlines() if line[0] != "#") == [
        "orders_total 2.0",
        'orders_total{country="de"} 1.0',
    ]


def test_who_waits_for_a_delivery_to_end_sees_its_offset(postgres: str, tmp_path: Path) -> None:
    """Postgres shows a row that was deleted and written anew to nobody who waited for it."""
    state = State.open(postgres, tmp_path)
    seen: list[object] = []

    def ask() -> None:
        with state.metrics.open(TARGET) as book:
            seen.append(book.held())

    def waits() -> bool:
        with state.engine.connect() as connection:
            return bool(connection.scalar(sa.text("select count(*) from pg_locks where not granted")))

    with state.metrics.open(TARGET) as book:
        book.move("table", 1)
    asking = threading.Thread(target=ask)
    with state.metrics.open(TARGET) as book:
        assert book.held() == ("table", 1)
        asking.start()
        until(waits, "somebody who waits")
        book.move("table", 2)
    asking.join()
    state.close()
    assert seen == [("table", 2)]
