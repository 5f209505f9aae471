import pyarrow as pa
import pytest
from pydantic import ValidationError

from muxly_dagster.errors import ConfigurationError
from muxly_dagster.transforms.set import Set

ROWS = pa.table({"first": ["Ada"], "last": ["Lovelace"], "n": [2], "props": ['{"city": "London"}']})


def test_new_columns_are_added_behind_and_old_ones_replaced_in_place(apply):
    step = Set.parse({"name": "first || ' ' || last", "n": "n + 1"})
    assert apply(step, ROWS.select(["first", "last", "n"])).to_pylist() == [
        {"first": "Ada", "last": "Lovelace", "n": 3, "name": "Ada Lovelace"}
    ]


def test_every_expression_sees_the_columns_as_they_were(apply):
    step = Set.parse({"first": "last", "last": "first"})
    assert apply(step, ROWS.select(["first", "last"])).to_pylist() == [{"first": "Lovelace", "last": "Ada"}]


def test_json_text_and_plain_constants_can_be_used(apply):
    step = Set.parse({"city": "props ->> 'city'", "version": 2, "checked": True})
    assert apply(step, ROWS).select(["city", "version", "checked"]).to_pylist() == [{"city": "London", "version": 2, "checked": True}]


def test_a_column_in_other_letter_case_is_the_same_column(apply):
    assert apply(Set.parse({"N": "n * 10"}), ROWS.select(["n"])).to_pylist() == [{"n": 20}]


@pytest.mark.parametrize("text", ["(select 1)", "sum(n)", "n) FROM given; DROP TABLE x; --", "row_number() over ()", "*", ""])
def test_what_is_not_one_value_per_row_is_refused(text):
    with pytest.raises(ValidationError):
        Set.parse({"x": text})


def test_an_unknown_column_is_refused(apply):
    with pytest.raises(ConfigurationError, match=r"no column frist; did you mean first\?"):
        apply(Set.parse({"x": "frist || 'a'"}), ROWS)
