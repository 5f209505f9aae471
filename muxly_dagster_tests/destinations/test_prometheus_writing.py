"""Remote write: what is on the wire, and that what is sent twice is written once."""

import datetime as dt
import random
from typing import Any

import pyarrow as pa
import pytest

from muxly_dagster import records, remote_write
from muxly_dagster.auth import Bearer
from muxly_dagster.destination import Delivery, Receipt
from muxly_dagster.destinations.prometheus import Prometheus, accumulating
from muxly_dagster.errors import ConfigurationError, RetryLater
from muxly_dagster.services import OwnMetrics
from muxly_dagster.testing import DestinationContract, changes, delivery
from muxly_dagster_tests.destinations.remote_writing import LEVEL, READ_AT, SALES, STOCK, TARGET, made, on_day
from muxly_dagster_tests.peers.prometheus import Writer, is_stale


class TestRemoteWrite(DestinationContract):
    """A gauge whose label is the key has one series for each record; what a record's other columns hold is not in it, so the tests that
    read them back look at the keys alone."""

    columns = ()

    @pytest.fixture
    def destination(self, receiver: Writer) -> Prometheus:
        self.receiver, self.store = receiver, OwnMetrics()
        receiver.token = "right-and-long-enough"
        return self.aimed(receiver.token)

    def aimed(self, token: str, **fields: Any) -> Prometheus:
        metric = {"name": "record", "type": "gauge", "labels": ["id"]}
        return made(self.receiver.url, metric, store=self.store, auth=Bearer(token=token), **fields)

    def stored(self, destination: Prometheus) -> list[dict[str, Any]]:
        return [{"id": int(dict(labels)["id"])} for labels in self.receiver.values("record")]

    def away(self) -> Prometheus:
        return made("http://127.0.0.1:1/api/v1/write", {"name": "record", "type": "gauge", "labels": ["id"]})

    def wrong(self) -> Prometheus:
        return self.aimed("wrong-and-long-enough")

    def interrupted(self) -> Prometheus:
        self.receiver.troubles = [(0, {}), (503, {})]
        return self.aimed(self.receiver.token, batch=4)

    def test_what_is_delivered_arrives(self, destination: Any) -> None:
        receipt = destination.deliver(delivery([{"id": 1, "name": "Ada"}, {"id": 2, "name": None}]))
        assert (receipt.accepted, receipt.refused, receipt.upto, receipt.retry) == (2, (), None, None)
        assert self.stored(destination) == [{"id": 1}, {"id": 2}]

    def test_the_last_change_of_a_key_wins(self, receiver: Writer) -> None:
        target = made(receiver.url, STOCK)
        target.deliver(delivery([{"id": 1, "amount": 1}, {"id": 1, "amount": 2}]))
        assert target.deliver(delivery([{"id": 1, "amount": 3}], after=2)).accepted == 1
        assert receiver.values("stock") == {(("item", "1"),): 3}

    def test_a_column_that_appears_later_is_taken(self, destination: Any) -> None:
        destination.deliver(delivery([{"id": 1}]))
        destination.deliver(delivery([{"id": 2, "city": "Berlin"}], after=1))
        assert self.stored(destination) == [{"id": 1}, {"id": 2}]


# ---- on the wire -------------------------------------------------------------------------------------------------------


def test_a_request_of_version_2_says_everything_a_receiver_may_ask_for(receiver: Writer) -> None:
    target = made(
        receiver.url,
        SALES,
        {"name": "wait", "type": "histogram", "value": "amount", "buckets": [5]},
        job="shop",
        grouping={"env": "prod"},
        headers={"X-Scope-OrgID": "acme"},
    )
    receipt = target.deliver(delivery([{"id": 1, "country": "de", "amount": 3}, {"id": 2, "country": "", "amount": 9}]))
    (wrote,) = receiver.asked
    assert wrote.headers["content-type"] == "application/x-protobuf;proto=io.prometheus.write.v2.Request"
    assert wrote.headers["x-scope-orgid"] == "acme"
    assert "muxly" in wrote.headers["user-agent"]
    assert wrote.message.symbols[0] == ""
    assert len(set(wrote.message.symbols)) == len(wrote.message.symbols)
    shared = {"env": "prod", "instance": TARGET, "job": "shop"}
    sales, empty, *wait = sorted(wrote.series, key=lambda each: (each[0]["__name__"] != "sales_euros_total", -len(each[0])))
    assert sales[0] == {"__name__": "sales_euros_total", "country": "de", **shared}
    assert sales[1] == [(READ_AT, 3.0, READ_AT - 1)]
    assert sales[2] == {"type": remote_write.KINDS["counter"], "help": "Sold so far.", "unit": "euros"}
    assert empty[0] == {"__name__": "sales_euros_total", **shared}  # an empty label is none
    assert {(labels["__name__"], labels.get("le")): samples[0][1] for labels, samples, _ in wait} == {
        ("wait_bucket", "5.0"): 1,
        ("wait_bucket", "+Inf"): 2,
        ("wait_count", None): 2,
        ("wait_sum", None): 12,
    }
    assert {meta["type"] for _, _, meta in wait} == {remote_write.KINDS["histogram"]}
    assert receipt == Receipt(
        2, (), {"records_counted": 2, "series_made": 3, "series_ended": 0, "protocol": "2.0", "requests": 1, "samples_written": 6}
    )


def test_a_receiver_that_knows_only_version_1_is_spoken_to_in_it(receiver: Writer) -> None:
    receiver.knows = ("1.0",)
    target = made(receiver.url, SALES, STOCK)
    receipt = target.deliver(delivery([{"id": 1, "country": "de", "amount": 3}]))
    assert (receipt.detail["protocol"], receipt.detail["requests"]) == ("1.0", 2)
    (wrote,) = receiver.asked
    assert wrote.headers["content-type"] == "application/x-protobuf"
    meta = [(each.metric_family_name, each.type, each.help, each.unit) for each in wrote.message.metadata]
    assert meta == [("sales_euros", 1, "Sold so far.", "euros"), ("stock", 2, "", "")]
    for each in wrote.message.timeseries:
        names = [label.name for label in each.labels]
        assert names == sorted(names)
    again = target.deliver(delivery([{"id": 2, "country": "de", "amount": 3}], after=1))
    assert again.detail["requests"] == 1  # it is remembered what the receiver understands
    assert receiver.values("sales_euros_total") == {(("country", "de"),): 6}


def test_a_receiver_that_takes_version_2_for_an_empty_request_has_not_written_anything(receiver: Writer) -> None:
    """As Prometheus before 2.54 does, which looks at no content type."""
    receiver.knows, receiver.silent = ("2.0", "1.0"), True
    receiver.troubles = [(204, {})]
    receipt = made(receiver.url, SALES).deliver(delivery([{"id": 1, "country": "de", "amount": 3}]))
    assert (receipt.accepted, receipt.detail["protocol"]) == (1, "1.0")
    assert receiver.values("sales_euros_total") == {(("country", "de"),): 3}


def test_a_version_that_is_asked_for_is_kept_to(receiver: Writer) -> None:
    receiver.knows = ("1.0",)
    with pytest.raises(ConfigurationError, match="does not understand remote write 2.0"):
        made(receiver.url, SALES, protocol="2.0").deliver(delivery([{"id": 1, "country": "de", "amount": 3}]))
    assert made(receiver.url, SALES, protocol="1.0").deliver(delivery([{"id": 1, "country": "de", "amount": 3}])).detail["requests"] == 1


def test_many_samples_go_in_several_requests(receiver: Writer) -> None:
    rows = [{"id": n, "amount": n} for n in range(95)]
    assert made(receiver.url, STOCK, batch=20).deliver(delivery(rows)).detail["samples_written"] == 95
    assert len(receiver.asked) == 10
    assert max(len(wrote.message.timeseries) for wrote in receiver.asked) <= 20
    assert len(receiver.values("stock")) == 95


# ---- times -------------------------------------------------------------------------------------------------------------


def test_values_of_one_moment_get_times_that_a_receiver_can_tell_apart(receiver: Writer) -> None:
    """All records of a pull may have been read in the same millisecond."""
    target = made(receiver.url, SALES, LEVEL)
    for n in range(3):
        target.deliver(delivery([{"id": n, "country": "de", "amount": n + 1}], after=n))
    assert receiver.history("sales_euros_total") == [(READ_AT, 1), (READ_AT + 1, 3), (READ_AT + 2, 6)]
    assert receiver.history("level") == [(READ_AT, 1), (READ_AT + 1, 2), (READ_AT + 2, 3)]


def _at(day: int) -> int:
    return int(on_day(day).timestamp() * 1000)


def daily(*days: tuple[int, float], after: int = 0) -> Delivery:
    """A value for each day."""
    return delivery([{"id": day, "day": on_day(day), "amount": amount} for day, amount in days], after=after)


def test_a_gauge_with_a_column_of_times_keeps_its_whole_history(receiver: Writer) -> None:
    target = made(receiver.url, LEVEL, timestamp="day")
    assert target.deliver(daily((2, 20), (1, 10), (3, 30))).refused == ()
    assert receiver.history("level") == [(_at(1), 10), (_at(2), 20), (_at(3), 30)]
    target.deliver(daily((3, 31), (4, 40), after=3))
    assert receiver.history("level")[3:] == [(_at(3) + 1, 31), (_at(4), 40)]


def test_a_value_that_comes_too_late_for_the_receiver_is_refused_and_can_be_sent_again(receiver: Writer) -> None:
    target = made(receiver.url, LEVEL, timestamp="day")
    target.deliver(daily((1, 10), (5, 50)))
    receipt = target.deliver(daily((3, 30), (6, 60), after=2))
    assert (receipt.accepted, [(r.seq, r.reason) for r in receipt.refused]) == (1, [(3, "400 Bad Request: out of order sample")])
    assert [value for _, value in receiver.history("level")] == [10, 50, 60]
    replayed = delivery([{"id": 3, "day": on_day(3), "amount": 30}], after=2, delivery_id=f"{TARGET}/0a1b")
    assert [r.seq for r in target.deliver(replayed).refused] == [3]  # still too late, and said so again
    assert target.position(TARGET, "0b8e1f9c") == 2


def test_a_resync_writes_no_history_again(receiver: Writer) -> None:
    target = made(receiver.url, LEVEL, SALES | {"labels": []}, timestamp="day")
    rows = daily((1, 10), (2, 20))
    target.deliver(rows)
    target.rewind(TARGET, "0b8e1f9c", 0)
    receipt = target.deliver(rows)
    assert (receipt.accepted, receipt.refused) == (2, ())
    assert receiver.history("level") == [(_at(1), 10), (_at(2), 20)]
    assert receiver.history("sales_euros_total")[-1][1] == 30


# ---- series that end ---------------------------------------------------------------------------------------------------


def test_a_series_that_ends_is_marked_stale(receiver: Writer) -> None:
    target = made(receiver.url, STOCK)
    target.deliver(delivery([{"id": 1, "amount": 1}, {"id": 2, "amount": 2}]))
    receipt = target.deliver(delivery([{"id": 1, "amount": 1}], ops=["delete"], after=2))
    assert receipt.accepted == 1
    assert receiver.values("stock") == {(("item", "2"),): 2}
    (ended,) = (samples for labels, samples in receiver.held.items() if dict(labels)["item"] == "1")
    assert [(at - READ_AT, is_stale(value)) for at, value in sorted(ended.items())] == [(0, False), (1, True)]
    target.deliver(delivery([{"id": 1, "amount": 5}], after=3))
    assert receiver.values("stock")[("item", "1"),] == 5


def test_a_record_that_moves_and_a_metric_that_is_made_otherwise_leave_stale_series(receiver: Writer) -> None:
    deal = {"name": "deal", "type": "gauge", "labels": ["stage"]}
    store = OwnMetrics()
    target = made(receiver.url, deal, store=store)
    target.deliver(delivery([{"id": 1, "stage": "open", "plan": "pro"}]))
    target.deliver(delivery([{"id": 1, "stage": "won", "plan": "pro"}], after=1))
    assert receiver.values("deal") == {(("stage", "won"),): 1}
    otherwise = made(receiver.url, deal | {"labels": ["plan"]}, store=store)
    otherwise.deliver(delivery([{"id": 1, "stage": "won", "plan": "pro"}], after=2))
    assert receiver.values("deal") == {(("plan", "pro"),): 1}
    made(receiver.url, LEVEL, store=store).deliver(delivery([{"id": 1, "amount": 4}], after=3))
    assert receiver.values("deal") == {}
    later = changes([{"id": 1, "amount": 5}], first=5)
    later = later.set_column(4, later.schema.field(4), pa.chunked_array([pa.array([on_day(3)], records.TIMESTAMP)]))
    made(receiver.url, LEVEL, store=store).deliver(delivery(later, after=4))
    with store.open(TARGET) as book:
        assert [(series.metric, series.gone) for series in book.series()] == [("level", False)]  # what was told is forgotten


def test_the_end_of_a_series_is_told_after_a_crash_too(receiver: Writer) -> None:
    target = made(receiver.url, STOCK)
    target.deliver(delivery([{"id": 1, "amount": 1}]))
    receiver.troubles = [(503, {})]
    gone = delivery([{"id": 1, "amount": 1}], ops=["delete"], after=1)
    with pytest.raises(RetryLater):
        target.deliver(gone)
    assert receiver.values("stock") == {(("item", "1"),): 1}
    target.deliver(gone)
    assert receiver.values("stock") == {}


# ---- whatever happens --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("partial", [False, True])
@pytest.mark.parametrize("times", ["none", "distinct", "shared"])
@pytest.mark.parametrize("seed", range(4))
def test_however_deliveries_are_interrupted_the_receiver_ends_up_with_what_the_records_say(
    seed: int, times: str, partial: bool, receiver: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests fail or are cut short, the process dies between the receiver's answer and the store's commit, and the next stretch is cut
    anew. Where several records share a time, a receiver keeps the first value that it was given for it: later ones may be refused."""
    chance = random.Random(seed)
    receiver.partial = partial
    target = made(receiver.url, SALES, LEVEL, batch=5, **({} if times == "none" else {"timestamp": "day"}))
    step = 3 if times == "shared" else 1
    rows = [
        {"id": n, "country": chance.choice("ab"), "amount": chance.randrange(9) + 1, "day": on_day(1) + dt.timedelta(seconds=n // step)}
        for n in range(60)
    ]
    table = changes(rows)
    confirmed = 0

    def dying(*arguments: Any) -> None:
        if chance.random() < 0.3:
            raise KeyboardInterrupt
        accumulating.confirm(*arguments)

    monkeypatch.setattr("muxly_dagster.destinations.prometheus.confirm", dying)
    while confirmed < 60:
        receiver.troubles = [(chance.choice([0, 0, 0, 503]), {}) for _ in range(4)]
        upto = min(60, confirmed + chance.randrange(15) + 1)
        try:
            receipt = target.deliver(delivery(table.slice(confirmed, upto - confirmed), after=confirmed, upto=upto))
        except (RetryLater, KeyboardInterrupt):
            continue
        assert times == "shared" or receipt.refused == ()
        confirmed = upto
    for country in "ab":
        total = sum(row["amount"] for row in rows if row["country"] == country)
        assert receiver.values("sales_euros_total")[("country", country),] == total
    assert receiver.values("level") == {(): rows[-1]["amount"]}
    if times == "distinct":
        assert receiver.history("level") == [(_at(1) + 1000 * row["id"], row["amount"]) for row in rows]
