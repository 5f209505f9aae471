"""The expressions of a manifest: `${path|filter}`, looked up in a few named roots; a closed list of filters and nothing else."""

import base64
import datetime as dt
import decimal
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any
from urllib.parse import quote

import orjson

from muxly_dagster.manifest.language.mail import mime
from muxly_dagster.records import to_json

_EXPRESSION = re.compile(r"\$\{([^{}]*)\}")
_PATH = re.compile(r"[a-z_]\w*(?:\.[A-Za-z_]\w*)*")

Context = Mapping[str, Any]
"""The values an expression may name, by root: `config`, `api_version`, and what its place in the manifest knows too (`cursor`, `key`)."""

ABSENT = object()
"""What a text, or an entry of a request, becomes when it names a value that is not there: it is left out."""


def moment(value: Any) -> dt.datetime:
    """A time from any of the forms it is kept in: a datetime, a day, ISO 8601 text; without zone it is UTC.

    Raises ValueError for anything else.
    """
    if isinstance(value, dt.datetime):
        found = value
    elif isinstance(value, dt.date):
        found = dt.datetime.combine(value, dt.time())
    elif isinstance(value, str):
        found = dt.datetime.fromisoformat(value)
    else:
        raise ValueError(f"{value!r} is no time")
    return found.replace(tzinfo=dt.UTC) if found.tzinfo is None else found.astimezone(dt.UTC)


def iso(value: Any) -> str:
    """RFC 3339 in UTC, with as many decimals as it takes."""
    time = moment(value)
    text = time.strftime("%Y-%m-%dT%H:%M:%S").rjust(19, "0")
    if time.microsecond:
        text += f".{time.microsecond:06d}".removesuffix("000")
    return text + "Z"


def _since_epoch(value: Any, unit: dt.timedelta) -> int:
    return (moment(value) - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // unit


def text_of(value: Any) -> str:
    """A value as it stands in a text: true and false, RFC 3339 times, decimals without exponent, lists with commas, objects as JSON."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dt.datetime):
        return iso(value)
    if isinstance(value, decimal.Decimal):
        return f"{value:f}"
    if isinstance(value, list | tuple):
        return ",".join(map(text_of, value))
    if isinstance(value, dict):
        return to_json(value).decode()
    return str(value)


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else text_of(value).encode()


FILTERS: dict[str, Callable[[Any], Any]] = {
    "iso": iso,
    "date": lambda value: moment(value).strftime("%Y-%m-%d"),
    "ms": lambda value: _since_epoch(value, dt.timedelta(milliseconds=1)),
    "s": lambda value: _since_epoch(value, dt.timedelta(seconds=1)),
    "text": text_of,
    "lower": lambda value: text_of(value).lower(),
    "upper": lambda value: text_of(value).upper(),
    "json": lambda value: to_json(value).decode(),
    "ascii_json": lambda value: json.dumps(orjson.loads(to_json(value))).replace("\x7f", "\\u007f"),  # what a header can hold
    "base64": lambda value: base64.b64encode(_bytes(value)).decode(),
    "base64url": lambda value: base64.urlsafe_b64encode(_bytes(value)).decode().rstrip("="),
    "url": lambda value: quote(text_of(value), safe=""),
    "mime": mime,
}


def expressions(value: Any) -> Iterator[tuple[str, list[str]]]:
    """Every expression within a value of the manifest: the path it names and its filters."""
    if isinstance(value, str):
        for inside in _EXPRESSION.findall(value):
            path, *filters = (part.strip() for part in inside.split("|"))
            yield path, filters
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from expressions(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from expressions(inner)


def mistake(path: str, filters: list[str], known: Collection[str]) -> tuple[str, str] | None:
    """What is wrong with an expression and what to do about it; None if nothing.

    `known` holds what may be named: whole paths (`config.project`, `cursor`), and roots that anything may follow (`record.*`).
    """
    if not _PATH.fullmatch(path):
        return f"${{{path}}} is no expression", "write ${path} or ${path|filter}, such as ${config.project} or ${cursor|iso}"
    names = path.split(".")
    if path not in known and not any(".".join([*names[:end], "*"]) in known for end in range(1, len(names))):
        there = ", ".join(sorted(known)).replace(".*", ".NAME")
        return f"nothing is called ${{{path}}} here", f"there are {there}" if there else "there is nothing to name here"
    for name in filters:
        if name not in FILTERS:
            return f"there is no filter `{name}`", f"there are {', '.join(FILTERS)}"
    return None


def render(value: Any, context: Context, *, into_path: bool = False) -> Any:
    """The value with its expressions filled in; ABSENT where it names something that has no value.

    A text that is one expression becomes that value, whatever its type. An entry without a value is left out: an entry of an
    object alone, but an object within a list as a whole, since the rest of it would say something else.
    """
    if isinstance(value, str):
        return _render_text(value, context, into_path)
    if isinstance(value, Mapping):
        pairs = {key: render(inner, context) for key, inner in value.items()}
        return {key: inner for key, inner in pairs.items() if inner is not ABSENT}
    if isinstance(value, list | tuple):
        found = []
        for inner in value:
            rendered = render(inner, context)
            lost = isinstance(inner, Mapping) and len(rendered) < len(inner)
            if rendered is not ABSENT and not lost:
                found.append(rendered)
        return found
    return value


def _render_text(text: str, context: Context, into_path: bool) -> Any:
    whole = _EXPRESSION.fullmatch(text)
    if whole and not into_path:
        return _evaluate(whole[1], context)
    absent = False

    def fill(match: re.Match[str]) -> str:
        nonlocal absent
        found = _evaluate(match[1], context)
        if found is ABSENT:
            absent = True
            return ""
        return quote(text_of(found), safe="") if into_path else text_of(found)

    filled = _EXPRESSION.sub(fill, text)
    return ABSENT if absent else filled


def _evaluate(inside: str, context: Context) -> Any:
    path, *filters = (part.strip() for part in inside.split("|"))
    value: Any = context
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    if value is None:
        return ABSENT
    for name in filters:
        value = FILTERS[name](value)
    return iso(value) if isinstance(value, dt.datetime) else value
