"""Policies of delivery: when a window is open, whatever clocks do, and how long a breaker stays open."""

import datetime as dt
import zoneinfo
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from muxly_dagster.policy import Batching, Breaker, Dedupe, Guard, Window

BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
WEEK = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "America/St_Johns", "Pacific/Apia"]
"""With summer time in both hemispheres, half hours, a change of half an hour, and a day that never was (Apia, 30 December 2011)."""


def window(**said: Any) -> Window:
    """A window as it stands in muxly.yaml."""
    return Window.model_validate(said)


def utc(text: str) -> dt.datetime:
    """`2026-03-29 01:00` in UTC."""
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)


def berlin(text: str, fold: int = 0) -> dt.datetime:
    """What a clock in Berlin shows, as a moment; of two, the first unless told otherwise."""
    return dt.datetime.fromisoformat(text).replace(tzinfo=BERLIN, fold=fold).astimezone(dt.UTC)


def refusal(model: type[BaseModel], **said: Any) -> str:
    """What a person is told who says this."""
    with pytest.raises(ValidationError) as caught:
        model.model_validate(said)
    return "; ".join(f"{'.'.join(map(str, error['loc']))} {error['msg']}" for error in caught.value.errors())


# ---- windows ---------------------------------------------------------------------------------------------------------

OFFICE = {"days": "mon-fri", "from": "09:00", "to": "17:00", "timezone": "Europe/Berlin"}


@pytest.mark.parametrize(
    ("now", "opens"),
    [
        ("2026-01-07 08:59:59", "2026-01-07 09:00"),
        ("2026-01-07 09:00", "2026-01-07 09:00"),
        ("2026-01-07 16:59:59.999999", "2026-01-07 16:59:59.999999"),
        ("2026-01-07 17:00", "2026-01-08 09:00"),
        ("2026-01-09 17:00", "2026-01-12 09:00"),
        ("2026-01-10 12:00", "2026-01-12 09:00"),
        ("2026-01-12 00:00", "2026-01-12 09:00"),
    ],
)
def test_office_hours(now: str, opens: str) -> None:
    assert window(**OFFICE).opens(berlin(now)) == berlin(opens)


@pytest.mark.parametrize(
    ("now", "opens"),
    [
        ("2026-01-09 21:59", "2026-01-09 22:00"),
        ("2026-01-09 23:30", "2026-01-09 23:30"),
        ("2026-01-10 05:59", "2026-01-10 05:59"),  # Saturday morning belongs to Friday's window
        ("2026-01-10 06:00", "2026-01-12 22:00"),
        ("2026-01-12 03:00", "2026-01-12 22:00"),  # Monday morning would belong to Sunday's
    ],
)
def test_a_window_across_midnight_belongs_to_the_day_on_which_it_opens(now: str, opens: str) -> None:
    night = window(days="mon-fri", **{"from": "22:00", "to": "06:00", "timezone": "Europe/Berlin"})
    assert night.opens(berlin(now)) == berlin(opens)


def test_a_window_that_ends_at_midnight_ends_with_its_day() -> None:
    evening = window(days=["sun"], **{"from": "18:00", "to": "00:00"})
    assert evening.opens(utc("2026-01-11 23:59:59")) == utc("2026-01-11 23:59:59")
    assert evening.opens(utc("2026-01-12 00:00")) == utc("2026-01-18 18:00")


def test_a_window_without_hours_is_the_whole_day_and_without_days_every_day() -> None:
    assert window(days="sat").opens(utc("2026-01-09 12:00")) == utc("2026-01-10 00:00")
    assert window(days="sat").opens(utc("2026-01-10 23:59")) == utc("2026-01-10 23:59")
    assert window(days="sat").opens(utc("2026-01-11 00:00")) == utc("2026-01-17 00:00")
    assert window().opens(utc("2026-01-09 12:00")) == utc("2026-01-09 12:00")
    nine_to_nine = window(days="sat", **{"from": "09:00", "to": "09:00"})
    assert nine_to_nine.opens(utc("2026-01-11 08:59")) == utc("2026-01-11 08:59")
    assert nine_to_nine.opens(utc("2026-01-11 09:00")) == utc("2026-01-17 09:00")


def test_the_same_hours_are_other_moments_in_winter_and_in_summer() -> None:
    assert window(**OFFICE).opens(utc("2026-01-07 00:00")) == utc("2026-01-07 08:00")
    assert window(**OFFICE).opens(utc("2026-07-08 00:00")) == utc("2026-07-08 07:00")


def test_the_answer_is_in_utc_whatever_zone_now_is_told_in() -> None:
    asked = dt.datetime(2026, 1, 7, 12, 0, tzinfo=zoneinfo.ZoneInfo("Asia/Kolkata"))
    assert window(**OFFICE).opens(asked).tzinfo is dt.UTC
    assert window().opens(asked).tzinfo is dt.UTC
    assert window().opens(asked) == asked


@pytest.mark.parametrize(
    ("begins", "ends", "opens", "closes"),
    [
        ("01:00", "04:00", "2026-03-29 00:00", "2026-03-29 02:00"),  # three hours on the wall, two in truth
        ("02:30", "04:00", "2026-03-29 01:00", "2026-03-29 02:00"),  # half past two never is: it opens with the change
        ("02:30", "03:15", "2026-03-29 01:00", "2026-03-29 01:15"),
        ("01:00", "02:30", "2026-03-29 00:00", "2026-03-29 01:00"),  # and closes with it
        ("22:00", "02:30", "2026-03-28 21:00", "2026-03-29 01:00"),
    ],
)
def test_on_the_day_that_clocks_go_forward(begins: str, ends: str, opens: str, closes: str) -> None:
    night = window(**{"from": begins, "to": ends, "timezone": "Europe/Berlin"})
    assert night.opens(utc(opens) - dt.timedelta(seconds=1)) == utc(opens)
    last = utc(closes) - dt.timedelta(microseconds=1)
    assert night.opens(last) == last
    assert night.opens(utc(closes)) > utc(closes)


@pytest.mark.parametrize(("begins", "ends"), [("02:00", "03:00"), ("02:10", "02:50"), ("02:00", "02:30")])
def test_a_window_that_is_left_out_whole_is_none(begins: str, ends: str) -> None:
    night = window(**{"from": begins, "to": ends, "timezone": "Europe/Berlin"})
    assert night.opens(berlin("2026-03-28 03:00")) == berlin(f"2026-03-30 {begins}")


def test_the_only_window_of_a_week_may_be_left_out() -> None:
    sundays = window(days="sun", **{"from": "02:00", "to": "03:00", "timezone": "Europe/Berlin"})
    for day in range(22, 30):
        asked = berlin(f"2026-03-{day} 03:00")
        assert sundays.opens(asked) == berlin("2026-04-05 02:00")


@pytest.mark.parametrize(
    ("begins", "ends", "opens", "closes"),
    [
        ("01:00", "04:00", "2026-10-24 23:00", "2026-10-25 03:00"),  # three hours on the wall, four in truth
        ("02:00", "03:00", "2026-10-25 00:00", "2026-10-25 02:00"),  # the hour that comes twice
        ("02:30", "04:00", "2026-10-25 00:30", "2026-10-25 03:00"),  # of two moments the first
        ("01:00", "02:30", "2026-10-24 23:00", "2026-10-25 00:30"),
        ("02:15", "02:45", "2026-10-25 00:15", "2026-10-25 00:45"),
    ],
)
def test_on_the_day_that_clocks_go_back(begins: str, ends: str, opens: str, closes: str) -> None:
    night = window(**{"from": begins, "to": ends, "timezone": "Europe/Berlin"})
    assert night.opens(utc(opens) - dt.timedelta(seconds=1)) == utc(opens)
    last = utc(closes) - dt.timedelta(microseconds=1)
    assert night.opens(last) == last
    assert night.opens(utc(closes)) == berlin(f"2026-10-26 {begins}")


def test_a_day_that_never_was_has_no_window() -> None:
    fridays = window(days="fri", **{"from": "09:00", "to": "17:00", "timezone": "Pacific/Apia"})
    asked = dt.datetime(2011, 12, 29, 20, 0, tzinfo=zoneinfo.ZoneInfo("Pacific/Apia"))
    assert fridays.opens(asked).astimezone(zoneinfo.ZoneInfo("Pacific/Apia")).date() == dt.date(2012, 1, 6)


@st.composite
def windows(draw: st.DrawFn) -> Window:
    """Any window at all."""
    times = st.times().map(lambda time: time.replace(microsecond=0))
    days = draw(st.lists(st.sampled_from(WEEK), min_size=1, unique=True))
    return window(days=days, timezone=draw(st.sampled_from(ZONES)), **{"from": draw(times), "to": draw(times)})


MOMENTS = st.one_of(
    st.datetimes(dt.datetime(2011, 12, 1), dt.datetime(2030, 1, 1)),
    # Near the nights on which clocks change, and the day that never was.
    *(
        st.datetimes(there - dt.timedelta(days=2), there + dt.timedelta(days=2))
        for there in map(dt.datetime.fromisoformat, ("2011-12-30", "2026-03-29", "2026-10-25", "2026-03-08", "2026-11-01", "2026-10-04"))
    ),
).map(lambda moment: moment.replace(tzinfo=dt.UTC))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(windows(), MOMENTS)
def test_a_window_that_opens_is_open_then_and_was_shut_until_then(any_window: Window, now: dt.datetime) -> None:
    opens = any_window.opens(now)
    assert opens >= now
    assert any_window.opens(opens) == opens
    if opens > now:
        for part in (0.25, 0.5, 0.75, 0.999999):
            assert any_window.opens(now + (opens - now) * part) == opens
        assert any_window.opens(opens - dt.timedelta(microseconds=1)) == opens


@settings(max_examples=300, deadline=None, derandomize=True)
@given(windows(), MOMENTS)
def test_where_clocks_do_not_change_a_window_is_open_by_the_clock_on_the_wall(any_window: Window, now: dt.datetime) -> None:
    zone = zoneinfo.ZoneInfo(any_window.timezone)
    wall = now.astimezone(zone)
    near = {(now + dt.timedelta(hours=hours)).astimezone(zone).utcoffset() for hours in range(-49, 50)}
    if len(near) > 1:
        return
    first, last, time = any_window.from_, any_window.to, wall.timetz().replace(tzinfo=None)
    today, yesterday = WEEK[wall.weekday()] in any_window.days, WEEK[wall.weekday() - 1] in any_window.days
    is_open = (today and first <= time < last) if first < last else (today and time >= first) or (yesterday and time < last)
    assert (any_window.opens(now) == now) == is_open


# ---- what windows may say --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "days"),
    [
        ("mon-fri", "mon tue wed thu fri"),
        ("fri-mon", "fri sat sun mon"),
        ("sun-sat", "sun mon tue wed thu fri sat"),
        ("Sat", "sat"),
        ("mon - wed", "mon tue wed"),
        ("tue-tue", "tue"),
        (["mon", "WED"], "mon wed"),
        (["sat-sun", "tue"], "sat sun tue"),
        (["mon-wed", "tue-thu"], "mon tue wed thu"),
        (("mon",), "mon"),
    ],
)
def test_days_are_a_span_or_a_list(said: Any, days: str) -> None:
    assert window(days=said).days == tuple(days.split())


@pytest.mark.parametrize("said", ["monday", "mon-", "-fri", "mon-fri-sun", "", [], ["mon", "xxx"], 5, [5], None])
def test_what_is_no_day_is_refused(said: Any) -> None:
    assert refusal(Window, days=said).startswith("days")


@pytest.mark.parametrize(
    ("said", "time"),
    [
        ("09:00", dt.time(9)),
        ("9:00", dt.time(9)),
        (" 17:30:15 ", dt.time(17, 30, 15)),
        ("00:00", dt.time(0)),
        (dt.time(8, 5), dt.time(8, 5)),
    ],
)
def test_times_are_written_as_on_a_clock(said: Any, time: dt.time) -> None:
    assert window(**{"from": said}).from_ == window(to=said).to == time


@pytest.mark.parametrize(
    "said",
    ["24:00", "9", "9 am", "12:60", "09:00Z", "09:00+01:00", "\u0660\u0669:\u0660\u0660", "", 540, 9.0, True, dt.time(9, tzinfo=dt.UTC)],
)
def test_what_is_no_time_on_a_wall_is_refused(said: Any) -> None:
    # 540 is what some readers of YAML make of 9:00: as seconds, it would be nine minutes past midnight.
    assert refusal(Window, to=said) == "to is not a time of day such as 09:00 or 17:30"


@pytest.mark.parametrize("said", ["Berlin", "", "../../etc/passwd", "/etc/passwd", "Europe", "Europe/Berlin\x00", "utc+1"])
def test_an_unknown_time_zone_is_refused_with_one_that_is_known(said: str) -> None:
    assert "name one such as UTC or Europe/Berlin" in refusal(Window, timezone=said)


def test_a_window_is_said_again_as_it_was_read() -> None:
    said = window(**OFFICE).model_dump(mode="json", by_alias=True)
    assert said == {"days": list(WEEK[:5]), "from": "09:00:00", "to": "17:00:00", "timezone": "Europe/Berlin"}
    assert window(**said) == window(**OFFICE)
    assert Window.model_json_schema()["properties"]["from"]["type"] == "string"


# ---- batching, dedupe, guard -----------------------------------------------------------------------------------------


def test_without_limits_nothing_waits_and_nothing_is_too_much() -> None:
    assert (Batching().count, Batching().most_bytes, Batching().patience) == (None, None, None)
    assert Batching(count=500, bytes="5MB", age="1h30m").most_bytes == 5_000_000
    assert Batching(age="1h30m").patience == dt.timedelta(minutes=90)
    assert "count" in refusal(Batching, count=0)
    assert "bytes is not a size" in refusal(Batching, bytes="0")


def test_dedupe_needs_a_length_of_time() -> None:
    assert Dedupe(within="1h").time == dt.timedelta(hours=1)
    assert Dedupe.model_validate({"within": "1h", "by": ["a", "b"]}).by == ("a", "b")
    for nothing in ("", "  ", "0s", "soon"):
        assert refusal(Dedupe, within=nothing).startswith("within")
    assert "within" in refusal(Dedupe)


def test_a_guard_has_shares_or_no_limit() -> None:
    assert (Guard().most_deletes, Guard().most_changes) == (0.5, None)
    assert (Guard(deletes="", changes="0%").most_deletes, Guard(changes="0%").most_changes) == (None, 0.0)
    assert Guard.model_validate({"deletes": 0.25, "changes": 1}).most_deletes == 0.25
    assert "deletes is not a share" in refusal(Guard, deletes="150%")
    assert "at_least" in refusal(Guard, at_least=0)


@pytest.mark.parametrize("model", [Batching, Window, Dedupe, Guard, Breaker])
def test_a_word_that_is_not_known_is_refused(model: type[BaseModel]) -> None:
    assert "typo Extra inputs are not permitted" in refusal(model, within="1h", typo=1)


# ---- breakers --------------------------------------------------------------------------------------------------------


def test_a_breaker_stays_open_twice_as_long_each_time_up_to_the_longest() -> None:
    minutes = [Breaker().open_for(times) / dt.timedelta(minutes=1) for times in range(1, 10)]
    assert minutes == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert Breaker(pause="2h", longest="1h").open_for(1) == dt.timedelta(hours=1)


def test_a_short_pause_grows_to_a_long_one_too() -> None:
    assert Breaker(pause="1s", longest="52w").open_for(25) == dt.timedelta(seconds=2**24)
    assert Breaker(pause="1s", longest="52w").open_for(26) == dt.timedelta(weeks=52)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.integers(1, 10**6), st.integers(1, 10**9), st.integers(0, 10**9))
def test_no_pause_is_too_long_for_a_calendar(pause: int, longest: int, times: int) -> None:
    breaker = Breaker(pause=f"{pause}s", longest=f"{longest}s")
    opened, again = breaker.open_for(times), breaker.open_for(times + 1)
    assert min(pause, longest) <= opened.total_seconds() <= again.total_seconds() <= longest
    assert utc("2026-01-01") + opened > utc("2026-01-01")


def test_a_breaker_that_never_opens_has_no_failures_to_count() -> None:
    assert Breaker(failures=0).failures == 0
    assert "failures" in refusal(Breaker, failures=-1)
    assert refusal(Breaker, pause="").startswith("pause")
    assert refusal(Breaker, longest="0s") == "longest is not a length of time such as 90s, 15m, 2h, 1d or 1d12h"
