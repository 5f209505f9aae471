"""What is done to records on their way: steps of the route and of its rules, templates, samples; and that every change is counted."""

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import PrivateAttr

from muxly_dagster import catalog, records
from muxly_dagster.assembly import load_assembly
from muxly_dagster.delivery import Stopped, skip
from muxly_dagster.destination import Delivery, Receipt
from muxly_dagster.errors import ConfigurationError, MuxlyError, RetryLater
from muxly_dagster.outcome import Outcome
from muxly_dagster.routing import Router, Rule
from muxly_dagster.testing import MemoryDestination
from muxly_dagster.transform import Step
from muxly_dagster_tests.project.shelf import write
from muxly_dagster_tests.road.lane import Road, counts


def steps(*written: Mapping[str, Any]) -> tuple[Step, ...]:
    return tuple(catalog.step_class(name).parse(settings) for each in written for name, settings in each.items())


def deals(*numbers: int, **more: Any) -> list[dict[str, Any]]:
    return [{"id": str(number), "amount": number, **more} for number in numbers]


# ---- steps ----------------------------------------------------------------------------------------------------------------


CONTACT = {"mail": "a@b.c", "tags": ["x"]}


@pytest.mark.parametrize(
    ("step", "data"),
    [
        ({"rename": {"amount": "value"}}, {"id": "1", "value": 5, "contact": CONTACT}),
        ({"set": {"amount": "amount * 2", "half": "amount / 2"}}, {"id": "1", "amount": 10, "contact": CONTACT, "half": 2.5}),
        ({"drop": "contact"}, {"id": "1", "amount": 5}),
        ({"mask": {"id": "redact"}}, {"id": "***", "amount": 5, "contact": CONTACT}),
        ({"filter": "amount > 1"}, {"id": "1", "amount": 5, "contact": CONTACT}),
        ({"flatten": {"contact": {"mail": "string", "tags": "json"}}}, {"id": "1", "amount": 5, **CONTACT}),
        ({"cast": {"amount": "string"}}, {"id": "1", "amount": "5", "contact": CONTACT}),
        ({"dedupe": "amount"}, {"id": "1", "amount": 5, "contact": CONTACT}),
    ],
    ids=lambda value: next(iter(value)),
)
def test_a_step_changes_the_data_and_leaves_the_envelope_alone(road: Road, step: dict[str, Any], data: dict[str, Any]) -> None:
    road.store({"id": "1", "amount": 5, "contact": CONTACT})
    plain, archive = MemoryDestination(), road.target(name="archive", destination=MemoryDestination())
    assert counts(road.deliver(road.target(destination=plain))) == (1, 1, 0, 0)
    assert counts(road.deliver(road.target(name="archive", destination=archive.destination, steps={"": steps(step)}))) == (1, 1, 0, 0)
    assert isinstance(archive.destination, MemoryDestination)
    [before], [after] = plain.memory.taken, archive.destination.memory.taken
    assert after["data"] == data
    same = ("id", "connector_id", "stream", "op", "key", "timestamp")
    assert {name: after[name] for name in same} == {name: before[name] for name in same}
    assert after["metadata"]["content_hash"] == before["metadata"]["content_hash"]


def test_what_a_step_leaves_out_is_counted_as_unrouted(road: Road) -> None:
    road.store(*deals(1, 2, 3, 4))
    assert counts(road.deliver(road.target(steps={"": steps({"filter": "amount % 2 = 0"})}))) == (4, 2, 0, 2)
    assert road.ids == ["2", "4"]
    road.store(*deals(1, 2, 3, 4, 5))
    assert counts(road.deliver(road.target(steps={"": steps({"filter": "false"})}))) == (1, 0, 0, 1)


def test_rules_see_the_records_as_they_were(road: Road) -> None:
    router = Router([Rule("amount > 100", ("memory",), "big")])
    road.store(*deals(50, 500))
    road.deliver(road.target(router, steps={"big": steps({"set": {"amount": "0"}})}))
    assert road.memory.data == [{"id": "500", "amount": 0}]


def test_records_of_several_rules_go_in_one_delivery_each_with_its_own_steps(road: Road) -> None:
    router = Router([Rule("amount > 100", ("memory",), "big"), Rule("amount > 10", ("memory",))], ("memory",))
    road.store(*deals(1, 500, 50, 2))
    own = {
        "big": steps({"rename": {"amount": "value"}}),
        "rule 2": steps({"cast": {"amount": "string"}}),
        "otherwise": steps({"drop": "amount"}),
    }
    target = road.target(router, steps=own)
    assert counts(road.deliver(target)) == (4, 4, 0, 0)
    assert road.memory.data == [
        {"id": "1", "value": None, "amount": None},
        {"id": "500", "value": 500, "amount": None},
        {"id": "50", "value": None, "amount": "50"},
        {"id": "2", "value": None, "amount": None},
    ]
    [delivery] = road.memory.memory.deliveries
    assert list(delivery.rules) == ["otherwise", "big", "rule 2", "otherwise"]
    assert delivery.rows[records.SEQ].to_pylist() == [1, 2, 3, 4]


def test_nested_values_stay_json(road: Road) -> None:
    road.store({"id": "1", "contact": {"mail": "a@b.c"}, "tags": ["x", "y"]})
    target = road.target(steps={"": steps({"rename": {"contact": "person"}}, {"set": {"first": "tags -> 0", "both": "{'a': 1}"}})})
    road.deliver(target)
    [delivery] = road.memory.memory.deliveries
    assert {f.name for f in delivery.rows.schema if records.is_json(f)} == {"person", "tags", "first", "both"}
    assert road.memory.data == [{"id": "1", "person": {"mail": "a@b.c"}, "tags": ["x", "y"], "first": "x", "both": {"a": 1}}]


def test_a_step_that_cannot_work_stops_the_delivery_and_names_its_place(road: Road) -> None:
    road.store(*deals(1))
    router = Router([Rule("amount > 0", ("memory",), "all of it")])
    target = road.target(router, steps={"all of it": steps({"drop": "amuont"})})
    with pytest.raises(ConfigurationError, match=r"routes\.out\.rules \(all of it\)\.steps\.1 \(drop\).*did you mean amount") as caught:
        road.deliver(target)
    assert "amuont" in str(caught.value)
    assert road.state.ledger.totals("out.memory")["read"] == 0


def test_a_step_that_fails_on_a_record_stops_the_delivery_with_the_value(road: Road) -> None:
    road.store({"id": "1", "amount": "12"}, {"id": "2", "amount": "many"})
    with pytest.raises(MuxlyError, match="column amount holds many, which is not integer"):
        road.deliver(road.target(steps={"": steps({"cast": {"amount": "integer"}})}))
    null = steps({"cast": {"columns": {"amount": "integer"}, "on_error": None}})
    assert counts(road.deliver(road.target(steps={"": null}))) == (2, 2, 0, 0)
    assert [data["amount"] for data in road.memory.data] == [12, None]


def test_a_deletion_goes_through_the_steps_with_its_last_values(road: Road) -> None:
    target = road.target(steps={"": steps({"filter": "amount > 1"}, {"rename": {"amount": "value"}})})
    road.store(*deals(1, 2))
    road.deliver(target)
    road.store(whole=True)
    assert counts(road.deliver(target)) == (2, 1, 0, 1)
    assert [(each["op"], each["data"]) for each in road.memory.memory.taken] == [
        ("upsert", {"id": "2", "value": 2}),
        ("delete", {"id": "2", "value": 2}),
    ]


PROJECT = """
sources: {crm: {connector: files, path: ., pulls: {deals: {glob: "*.csv", key: [id]}}}}
destinations:
  warehouse: {type: database, url: "sqlite:///warehouse.db", mode: mirror}
routes:
  out: {from: crm.deals, to: warehouse, steps: [rename: {id: number}, set: {double: amount * 2}]}
  lost: {from: crm.deals, to: {warehouse: {table: lost}}, steps: [drop: id]}
"""


def test_a_renamed_key_is_the_key_of_the_table_it_arrives_in(road: Road, tmp_path: Path) -> None:
    target = load_assembly(write(tmp_path, text=PROJECT), {}).targets["out.warehouse"]
    road.store(*deals(1, 2, 3))
    road.deliver(target)
    road.store({"id": "1", "amount": 10}, {"id": "3", "amount": 3}, whole=True)
    assert counts(road.deliver(target)) == (2, 2, 0, 0)
    with sqlite3.connect(tmp_path / "warehouse.db") as connection:
        assert connection.execute("select number, amount, double from crm_deals order by 1").fetchall() == [("1", 10, 20), ("3", 3, 6)]
    connection.close()


def test_a_key_that_a_step_leaves_out_is_told(road: Road, tmp_path: Path) -> None:
    target = load_assembly(write(tmp_path, text=PROJECT), {}).targets["lost.warehouse"]
    road.store(*deals(1))
    with pytest.raises(ConfigurationError, match="the key column id of crm.deals is not among its columns"):
        road.deliver(target)


# ---- templates ------------------------------------------------------------------------------------------------------------


def test_a_rule_tells_the_destination_its_name_and_its_templates(road: Road) -> None:
    templates = {"big": {"text": "Big: {{ id }}"}}
    router = Router([Rule("amount > 100", ("memory",), "big")], ("memory",))
    road.store(*deals(500, 5))
    road.deliver(road.target(router, templates=templates))
    [delivery] = road.memory.memory.deliveries
    assert delivery.templates == templates
    told = [(delivery.rule_of(row), delivery.template_of(row, "text", "else")) for row in (0, 1)]
    assert told == [("big", "Big: {{ id }}"), ("otherwise", "else")]


def test_without_a_choice_there_are_no_rules_to_tell(road: Road) -> None:
    road.store(*deals(1))
    road.deliver()
    assert not road.memory.memory.deliveries[0].rules


# ---- samples --------------------------------------------------------------------------------------------------------------


def changes(count: int, op: str = "upsert") -> pa.Table:
    """Changes of so many keys, as the lake has them."""
    keys = [f"deal-{number}" for number in range(count)]
    at = pa.array([0] * count, records.TIMESTAMP)
    columns = [range(1, count + 1), [op] * count, keys, [0] * count, at, ["run"] * count, [None] * count]
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, records.ENVELOPE, strict=True)], schema=records.ENVELOPE)


def test_a_sample_is_about_its_share_and_the_same_every_time() -> None:
    rows = changes(10_000)
    for share in (0.0, 0.01, 0.1, 0.5, 0.9, 1.0):
        taken = Router([Rule(None, ("memory",), "some", share)]).route(rows, "memory")
        assert abs(taken.mean() - share) < 0.02, share
        again = Router([Rule(None, ("memory",), "some", share)]).route(rows.slice(5000), "memory")
        assert (again == taken[5000:]).all(), "a key is in the sample or not, whatever comes with it"


def test_a_larger_sample_holds_the_smaller_one() -> None:
    rows = changes(5_000)
    small, large = (Router([Rule(None, ("memory",), "some", share)]).route(rows, "memory") for share in (0.1, 0.4))
    assert (large | ~small).all()


def test_rules_sample_apart_from_each_other() -> None:
    rows = changes(10_000)
    router = Router([Rule(None, ("a",), sample=0.5), Rule(None, ("b",), sample=0.5), Rule(None, ("c",), "x", 0.5)], match="all")
    masks = [router.route(rows, name) for name in "abc"]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert abs(np.mean(masks[first] & masks[second]) - 0.25) < 0.02


def test_deletions_follow_their_key(road: Road) -> None:
    target = road.target(Router([Rule(None, ("memory",), sample=0.5)]))
    road.store(*deals(*range(100)))
    first = road.deliver(target)
    taken = set(road.ids)
    assert first.accepted + first.unrouted == 100 and 25 < len(taken) < 75
    road.store(whole=True)
    road.deliver(target)
    assert {each["key"] for each in road.memory.memory.taken if each["op"] == "delete"} == taken


def test_what_is_not_in_the_sample_is_asked_the_next_rule(road: Road) -> None:
    rules = [Rule("amount < 50", ("memory",), "some", 0.5), Rule("amount < 80", ("memory",), "rest")]
    road.store(*deals(*range(100)))
    assert counts(road.deliver(road.target(Router(rules)))) == (100, 80, 0, 20)
    [delivery] = road.memory.memory.deliveries
    assert {rule: list(delivery.rules).count(rule) > 10 for rule in set(delivery.rules)} == {"some": True, "rest": True}


def test_under_match_all_a_destination_that_several_rules_name_gets_a_record_once_by_the_first(road: Road) -> None:
    router = Router([Rule("amount > 100", ("memory",), "big"), Rule("amount > 10", ("memory", "archive"), "some")], ("memory",), "all")
    road.store(*deals(5, 50, 500))
    target = road.target(router, steps={"some": steps({"set": {"rule": "'some'"}}), "big": steps({"set": {"rule": "'big'"}})})
    assert counts(road.deliver(target)) == (3, 3, 0, 0)
    assert [data["rule"] for data in road.memory.data] == [None, "some", "big"]
    assert counts(road.deliver(road.target(router, "archive", MemoryDestination()))) == (3, 2, 0, 1)


# ---- every change is counted ----------------------------------------------------------------------------------------------

RULES = st.lists(
    st.tuples(
        st.sampled_from([None, "amount > 3", "amount % 2 = 0", "note = 'x'", "note::integer > 2", "_muxly_op = 'delete'"]),
        st.sampled_from([("memory",), ("archive", "memory"), ("archive",)]),
        st.sampled_from([None, None, 0.5]),
        st.sampled_from([(), ({"filter": "amount <> 4"},), ({"set": {"more": "amount + 1"}},), ({"drop": "note"},)]),
    ),
    min_size=1,
    max_size=3,
)
VALUES = st.tuples(st.integers(1, 5), st.sampled_from(["x", "3", None]))
POLICIES = st.fixed_dictionaries(
    {"on_error": st.sampled_from(["stop", "retry", "dead_letter"])},
    optional={
        "batching": st.sampled_from([{"count": 1}, {"count": 3}, {"bytes": "1kB"}, {"count": 2, "age": "1h"}, {"age": "1h"}]),
        "dedupe": st.sampled_from([{"within": "1h", "by": ["amount"]}, {"within": "1d"}]),
        "breaker": st.just({"failures": 2}),
    },
)


class Confirming(MemoryDestination):
    """Remembers every confirmation it ever gave, so that a repetition shows."""

    _confirmed: list[int] = PrivateAttr(default_factory=list)

    def deliver(self, delivery: Delivery) -> Receipt:
        receipt = super().deliver(delivery)
        refused = {refusal.seq for refusal in receipt.refused}
        seqs = delivery.rows[records.SEQ].to_pylist()
        self._confirmed += [seq for seq in seqs if seq not in refused and (receipt.upto is None or seq <= receipt.upto)]
        return receipt


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rules=RULES,
    match=st.sampled_from(["first", "all"]),
    otherwise=st.sampled_from([(), ("memory",), ("archive",)]),
    policy=POLICIES,
    pulls=st.lists(st.dictionaries(st.sampled_from("abcdef"), VALUES, max_size=6), min_size=1, max_size=3),
    refused=st.sets(st.integers(1, 5), max_size=3),
    whole=st.booleans(),
    failures=st.lists(st.integers(0, 4), max_size=3),
)
def test_every_change_is_counted_once_and_nothing_is_lost_or_sent_twice(
    tmp_path_factory: pytest.TempPathFactory,
    rules: Any,
    match: Any,
    otherwise: Any,
    policy: Any,
    pulls: Any,
    refused: Any,
    whole: bool,
    failures: Any,
) -> None:
    road = Road(tmp_path_factory.mktemp("road"))
    try:
        router = Router([Rule(when, to, sample=sample) for when, to, sample, _ in rules], otherwise, match)
        done = {f"rule {number}": steps(*own) for number, (*_, own) in enumerate(rules, 1) if own}
        road.memory = confirming = Confirming(**policy)
        target = road.target(router, steps=done)
        road.memory.refuse(lambda record: "no" if record["data"].get("amount") in refused else None, whole=whole)
        for pull in pulls:
            road.store(
                {"id": "z", "amount": 1, "note": "n"}, *({"id": key, "amount": a, "note": n} for key, (a, n) in pull.items()), whole=True
            )
            if failures:
                road.memory.go_down(RetryLater("away"), after_records=failures.pop())
                settle(road, target)
            road.memory.come_up()
        road.later(days=1)
        for _ in range(20):
            if settle(road, target) is not None:
                break
        else:
            raise AssertionError("it never comes to an end")
        table = road.lake.existing("crm.deals")
        offset = road.state.ledger.offset("out.memory")
        assert offset is not None and offset.seq == table.head
        receipts = sorted(road.state.ledger.receipts("out.memory", limit=1000), key=lambda each: each.after)
        assert [each.after for each in receipts] == [0, *(each.upto for each in receipts[:-1])], "each change is in one receipt"
        for each in receipts:
            assert each.read == each.upto - each.after == each.accepted + each.refused + each.unrouted
            assert min(each.accepted, each.refused, each.unrouted) >= 0
        totals = road.state.ledger.totals("out.memory")
        taken = [record["metadata"]["seq"] for record in road.memory.memory.taken]
        assert len(taken) == len(set(taken)) == totals["accepted"]
        letters = road.state.ledger.letters_of("out.memory", table.table_id, "open" if policy["on_error"] != "stop" else "skipped")
        assert len(letters) == totals["refused"] and not set(letters) & set(taken)
        routed = np.flatnonzero(router.route(table.changes(0, table.head), "memory")) + 1
        left = set(routed.tolist()) - set(taken) - set(letters)
        if "dedupe" not in policy and not any("filter" in step for *_, own in rules for step in own):
            assert left == set(), "what the rules send was sent"
        assert set(taken) | set(letters) <= set(routed.tolist())
        assert sorted(confirming._confirmed) == sorted(taken), "nothing that was confirmed is sent again"
    finally:
        road.state.close()


def settle(road: Road, target: Any) -> Outcome | None:
    """One run, as a person would help it along: a stopped delivery is passed over. None where there is more to do."""
    try:
        outcome = road.deliver(target, attempts=1)
    except RetryLater:
        road.later(hours=2)
        return None
    except Stopped:
        if road.memory.memory.down is None:
            skip(road.state, road.state.ledger.dead_letters())
        return None
    return outcome if "waits" not in outcome.metadata else None
