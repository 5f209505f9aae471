"""What a project may say: short forms, and rules across fields."""

import datetime as dt
from typing import Any

import pytest
from dagster._core.definitions.utils import DISALLOWED_NAMES
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from muxly_dagster.measures import parse_duration
from muxly_dagster.project.models import DestinationSpec, Project, RouteSpec, SourceSpec, TransformSpec


def test_the_fields_of_a_connector_are_gathered_under_config() -> None:
    source = SourceSpec.model_validate({"connector": "x", "auth": {"kind": "none"}, "config": 5, "pulls": ["a"]})
    assert (source.config, source.pulls) == ({"auth": {"kind": "none"}, "config": 5}, {"a": {}})
    assert DestinationSpec.model_validate({"type": "box", "size": 3}).config == {"size": 3}


@pytest.mark.parametrize(
    ("to", "meant"),
    [
        ("box", [("box", {}, ())]),
        (["box", "bin"], [("box", {}, (0,)), ("bin", {}, (1,))]),
        ({"box": {"size": 2}, "bin": None}, [("box", {"size": 2}, ("box",)), ("bin", {}, ("bin",))]),
        (["bin", {"box": {"size": 2}}], [("bin", {}, (0,)), ("box", {"size": 2}, (1, "box"))]),
    ],
)
def test_destinations_are_named_in_short_and_in_long(to: Any, meant: list[Any]) -> None:
    route = RouteSpec.model_validate({"from": "a.b", "to": to})
    assert [(t.destination, t.config, t.at) for t in route.to] == meant


@pytest.mark.parametrize("to", [5, [5], {"box": 5}, [["box"]], {}, [{}]])
def test_anything_else_is_no_destination(to: Any) -> None:
    with pytest.raises(ValidationError, match="is not a destination's name"):
        RouteSpec.model_validate({"from": "a.b", "to": to})


@pytest.mark.parametrize(
    ("route", "why"),
    [
        ({}, "neither"),
        ({"to": "x", "rules": [{"when": "a", "to": "x"}]}, "both"),
        ({"to": "x", "otherwise": "y"}, "no `rules`"),
        ({"rules": [{"when": "a"}]}, "to"),
    ],
)
def test_a_route_has_either_one_way_or_rules(route: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        RouteSpec.model_validate({"from": "a.b", **route})


@pytest.mark.parametrize(
    ("transform", "why"),
    [
        ({}, "none of sql"),
        ({"sql": "select 1", "steps": ["dedupe"], "from": "a.b"}, "sql and steps"),
        ({"sql": "select 1", "from": "a.b"}, "remove from"),
        ({"steps": ["dedupe"]}, "exactly one table"),
        ({"steps": ["dedupe"], "from": ["a.b", "a.c"]}, "exactly one table"),
        ({"steps": [{"drop": [], "keep": []}], "from": "a.b"}, "2 names"),
        ({"steps": [], "from": "a.b"}, "at least 1"),
        ({"python": "m:f"}, "needs `from`"),
        ({"python": "no colon", "from": "a.b"}, "pattern"),
    ],
)
def test_a_transform_is_written_in_one_way(transform: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        TransformSpec.model_validate(transform)


def test_short_forms_of_a_transform() -> None:
    spec = TransformSpec.model_validate({"steps": ["dedupe", {"drop": ["a"]}], "from": "a.b", "key": "id"})
    assert (spec.steps, spec.from_, spec.key) == ([{"dedupe": {}}, {"drop": ["a"]}], ["a.b"], ["id"])


@pytest.mark.parametrize("name", ["Crm", "1a", "a-b", "a.b", "", "ä", "main", "muxly", "muxly_x", "information_schema"])
def test_names_that_cannot_be_tables_are_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="name"):
        Project.model_validate({"sources": {name: {"connector": "x"}}})


@pytest.mark.parametrize("name", sorted({*filter(str.islower, DISALLOWED_NAMES), "n" * 201}))
def test_what_dagster_gives_no_job_as_a_name_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="name"):
        Project.model_validate({"jobs": {name: {"select": ["crm"]}}})


@given(weeks=st.integers(0, 9), days=st.integers(0, 400), hours=st.integers(0, 99), minutes=st.integers(0, 99), seconds=st.integers(1, 99))
def test_durations_add_up(weeks: int, days: int, hours: int, minutes: int, seconds: int) -> None:
    expected = dt.timedelta(weeks=weeks, days=days, hours=hours, minutes=minutes, seconds=seconds)
    assert parse_duration(f"{weeks}w{days}d{hours}h{minutes}m{seconds}s") == expected


@pytest.mark.parametrize("text", ["", "0s", "2", "h", "2 hours", "-2h", "1.5h", "9999999999w", "1h1d"])
def test_anything_else_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="such as 90s"):
        parse_duration(text)
