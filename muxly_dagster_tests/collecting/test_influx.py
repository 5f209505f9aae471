"""Line protocol: as Telegraf writes it, as InfluxDB's documentation has it, and as anything else."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from muxly_dagster.collecting import Gathered, Unreadable, influx

NOW = 1_700_000_000_123_456_789


def read(text: str | bytes, precision: str = "ns") -> Gathered:
    """The lines of a request."""
    return influx.read(text.encode() if isinstance(text, str) else text, "influx", precision, NOW)


def one(text: str) -> dict[str, Any]:
    """The one event of a request."""
    gathered = read(text)
    assert not gathered.rejected
    (line,) = gathered.lines
    found: dict[str, Any] = json.loads(line)
    return found


def test_a_line_of_telegraf() -> None:
    assert one("cpu,cpu=cpu-total,host=web-1 usage_user=0.25,usage_idle=99,procs=12i,uptime=5u,up=true,down=F 1700000000000000001\n") == {
        "measurement": "cpu",
        "tags": {"cpu": "cpu-total", "host": "web-1"},
        "fields": {"usage_user": 0.25, "usage_idle": 99.0, "procs": 12, "uptime": 5, "up": True, "down": False},
        "time": "2023-11-14T22:13:20.000000001Z",
        "time_unix_nano": 1_700_000_000_000_000_001,
    }


@pytest.mark.parametrize(
    ("line", "measurement", "tags", "fields"),
    [
        (r"my\ m\,x,a\ b=c\,d,e\=f=g\ h v\ 1=2", "my m,x", {"a b": "c,d", "e=f": "g h"}, {"v 1": 2.0}),
        (r'm v="a, b=c \"d\" \\ \n"', "m", {}, {"v": 'a, b=c "d" \\ \\n'}),
        ('m v="two\nlines",w=1i', "m", {}, {"v": "two\nlines", "w": 1}),
        ('m v=""', "m", {}, {"v": ""}),
        (r"C:\x,path=D:\y\z v=1", r"C:\x", {"path": r"D:\y\z"}, {"v": 1.0}),
        (r"m\\,x,a=b v=1", r"m\,x", {"a": "b"}, {"v": 1.0}),
        ('m,tag="quoted" v=1', "m", {"tag": '"quoted"'}, {"v": 1.0}),
        ("  m,a=b   v=1   ", "m", {"a": "b"}, {"v": 1.0}),
        ("wetter,ort=Köln temp=-1.5e-3", "wetter", {"ort": "Köln"}, {"temp": -0.0015}),
        ("m v=18446744073709551615u,w=-9223372036854775808i", "m", {}, {"v": 2**64 - 1, "w": -(2**63)}),
    ],
)
def test_escapes_quotes_and_values(line: str, measurement: str, tags: dict[str, str], fields: dict[str, Any]) -> None:
    found = one(line)
    assert (found["measurement"], found["tags"], found["fields"]) == (measurement, tags, fields)
    assert found["time_unix_nano"] == NOW


@pytest.mark.parametrize(
    ("precision", "stamp"), [("ns", 10**18), ("us", 10**15), ("ms", 10**12), ("s", 10**9), ("u", 10**15), ("", 10**18)]
)
def test_times_in_every_precision(precision: str, stamp: int) -> None:
    (line,) = read(f"m v=1 {stamp}", precision).lines
    assert json.loads(line)["time_unix_nano"] == 10**18


def test_an_unknown_precision_is_no_reason_to_guess() -> None:
    with pytest.raises(Unreadable, match="fortnight"):
        read("m v=1", "fortnight")


def test_lines_with_a_time_are_known_again_and_those_without_are_not() -> None:
    first, second = read("m v=1 5\nm v=1"), read("m v=1\nm v=1 5\nm v=2 5")
    assert first.ids[0] == second.ids[1] != second.ids[2]
    assert first.ids[1] == second.ids[0] == ""


def test_comments_empty_lines_and_carriage_returns_are_passed_over() -> None:
    gathered = read('# a comment\r\n\r\nm v=1 5\r\n  # another\n\nm v="x" 6\r\nm v=t\r\n')
    assert [json.loads(line)["fields"]["v"] for line in gathered.lines] == [1.0, "x", True]
    assert list(gathered.indexes) == [2, 5, 6]
    assert not gathered.rejected
    assert read("").lines == read("\n\n#").lines == []


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("m", "no fields"),
        ("m,a=b", "no fields"),
        ("m ", "no fields"),
        ("m\\ ", "no fields"),
        (",a=b v=1", "measurement"),
        ("m,a v=1", "key=value"),
        ("m,a= v=1", "key=value"),
        ("m,a=b,a=c v=1", "twice"),
        (r"m\,,a=b,a=c v=1", "twice"),
        ("m v=", "key=value"),
        ("m v", "key=value"),
        ("m =1", "key=value"),
        ("m v=abc", "no value"),
        ("m v=nan", "no value"),
        ("m v=inf", "no value"),
        ("m v=1_0", "no value"),
        ("m v=1_0i", "no value"),
        ("m v=٣", "no value"),
        ("m v=1e999", "double"),
        ("m v=9223372036854775808i", "64 bits"),
        ("m v=-1u", "64 bits"),
        ('m v="open', "no end"),
        ('m v="a"b', "key=value"),
        ("m v=1 soon", "whole number"),
        ("m v=1 5 6", "whole number"),
        ('m v="1" 5 6', "timestamp"),
        ("m v=1 99999999999999999999", "precision"),
        ("m v=1 " + "9" * 5000, "precision"),
    ],
)
def test_a_line_that_is_none_is_rejected_by_itself(line: str, why: str) -> None:
    gathered = read(f"before v=1 1\n{line}\nafter v=1 2")
    assert [json.loads(each)["measurement"] for each in gathered.lines] == ["before", "after"]
    assert list(gathered.indexes) == [0, 2]
    (rejected,) = gathered.rejected
    assert rejected.index == 1
    assert why in rejected.reason


def test_bytes_that_are_not_utf8_cost_their_line() -> None:
    gathered = read(b"a v=1\nm,x=\xff v=1\nb v=1")
    assert [each.index for each in gathered.rejected] == [1]
    assert list(gathered.indexes) == [0, 2]


@settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=200) | st.text(alphabet='m,= "\\v1i#\n\rt5', max_size=60).map(str.encode))
def test_anything_is_either_read_or_rejected(body: bytes) -> None:
    gathered = read(body)
    assert len(gathered.lines) == len(gathered.ids) == len(gathered.indexes)
    places = sorted([*gathered.indexes, *(each.index for each in gathered.rejected)])
    assert len(set(places)) == len(places)
    for line in gathered.lines:
        event = json.loads(line)
        assert event["measurement"] and event["fields"]
        assert b"\n" not in line


names = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\\#"), min_size=1, max_size=8)
values = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
)


def escaped(text: str, special: str) -> str:
    """A name as InfluxDB's documentation has it written."""
    return "".join(f"\\{each}" if each in special else each for each in text)


def name(text: str) -> str:
    """The name of a field, or the name or value of a tag."""
    return escaped(text, ",= ")


def written(value: object) -> str:
    """A field's value as InfluxDB's documentation has it written."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"{value}i"
    if isinstance(value, float):
        return repr(value)
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'


@settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(
            names,
            st.dictionaries(names, names, max_size=3),
            st.dictionaries(names, values, min_size=1, max_size=4),
            st.integers(-(2**63), 2**63 - 1),
        ),
        max_size=5,
    )
)
def test_what_is_written_by_the_rules_is_read_back(points: list[tuple[str, dict[str, str], dict[str, Any], int]]) -> None:
    lines = []
    for measurement, tags, fields, stamp in points:
        head = [escaped(measurement, ", "), *(f"{name(key)}={name(value)}" for key, value in tags.items())]
        said = [f"{name(key)}={written(value)}" for key, value in fields.items()]
        lines.append(f"{','.join(head)} {','.join(said)} {stamp}")
    gathered = read("\n".join(lines))
    assert not gathered.rejected
    found = [json.loads(line) for line in gathered.lines]
    assert [(each["measurement"], each["tags"], each["fields"], each["time_unix_nano"]) for each in found] == points
    for each, (*_, fields, _stamp) in zip(found, points, strict=True):
        assert [type(value) for value in each["fields"].values()] == [type(value) for value in fields.values()]
