import datetime as dt
from decimal import Decimal

import pyarrow as pa
import pytest
from pydantic import ValidationError

from muxly_dagster.errors import ConfigurationError, MuxlyError
from muxly_dagster.transforms.cast import Cast

UTC = dt.UTC


@pytest.mark.parametrize(
    ("value", "to", "expected"),
    [
        ("12", "integer", 12),
        (" 12 ", "integer", 12),
        ("12.0", "integer", 12),
        (12.0, "integer", 12),
        (True, "integer", 1),
        ("9223372036854775807", "integer", 2**63 - 1),
        (7, "string", "7"),
        ("1e3", "number", 1000.0),
        ("true", "boolean", True),
        (0, "boolean", False),
        ("12.345", "decimal(10,3)", Decimal("12.345")),
        ("2026-01-02T03:04:05+02:00", "timestamp", dt.datetime(2026, 1, 2, 1, 4, 5, tzinfo=UTC)),
        ("2026-01-02 03:04:05", "timestamp", dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2026-01-02", "date", dt.date(2026, 1, 2)),
        ('{"a": 1}', "json", '{"a": 1}'),
        (None, "integer", None),
    ],
)
def test_values_are_cast(apply, value, to, expected):
    rows = pa.table({"v": [value]}) if value is not None else pa.table({"v": pa.array([None], pa.string())})
    assert apply(Cast.parse({"v": to}), rows).to_pylist() == [{"v": expected}]


@pytest.mark.parametrize(
    ("value", "to"),
    [("abc", "integer"), ("1.5", "integer"), (1.5, "integer"), ("9223372036854775808", "integer"), ("soon", "date"), ("{", "json")],
)
def test_a_value_that_does_not_fit_fails_with_column_and_value(apply, value, to):
    rows = pa.table({"v": [value], "other": [1]})
    with pytest.raises(MuxlyError, match="column v holds .*, which is not " + to) as caught:
        apply(Cast.parse({"v": to}), rows)
    assert str(value) in str(caught.value)


def test_a_value_that_does_not_fit_is_null_where_that_is_asked_for(apply):
    rows = pa.table({"v": ["1", "1.5", "abc", None]})
    step = Cast.parse({"columns": {"v": "integer"}, "on_error": None})
    assert apply(step, rows).column("v").to_pylist() == [1, None, None, None]


def test_a_column_may_be_called_columns(apply):
    assert apply(Cast.parse({"columns": "integer"}), pa.table({"columns": ["3"]})).to_pylist() == [{"columns": 3}]


@pytest.mark.parametrize("word", ["int", "decimal", "decimal(39,2)", "decimal(4,5)", "VARCHAR); DROP TABLE x; --"])
def test_a_word_that_is_no_type_is_refused_with_the_words_there_are(word):
    with pytest.raises(ValidationError, match="is not a type; take one of string, integer"):
        Cast.parse({"v": word})


def test_an_unknown_column_is_refused(apply):
    with pytest.raises(ConfigurationError, match=r"no column amont; did you mean amount\?"):
        apply(Cast.parse({"amont": "integer"}), pa.table({"amount": [1]}))
