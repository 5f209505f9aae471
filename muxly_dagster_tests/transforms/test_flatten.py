import pyarrow as pa
import pytest

from muxly_dagster.errors import ConfigurationError, MuxlyError
from muxly_dagster.transforms.flatten import Flatten

ROWS = pa.table(
    {
        "id": [1, 2, 3],
        "properties": ['{"email":"a@b.c","age":"41","address":{"city":"Rome"},"it\'s":1,"fields":"x","tags":["n"]}', '{"age":null}', None],
        "n": [7, 8, 9],
    }
)


def test_fields_become_text_columns_where_the_json_stood(apply):
    flat = apply(Flatten.parse({"properties": ["email", "address.city", "it's"]}), ROWS)
    assert flat.column_names == ["id", "email", "address_city", "it's", "n"]
    assert flat.slice(0, 1).to_pylist() == [{"id": 1, "email": "a@b.c", "address_city": "Rome", "it's": "1", "n": 7}]
    assert flat.column("email").to_pylist() == ["a@b.c", None, None]


def test_fields_can_have_types(apply):
    flat = apply(Flatten.parse({"properties": {"age": "integer", "address": "json", "fields": "string"}}), ROWS)
    assert flat.column("age").to_pylist() == [41, None, None]
    assert flat.column("address").to_pylist()[0] == '{"city":"Rome"}'
    assert flat.column("fields").to_pylist()[0] == "x"


def test_the_long_form_keeps_the_column_and_puts_a_prefix_before_the_names(apply):
    flat = apply(Flatten.parse({"properties": {"fields": ["email"], "prefix": "p_", "keep": True}}), ROWS)
    assert flat.column_names == ["id", "properties", "p_email", "n"]


def test_a_field_that_does_not_fit_its_type_fails_with_its_path(apply):
    with pytest.raises(MuxlyError, match=r"column properties.email holds a@b.c, which is not integer"):
        apply(Flatten.parse({"properties": {"email": "integer"}}), ROWS)


def test_a_field_named_like_another_column_is_refused(apply):
    with pytest.raises(ConfigurationError, match="two columns named n"):
        apply(Flatten.parse({"properties": ["n"]}), ROWS)


def test_a_column_of_numbers_is_refused(apply):
    with pytest.raises(ConfigurationError, match="column n holds int64, not JSON"):
        apply(Flatten.parse({"n": ["a"]}), ROWS)


def test_an_unknown_column_is_refused(apply):
    with pytest.raises(ConfigurationError, match=r"did you mean properties\?"):
        apply(Flatten.parse({"propertys": ["a"]}), ROWS)
