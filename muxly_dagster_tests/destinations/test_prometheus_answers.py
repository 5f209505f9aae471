"""What a receiver's answers to a remote write mean: who is at fault, what is written, and what is sent again."""

import pytest

from muxly_dagster.errors import ConfigurationError, GoneError, MuxlyError, RetryLater, SignInError
from muxly_dagster.http import Retries
from muxly_dagster.testing import delivery
from muxly_dagster_tests.destinations.remote_writing import LEVEL, READ_AT, SALES, STOCK, TARGET, made, on_day
from muxly_dagster_tests.peers import faults
from muxly_dagster_tests.peers.prometheus import Writer

IMPATIENT = Retries(attempts=3, base=0.001, cap=0.001)


@pytest.mark.parametrize("partial", [False, True])
@pytest.mark.parametrize("bad", [(0,), (5,), (2, 3), tuple(range(6))])
def test_samples_at_fault_are_found_and_their_records_refused(receiver: Writer, partial: bool, bad: tuple[int, ...]) -> None:
    receiver.partial = partial
    target = made(receiver.url, {"name": "deal", "type": "gauge", "labels": ["id", "refuse"], "value": "amount"})
    rows = [{"id": n, "amount": n, "refuse": "yes" if n in bad else ""} for n in range(6)]
    receipt = target.deliver(delivery(rows))
    assert [(r.seq - 1, r.reason) for r in receipt.refused] == [(n, "400 Bad Request: unwanted") for n in bad]
    assert receipt.accepted == 6 - len(bad)
    assert sorted(receiver.values("deal").values()) == [n for n in range(6) if n not in bad]
    assert target.position(TARGET, "0b8e1f9c") == min(bad)


def test_a_history_of_which_a_part_was_written_is_not_taken_for_late(receiver: Writer) -> None:
    """Sent again in halves, its first samples are older than what is there by now."""
    receiver.partial = True
    target = made(receiver.url, LEVEL | {"labels": ["refuse"]}, timestamp="day")
    rows = [{"id": n, "day": on_day(n), "amount": n, "refuse": "yes" if n == 4 else ""} for n in range(1, 8)]
    receipt = target.deliver(delivery(rows))
    assert [r.seq for r in receipt.refused] == [4]
    assert [value for _, value in receiver.history("level")] == [1, 2, 3, 5, 6, 7]


def test_a_receiver_that_wrote_less_than_it_was_sent_has_refused_the_rest(receiver: Writer) -> None:
    receiver.troubles = [(200, {"X-Prometheus-Remote-Write-Samples-Written": "0"})] * 3
    receipt = made(receiver.url, STOCK).deliver(delivery([{"id": 1, "amount": 1}, {"id": 2, "amount": 2}, {"id": 3, "amount": 3}]))
    assert [(r.seq, r.reason) for r in receipt.refused] == [(1, "the receiver says it wrote 0 of 1 samples")]
    assert sorted(receiver.values("stock").values()) == [2, 3]


def test_passing_troubles_are_waited_out_and_nothing_is_written_twice(receiver: Writer) -> None:
    receiver.troubles = [(503, {}), (429, {})]
    target = made(receiver.url, SALES, retries=IMPATIENT)
    assert target.deliver(delivery([{"id": 1, "country": "de", "amount": 3}])).accepted == 1
    assert receiver.history("sales_euros_total") == [(READ_AT, 3)]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_trouble_that_stays_keeps_the_delivery_waiting(receiver: Writer, status: int) -> None:
    receiver.troubles = [(status, {"Retry-After": "1800"})]
    target = made(receiver.url, SALES)
    rows = delivery([{"id": 1, "country": "de", "amount": 3}])
    with pytest.raises(RetryLater) as caught:
        target.deliver(rows)
    assert caught.value.after == 1800
    assert target.position(TARGET, "0b8e1f9c") is None
    assert target.deliver(rows).accepted == 1
    assert receiver.history("sales_euros_total") == [(READ_AT, 3)]


@pytest.mark.parametrize(
    ("status", "kind", "said"),
    [
        (401, SignInError, "credentials"),
        (403, SignInError, "credentials"),
        (301, ConfigurationError, "it has moved"),
        (404, ConfigurationError, "nothing takes samples at this address"),
        (405, ConfigurationError, "nothing takes samples at this address"),
        (410, GoneError, "gone for good"),
        (501, ConfigurationError, "no use"),
    ],
)
def test_an_answer_that_is_not_about_the_samples_refuses_no_record(
    receiver: Writer, status: int, kind: type[MuxlyError], said: str
) -> None:
    receiver.troubles = [(status, {"Location": "http://127.0.0.1:1/"} if status == 301 else {})]
    target = made(receiver.url, SALES)
    with pytest.raises(kind, match=said):
        target.deliver(delivery([{"id": 1, "country": "de", "amount": 3}]))
    receiver.troubles = [(status, {})]
    assert target.check().status == "failed"
    assert target.check().status == "ok" or "1.0" not in receiver.knows


@pytest.mark.parametrize("fault", [faults.refuse, faults.garbage, faults.cut(30), faults.reset(0), faults.cut_sent(60)])
def test_a_line_that_breaks_confirms_nothing_and_the_next_run_does(receiver: Writer, fault: faults.Fault) -> None:
    with faults.Line(int(receiver.url.split(":")[2].partition("/")[0])) as line:
        target = made(f"{line.url}/api/v1/write", SALES, STOCK, timestamp="day")
        rows = delivery([{"id": n, "country": "de", "amount": n, "day": on_day(n)} for n in range(1, 5)])
        line.then(fault)
        with pytest.raises((RetryLater, ConfigurationError)):
            target.deliver(rows)
        assert target.position(TARGET, "0b8e1f9c") is None
        line.then(faults.ok)
        assert target.deliver(rows).refused == ()
    assert receiver.history("sales_euros_total")[-1][1] == 10
    assert len(receiver.values("stock")) == 4


def test_a_receiver_that_never_answers_is_left_after_the_timeout(receiver: Writer) -> None:
    with faults.Line(int(receiver.url.split(":")[2].partition("/")[0]), faults.blackhole) as line:
        target = made(f"{line.url}/api/v1/write", SALES, timeout=0.3)
        with pytest.raises(RetryLater, match="no answer in time"):
            target.deliver(delivery([{"id": 1, "country": "de", "amount": 3}]))
