import pyarrow as pa
import pytest

from muxly_dagster.errors import ConfigurationError
from muxly_dagster.transforms.drop import Drop

ROWS = pa.table({"a": [1], "b": [2], "c": [3]})


@pytest.mark.parametrize(("written", "left"), [(["a", "c"], ["b"]), ("b", ["a", "c"])])
def test_dropped_columns_are_gone(apply, written, left):
    assert apply(Drop.parse(written), ROWS).column_names == left


def test_dropping_everything_is_refused(apply):
    with pytest.raises(ConfigurationError, match="no column would be left"):
        apply(Drop.parse(["a", "b", "c"]), ROWS)


def test_an_unknown_column_is_refused(apply):
    with pytest.raises(ConfigurationError, match="no column d"):
        apply(Drop.parse("d"), ROWS)
