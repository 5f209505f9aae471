"""What decided a condition is named, and is never at odds with what routing does."""

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muxly_dagster.errors import ConfigurationError
from muxly_dagster.explaining import Answer, Decided, Explanation, explain
from muxly_dagster.routing import Router, Rule

DEAL = pa.table(
    {
        "_muxly_seq": [7],
        "_muxly_op": ["upsert"],
        "amount": [500],
        "Stage": ["open"],
        "owner": pa.nulls(1, pa.string()),
        "props": ['{"city": "Rome"}'],
    }
)


def said(when: str, row: pa.Table = DEAL) -> tuple[Answer, list[tuple[str, Answer]]]:
    explained = explain(when, row)
    return explained.answer, [(decided.text, decided.answer) for decided in explained.decided]


def test_a_condition_without_parts_stands_for_itself_with_the_values_it_saw() -> None:
    assert explain("amount > 10000", DEAL) == Explanation(False, (Decided("amount > 10000", False, {"amount": 500}),))
    assert explain(" amount > 3 -- much;", DEAL) == Explanation(True, (Decided("amount > 3", True, {"amount": 500}),))
    assert explain("1 = 1;", DEAL) == Explanation(True, (Decided("1 = 1", True, {}),))


@pytest.mark.parametrize(
    ("when", "answer", "decided"),
    [
        ("amount > 1 and stage = 'won' and amount > 9999", False, [("stage = 'won'", False)]),
        ("amount > 1 and stage = 'open'", True, [("amount > 1", True), ("stage = 'open'", True)]),
        ("owner = 'ada' and stage = 'won'", False, [("stage = 'won'", False)]),
        ("amount > 1 and owner = 'ada'", None, [("owner = 'ada'", None)]),
        ("stage = 'won' or amount > 1 or amount > 2", True, [("amount > 1", True)]),
        ("stage = 'won' or amount > 9999", False, [("stage = 'won'", False), ("amount > 9999", False)]),
        ("stage = 'won' or owner = 'ada'", None, [("owner = 'ada'", None)]),
        ("amount > 1 and stage::int > 3", "failed", [("stage::int > 3", "failed")]),
        ("not (amount > 1 and stage = 'open')", False, [("amount > 1", True), ("stage = 'open'", True)]),
        ("not (amount > 1 and stage = 'won')", True, [("stage = 'won'", False)]),
        ("not (owner = 'ada' or stage = 'won')", None, [("owner = 'ada'", None)]),
        ("not stage = 'open'", False, [("not stage = 'open'", False)]),
        ("(amount > 9999 or (amount > 1 and stage = 'won'))", False, [("amount > 9999", False), ("stage = 'won'", False)]),
    ],
)
def test_the_parts_that_decided_are_named(when: str, answer: Answer, decided: list[tuple[str, Answer]]) -> None:
    assert said(when) == (answer, decided)


@pytest.mark.parametrize(
    "part",
    [
        "amount between 1 and 10",
        "amount NOT BETWEEN 1 AND 1000",
        "stage in ('won', 'lost and found')",
        "stage not in ('open')",
        "case when amount > 1 and stage = 'open' then false else true end",
        "(amount > 1 and stage = 'won') is true",
        "amount /* and so on */ > 9999",
        "amount\n  -- and\n  > 9999",
        "props ->> 'city' = 'Oslo'",
        "list_contains(['a', 'b and c'], stage)",
        "\"Stage\" = 'a and b'",
    ],
)
def test_an_and_that_connects_no_conditions_cuts_nothing(part: str) -> None:
    assert said(f"amount > 1 and {part} and stage = 'open'") == (False, [(part, False)])
    assert said(f"({part}\n) OR amount > 9999") == (False, [(part, False), ("amount > 9999", False)])


def test_values_are_those_of_the_columns_named_however_they_are_written() -> None:
    (decided,) = explain("AMOUNT > 1 and stage = 'won' || coalesce(nobody, '')", DEAL).decided
    assert decided.values == {"stage": "open", "nobody": None}
    (decided,) = explain("props ->> 'city' = 'Oslo' or _muxly_op = 'upsert'", DEAL).decided
    assert decided.values == {"_muxly_op": "upsert"}
    twins = pa.table({"Email": ["x"], "email": ["y"]})
    assert explain("\"email\" = 'y'", twins).decided[0].values == {"email": "y"}
    assert explain("\"Email\" = 'y'", twins).decided[0].values == {"Email": "x"}


def test_a_column_that_no_record_has_shown_yet_is_unknown() -> None:
    assert said("amount > 1 and strftime(since, '%Y') = '2026'") == (None, [("strftime(since, '%Y') = '2026'", None)])


def test_many_parts_are_named_by_the_condition_they_make() -> None:
    few = " or ".join(f"amount = {n}" for n in range(5))
    many = " or ".join(f"amount = {n}" for n in range(6))
    assert len(said(few)[1]) == 5
    assert said(many) == (False, [(many, False)])
    assert said(f"stage = 'won' or not ({many})") == (True, [(many, False)])
    assert explain(many, DEAL).decided[0].values == {"amount": 500}


def test_a_part_that_stands_there_twice_is_named_once() -> None:
    assert said("amount > 1 and (stage = 'won' or amount > 1)") == (True, [("amount > 1", True)])


def test_numbers_and_texts_count_as_truths_within_a_condition_as_they_do_in_sql() -> None:
    assert said("amount and stage = 'won'") == (False, [("stage = 'won'", False)])
    assert said("amount and stage = 'open'") == (True, [("amount", True), ("stage = 'open'", True)])


def test_a_failure_that_was_never_asked_about_decides_nothing() -> None:
    when = "1 = 2 and stage::int > 3"
    (truth,) = Router([Rule(when, ())]).decide(DEAL).answers_of(0)
    assert said(when) == ((False, [("1 = 2", False)]) if truth is False else ("failed", [("stage::int > 3", "failed")]))


def test_hundreds_of_parts_are_taken_apart() -> None:
    when = " and ".join([*(f"amount > {n}" for n in range(300)), "stage = 'won'", "amount > 9999"])
    assert said(when) == (False, [("stage = 'won'", False)])


@pytest.mark.parametrize("when", ["amount", "stage > 3", "amount >", "amount > 1; amount > 2", "nobody::nothing = 1"])
def test_what_cannot_be_asked_is_said_so(when: str) -> None:
    with pytest.raises(ConfigurationError):
        explain(when, DEAL)


# ---- properties -------------------------------------------------------------------------------------------------------

ATOMS = [
    "amount > {n}",
    "Amount between {n} and {m}",
    "amount not between {n} and {m}",
    "amount in ({n}, {m}, null)",
    "stage = '{word}'",
    "stage not in ('{word}', 'and')",
    "stage like '%{word}%'",
    "ratio * {n} >= amount",
    "ratio is not null",
    "stage::int > {n}",
    "(amount / 0)::int = {n}",
    "try_cast(stage as int) = {n}",
    "nobody = {n}",
    "coalesce(nobody, '{word}') = 'won'",
    "props ->> 'city' = '{word}'",
    "(props ->> 'size')::int > {n}",
    "case when amount > {n} and stage = '{word}' then ratio > 0 else null end",
    "_muxly_op = 'delete'",
    "true",
    "null",
]
WORDS = ["won", "open", "7", "", "Rome"]


@dataclass(frozen=True)
class Tree:
    """A generated condition: an atom, or a connection of others. `brackets` are written around it."""

    atom: str = ""
    kind: str = ""
    below: tuple["Tree", ...] = ()

    def text(self, spell: str) -> str:
        if self.atom:
            return self.atom
        parts = [each.text(spell) if each.atom and self.kind != "not" else f"({each.text(spell)})" for each in self.below]
        if self.kind == "not":
            return f"not {parts[0]}" if spell != " " else f"NOT{parts[0]}"
        return f"{spell}{self.kind}{spell}".join(parts)

    def atoms(self) -> list[str]:
        return [self.atom] if self.atom else [atom for each in self.below for atom in each.atoms()]

    def truth(self, answers: dict[str, bool | None]) -> bool | None:
        """SQL's logic of three values (SQL:2016, 6.39)."""
        if self.atom:
            return answers[self.atom]
        below = [each.truth(answers) for each in self.below]
        if self.kind == "not":
            return None if below[0] is None else not below[0]
        decisive = self.kind == "or"
        return decisive if decisive in below else None if None in below else not decisive


atoms = st.builds(
    lambda atom, n, m, word: Tree(atom.format(n=n, m=m, word=word)),
    st.sampled_from(ATOMS),
    st.integers(-2, 8),
    st.integers(0, 9),
    st.sampled_from(WORDS),
)
trees = st.recursive(
    atoms,
    lambda below: st.one_of(
        st.builds(lambda one: Tree(kind="not", below=(one,)), below),
        st.builds(
            lambda kind, some: Tree(kind=kind, below=tuple(some)), st.sampled_from(["and", "or"]), st.lists(below, min_size=2, max_size=3)
        ),
    ),
    max_leaves=8,
)
rows = st.builds(
    lambda amount, stage, ratio, props, op: pa.table(
        {
            "_muxly_op": [op],
            "amount": pa.array([amount], pa.int64()),
            "stage": pa.array([stage], pa.string()),
            "ratio": pa.array([ratio], pa.float64()),
            "props": pa.array([props], pa.string()),
        }
    ),
    st.none() | st.integers(-3, 9),
    st.none() | st.sampled_from(WORDS),
    st.none() | st.sampled_from([0.0, 0.5, -1.0, float("inf"), float("nan")]),
    st.none() | st.sampled_from(['{"city": "Rome", "size": 3}', '{"size": "big"}', "{}", "no json"]),
    st.sampled_from(["upsert", "delete"]),
)
spells = st.sampled_from([" ", "\n  ", " /* or and */ ", " -- and\n"])


def routed(when: str, row: pa.Table) -> tuple[bool | None, bool | None]:
    """What a rule says of a row, and of whether it is unknown."""
    true, unknown = Router([Rule(when, ()), Rule(f"({when}\n) is null", ())]).decide(row).answers_of(0)
    return true, unknown


def seen(answer: Answer) -> tuple[bool | None, bool | None]:
    return (None, None) if answer == "failed" else (answer is True, answer is None)


@settings(max_examples=150, deadline=None)
@given(trees, rows, spells)
def test_the_answer_is_routings_and_so_is_that_of_every_part(tree: Tree, row: pa.Table, spell: str) -> None:
    when = tree.text(spell)
    try:
        (answer,) = Router([Rule(when, ("a",))]).decide(row).answers_of(0)
    except ConfigurationError:
        with pytest.raises(ConfigurationError):
            explain(when, row)
        return
    explained = explain(when, row)
    assert seen(explained.answer)[0] == answer
    assert explained.decided
    for decided in explained.decided:
        assert decided.text in when
        assert seen(decided.answer) == routed(f"({decided.text})::boolean", row)


@settings(max_examples=150, deadline=None)
@given(trees, rows, st.data())
def test_the_named_parts_are_enough_for_the_answer(tree: Tree, row: pa.Table, data: Any) -> None:
    """Whatever the other parts had said, a condition that is true or false would be so."""
    try:
        explained = explain(tree.text(" "), row)
    except ConfigurationError:
        return  # the other property looks at these
    named = {decided.text: decided.answer for decided in explained.decided}
    if explained.answer in (None, "failed") or not named.keys() <= {*tree.atoms(), *(f"NOT({atom})" for atom in tree.atoms())}:
        return
    answers: dict[str, bool | None] = {}
    for atom in tree.atoms():
        if f"NOT({atom})" in named:
            negated = named[f"NOT({atom})"]
            answers[atom] = None if negated is None else not negated
        else:
            answers[atom] = named[atom] if atom in named else data.draw(st.sampled_from([True, False, None]), atom)  # type: ignore[assignment]
    assert tree.truth(answers) is explained.answer
