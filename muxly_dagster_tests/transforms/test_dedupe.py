import pyarrow as pa
import pytest

from muxly_dagster.errors import ConfigurationError
from muxly_dagster.transforms.dedupe import Dedupe

ROWS = pa.table({"email": ["a", "a", "b", None, None], "at": [1, 2, None, 5, 5], "v": ["old", "new", "only", "x", "y"]})


def kept(table: pa.Table) -> list[tuple[str | None, str]]:
    return sorted(((row["email"], row["v"]) for row in table.to_pylist()), key=str)


def test_the_last_by_order_is_kept_and_rows_without_the_columns_value_all_stay(apply):
    step = Dedupe.parse({"by": ["email"], "keep": "last", "order": "at"})
    assert kept(apply(step, ROWS)) == [("a", "new"), ("b", "only"), (None, "x"), (None, "y")]


def test_the_first_by_order_is_kept_when_asked_for(apply):
    assert ("a", "old") in kept(apply(Dedupe.parse({"by": "email", "keep": "first", "order": ["at"]}), ROWS))


@pytest.mark.parametrize("written", ["email", ["email"]])
def test_without_an_order_the_choice_does_not_depend_on_the_order_of_the_rows(apply, written):
    step = Dedupe.parse(written)
    backwards = ROWS.take(pa.array([4, 3, 2, 1, 0]))
    assert kept(apply(step, ROWS)) == kept(apply(step, backwards))
    assert len(apply(step, ROWS)) == 4


def test_an_order_that_is_null_loses_to_any_other(apply):
    rows = pa.table({"k": [1, 1], "at": [None, 3]})
    assert apply(Dedupe.parse({"by": "k", "keep": "last", "order": "at"}), rows).to_pylist() == [{"k": 1, "at": 3}]
    assert apply(Dedupe.parse({"by": "k", "keep": "first", "order": "at"}), rows).to_pylist() == [{"k": 1, "at": 3}]


def test_an_unknown_column_is_refused(apply):
    with pytest.raises(ConfigurationError, match=r"no column att; did you mean at\?"):
        apply(Dedupe.parse({"by": ["email"], "order": "att"}), ROWS)
