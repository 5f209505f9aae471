import pyarrow as pa
import pytest

from muxly_dagster.errors import ConfigurationError
from muxly_dagster.transforms.rename import Rename

ROWS = pa.table({"id": [1], "E-Mail": ["a@b.c"], 'say "hi"': [True]})


def test_renamed_columns_keep_their_places_and_odd_names_are_fine(apply):
    renamed = apply(Rename.parse({"E-Mail": "email", 'say "hi"': "greeting; drop table x"}), ROWS)
    assert renamed.to_pylist() == [{"id": 1, "email": "a@b.c", "greeting; drop table x": True}]


def test_names_can_be_swapped(apply):
    rows = pa.table({"a": [1], "b": [2]})
    assert apply(Rename.parse({"a": "b", "b": "a"}), rows).to_pylist() == [{"b": 1, "a": 2}]


def test_an_unknown_column_is_named_with_the_nearest_known(apply):
    with pytest.raises(ConfigurationError, match=r"no column email; did you mean E-Mail\?"):
        apply(Rename.parse({"email": "mail"}), ROWS)


def test_two_columns_of_one_name_are_refused_whatever_the_letter_case(apply):
    with pytest.raises(ConfigurationError, match="two columns named ID"):
        apply(Rename.parse({"E-Mail": "ID"}), ROWS)
