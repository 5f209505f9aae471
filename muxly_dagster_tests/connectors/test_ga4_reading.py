"""Days, slices and pages of Google Analytics reports: nothing is read twice, nothing is missed, and whole days are replaced."""

import datetime as dt
import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from google.analytics.data_v1beta import types

from muxly_dagster import records
from muxly_dagster.connectors.ga4 import Ga4Pull
from muxly_dagster.errors import ConfigurationError, RetryLater, SourceError
from muxly_dagster.lake import Lake
from muxly_dagster.testing.connectors import Pulled
from muxly_dagster_tests.peers.ga4 import Analytics

Pull = Callable[..., Pulled]


@pytest.fixture
def analytics() -> Iterator[Analytics]:
    with Analytics() as analytics:
        yield analytics


@pytest.fixture
def pulled(analytics: Analytics, tmp_path: Path) -> Pull:
    """A pull with these settings, into one lake."""

    def prepare(**settings: Any) -> Pulled:
        named = {"stream": "report", "dimensions": ["country"], "metrics": ["activeUsers"]}
        analytics.pull = {**named, **settings}
        return Pulled(analytics, tmp_path)

    return prepare


def back(analytics: Analytics, days: int) -> dt.date:
    return analytics.today() - dt.timedelta(days=days)


def rows(pulled: Pulled) -> dict[dt.date, Any]:
    """What the lake holds: the users (or the only metric) of each day."""
    table = Lake(str(pulled.folder / "lake")).existing(pulled.name)
    found = table.current().to_pylist()
    return {row["date"]: next(row[name] for name in row if name not in ("date", "country")) for row in found}


def metadata(pulled: Pulled) -> dict[dt.date, dict[str, Any]]:
    """What is noted of each day's record."""
    table = Lake(str(pulled.folder / "lake")).existing(pulled.name)
    found = [row for batch in table.current_batches(envelope=True) for row in batch.to_pylist()]
    return {row["date"]: json.loads(row[records.METADATA] or "{}") for row in found}


def asked_ranges(analytics: Analytics) -> list[tuple[str, str]]:
    """The days of every report that was asked for, without the small first one about today."""
    found = []
    for request in analytics.seen:
        for report in request.requests if isinstance(request, types.BatchRunReportsRequest) else [request]:
            if isinstance(report, types.RunReportRequest) and report.limit != 1:
                found += [(between.start_date, between.end_date) for between in report.date_ranges]
    return found


def cursor(analytics: Analytics, through: dt.date) -> dict[str, str]:
    return {"property": "properties/1", "through": through.isoformat()}


def batches(analytics: Analytics, cursor: Mapping[str, str] | None = None, **settings: Any) -> list[Any]:
    pull = {"stream": "report", "dimensions": ["country"], "metrics": ["activeUsers"], **settings}
    return list(analytics.connector().pull(Ga4Pull.model_validate(pull), cursor, None))


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Pacific/Pago_Pago"])  # 25 hours apart: never the same day
def test_what_day_it_is_is_said_by_the_property(zone: str) -> None:
    with Analytics(zone) as analytics:
        for days in range(3):
            analytics.fact(back(analytics, days), country="NO", activeUsers=days + 1)
        found = batches(analytics, start="2d", lookback="0d")
    assert [batch.cursor["through"] for batch in found if batch.cursor] == [back(analytics, 1).isoformat()]
    provisional = [batch.rows["date"].to_pylist() for batch in found if batch.metadata.get("provisional")]
    assert provisional == [[analytics.today()]]


def test_a_long_stretch_is_read_in_slices_of_which_five_go_into_one_request(analytics: Analytics, pulled: Pull) -> None:
    for days in range(60):
        analytics.fact(back(analytics, days), country="NO", activeUsers=days)
    pull = pulled(start="59d")
    assert pull.run().changed == 60
    assert rows(pull) == {back(analytics, days): days for days in range(60)}
    ranges = asked_ranges(analytics)
    assert ranges[0][0] == back(analytics, 59).isoformat() and ranges[-1][1] == analytics.today().isoformat()
    for (_, end), (start, _) in itertools.pairwise(ranges):
        assert dt.date.fromisoformat(start) == dt.date.fromisoformat(end) + dt.timedelta(days=1)
    assert [len(batch.requests) for batch in analytics.requests(types.BatchRunReportsRequest)] == [5, 4]


def test_a_later_pull_reads_the_look_back_and_what_is_new_in_one_request(analytics: Analytics, pulled: Pull) -> None:
    analytics.fact(back(analytics, 1), country="NO", activeUsers=1)
    pull = pulled(start="30d")
    pull.run()
    analytics.seen.clear()
    pull.run()
    assert asked_ranges(analytics) == [(back(analytics, 3).isoformat(), analytics.today().isoformat())]
    assert len(analytics.requests(types.RunReportRequest)) == 2  # the first asks what day it is


def test_the_look_back_replaces_whole_days_and_leaves_older_ones_alone(analytics: Analytics, pulled: Pull) -> None:
    for days in (0, 1, 2, 3, 4, 20):
        analytics.fact(back(analytics, days), country="NO", activeUsers=10)
    pull = pulled(start="30d")
    pull.run()
    analytics.facts.clear()
    analytics.fact(back(analytics, 2), country="NO", activeUsers=11)
    analytics.fact(back(analytics, 1), country="SE", activeUsers=12)
    outcome = pull.run()
    assert (outcome.metadata["upserts"], outcome.metadata["deletes"]) == (2, 3)
    assert rows(pull) == {back(analytics, 2): 11, back(analytics, 1): 12, back(analytics, 4): 10, back(analytics, 20): 10}


def test_the_look_back_never_reaches_behind_the_start(analytics: Analytics) -> None:
    start = back(analytics, 2)
    batches(analytics, cursor(analytics, start), start=start.isoformat(), lookback="9d")
    assert asked_ranges(analytics) == [(start.isoformat(), analytics.today().isoformat())]


def test_a_pull_from_the_start_drops_rows_that_are_gone_however_old(analytics: Analytics, pulled: Pull) -> None:
    for days in (1, 20):
        analytics.fact(back(analytics, days), country="NO", activeUsers=10)
    pull = pulled(start="30d")
    pull.run()
    analytics.facts.pop()
    assert pull.run().changed == 0
    assert pull.run(from_start=True).changed == 1
    assert rows(pull) == {back(analytics, 1): 10}


def test_a_pull_from_the_start_that_breaks_off_drops_what_is_gone_of_the_days_it_read(analytics: Analytics, pulled: Pull) -> None:
    for days in range(60):
        analytics.fact(back(analytics, days), country="NO", activeUsers=10)
    pull = pulled(start="59d")
    pull.run()
    analytics.facts = analytics.facts[1:-1]  # today's and the oldest are gone
    analytics.break_after(2)
    with pytest.raises(RetryLater):
        pull.run(from_start=True)
    assert len(rows(pull)) == 59 and back(analytics, 59) not in rows(pull)
    analytics.mend()
    pull.run()
    assert len(rows(pull)) == 58 and back(analytics, 0) not in rows(pull)


def test_a_time_zone_that_this_machine_does_not_know_is_told(analytics: Analytics, pulled: Pull) -> None:
    analytics.flags = {"time_zone": "Mars/Olympus"}
    with pytest.raises(SourceError, match="'Mars/Olympus', which this machine does not know"):
        pulled().run()


def test_days_that_are_not_settled_are_provisional_in_the_record_and_the_outcome(analytics: Analytics, pulled: Pull) -> None:
    for days in range(6):
        analytics.fact(back(analytics, days), country="NO", activeUsers=1)
    pull = pulled(start="5d", lookback="2d")
    assert pull.run().metadata["flags"] == {"provisional": 3}
    assert {day for day, said in metadata(pull).items() if said.get("provisional")} == {back(analytics, days) for days in range(3)}


def test_pages_are_read_until_there_are_as_many_rows_as_the_report_has(analytics: Analytics, pulled: Pull) -> None:
    for number in range(23):
        analytics.fact(back(analytics, 1), country=f"C{number:02}", activeUsers=number)
    pull = pulled(start="1d", page_rows=2)
    assert pull.run().changed == 23
    pages = [[report.offset for report in batch.requests] for batch in analytics.requests(types.BatchRunReportsRequest)]
    assert pages == [[2, 4, 6, 8, 10], [12, 14, 16, 18, 20]]
    assert [report.offset for report in analytics.requests(types.RunReportRequest)] == [0, 0, 22]


def test_a_report_that_grows_while_it_is_read_is_begun_again(analytics: Analytics, pulled: Pull) -> None:
    for number in range(6):
        analytics.fact(back(analytics, 0), country=f"C{number}", activeUsers=number)

    def grow() -> None:
        if len(analytics.seen) == 3:  # while the second page is read
            analytics.fact(back(analytics, 0), country="B", activeUsers=9)

    analytics.on_report = grow
    pull = pulled(start="0d", page_rows=3)
    assert pull.run().changed == 7
    assert len(asked_ranges(analytics)) == 1 + 1 + 3


def test_a_report_that_never_holds_still_is_left_for_later(analytics: Analytics, pulled: Pull) -> None:
    for number in range(6):
        analytics.fact(back(analytics, 0), country=f"C{number}", activeUsers=number)
    analytics.on_report = lambda: analytics.fact(back(analytics, 0), country=f"D{len(analytics.facts)}", activeUsers=1)
    with pytest.raises(RetryLater, match="changes while it is read"):
        pulled(start="0d", page_rows=3).run()


@pytest.mark.parametrize("cause", ["sampled_beyond", "other_row_beyond"])
def test_a_report_that_is_too_coarse_is_asked_again_in_smaller_slices(cause: str, analytics: Analytics, pulled: Pull) -> None:
    setattr(analytics, cause, 2)
    for days in range(1, 29):
        analytics.fact(back(analytics, days), country="NO", activeUsers=days)
    pull = pulled(start="28d", lookback="0d", slice="4d")
    assert pull.run().changed == 28
    assert not [said for said in metadata(pull).values() if said]
    lengths = [(dt.date.fromisoformat(last) - dt.date.fromisoformat(first)).days + 1 for first, last in asked_ranges(analytics)]
    assert max(lengths) == 4 and set(lengths[-4:]) <= {1, 2}, "later slices are small from the start"


def test_a_single_day_that_is_still_sampled_says_so(analytics: Analytics, pulled: Pull) -> None:
    analytics.sampled_beyond = 0
    analytics.fact(back(analytics, 5), country="NO", activeUsers=1)
    analytics.fact(back(analytics, 6), country="NO", activeUsers=1)
    pull = pulled(start="7d")
    assert pull.run().metadata["flags"] == {"sampled": 2}
    assert metadata(pull)[back(analytics, 5)] == {"sampled": {"read": 500_000, "of": 2_000_000}}


def test_every_other_flag_of_an_answer_is_kept_with_its_records(analytics: Analytics, pulled: Pull) -> None:
    analytics.flags = {
        "subject_to_thresholding": True,
        "data_truncation_reasons": [{"data_truncation_message": "Older than 14 months"}],
        "schema_restriction_response": {"active_metric_restrictions": [{"metric_name": "totalRevenue"}]},
    }
    analytics.fact(back(analytics, 5), country="NO", activeUsers=1)
    pull = pulled(start="7d")
    assert pull.run().metadata["flags"] == {"thresholded": 1, "truncated": 1, "restricted": 1}
    said = {"thresholded": True, "truncated": ["Older than 14 months"], "restricted": ["totalRevenue"]}
    assert metadata(pull)[back(analytics, 5)] == said


def test_an_old_name_keeps_its_column_and_is_asked_for_by_the_new_one(analytics: Analytics, pulled: Pull) -> None:
    analytics.fact(back(analytics, 1), trafficKind="internal", keyEvents=7)
    own = {"field_name": "trafficType", "stringFilter": {"value": "internal"}}
    pull = pulled(dimensions=["trafficType"], metrics=["conversions"], start="2d", dimension_filter={"filter": own})
    pull.run()
    (row,) = Lake(str(pull.folder / "lake")).existing(pull.name).current().to_pylist()
    assert (row["trafficType"], row["conversions"]) == ("internal", 7)
    last = analytics.requests(types.RunReportRequest)[-1]
    assert [d.name for d in last.dimensions] == ["date", "trafficKind"] and [m.name for m in last.metrics] == ["keyEvents"]
    assert last.dimension_filter.filter.field_name == "trafficKind"


def test_filters_currency_and_empty_rows_are_passed_on(analytics: Analytics, pulled: Pull) -> None:
    analytics.fact(back(analytics, 1), country="NO", activeUsers=7)
    analytics.fact(back(analytics, 1), country="SE", activeUsers=9)
    more = {"filter": {"fieldName": "activeUsers", "numericFilter": {"operation": "GREATER_THAN", "value": {"int64Value": "8"}}}}
    pull = pulled(start="2d", metric_filter=more, currency="EUR", keep_empty_rows=True)
    pull.run()
    assert rows(pull) == {back(analytics, 1): 9}
    last = analytics.requests(types.RunReportRequest)[-1]
    assert (last.currency_code, last.keep_empty_rows) == ("EUR", True)


def test_a_value_that_cannot_be_read_costs_its_own_row_only(analytics: Analytics, pulled: Pull) -> None:
    analytics.fact(back(analytics, 1), country="NO", activeUsers="many")
    analytics.fact(back(analytics, 2), country="NO", activeUsers=9)
    pull = pulled(start="3d")
    outcome = pull.run()
    assert (outcome.changed, outcome.refused) == (1, 1)
    assert rows(pull) == {back(analytics, 2): 9}


def test_numbers_keep_every_digit(analytics: Analytics, pulled: Pull) -> None:
    values = {1: "0.58333333333333337", 2: "12.5", 3: "1234567890.123456789012345"}
    for days, value in values.items():
        analytics.fact(back(analytics, days), country="NO", totalRevenue=value)
    pull = pulled(start="3d", metrics=["totalRevenue"])
    pull.run()
    assert {day: float(value) for day, value in rows(pull).items()} == {back(analytics, days): float(v) for days, v in values.items()}
    assert str(rows(pull)[back(analytics, 3)]).rstrip("0") == values[3]


def test_the_types_of_columns_follow_the_kinds_of_metrics(analytics: Analytics, pulled: Pull) -> None:
    analytics.fact(back(analytics, 1), country="NO", sessions=7, bounceRate="0.25")
    pull = pulled(start="2d", metrics=["sessions", "bounceRate"])
    pull.run()
    (row,) = Lake(str(pull.folder / "lake")).existing(pull.name).current().to_pylist()
    assert row == {"date": back(analytics, 1), "country": "NO", "sessions": 7, "bounceRate": 0.25}


def test_the_cursor_of_another_property_is_not_gone_on_with(analytics: Analytics) -> None:
    with pytest.raises(ConfigurationError, match="properties/2, not of properties/1"):
        batches(analytics, {"property": "properties/2", "through": "2026-01-01"})


def test_a_cursor_ahead_of_the_propertys_clock_reads_today_again(analytics: Analytics) -> None:
    analytics.fact(back(analytics, 0), country="NO", activeUsers=7)
    found = batches(analytics, cursor(analytics, analytics.today() + dt.timedelta(days=1)), lookback="0d")
    assert [batch.rows["activeUsers"].to_pylist() for batch in found if len(batch.rows)] == [[7]]
    assert found[-1].cursor == cursor(analytics, back(analytics, 1))


def test_a_realtime_report_is_whole_every_time(analytics: Analytics, pulled: Pull) -> None:
    analytics.fact(back(analytics, 0), country="NO", activeUsers=3)
    analytics.fact(back(analytics, 0), country="SE", activeUsers=4)
    pull = pulled(stream="now", realtime=True)
    pull.run()
    analytics.facts.pop()
    assert pull.run().metadata["deletes"] == 1
    (row,) = Lake(str(pull.folder / "lake")).existing(pull.name).current().to_pylist()
    assert row == {"country": "NO", "activeUsers": 3}


def test_a_realtime_report_of_too_many_rows_says_that_it_is_truncated(analytics: Analytics, pulled: Pull) -> None:
    for number in range(3):
        analytics.fact(back(analytics, 0), country=f"C{number}", activeUsers=3)
    analytics.most_realtime_rows = 2
    assert pulled(stream="now", realtime=True).run().metadata["flags"] == {"truncated": 2}


def test_a_realtime_report_has_no_pages_and_is_not_cut_to_one(analytics: Analytics, pulled: Pull) -> None:
    for number in range(3):
        analytics.fact(back(analytics, 0), country=f"C{number}", activeUsers=3)
    outcome = pulled(stream="now", realtime=True, page_rows=2).run()
    assert outcome.changed == 3 and "flags" not in outcome.metadata


def test_a_start_that_was_moved_beyond_what_was_read_is_begun_with(analytics: Analytics) -> None:
    start = back(analytics, 10)
    analytics.fact(start, country="NO", activeUsers=7)
    found = batches(analytics, cursor(analytics, back(analytics, 60)), start=start.isoformat())
    assert asked_ranges(analytics)[0][0] == start.isoformat()
    assert [batch.rows["activeUsers"].to_pylist() for batch in found if len(batch.rows)] == [[7]]
    assert found[-1].cursor == cursor(analytics, back(analytics, 1))


def test_a_start_that_is_still_to_come_reads_nothing_and_keeps_its_place(analytics: Analytics) -> None:
    start = back(analytics, -5)
    assert batches(analytics, cursor(analytics, back(analytics, 60)), start=start.isoformat()) == []
    assert batches(analytics, None, start=start.isoformat()) == []


@pytest.mark.parametrize("zone", ["America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "America/Santiago"])
def test_days_on_which_clocks_are_changed_are_asked_for_once(zone: str) -> None:
    """A year has a day of 23 hours and one of 25 (or of half an hour more or less) in these zones."""
    with Analytics(zone) as analytics:
        batches(analytics, start="366d", slice="1d", lookback="0d")
        ranges = asked_ranges(analytics)
        assert ranges == [(back(analytics, days).isoformat(),) * 2 for days in range(366, -1, -1)]
