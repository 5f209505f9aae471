"""Metrics are shown in both formats so that every scraper can read them."""

import json
import math
import operator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from muxly_dagster.destinations.prometheus import Prometheus, exposing
from muxly_dagster.errors import ConfigurationError
from muxly_dagster.services import MetricStore
from muxly_dagster.testing import changes, delivery
from muxly_dagster_tests.destinations.metering import ORDERS, OTHER, TARGET, made, shown
from muxly_dagster_tests.peers import prometheus as peer

_ODD = ['"quoted"', "back\\slash", "two\nlines", "Grüße, 文字", "", "{a=b},", "\t", "x" * 5_000]


def everything(store: MetricStore | None = None) -> Prometheus:
    """A destination with values in every kind of metric, and labels that have to be escaped."""
    target = made(
        {"name": "orders", "type": "counter", "help": 'Orders "so far" \\ in\nall.', "labels": ["text"]},
        {"name": "level", "type": "gauge", "help": "Level.", "unit": "ratio", "value": "n", "labels": ["text"]},
        {"name": "wait", "type": "histogram", "help": "Wait.", "unit": "seconds", "value": "n", "labels": ["text"]},
        {"name": "cold", "type": "histogram", "help": "Below zero.", "value": "n", "buckets": [-5, 0, 5]},
        {"name": "size", "type": "summary", "help": "Size.", "unit": "bytes", "value": "n"},
        store=store,
    )
    target.deliver(delivery([{"id": n, "text": text, "n": n / 7} for n, text in enumerate(_ODD)]))
    return target


def test_both_formats_say_the_same_and_are_read_by_the_strict_parsers() -> None:
    target = everything()
    modern = {family.name: family for family in parse_openmetrics(shown(target).decode())}
    plain = {family.name: family for family in parse_text(shown(target, content_type=exposing.TEXT).decode())}
    assert [modern[name].type for name in ("orders", "level_ratio", "wait_seconds", "cold", "size_bytes")] == [
        "counter",
        "gauge",
        "histogram",
        "histogram",
        "summary",
    ]
    assert (modern["wait_seconds"].unit, modern["orders"].documentation) == ("seconds", 'Orders "so far" \\ in\nall.')
    for name, family in modern.items():
        samples = [(s.name, s.labels, s.value) for s in family.samples if not s.name.endswith("_created")]
        assert samples == [(s.name, s.labels, s.value) for s in plain[name].samples]
        assert family.type == "gauge" or any(s.name == f"{name}_created" for s in family.samples)
    assert {s.labels["text"] for s in modern["orders"].samples} == set(_ODD)
    assert "cold_sum" not in {s.name for s in modern["cold"].samples}  # a sum that can fall is no counter
    assert shown(target).endswith(b"# EOF\n")


def _shared() -> dict[str, str]:
    """Texts of OpenMetrics' own suite that hold nothing but counters and gauges that records could give."""
    suite = json.loads((Path(peer.__file__).parent / "data" / "openmetrics" / "parser-vectors.json").read_text("utf-8"))
    found = {}
    for vector in suite:
        families = list(parse_openmetrics(vector["text"])) if vector["shouldParse"] else []
        samples = [sample for family in families for sample in family.samples]
        plain = all(
            s.timestamp is None and s.exemplar is None and not math.isnan(s.value) and not s.name.endswith("_created") for s in samples
        )
        if samples and plain and {family.type for family in families} <= {"counter", "gauge"}:
            found[vector["name"]] = vector["text"]
    return found


@pytest.mark.parametrize("content_type", [exposing.OPENMETRICS, exposing.TEXT])
@pytest.mark.parametrize("text", _shared().values(), ids=_shared().keys())
def test_what_openmetrics_own_suite_says_can_be_said_by_records(text: str, content_type: str) -> None:
    for family in parse_openmetrics(text):
        columns = sorted({label for sample in family.samples for label in sample.labels})
        rows = [
            {"id": n, "amount": float(s.value), **{f"l_{name}": s.labels.get(name) for name in columns}}
            for n, s in enumerate(family.samples)
        ]
        schema = pa.schema([("id", pa.int64()), ("amount", pa.float64()), *((f"l_{name}", pa.string()) for name in columns)])
        labels = {name: f"l_{name}" for name in columns}
        kind = {"name": family.name, "type": family.type, "help": family.documentation, "unit": family.unit}
        target = made(kind | {"value": "amount", "labels": labels})
        assert target.deliver(delivery(changes(rows, schema=schema))).refused == ()
        parse = parse_openmetrics if content_type == exposing.OPENMETRICS else parse_text
        (said,) = parse(shown(target, content_type=content_type).decode())
        assert (said.name, said.type, said.documentation) == (family.name, family.type, family.documentation)
        assert content_type == exposing.TEXT or said.unit == family.unit
        key = operator.itemgetter(1)
        found = sorted(((s.value, sorted(s.labels.items())) for s in said.samples if not s.name.endswith("_created")), key=key)
        assert found == sorted(((s.value, sorted(s.labels.items())) for s in family.samples), key=key)


@pytest.mark.skipif(bool(peer.missing("promtool")), reason=peer.missing("promtool"))
def test_promtool_finds_nothing_to_say() -> None:
    assert peer.lint(shown(everything(), content_type=exposing.TEXT)) == ""


@pytest.mark.parametrize(
    ("accept", "modern"),
    [
        ("", False),
        ("*/*", False),
        ("text/html", False),
        ("text/plain;version=0.0.4", False),
        ("application/openmetrics-text", True),
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", True),
        ("application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;q=0.5,*/*;q=0.1", True),
        ("text/plain;version=0.0.4;q=0.5,*/*;q=0.1,application/openmetrics-text;version=1.0.0", True),
        ("application/openmetrics-text;q=0.2,text/plain", False),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;version=9.0.0,text/plain;q=0.5", False),
        ("application/openmetrics-text;q=much,*/*", False),
    ],
)
def test_the_format_is_the_one_that_is_asked_for(accept: str, modern: bool) -> None:
    assert exposing.negotiated(accept) == (exposing.OPENMETRICS if modern else exposing.TEXT)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"name": "orders", "type": "gauge"}, "one is a counter and the other a gauge"),
        ({"name": "wait", "type": "histogram", "value": "n", "buckets": [1]}, "different buckets"),
        ({"name": "sales", "type": "gauge"}, ""),
        ({"name": "orders_total", "type": "counter", "labels": ["plan"]}, ""),
        ({"name": "wait_count", "type": "gauge"}, "would both have series named wait_count"),
    ],
)
def test_metrics_of_two_destinations_that_do_not_go_together_are_told(other: dict[str, Any], said: str) -> None:
    one = made(ORDERS, {"name": "wait", "type": "histogram", "value": "n", "buckets": [1, 2]}).shown("a.m", TARGET)
    two = made(other).shown("b.m", OTHER)
    if not said:
        exposing.check([one, two])
        return
    with pytest.raises(ConfigurationError, match=said):
        exposing.check([one, two])
