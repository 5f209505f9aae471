"""Known rows tell what changed exactly as a dictionary would."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muxly_dagster.lake import known as known_rows
from muxly_dagster.lake.known import KnownRows, contains

_batches = st.lists(st.dictionaries(st.integers(-50, 50), st.integers(-3, 3), max_size=30), max_size=12)


@given(before=st.dictionaries(st.integers(-50, 50), st.integers(-3, 3)), batches=_batches)
def test_known_rows_agree_with_a_dictionary(before: dict[int, int], batches: list[dict[int, int]]) -> None:
    known = KnownRows.from_log(_array(before.keys()), _array(before.values()), _array(range(len(before))), np.zeros(len(before), np.bool_))
    model, seen = dict(before), set()
    for batch in batches:
        changed = known.learn(_array(batch.keys()), _array(batch.values()))
        assert changed.tolist() == [model.get(key) != value for key, value in batch.items()]
        model |= batch
        seen |= batch.keys()
    assert known.unseen().tolist() == sorted(set(before) - seen)
    assert len(known) == len(model)


@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(-3, 3), st.booleans()), max_size=40), st.randoms())
def test_a_log_in_any_order_ends_in_the_newest_versions(log: list[tuple[int, int, bool]], random) -> None:  # type: ignore[no-untyped-def]
    model: dict[int, int] = {}
    for key, content, deleted in log:
        model.pop(key, None) if deleted else model.update({key: content})
    rows = [(seq, *row) for seq, row in enumerate(log)]
    random.shuffle(rows)
    known = KnownRows.from_log(
        _array([r[1] for r in rows]), _array([r[2] for r in rows]), _array([r[0] for r in rows]), np.array([r[3] for r in rows], np.bool_)
    )
    assert len(known) == len(model)
    assert not known.learn(_array(model.keys()), _array(model.values())).any()


def test_rows_are_found_in_runs_that_are_too_large_to_be_merged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_rows, "_LARGEST_RUN", 8)
    known = KnownRows()
    batches = [_array(range(first, 40, 8)) for first in range(8)]
    assert all(known.learn(batch, batch).all() for batch in batches)
    assert len(known) == 40
    assert not any(known.learn(batch, batch).any() for batch in batches)
    assert known.learn(_array([3, 30]), _array([3, 31])).tolist() == [False, True]


def test_contains_looks_up_sorted_keys() -> None:
    assert contains(_array([1, 3, 5]), _array([5, 4, 9, 1])).tolist() == [True, False, False, True]
    assert contains(_array([]), _array([1])).tolist() == [False]


def _array(values) -> np.ndarray:  # type: ignore[no-untyped-def, type-arg]
    return np.array(list(values), np.int64)


@given(st.sets(st.integers(-50, 50)), st.sets(st.integers(-50, 50)))
def test_records_can_be_seen_without_their_content(held: set[int], seen: set[int]) -> None:
    known = KnownRows.from_log(_array(held), _array(held), _array(range(len(held))), np.zeros(len(held), np.bool_))
    known.see(_array(sorted(seen)))
    assert known.unseen().tolist() == sorted(held - seen)
    assert not known.learn(_array(held), _array(held)).any(), "the content is what it was"
