"""Expressions fill requests in; what names nothing is left out."""

import datetime as dt
from typing import Any

import pytest

from muxly_dagster.manifest.language.conditions import parse_condition
from muxly_dagster.manifest.language.expressions import ABSENT, expressions, iso, render
from muxly_dagster.manifest.schema import parse_duration

CONTEXT = {
    "config": {"name": "Ada B", "n": 5, "tags": ["a", "b"], "on": True, "none": None},
    "cursor": "2024-01-02T03:04:05.006Z",
    "window": {"start": dt.datetime(2024, 1, 1, tzinfo=dt.UTC), "end": None},
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("plain", "plain"),
        ("${config.n}", 5),
        ("${config.tags}", ["a", "b"]),
        ("n=${config.n}", "n=5"),
        ("${config.tags|text}", "a,b"),
        ("${config.on|text}", "true"),
        ("${config.name|lower|url}", "ada%20b"),
        ("${config.name|base64url}", "QWRhIEI"),
        ("${config.tags|json}", '["a","b"]'),
        ("${cursor|ms}", 1704164645006),
        ("${cursor|s}", 1704164645),
        ("${cursor|date}", "2024-01-02"),
        ("${cursor}", "2024-01-02T03:04:05.006Z"),
        ("${window.start}", "2024-01-01T00:00:00Z"),
        ("after ${window.start|iso}", "after 2024-01-01T00:00:00Z"),
        ("${window.end|ms}", ABSENT),
        ("before ${window.end|ms}", ABSENT),
        ("${config.none}", ABSENT),
        ({"a": "${config.none}", "b": "x"}, {"b": "x"}),
        ({"all": [{"op": "GTE", "value": "${window.end|ms}"}, {"op": "IN", "value": "${config.n}"}]}, {"all": [{"op": "IN", "value": 5}]}),
        (7, 7),
    ],
)
def test_a_text_becomes_the_value_it_names(text: Any, value: Any) -> None:
    assert render(text, CONTEXT) == value


def test_values_in_a_path_are_escaped() -> None:
    assert render("/a/${config.name}", CONTEXT, into_path=True) == "/a/Ada%20B"
    assert render("${config.name}", CONTEXT, into_path=True) == "Ada%20B"


def test_every_expression_is_found() -> None:
    assert list(expressions({"a": ["${x|iso}"], "b": "${y.z} ${w}"})) == [("x", ["iso"]), ("y.z", []), ("w", [])]


def test_times_keep_the_decimals_they_have() -> None:
    assert [iso(f"2024-01-01T00:00:00{d}+01:00") for d in ("", ".5", ".000001")] == [
        "2023-12-31T23:00:00Z",
        "2023-12-31T23:00:00.500Z",
        "2023-12-31T23:00:00.000001Z",
    ]


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("15m", 900), ("1h30m", 5400), ("3d", 259200), ("1w", 604800), (5, 5), ("500ms", 0.5)]
)
def test_durations_are_read(text: str | int, seconds: float) -> None:
    assert parse_duration(text).total_seconds() == seconds


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("body.error.code == 'busy'", True),
        ("body.error.code != 'busy'", False),
        ("body.errors[0].n == 5", True),
        ("$.error", True),
        ("$.nothing", False),
        ("body.flag == true", True),
        ("body.nothing == null", True),
    ],
)
def test_conditions_look_into_the_body(text: str, holds: bool) -> None:
    assert parse_condition(text)({"error": {"code": "busy"}, "errors": [{"n": 5}], "flag": True}) is holds
