"""Rules decide where each change goes, all in one query, and say why."""

import json
import threading

import numpy as np
import pyarrow as pa
import pytest

from muxly_dagster import records
from muxly_dagster.errors import ConfigurationError
from muxly_dagster.routing import ELSEWHERE, OTHERWISE, Router, Rule, rule_names
from muxly_dagster.testing import changes

DEALS = pa.table(
    {
        "_muxly_seq": pa.array([1, 2, 3, 4]),
        "_muxly_op": ["upsert", "upsert", "delete", "upsert"],
        "amount": pa.array([50_000, 500, 20_000, None]),
        "stage": ["won", "won", "lost", "open"],
        "props": ['{"city": "Rome"}', None, '{"city": "Oslo"}', "not json"],
    }
)
BIG = Rule("amount > 10000", ("slack", "warehouse"), "big")
WON = Rule("stage = 'won'", ("crm", "warehouse"))


def routed(router: Router, rows: pa.Table = DEALS) -> dict[str, list[bool]]:
    return {name: router.route(rows, name).tolist() for name in router.destinations}


def test_the_first_rule_that_matches_decides():
    assert routed(Router([BIG, WON], ("archive",))) == {
        "slack": [True, False, True, False],
        "warehouse": [True, True, True, False],
        "crm": [False, True, False, False],
        "archive": [False, False, False, True],
    }


def test_all_rules_that_match_decide_when_asked_to():
    assert routed(Router([BIG, WON], ("archive",), "all")) == {
        "slack": [True, False, True, False],
        "warehouse": [True, True, True, False],
        "crm": [True, True, False, False],
        "archive": [False, False, False, True],
    }


def test_a_rule_without_a_condition_takes_what_is_left():
    assert routed(Router([BIG, Rule(None, ("rest",))])) == {
        "slack": [True, False, True, False],
        "warehouse": [True, False, True, False],
        "rest": [False, True, False, True],
    }


def test_a_destination_may_be_in_a_rule_and_in_otherwise():
    assert Router([BIG, WON], ("warehouse",)).route(DEALS, "warehouse").all()


def test_without_otherwise_what_matches_nothing_goes_nowhere():
    assert Router([BIG]).decide(DEALS).destinations_of(1) == ()


@pytest.mark.parametrize("match", ["first", "all"])
def test_decisions_rows_and_masks_agree(match):
    router = Router([BIG, WON, Rule("amount is null", ("slack",))], ("archive", "crm"), match)
    decisions = router.decide(DEALS)
    for name in router.destinations:
        assert decisions.mask(name).tolist() == [name in decisions.destinations_of(row) for row in range(len(DEALS))]
        assert router.route(DEALS, name).tolist() == decisions.mask(name).tolist()


def test_decisions_say_which_rule_decided_and_what_each_answered():
    decisions = Router([BIG, WON], ("archive",)).decide(DEALS)
    assert [decisions.rules_of(row) for row in range(4)] == [(0,), (1,), (0,), ()]
    assert decisions.answers_of(0) == (True, True)
    assert decisions.answers_of(3) == (False, False)
    assert decisions.destinations_of(0) == ("slack", "warehouse")


def test_null_is_not_true_and_negation_does_not_make_it_so():
    assert Router([Rule("not (amount > 1)", ("a",))]).route(DEALS, "a").tolist() == [False, False, False, False]


def test_json_fields_and_muxlys_own_columns_can_be_asked_for():
    assert Router([Rule("props ->> 'city' = 'Rome'", ("a",))]).route(DEALS, "a").tolist() == [True, False, False, False]
    assert Router([Rule("_muxly_op = 'delete'", ("a",))]).route(DEALS, "a").tolist() == [False, False, True, False]


def test_a_row_that_a_rule_cannot_answer_about_is_counted_and_goes_on_to_the_next_rule():
    router = Router([Rule("props ->> 'city' = 'Rome'", ("rome",), "rome"), Rule("stage::integer > 3", ("high",))], ("archive",))
    decisions = router.decide(DEALS)
    assert decisions.failures == {"rome": 1, "rule 2": 4}
    assert decisions.answers_of(3) == (None, None)
    assert decisions.mask("rome").tolist() == [True, False, False, False]
    assert decisions.mask("archive").tolist() == [False, True, True, True]


@pytest.mark.parametrize(
    "when",
    [
        "country = 'DE'",
        "lower(country) = 'de'",
        "country > 3",
        "country ->> 'x' = 'y'",
        "strftime(country, '%Y') = '2026'",
        "date_trunc('day', country) > now()",
        "lower(country) = 'de' and strftime(since, '%Y') = '2026'",
        "country",
    ],
)
def test_a_column_that_no_record_has_shown_yet_is_null(when):
    decisions = Router([Rule(when, ("a",)), BIG], ("rest",)).decide(DEALS)
    assert not decisions.mask("a").any()
    assert decisions.mask("slack").tolist() == [True, False, True, False]
    assert decisions.failures == {}


def test_a_rule_that_cannot_be_asked_of_the_table_stops_the_delivery_and_is_named():
    with pytest.raises(ConfigurationError, match="rule 2 cannot be asked: Cannot compare values of type VARCHAR"):
        Router([BIG, Rule("stage > 3", ("a",))]).route(DEALS, "a")


def test_a_rule_that_gives_no_truth_is_refused():
    with pytest.raises(ConfigurationError, match="big is not a condition: it gives int64"):
        Router([WON, Rule("amount", ("a",), "big")]).route(DEALS, "a")


def test_rules_a_destination_does_not_depend_on_are_not_asked_for_it():
    broken = Rule("stage > 3", ("later",))
    assert Router([BIG, broken]).route(DEALS, "slack").tolist() == [True, False, True, False]
    assert Router([broken, BIG], match="all").route(DEALS, "slack").tolist() == [True, False, True, False]
    with pytest.raises(ConfigurationError):
        Router([broken, BIG]).route(DEALS, "slack")


def test_letter_case_of_columns_does_not_count_unless_two_differ_in_nothing_else():
    assert Router([Rule("AMOUNT > 10000", ("a",))]).route(DEALS, "a").tolist() == [True, False, True, False]
    twins = pa.table({"Email": ["x"], "email": ["y"]})
    assert Router([Rule("email = 'y'", ("a",))]).route(twins, "a").tolist() == [True]
    assert Router([Rule("\"Email\" = 'x'", ("a",))]).route(twins, "a").tolist() == [True]
    with pytest.raises(ConfigurationError, match="both Email and email"):
        Router([Rule("\"Email\" = 'x' and email = 'y'", ("a",))]).route(twins, "a")


def test_a_batch_may_be_empty_and_a_rule_may_name_no_column():
    assert Router([BIG]).route(DEALS.slice(0, 0), "slack").tolist() == []
    assert Router([Rule("1 = 1", ("a",))]).route(DEALS, "a").all()


def test_a_comment_at_the_end_of_a_rule_does_no_harm():
    assert Router([Rule("amount > 10000 -- big", ("a",)), WON]).route(DEALS, "crm").tolist() == [False, True, False, False]


def test_answers_come_in_the_order_of_the_rows_however_many_there_are():
    numbers = np.random.default_rng(7).integers(0, 1000, 200_000)
    rows = pa.chunked_array([numbers[:1], numbers[1:70_000], numbers[70_000:]])
    assert np.array_equal(Router([Rule("n < 500", ("a",))]).route(pa.table({"n": rows}), "a"), numbers < 500)


def test_threads_do_not_disturb_each_other():
    results: dict[int, bool] = {}

    def work(limit: int) -> None:
        rows = pa.table({"n": list(range(1000))})
        router = Router([Rule(f"n < {limit}", ("a",))])
        results[limit] = all(int(router.route(rows, "a").sum()) == limit for _ in range(20))

    threads = [threading.Thread(target=work, args=(limit,)) for limit in (1, 10, 100, 900)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {1: True, 10: True, 100: True, 900: True}


# ---- problems, found before anything runs

SCHEMA = pa.schema([("amount", pa.int64()), ("stage", pa.string()), pa.field("props", pa.string(), metadata=records.JSON_FIELD)])


@pytest.mark.parametrize(
    ("when", "why"),
    [
        ("amont > 3", "there is no column amont; did you mean amount?"),
        ("op = 'delete'", "there is no column op; did you mean _muxly_op?"),
        ("amount", "not true or false"),
        ("stage > 3", "cannot be asked: Cannot compare values of type VARCHAR"),
        ("is_big(amount)", "Scalar Function with name is_big does not exist"),
        ("sum(amount) > 1", "contains an aggregate"),
        ("amount > (select 1)", "contains a subquery"),
        ("random() > 0.5", "volatile"),
        ("amount >", "is not one SQL expression"),
        ("drop table x", "is not an expression"),
        ("", "empty"),
    ],
)
def test_a_rule_that_is_wrong_is_found_when_the_schema_is_known(when, why):
    router = Router([BIG, Rule(when, ("a",)), WON])
    ((index, message),) = router.problems(SCHEMA)
    assert index == 1
    assert why in message


@pytest.mark.parametrize("when", ["amount > 3", "_muxly_op = 'delete'", "props ->> 'a' = 'b'", "STAGE = 'won'", None])
def test_a_sound_rule_has_no_problem(when):
    assert Router([Rule(when, ("a",))]).problems(SCHEMA) == []


@pytest.mark.parametrize(
    "when", ["what > 3", "strftime(a, '%Y') = lower(b)", "date_diff('day', a, now()) > 3", "flag", "lower(a) = b || strftime(c, d)"]
)
def test_columns_and_types_are_no_problem_while_the_schema_is_unknown(when):
    assert Router([Rule(when, ("a",))]).problems(None) == []


@pytest.mark.parametrize("when", ["nosuch(a) > 3", "sum(a) > 1", "a >"])
def test_what_can_never_work_is_a_problem_even_then(when):
    assert [index for index, _ in Router([BIG, Rule(when, ("a",))]).problems(None)] == [1]


def test_every_problem_is_reported():
    assert [index for index, _ in Router([Rule("x >", ("a",)), BIG, Rule("amont > stag", ("a",))]).problems(SCHEMA)] == [0, 2, 2]


def test_building_a_router_reads_nothing():
    assert Router([Rule("this is not SQL at all (", ("a",))]).destinations == ("a",)


def test_a_part_that_stands_twice_and_fails_fails_only_its_rule() -> None:
    rows = changes([{"id": 1, "size": "big"}, {"id": 2, "size": "5"}])
    router = Router([Rule("size::int > 0 and size::int < 9", ("small",)), Rule("size::int > 0", ("any",))], ("rest",))
    decisions = router.decide(rows)
    assert decisions.failures == {"rule 1": 1, "rule 2": 1}
    assert [decisions.destinations_of(row) for row in range(2)] == [("rest",), ("small",)]


def test_a_sample_is_a_share_of_the_keys_and_always_the_same() -> None:
    rows = changes([{"id": number} for number in range(10_000)])
    router = Router([Rule(None, ("a",), "first", sample=0.1), Rule(None, ("b",), "second", sample=0.1)], match="all")
    first, second = router.route(rows, "a"), router.route(rows, "b")
    assert 900 < first.sum() < 1100 and 900 < second.sum() < 1100
    assert 50 < (first & second).sum() < 160, "rules sample apart from each other"
    later = changes([{"id": number, "more": 1} for number in range(10_000)], ops=["delete"] * 10_000, first=20_001)
    assert (router.route(later, "a") == first).all(), "all changes of a key share its lot"
    assert router.decide(rows.slice(0, 3)).answers_of(0) == (True, True)


def test_rules_that_were_kept_decide_as_they_did() -> None:
    rows = changes([{"id": number, "amount": number} for number in range(100)])
    router = Router([Rule("amount > 50", ("a",), "big"), Rule(None, ("b",), sample=0.5)], ("c",), "all")
    again = Router.of(json.loads(json.dumps(router.written)))
    assert [(again.route(rows, name) == router.route(rows, name)).all() for name in "abc"] == [True] * 3


def test_for_each_row_the_rule_that_sends_it_is_named() -> None:
    rows = changes([{"id": 1, "amount": 5}, {"id": 2, "amount": 500}, {"id": 3, "amount": 50}])
    router = Router([Rule("amount > 100", ("a",)), Rule("amount > 10", ("a", "b"))], ("b",))
    decisions = router.decide(rows)
    assert decisions.rule_for("a").tolist() == [ELSEWHERE, 0, 1]
    assert decisions.rule_for("b").tolist() == [OTHERWISE, ELSEWHERE, 1]
    assert rule_names(router.rules) == {0: "rule 1", 1: "rule 2", OTHERWISE: "otherwise"}
    assert rule_names((Rule(None, ("a",)),)) == {}
