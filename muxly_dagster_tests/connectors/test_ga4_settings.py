"""The settings of Google Analytics sources and pulls, and what can be known of reports without asking anybody."""

import datetime as dt
import subprocess
import sys
from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from muxly_dagster.connectors.ga4 import Ga4, Ga4Pull
from muxly_dagster.connectors.ga4.reports import MOST_DIMENSIONS, MOST_METRICS, READY_MADE
from muxly_dagster.errors import ConfigurationError
from muxly_dagster_tests.peers.ga4 import METRICS, Analytics


@pytest.mark.parametrize("said", [123, "123", "properties/123", " 123 "])
def test_a_property_is_its_number_however_it_is_written(said: Any) -> None:
    assert Ga4(property=said).property == "properties/123"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"property": "G-ABC123"}, "a measurement id"),
        ({"property": 1, "endpoint": "http://analytics.example.com:80"}, "on this machine"),
        ({"property": 1, "quota_floor": 1}, "less than 1"),
        ({"property": 1, "auth": {"kind": "bearer", "token": "x"}}, "service_account"),
    ],
)
def test_a_source_that_cannot_work_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Ga4.model_validate(settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"lookback": "36h"}, "whole days"),
        ({"slice": "0d"}, "one day or more"),
        ({"start": "yesterday"}, "not a length of time"),
        ({"start": "2026-02-30"}, "day is out of range"),
        ({"currency": "euro"}, "pattern"),
        ({"page_rows": 250_001}, "less than or equal to 250000"),
    ],
)
def test_a_pull_that_cannot_work_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Ga4Pull.model_validate({"stream": "traffic", **settings})


def test_a_pull_begins_at_a_date_or_so_long_ago() -> None:
    assert Ga4Pull.model_validate({"start": "2024-01-31"}).start == dt.date(2024, 1, 31)
    assert Ga4Pull.model_validate({"start": dt.date(2024, 1, 31)}).start == dt.date(2024, 1, 31)
    assert Ga4Pull.model_validate({"start": "2w"}).start == "2w"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"stream": "trafic"}, "did you mean traffic"),
        ({"stream": "report"}, "name them under `metrics`"),
        ({"stream": "mine", "metrics": ["keyEvents", "conversions"]}, "keyEvents and conversions are the same"),
        ({"stream": "mine", "metrics": ["sessions", "sessions"]}, "sessions stands twice"),
        ({"stream": "mine", "metrics": [f"m{number}" for number in range(11)]}, "11 metrics"),
        ({"stream": "mine", "metrics": ["sessions"], "dimensions": [f"d{number}" for number in range(9)]}, "10 dimensions"),
    ],
)
def test_a_report_that_cannot_be_asked_for_is_told_when_the_project_is_loaded(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        Ga4(property=1).stream(Ga4Pull.model_validate(settings))


def test_a_report_is_keyed_by_its_day_and_dimensions() -> None:
    stream = Ga4(property=1).stream(Ga4Pull(stream="campaigns", dimensions=["sessionCampaignName", "date"], metrics=["sessions"]))
    assert (stream.name, stream.key, stream.sync, stream.deletes) == ("campaigns", ("date", "sessionCampaignName"), "cursor", True)
    now = Ga4(property=1).stream(Ga4Pull(stream="realtime"))
    assert (now.key, now.sync) == (("country", "deviceCategory", "platform"), "full")


def test_a_ready_made_report_can_be_given_other_metrics() -> None:
    with Analytics() as analytics:
        analytics.fact(analytics.today(), country="NO", city="Oslo", region="Oslo", sessions=5)
        pull = Ga4Pull(stream="geography", dimensions=["country", "city"], metrics=["sessions"])
        found = [batch.rows.to_pylist() for batch in analytics.connector().pull(pull, None, None) if len(batch.rows)]
    assert found == [[{"date": analytics.today(), "country": "NO", "city": "Oslo", "sessions": 5}]]


def test_ready_made_reports_stay_within_the_limits_of_a_request() -> None:
    for name, report in READY_MADE.items():
        report.check()
        assert len(report.dimensions) <= MOST_DIMENSIONS and len(report.metrics) <= MOST_METRICS, name
    assert {stream.name for stream in Ga4.declaration().streams} == {*READY_MADE, "report"}


def test_the_property_tells_its_types_names_and_quota() -> None:
    with Analytics("Europe/Oslo") as analytics:
        connector = analytics.connector()
        found = {stream.name: stream for stream in connector.streams()}
        known = connector.metadata()
        check = connector.test_connection()
    assert found["report"].description == f"Your own: 10 dimensions and {len(METRICS)} metrics to choose from"
    assert found["traffic"].schema is None, "it names metrics that this property does not have"
    assert (known.account, known.api_version) == ("properties/1", "v1beta")
    assert (known.details["time_zone"], known.details["currency"]) == ("Europe/Oslo", "NZD")
    assert "customEvent:plan" in known.details["dimensions"] and "keyEvents" in known.details["metrics"]
    assert known.limits[0] == "189,999 of 200,000 tokens a day left"
    assert check.what.startswith("time zone Europe/Oslo, currency NZD")


def test_a_report_whose_metrics_are_all_known_has_its_types() -> None:
    report = READY_MADE["events"]
    types = {name: pa.int64() for name in report.metrics}
    assert report.schema(types) == pa.schema({"date": pa.date32(), "eventName": pa.string(), **types})


def test_loading_a_project_does_not_load_googles_sdk() -> None:
    code = "import sys, muxly_dagster.connectors.ga4; print('google.analytics' in sys.modules, 'grpc' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
