"""Influx line protocol, as Telegraf and InfluxDB's client libraries write it: one event a line.

`cpu,host=a usage=0.5,cores=8i 1700000000000000000` is read into `{"measurement": "cpu", "tags": {"host": "a"}, "fields": {"usage": 0.5,
"cores": 8}, "time": "2023-11-14T22:13:20.000000000Z", "time_unix_nano": 1700000000000000000}`.

Source: docs.influxdata.com/influxdb/v2/reference/syntax/line-protocol.
"""

import re
import sys
from collections.abc import Mapping

import orjson
import xxhash

from muxly_dagster.collecting.events import Gathered, Rejected, TooLarge, Unreadable
from muxly_dagster.collecting.limits import Limits
from muxly_dagster.collecting.moments import FIRST, LAST, written
from muxly_dagster.collecting.tally import ORDINARY, Tally

PRECISIONS: Mapping[str, int] = {
    "": 1,
    "ns": 1,
    "n": 1,
    "us": 1_000,
    "u": 1_000,
    "µ": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
"""The nanoseconds that one of a timestamp stands for, by the name of a precision in version 1 and 2 of the API."""

_BOOLEANS = {
    **dict.fromkeys(("t", "T", "true", "True", "TRUE"), True),
    **dict.fromkeys(("f", "F", "false", "False", "FALSE"), False),
}
# Possessive throughout: a backslash before one of these characters belongs to it, whatever follows. Any other backslash is one.
_MEASUREMENT = r"(?:[^\\, \n]|\\[, ]|\\)++"
_KEY = r"(?:[^\\,= \n]|\\[,= ]|\\)++"
_STRING = r'"(?:[^"\\]|\\.)*+"'
_PLAIN = r'[^",= \n\r]++'
_FIELD = rf"{_KEY}=(?:{_STRING}|{_PLAIN})"
_LINE = re.compile(rf" *+({_MEASUREMENT})((?:,{_KEY}={_KEY})*+) ++({_FIELD}(?:,{_FIELD})*+)(?: ++([^ \n\r]++))? *+\r?(?=\n|\Z)", re.DOTALL)
_TAGS = re.compile(rf"({_KEY})=({_KEY})")
_FIELDS = re.compile(rf"({_KEY})=({_STRING}|{_PLAIN})", re.DOTALL)
_HEAD = re.compile(rf" *+({_MEASUREMENT})((?:,{_KEY}={_KEY})*+)(?= |,|\r?\n|\r?\Z)")
_INTEGER = re.compile(r"[-+]?\d+", re.ASCII)
_DIGITS = frozenset("0123456789.+-eE")
_LARGEST = sys.float_info.max
_LINES = 10  # as many more lines than events a body may have: texts hold line breaks, too

Value = float | int | bool | str
Point = tuple[str, dict[str, str], dict[str, Value], str]
"""Measurement, tags, fields and timestamp as it is written ("" where there is none)."""

Heads = dict[str, tuple[str, dict[str, str]]]
"""Measurement and tags by how they are written: the lines of a request have few of them."""


def read(body: bytes, stream: str, precision: str, now: int, limits: Limits = ORDINARY) -> Gathered:
    """The lines of a request. `now` (nanoseconds since 1970) is the time of those that have none.

    Their ids are hashes of what they say, since InfluxDB's clients send a batch again whose answer they did not see; a line without a time
    has none: the same line sent again is a second measurement. Raises Unreadable for an unknown precision, TooLarge.
    """
    scale = PRECISIONS.get(precision)
    if scale is None:
        raise Unreadable(f"precision {precision[:20]!r} is none of ns, us, ms, s (and in version 1: n, u, m, h)")
    gathered = Gathered(stream)
    indexes: list[int] = []
    if body.count(b"\n") > limits.items * _LINES:
        raise TooLarge(f"the body has more than {limits.items * _LINES:,} lines")
    text = body.decode("utf-8", "surrogateescape")  # so that one line that is not UTF-8 is refused by itself
    heads: Heads = {}
    tally = Tally(limits)
    place = number = 0
    while place < len(text):
        end = text.find("\n", place)
        end = len(text) if end < 0 else end
        line = text[place:end]
        if line.isspace() or not line or line.lstrip()[0] == "#":
            place, number = end + 1, number + 1
            continue
        try:
            if len(line) > limits.event:
                raise ValueError(f"is longer than {limits.event:,} bytes")
            if '"' in line or "\\" in line or "  " in line or line[0] == " ":
                point, end = _scan(text, place, heads)
            else:
                point = _split(line, heads)
            event, timed = _event(point, scale, now)
            tally.add(event)
            gathered.lines.append(event)
            gathered.ids.append(xxhash.xxh3_128_hexdigest(event) if timed else "")
            indexes.append(number)
        except TooLarge:
            raise
        except ValueError as error:
            tally.add()
            gathered.rejected.append(Rejected(number, str(error)))
        number += text.count("\n", place, end) + 1
        place = end + 1
    gathered.indexes = indexes
    return gathered


def _event(point: Point, scale: int, now: int) -> tuple[bytes, bool]:
    measurement, tags, fields, stamp = point
    moment = now
    if stamp:
        if not _INTEGER.fullmatch(stamp):
            raise ValueError(f"the timestamp {stamp[:40]!r} is no whole number")
        moment = int(stamp) * scale if len(stamp) < 25 else LAST + 1
        if not FIRST <= moment <= LAST:
            raise ValueError(f"the timestamp {stamp[:40]} is outside the years 1677 to 2262: is the precision right?")
    event = {"measurement": measurement, "tags": tags, "fields": fields, "time": written(moment), "time_unix_nano": moment}
    try:
        return orjson.dumps(event), bool(stamp)
    except TypeError:
        raise ValueError("is not valid UTF-8") from None


def _split(line: str, heads: Heads) -> Point:
    """A line without quotes, backslashes and more spaces than it needs: nearly all of them."""
    head, _, rest = line.rstrip("\r").partition(" ")
    values, _, stamp = rest.partition(" ")
    known = heads.get(head)
    if known is None:
        measurement, *pairs = head.split(",")
        if not measurement:
            raise ValueError("there is no measurement")
        try:
            tags = dict([pair.split("=") for pair in pairs])
        except ValueError:
            raise ValueError("a tag is not of the form key=value") from None
        known = heads[head] = measurement, _checked(tags, len(pairs))
    fields: dict[str, Value] = {}
    for pair in values.split(","):
        key, _, value = pair.partition("=")
        if not key or not value:
            raise ValueError(f"the field {pair[:40]!r} is not of the form key=value" if values else "there are no fields")
        fields[key] = _value(value)
    return *known, fields, stamp.strip()


def _scan(text: str, place: int, heads: Heads) -> tuple[Point, int]:
    """The line that begins here, and where it ends: a quoted value may hold line breaks."""
    found = _LINE.match(text, place)
    if found is None:
        raise ValueError(_why(text, place))
    measurement, tagged, values, stamp = found.groups()
    known = heads.get(measurement + tagged)
    if known is None:
        listed = _TAGS.findall(tagged)
        tags = {_freed(key, ",= "): _freed(value, ",= ") for key, value in listed}
        known = heads[measurement + tagged] = _freed(measurement, ", "), _checked(tags, len(listed))
    pairs = _FIELDS.findall(values)
    if "\\" in values:
        fields = {_freed(k, ",= "): _freed(v[1:-1], '"\\') if v[0] == '"' else _value(v) for k, v in pairs}
    else:
        fields = {k: v[1:-1] if v[0] == '"' else _value(v) for k, v in pairs}
    return (*known, fields, stamp or ""), found.end()


def _why(text: str, place: int) -> str:
    """What is wrong with a line that is none."""
    found = _HEAD.match(text, place)
    if found is None:
        return "does not begin with a measurement and tags of the form key=value"
    end = text.find("\n", found.end())
    rest = text[found.end() : end if end >= 0 else len(text)]
    if not rest.strip():
        return "there are no fields"
    if rest.count('"') % 2:
        return "a text has no end"
    return "the fields are not of the form key=value, with texts in double quotes, and at most a timestamp behind them"


def _value(text: str) -> Value:
    if _DIGITS.issuperset(text):
        try:
            number = float(text)
        except ValueError:
            raise ValueError(f"{text[:40]!r} is no value") from None
        if not -_LARGEST <= number <= _LARGEST:
            raise ValueError(f"{text[:40]} does not fit into a double")
        return number
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    kind = text[-1]
    if kind not in "iu" or len(text) > 30 or not _INTEGER.fullmatch(text, 0, len(text) - 1):
        raise ValueError(f"{text[:40]!r} is no value: texts stand in double quotes")
    whole = int(text[:-1])
    if not (-(2**63) <= whole < 2**63 if kind == "i" else 0 <= whole < 2**64):
        raise ValueError(f"{text[:40]} does not fit into 64 bits")
    return whole


def _checked(tags: dict[str, str], count: int) -> dict[str, str]:
    if len(tags) != count:
        raise ValueError("a tag is given twice")
    if tags and ("" in tags or "" in tags.values()):
        raise ValueError("a tag is not of the form key=value")
    return tags


def _freed(text: str, special: str) -> str:
    """Without the backslashes before these characters."""
    return re.sub(rf"\\([{re.escape(special)}])", r"\1", text) if "\\" in text else text
