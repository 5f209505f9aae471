import pyarrow as pa
import pytest
from pydantic import ValidationError

from muxly_dagster.errors import ConfigurationError
from muxly_dagster.transforms.filter import Filter

ROWS = pa.table({"amount": [1, 20, None], "Kind": ["a", "b", "b"]})


def test_rows_for_which_the_condition_is_true_are_kept_and_null_is_not_true(apply):
    assert apply(Filter.parse("amount > 10"), ROWS).to_pylist() == [{"amount": 20, "Kind": "b"}]


def test_letter_case_of_names_does_not_count_and_comments_do_no_harm(apply):
    assert len(apply(Filter.parse("kind = 'b' or AMOUNT = 1 -- all of them"), ROWS)) == 3


def test_a_subquery_is_refused():
    with pytest.raises(ValidationError, match="contains a subquery"):
        Filter.parse("amount in (select 1)")


def test_an_unknown_column_is_refused(apply):
    with pytest.raises(ConfigurationError, match=r"no column amuont; did you mean amount\?"):
        apply(Filter.parse("amuont > 1"), ROWS)
