"""The road out: each change is counted once, each target goes at its own pace, and a poison record stands alone."""

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from muxly_dagster import tracing
from muxly_dagster.assembly import Assembly
from muxly_dagster.delivery import Patience, deliver, lag, replay
from muxly_dagster.destination import Receipt
from muxly_dagster.errors import BusyError, ConfigurationError, MuxlyError, RetryLater, SignInError
from muxly_dagster.project.models import Project
from muxly_dagster.routing import Router, Rule
from muxly_dagster.testing import MemoryDestination
from muxly_dagster_tests.road.lane import BIG, EVERYTHING, Road, counts
from muxly_dagster_tests.road.scripted import batches, scripted


def test_only_what_changed_moves(road: Road) -> None:
    road.store({"id": "1", "amount": 5}, {"id": "2", "amount": 500})
    assert counts(road.deliver()) == (2, 2, 0, 0)
    assert counts(road.deliver()) == (0, 0, 0, 0)
    road.store({"id": "1", "amount": 5}, {"id": "2", "amount": 501})
    assert counts(road.deliver()) == (1, 1, 0, 0)
    assert [data["amount"] for data in road.memory.data] == [5, 500, 501]


def test_rules_choose_and_the_rest_is_counted_as_unrouted(road: Road) -> None:
    road.store({"id": "1", "amount": 5}, {"id": "2", "amount": 500}, {"id": "3", "amount": None})
    assert counts(road.deliver(road.target(BIG))) == (3, 1, 0, 2)
    archive = MemoryDestination()
    assert counts(road.deliver(road.target(BIG, "archive", archive))) == (3, 2, 0, 1)
    assert [data["id"] for data in road.memory.data + archive.data] == ["2", "1", "3"]


def test_a_rule_that_cannot_answer_about_a_record_is_told_in_the_receipt(road: Road) -> None:
    road.store({"id": "1", "amount": "12"}, {"id": "2", "amount": "many"})
    router = Router([Rule("amount::int > 10", ("memory",), name="big")])
    outcome = road.deliver(road.target(router))
    assert counts(outcome) == (2, 1, 0, 1)
    assert outcome.metadata["last_receipt"]["rules_without_an_answer"] == {"big": 1}


def test_a_deleted_record_is_routed_by_its_last_values(road: Road) -> None:
    road.store({"id": "1", "amount": 5}, {"id": "2", "amount": 500})
    road.deliver(road.target(BIG))
    road.store({"id": "1", "amount": 5}, whole=True)
    road.deliver(road.target(BIG))
    assert [(record["op"], record["key"]) for record in road.memory.memory.taken] == [("upsert", "2"), ("delete", "2")]


def test_a_passing_trouble_is_waited_out(road: Road) -> None:
    road.store({"id": "1"})
    road.memory.go_down(RetryLater("full", after=2.0))
    target = road.target()

    def recover(seconds: float) -> None:
        road.waited.append(seconds)
        road.memory.come_up()

    outcome = deliver(road.lake, road.state, target, run_id="run", patience=Patience(sleep=recover))
    assert (outcome.accepted, road.waited) == (1, [2.0])


def test_a_destination_that_stays_down_holds_nobody_else_up(road: Road) -> None:
    road.store({"id": "1"})
    archive = MemoryDestination()
    road.memory.go_down()
    with pytest.raises(RetryLater):
        road.deliver()
    assert counts(road.deliver(road.target(EVERYTHING, "archive", archive))) == (1, 1, 0, 0)
    assert (lag(road.lake, road.state, road.target()), lag(road.lake, road.state, road.target(EVERYTHING, "archive"))) == (1, 0)
    road.memory.come_up()
    assert counts(road.deliver()) == (1, 1, 0, 0)


def test_a_wish_to_wait_longer_than_a_run_should_is_left_to_the_next_run(road: Road) -> None:
    road.store({"id": "1"})
    road.memory.go_down(RetryLater("come back tomorrow", after=86_400))
    with pytest.raises(RetryLater):
        road.deliver()
    assert road.waited == []


def test_what_was_confirmed_before_an_interruption_is_not_sent_again(road: Road) -> None:
    road.store(*({"id": str(n)} for n in range(10)))
    road.memory.go_down(after_records=4)
    with pytest.raises(RetryLater):
        road.deliver(attempts=1)
    assert road.state.ledger.totals("out.memory")["accepted"] == 4
    road.memory.come_up()
    assert counts(road.deliver()) == (6, 6, 0, 0)
    sent = [seq for d in road.memory.memory.deliveries if d.after >= 4 for seq in d.rows["_muxly_seq"].to_pylist()]
    assert sent == [5, 6, 7, 8, 9, 10]


@pytest.mark.parametrize("whole", [False, True])
def test_a_poison_record_is_shelved_alone(road: Road, whole: bool) -> None:
    road.store(*({"id": str(n)} for n in range(10_000)))
    road.memory.refuse(lambda record: "too long" if record["key"] == "42" else None, whole=whole)
    assert counts(road.deliver()) == (10_000, 9_999, 1, 0)
    [letter] = road.state.ledger.dead_letters("out")
    assert (letter.reason, letter.name, letter.seq) == ("too long", "out.memory", 43)
    extra = len(road.memory.memory.deliveries) - 1
    assert extra <= (2 * math.log2(10_000) + 2 if whole else 0)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(poison=st.sets(st.integers(0, 39)), small=st.sets(st.integers(0, 39)), whole=st.booleans())
def test_read_is_accepted_plus_refused_plus_unrouted(tmp_path: Path, poison: set[int], small: set[int], whole: bool) -> None:
    road = Road(tmp_path / f"{len(list(tmp_path.iterdir()))}")
    road.store(*({"id": str(n), "amount": 1 if n in small else 1000} for n in range(40)))
    road.memory.refuse(lambda record: "no" if int(record["key"]) in poison else None, whole=whole)
    outcome = road.deliver(road.target(BIG))
    assert counts(outcome) == (40, 40 - len(poison | small), len(poison - small), len(small))
    assert road.state.ledger.totals("out.memory") == {
        "read": 40,
        "accepted": outcome.accepted,
        "refused": outcome.refused,
        "unrouted": outcome.unrouted,
    }
    assert len(road.state.ledger.dead_letters()) == outcome.refused
    assert sorted(int(data["id"]) for data in road.memory.data) == sorted(set(range(40)) - poison - small)
    road.state.close()


def test_an_error_that_needs_a_person_is_not_retried(road: Road) -> None:
    road.store({"id": "1"})
    road.memory.go_down(SignInError("the token is refused"))
    with pytest.raises(SignInError):
        road.deliver()
    assert road.waited == []


def test_a_destination_that_miscounts_is_found_out(road: Road) -> None:
    class Forgetful(MemoryDestination):
        def deliver(self, delivery: Any) -> Receipt:
            return Receipt(0)

    road.store({"id": "1"})
    with pytest.raises(MuxlyError, match="answered for 0 accepted and 0 refused records, but was given 1"):
        road.deliver(road.target(destination=Forgetful()))


def test_a_destination_that_gets_nowhere_is_not_asked_for_ever(road: Road) -> None:
    class Idle(MemoryDestination):
        def deliver(self, delivery: Any) -> Receipt:
            return Receipt(0, upto=delivery.after)

    road.store({"id": "1"})
    with pytest.raises(MuxlyError, match="answered for nothing of 1 records"):
        road.deliver(road.target(destination=Idle()))


def test_a_destination_that_keeps_offsets_is_believed_over_the_ledger(road: Road) -> None:
    class Keeping(MemoryDestination):
        def position(self, delivery_id: str, table_id: str) -> int | None:
            return 3

    road.store(*({"id": str(n)} for n in range(5)))
    keeping = Keeping()
    assert counts(road.deliver(road.target(destination=keeping))) == (5, 5, 0, 0)
    assert [data["id"] for data in keeping.data] == ["3", "4"]
    assert "recovered" in road.state.ledger.receipts("out.memory")[-1].detail


def test_a_replay_reaches_only_the_target_that_refused(road: Road) -> None:
    road.store({"id": "1"}, {"id": "2"})
    road.memory.refuse(lambda record: "closed" if record["key"] == "1" else None)
    road.deliver()
    letters = road.state.ledger.dead_letters()
    assert replay(road.lake, road.state, road.target(), letters, run_id="again") == {"replayed": 0, "superseded": 0, "refused": 1}
    road.memory.refuse(lambda record: None)
    assert replay(road.lake, road.state, road.target(), letters, run_id="again") == {"replayed": 1, "superseded": 0, "refused": 0}
    assert [data["id"] for data in road.memory.data] == ["2", "1"]
    assert road.state.ledger.dead_letters() == []


def test_a_replay_never_undoes_a_newer_version(road: Road) -> None:
    road.store({"id": "1", "amount": 1})
    road.memory.refuse(lambda record: "closed")
    road.deliver()
    road.memory.refuse(lambda record: None)
    road.store({"id": "1", "amount": 2})
    road.deliver()
    assert replay(road.lake, road.state, road.target(), road.state.ledger.dead_letters(), run_id="again")["superseded"] == 1
    assert [data["amount"] for data in road.memory.data] == [2]


def test_one_target_delivers_once_at_a_time(road: Road) -> None:
    class Meeting(MemoryDestination):
        def deliver(self, delivery: Any) -> Receipt:
            with pytest.raises(BusyError, match="another run of deliver.out.memory"):
                road.deliver()
            return super().deliver(delivery)

    road.store({"id": "1"})
    assert road.deliver(road.target(destination=Meeting())).accepted == 1


def test_a_table_that_is_not_there_yet_says_so(road: Road) -> None:
    with pytest.raises(MuxlyError, match="crm.deals has no data yet"):
        road.deliver()


def test_trace_tells_which_rule_decided_and_which_receipt_covers(road: Road) -> None:
    road.store({"id": "1", "amount": 5}, {"id": "2", "amount": 500}, {"id": "3", "amount": 900})
    big = road.target(BIG)
    road.memory.refuse(lambda record: "closed" if record["key"] == "3" else None)
    road.deliver(big)
    assembly = Assembly(Project(name="test"), {}, {}, {"crm.deals": scripted(batches())}, {}, {big.name: big}, {})

    def told(text: str) -> dict[str, Any]:
        [story] = tracing.trace(road.lake, road.state, assembly, text)
        target: dict[str, Any] = story["targets"][0]
        return target

    assert [told(f"crm.deals {key}")["outcome"] for key in "123"] == ["not routed here", "accepted", "refused"]
    [big_rule] = told("crm.deals 2")["rules"]
    assert big_rule == {
        "rule": "big",
        "when": "amount > 100",
        "answer": True,
        "sampled": True,
        "decided": True,
        "because": [{"text": "amount > 100", "answer": True, "values": {"amount": 500}}],
        "to": ["memory"],
    }
    assert told("crm.deals 1")["otherwise"] == ["archive"]
    assert told("crm.deals 2")["receipt"]["run"] == "run"
    assert told("crm.deals/3")["dead_letter"]["reason"] == "closed"
    table_id = road.lake.existing("crm.deals").table_id
    assert told(f"crm.deals:{table_id}:2")["outcome"] == "accepted"
    road.store({"id": "4", "amount": 500})
    assert told("crm.deals 4")["outcome"] == "waiting"
    for nothing in ("crm.deals 99", f"crm.deals:{table_id}:99", "crm.deals:00000000:1"):
        with pytest.raises(ConfigurationError):
            told(nothing)
