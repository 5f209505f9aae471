"""The JSON Schema of every step takes the forms that the step itself takes, and no other."""

from typing import Any

import pytest
from pydantic import ValidationError

from muxly_dagster import catalog
from muxly_dagster.transform import Step
from muxly_dagster_tests.project.test_schema import mistakes

GOOD: list[tuple[str, Any]] = [
    ("rename", {"a": "b"}),
    ("drop", "a"),
    ("drop", ["a", "b"]),
    ("cast", {"a": "integer", "b": "decimal(10, 2)"}),
    ("cast", {"columns": {"a": "date"}, "on_error": None}),
    ("set", {"a": "b + 1", "n": 2, "yes": True}),
    ("filter", "a > 1"),
    ("flatten", {"a": ["x", "y.z"]}),
    ("flatten", {"a": {"x": "integer", "fields": "string"}}),
    ("flatten", {"a": {"fields": {"x": "json"}, "prefix": "p_", "keep": True}}),
    ("dedupe", "a"),
    ("dedupe", ["a", "b"]),
    ("dedupe", {"by": "a", "order": ["b"], "keep": "first"}),
    ("mask", {"a": "hash", "b": None}),
    ("mask", {"columns": {"a": "hash"}, "salt": "x"}),
]
BAD: list[tuple[str, Any]] = [
    ("rename", ["a"]),
    ("rename", {"a": 1}),
    ("rename", {}),
    ("drop", {"a": "b"}),
    ("drop", []),
    ("cast", {"a": "int"}),
    ("cast", {"columns": {"a": "date"}, "on_errors": None}),
    ("cast", {}),
    ("set", ["a"]),
    ("set", {}),
    ("filter", {"a": 1}),
    ("flatten", "a"),
    ("flatten", {"a": []}),
    ("flatten", {}),
    ("dedupe", {"order": "a"}),
    ("dedupe", {"by": "a", "keep": "middle"}),
    ("mask", {"a": "md5"}),
    ("mask", {"columns": {"a": "hash"}, "pepper": "x"}),
    ("mask", {}),
]


def schema_takes(step: type[Step], written: Any) -> bool:
    schema = step.model_json_schema()
    return not mistakes(written, schema, schema)


def test_every_step_has_a_form_here():
    assert {name for name, _ in GOOD} == {name for name, _ in BAD} == set(catalog.step_names())


@pytest.mark.parametrize(("name", "written"), GOOD)
def test_a_form_that_the_step_takes(name: str, written: Any):
    step = catalog.step_class(name)
    assert step.parse(written).name == name
    assert schema_takes(step, written)


@pytest.mark.parametrize(("name", "written"), BAD)
def test_a_form_that_the_step_refuses(name: str, written: Any):
    step = catalog.step_class(name)
    with pytest.raises(ValidationError):
        step.parse(written)
    assert not schema_takes(step, written)
