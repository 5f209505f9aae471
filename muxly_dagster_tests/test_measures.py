"""Lengths of time, sizes, shares and times of day, as people write them."""

import datetime as dt
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from muxly_dagster.measures import Duration, Share, Size, TimeOfDay, parse_duration, parse_share, parse_size, parse_time


class Measured(BaseModel):
    """One of each."""

    length: Duration = ""
    size: Size = ""
    share: Share = ""
    time: TimeOfDay = dt.time(0)


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("90s", dt.timedelta(seconds=90)),
        ("15m", dt.timedelta(minutes=15)),
        ("1d12h", dt.timedelta(days=1, hours=12)),
        ("2w1d1h1m1s", dt.timedelta(days=15, hours=1, minutes=1, seconds=1)),
        (" 2H ", dt.timedelta(hours=2)),
        ("36525d", dt.timedelta(days=36525)),
        ("0d1s", dt.timedelta(seconds=1)),
    ],
)
def test_lengths_of_time(text: str, length: dt.timedelta) -> None:
    assert parse_duration(text) == length


@pytest.mark.parametrize("text", ["", "0s", "0", "5", "1.5h", "-1h", "1h1d", "1 h", "h", "1y", "1e3s", "٣h", "1h\n1m", "9" * 5000 + "s"])
def test_what_is_no_length_of_time_is_refused_with_the_way_to_write_one(text: str) -> None:
    with pytest.raises(ValueError, match="is not a length of time such as 90s, 15m, 2h, 1d or 1d12h"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["36525d1s", "999999999w", "999999999d", "101w99999999h"])
def test_a_length_that_leaves_the_calendar_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="longer than a hundred years"):
        parse_duration(text)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.timedeltas(dt.timedelta(seconds=1), dt.timedelta(days=36525)).map(lambda length: length - length % dt.timedelta(seconds=1)))
def test_every_length_can_be_written_and_counted_back_from_now(length: dt.timedelta) -> None:
    hours, seconds = divmod(length.seconds, 3600)
    text = "".join(f"{number}{unit}" for number, unit in ((length.days, "d"), (hours, "h"), (seconds, "s")) if number)
    assert parse_duration(text) == length
    assert dt.datetime(2026, 1, 1, tzinfo=dt.UTC) - parse_duration(text) < dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("512b", 512),
        ("500kB", 500_000),
        ("5MB", 5_000_000),
        ("5 mb", 5_000_000),
        ("1GiB", 2**30),
        ("1.5KiB", 1536),
        ("0.1GB", 100_000_000),
        ("9007199254740993", 2**53 + 1),
        ("4.35kB", 4350),
        (" 2TiB ", 2**41),
    ],
)
def test_sizes_are_exact(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "0", "0MB", "0.1b", "-5MB", "5PB", "MB", "1e3", "5 M B", "nan", "inf", "9" * 400, "9999999999999TB", "٣MB"]
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size such as 500kB, 5MB or 1GiB"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "share"),
    [("20%", 0.2), ("20 %", 0.2), ("0.2", 0.2), (".5", 0.5), ("0", 0), ("0%", 0), ("1", 1), ("100%", 1), ("12.5%", 0.125), ("1e-05", 1e-5)],
)
def test_shares(text: str, share: float) -> None:
    assert parse_share(text) == share


@pytest.mark.parametrize(
    "text", ["", "%", "20", "101%", "-1%", "1.01", "nan", "inf", "-inf", "20%%", "1_0%", "half", "1e5", "٢٠%", "9" * 5000]
)
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a share such as 20% or 0.2"):
        parse_share(text)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.floats(0, 1))
def test_every_share_that_a_number_can_be_is_understood(share: float) -> None:
    assert parse_share(Measured.model_validate({"share": share}).share) == pytest.approx(share, rel=1e-15, abs=0)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.times().map(lambda time: time.replace(microsecond=0)))
def test_times_of_day(time: dt.time) -> None:
    assert parse_time(time.isoformat()) == time
    assert Measured.model_validate({"time": time.isoformat("minutes")}).time == time.replace(second=0)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.text())
def test_whatever_is_written_is_understood_or_refused_in_words(text: str) -> None:
    for parse in (parse_duration, parse_size, parse_share, parse_time):
        try:
            parse(text)
        except ValueError as error:
            assert "such as" in str(error) or "hundred years" in str(error)


# ---- in models -------------------------------------------------------------------------------------------------------


def test_a_model_keeps_what_was_written() -> None:
    kept = Measured.model_validate({"length": " 90m ", "size": 5_000, "share": 0.25, "time": "7:05"})
    assert (kept.length, kept.size, kept.share, kept.time) == ("90m", "5000", "0.25", dt.time(7, 5))
    assert Measured.model_validate(kept.model_dump(mode="json")) == kept
    assert Measured() == Measured.model_validate({"length": "", "size": " ", "share": ""})


@pytest.mark.parametrize("name", ["length", "size", "share", "time"])
@pytest.mark.parametrize("said", ["x", True, None, [], {}, float("nan"), float("inf"), 1e300, -1])
def test_a_model_refuses_what_cannot_be_meant_and_quotes_the_way(name: str, said: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        Measured.model_validate({name: said})
    assert [error["loc"] for error in caught.value.errors()] == [(name,)]


def test_editors_are_told_what_may_be_written() -> None:
    properties = Measured.model_json_schema()["properties"]
    assert properties["length"] == {"type": "string", "examples": ["15m", "2h", "1d"], "default": "", "title": "Length"}
    assert properties["time"]["type"] == "string" and "format" not in properties["time"]
    assert [each["type"] for each in properties["share"]["anyOf"]] == ["string", "number"]
