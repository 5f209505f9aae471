"""Which request may overtake which, what a receipt says of those that did, and what looking for a poison record costs."""

import json
import math
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muxly_dagster.destination import Receipt
from muxly_dagster.destinations.webhook import Webhook
from muxly_dagster.destinations.webhook.round import Round
from muxly_dagster.errors import ConfigurationError, GoneError, RetryLater, SignInError
from muxly_dagster.http import Outcome, Retries
from muxly_dagster.testing import delivery
from muxly_dagster_tests.http.server import Asked, Server, answer

ONCE = Retries(attempts=1)


def webhook(server: Server, **fields: Any) -> Webhook:
    return Webhook(**{"url": server.url, "allow_private": True, "form": "data", "retries": ONCE, **fields})


class Watch:
    """Answers by the record's `v`, and sees what was under way together. `gate` holds every answer until `width` requests are there."""

    def __init__(self, status: Callable[[dict[str, Any]], int] = lambda data: 200, width: int = 1) -> None:
        self.status = status
        self.began: list[dict[str, Any]] = []
        self.together: dict[Any, int] = defaultdict(int)
        self.most: dict[Any, int] = defaultdict(int)
        self._lock = threading.Lock()
        self._gate = threading.Barrier(width) if width > 1 else None

    def __call__(self, asked: Asked) -> bytes:
        body = json.loads(asked.body)
        rows = body if isinstance(body, list) else body.get("records", [body])
        with self._lock:
            for row in rows:
                self.began.append(row)
                self.together[row["id"]] += 1
                self.most[row["id"]] = max(self.most[row["id"]], self.together[row["id"]])
        if self._gate is not None:
            self._gate.wait(timeout=30)
        with self._lock:
            for row in rows:
                self.together[row["id"]] -= 1
        return answer(max(self.status(row) for row in rows))

    def of(self, key: Any) -> list[int]:
        return [row["v"] for row in self.began if row["id"] == key]


@contextmanager
def watched(status: Callable[[dict[str, Any]], int] = lambda data: 200, width: int = 1) -> Iterator[tuple[Server, Watch]]:
    watch = Watch(status, width)
    with Server(watch) as server:
        yield server, watch


def rows(*keys: Any) -> list[dict[str, Any]]:
    """One change for each key, `v` counting from 1: the same as its seq."""
    return [{"id": key, "v": n} for n, key in enumerate(keys, 1)]


def test_changes_of_one_key_wait_for_each_other_and_other_keys_do_not() -> None:
    # The receiver answers nobody before all four keys are there: they are under way together or this never ends.
    with watched(width=4) as (server, watch):
        receipt = webhook(server, concurrency=4).deliver(delivery(rows(1, 1, 1, 2, 2, 3, 3, 2, 3, 4, 4, 4)))
    assert receipt.accepted == 12
    assert max(watch.most.values()) == 1
    assert [watch.of(key) for key in (1, 2, 3, 4)] == [[1, 2, 3], [4, 5, 8], [6, 7, 9], [10, 11, 12]]


def test_without_an_order_changes_of_one_key_are_under_way_together() -> None:
    with watched(width=3) as (server, watch):
        assert webhook(server, concurrency=3, order="none").deliver(delivery(rows(1, 1, 1))).accepted == 3
    assert watch.most == {1: 3}


def test_in_strict_order_one_request_follows_the_other() -> None:
    with watched() as (server, watch):
        assert webhook(server, concurrency=50, order="strict").deliver(delivery(rows(*range(30)))).accepted == 30
        assert server.most_at_once == 1
    assert [row["v"] for row in watch.began] == list(range(1, 31))


@settings(max_examples=25, deadline=None)
@given(keys=st.lists(st.integers(0, 4), min_size=1, max_size=40), batch=st.integers(1, 4), bad=st.sets(st.integers(1, 40), max_size=4))
def test_whatever_fails_no_change_overtakes_another_of_its_key(keys: list[int], batch: int, bad: set[int]) -> None:
    """422 refuses for good and 503 stops: either way, what reached the receiver of a key is in order and has no gap before a failure."""
    with watched(lambda row: 503 if row["v"] in bad and row["v"] % 2 else 422 if row["v"] in bad else 200) as (server, watch):
        try:
            receipt = webhook(server, concurrency=6, batch=batch).deliver(delivery(rows(*keys)))
        except RetryLater:
            receipt = Receipt(0, upto=0, retry=RetryLater("at the first"))
    for key in set(keys):
        tried = list(dict.fromkeys(watch.of(key)))
        assert tried == sorted(tried) == [n for n, each in enumerate(keys, 1) if each == key][: len(tried)]
        stopped = [v for v in tried if v in bad and v % 2]
        if batch == 1:
            assert stopped in ([], tried[-1:])
    upto = len(keys) if receipt.upto is None else receipt.upto
    assert receipt.accepted + len(receipt.refused) == upto
    assert all(seq > upto and seq not in bad for seq in receipt.ahead)
    assert {refusal.seq for refusal in receipt.refused} == {v for v in bad if v <= upto and not v % 2}


def test_what_was_taken_beyond_the_first_failure_is_told_and_not_sent_again() -> None:
    with watched(lambda row: 503 if row["v"] == 2 else 422 if row["v"] == 4 else 200, width=6) as (server, _):
        receipt = webhook(server, concurrency=6).deliver(delivery(rows(*range(6))))
    assert (receipt.accepted, receipt.upto, sorted(receipt.ahead)) == (1, 1, [3, 5, 6])
    assert receipt.refused == ()  # 4 was refused beyond: it is sent again, and refused again
    assert isinstance(receipt.retry, RetryLater)


def test_after_a_failure_nothing_new_is_sent_and_what_is_under_way_is_heard_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    booked = threading.Event()
    take = Round.take

    def taking(self: Round, outcome: Outcome) -> None:
        take(self, outcome)
        if outcome.error is not None:
            booked.set()

    monkeypatch.setattr(Round, "take", taking)

    def reply(asked: Asked) -> bytes:
        if json.loads(asked.body)["v"] == 1:
            return answer(503)
        assert booked.wait(30)  # nobody else is answered before the failure is booked
        return answer()

    with Server(reply) as server:
        receipt = webhook(server, concurrency=4).deliver(delivery(rows(*range(200))))
    assert (receipt.accepted, receipt.upto, sorted(receipt.ahead)) == (0, 0, [2, 3, 4])
    assert len(server.asked) == 4


def test_a_receiver_that_is_gone_is_told_after_what_it_took() -> None:
    with watched(lambda row: 410 if row["v"] >= 3 else 200) as (server, _):
        hook = webhook(server, order="strict")
        receipt = hook.deliver(delivery(rows(*range(5))))
        assert (receipt.accepted, receipt.upto, receipt.retry, receipt.refused) == (2, 2, None, ())
        with pytest.raises(GoneError, match="wants nothing more") as caught:
            hook.deliver(delivery([{"id": 9, "v": 3}, {"id": 8, "v": 4}], after=2))
    assert caught.value.do
    assert len(server.asked) == 4


@pytest.mark.parametrize("batch", [1, 10])
def test_gone_refuses_no_record_and_takes_no_batch_apart(batch: int) -> None:
    with watched(lambda row: 410) as (server, _):
        with pytest.raises(GoneError):
            webhook(server, batch=batch, concurrency=1).deliver(delivery(rows(*range(100))))
        assert len(server.asked) == 1


def test_the_first_record_decides_which_error_is_told() -> None:
    with watched(lambda row: {1: 200, 2: 401, 3: 410}.get(row["v"], 200), width=3) as (server, _):
        assert webhook(server, concurrency=3).deliver(delivery(rows(1, 2, 3))).upto == 1
    with watched(lambda row: {1: 401, 2: 410}.get(row["v"], 200), width=2) as (server, _), pytest.raises(SignInError):
        webhook(server, concurrency=2).deliver(delivery(rows(1, 2)))


# ---- looking for who is at fault ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("batch", "poison"), [(10_000, 1), (10_000, 10_000), (10_000, 6_173), (1_000, 4_321), (100, 9_999), (7, 5_000)])
def test_a_poison_record_among_ten_thousand_costs_few_requests(batch: int, poison: int) -> None:
    with watched(lambda row: 422 if row["v"] == poison else 200) as (server, _):
        receipt = webhook(server, batch=batch).deliver(delivery(rows(*range(10_000))))
        extra = len(server.asked) - math.ceil(10_000 / batch)
    assert (receipt.accepted, [refusal.seq for refusal in receipt.refused]) == (9_999, [poison])
    assert extra <= 2 * math.log2(batch) + 2


@settings(max_examples=20, deadline=None)
@given(count=st.integers(1, 60), batch=st.integers(1, 60), bad=st.sets(st.integers(1, 60), max_size=5))
def test_every_record_at_fault_is_found_and_no_other_is_taken_twice(count: int, batch: int, bad: set[int]) -> None:
    taken: list[int] = []

    def reply(asked: Asked) -> bytes:
        values = [row["v"] for row in json.loads(asked.body)["records"]] if batch > 1 else [json.loads(asked.body)["v"]]
        if bad & set(values):
            return answer(422)
        taken.extend(values)
        return answer()

    with Server(reply) as server:
        receipt = webhook(server, batch=batch, concurrency=4).deliver(delivery(rows(*range(count))))
    assert sorted(taken) == [n for n in range(1, count + 1) if n not in bad]
    assert [refusal.seq for refusal in receipt.refused] == sorted(n for n in bad if n <= count)


def test_the_halves_of_a_refused_batch_go_before_what_comes_after_it_with_the_same_key() -> None:
    with watched(lambda row: 422 if row["v"] == 2 else 200) as (server, watch):
        receipt = webhook(server, batch=3, concurrency=8).deliver(delivery(rows(1, 2, 3, 1, 2, 3)))
    assert (receipt.accepted, [refusal.seq for refusal in receipt.refused]) == (5, [2])
    for key in (1, 2, 3):
        assert watch.of(key) == sorted(watch.of(key))


# ---- waiting and what is kept of the answers ---------------------------------------------------------------------------------


def test_a_schedule_says_how_often_and_how_long_is_waited() -> None:
    schedule = Retries.model_validate({"schedule": ["5s", "30s", "2m"], "jitter": "20%"})
    assert schedule.attempts == 4
    for attempt, wait in ((1, 5), (2, 30), (3, 120)):
        delays = [schedule.delay(attempt) for _ in range(500)]
        assert all(wait <= delay <= wait * 1.2 for delay in delays)
        assert max(delays) - min(delays) > wait * 0.1
    assert 60 <= schedule.delay(1, asked=60.0) <= 72
    assert 120 <= schedule.delay(3, asked=60.0) <= 144


def test_a_schedule_is_kept_to(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[int] = []

    def at_once(self: Retries, attempt: int, asked: float = 0.0) -> float:
        waited.append(attempt)
        return 0.0

    monkeypatch.setattr(Retries, "delay", at_once)
    with Server(lambda asked: answer(503)) as server, pytest.raises(RetryLater, match="gave up after 4 attempts"):
        webhook(server, retries={"schedule": ["5s", "30s", "2h"]}).deliver(delivery(rows(1)))
    assert waited == [1, 2, 3, 4]
    assert len(server.asked) == 4


def test_one_record_that_waits_holds_up_no_other_key() -> None:
    first, released = threading.Event(), threading.Event()

    def reply(asked: Asked) -> bytes:
        v = json.loads(asked.body)["v"]
        if v == 1 and not first.is_set():
            first.set()
            return answer(500)
        if v == 60:
            released.set()
        return answer()

    with Server(reply) as server:
        retries = Retries(attempts=3, base=0.2, cap=0.2)
        receipt = webhook(server, concurrency=2, retries=retries).deliver(delivery(rows(1, 1, *range(2, 60))))
    assert receipt.accepted == 60 and released.is_set()
    came = [json.loads(asked.body)["v"] for asked in server.asked]
    assert came[0] == 1 and came.index(2) > [n for n, v in enumerate(came) if v == 1][1]


def test_the_receipt_keeps_counts_answers_and_times() -> None:
    statuses = iter([503, 200])

    def reply(asked: Asked) -> bytes:
        v = json.loads(asked.body)["v"]
        if v == 1:
            return answer(next(statuses), "welcome, T0001-a-long-secret")
        return answer(422 if v == 2 else 202, f"answer {v}")

    with Server(reply) as server:
        hook = webhook(server, url=f"{server.url}/T0001-a-long-secret", order="strict", retries=Retries(attempts=2, base=0.001))
        detail = hook.deliver(delivery(rows(*range(20)))).detail
    assert (detail["host"], detail["requests"], detail["attempts"]) == (server.url, 20, 21)
    assert detail["statuses"] == {"200": 1, "202": 18, "422": 1, "503": 1}
    assert detail["first"] == {"status": 200, "body": "welcome, ***"}
    assert detail["last"] == {"status": 202, "body": "answer 20"}
    latency = detail["latency_ms"]
    assert 0 < latency["p50"] <= latency["p95"] <= latency["max"]
    json.dumps(detail)


def test_attempts_without_an_answer_are_counted_too() -> None:
    cuts = iter([True, True, False])
    with Server(lambda asked: [Server.cut] if next(cuts) else answer()) as server:
        detail = webhook(server, retries=Retries(attempts=3, base=0.001)).deliver(delivery(rows(1))).detail
    assert (detail["attempts"], detail["statuses"]) == (3, {"no answer": 2, "200": 1})


def test_a_wrong_address_stops_early_whatever_the_order() -> None:
    for order in ("none", "key", "strict"):
        with watched(lambda row: 404) as (server, _):
            with pytest.raises(ConfigurationError, match="404 Not Found for each of the first 2"):
                webhook(server, order=order).deliver(delivery(rows(*range(500))))
            assert len(server.asked) < 60
