"""Measures as people write them: lengths of time (`15m`, `1d12h`), sizes (`5MB`, `1GiB`), shares (`20%`), times of day (`09:00`)."""

import datetime as dt
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

_UNITS = {"w": "weeks", "d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
_DURATION = re.compile(r"(?:(\d{1,9})w)?(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,12})s)?", re.ASCII)
_LONGEST = dt.timedelta(days=36_525)  # a hundred years: what is longer leaves the calendar when it is counted back from now

_BYTES = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
_SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,9})?)\s*([a-z]*)", re.ASCII)
_LARGEST = 2**63 - 1

_SHARE = re.compile(r"(\d{1,18}(?:\.\d{1,18})?|\.\d{1,18})(?:e(-?\d{1,3}))?\s*(%?)", re.ASCII)
_TIME = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)(?::([0-5]\d))?", re.ASCII)


def parse_duration(text: str) -> dt.timedelta:
    """The length of time that `text` says, up to a hundred years. Raises ValueError, with the way to write one, for anything else."""
    match = _DURATION.fullmatch(text.strip().lower())
    parts = {unit: int(number) for unit, number in zip(_UNITS.values(), match.groups(), strict=True) if number} if match else {}
    try:
        duration = dt.timedelta(**parts)
    except OverflowError:
        duration = dt.timedelta.max
    if not duration:
        raise ValueError("is not a length of time such as 90s, 15m, 2h, 1d or 1d12h")
    if duration > _LONGEST:
        raise ValueError("is longer than a hundred years")
    return duration


def parse_size(text: str) -> int:
    """The bytes that `text` says, at least one. Raises ValueError, with the way to write a size, for anything else."""
    match = _SIZE.fullmatch(text.strip().lower())
    size = int(Fraction(match[1]) * _BYTES[match[2]]) if match and match[2] in _BYTES else 0
    if not 1 <= size <= _LARGEST:
        raise ValueError("is not a size such as 500kB, 5MB or 1GiB")
    return size


def parse_share(text: str) -> float:
    """The share that `text` says, from 0 to 1: `20%` or `0.2`. Raises ValueError, with the way to write one, for anything else."""
    match = _SHARE.fullmatch(text.strip().lower())
    share = Fraction(match[1]) * Fraction(10) ** int(match[2] or 0) / (100 if match[3] else 1) if match else Fraction(-1)
    if not 0 <= share <= 1:
        raise ValueError("is not a share such as 20% or 0.2")
    return float(share)


def parse_time(text: str) -> dt.time:
    """The time of day that `text` says. Raises ValueError, with the way to write one, for anything else."""
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise ValueError("is not a time of day such as 09:00 or 17:30")
    return dt.time(int(match[1]), int(match[2]), int(match[3] or 0))


def _measure(kind: str, parse: Callable[[str], object]) -> BeforeValidator:
    """Takes text, or a number as if it were written, and keeps it as it was written, so that people are shown what they wrote."""

    def read(value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            return value
        text = str(value).strip()
        try:
            if text:
                parse(text)
        except ValueError as error:
            raise PydanticCustomError(kind, "{why}", {"why": str(error)}) from None
        return text

    return BeforeValidator(read)


def _time(value: Any) -> dt.time:
    """A time as text, or as a TOML file has it. Numbers would be seconds since midnight to pydantic, which nobody means."""
    if isinstance(value, dt.time) and value.tzinfo is None:
        return value
    try:
        return parse_time(value if isinstance(value, str) else "")
    except ValueError as error:
        raise PydanticCustomError("time", "{why}", {"why": str(error)}) from None


_WRITTEN = WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "number"}]})

Duration = Annotated[str, _measure("duration", parse_duration), WithJsonSchema({"type": "string", "examples": ["15m", "2h", "1d"]})]
"""A length of time in a model, written `15m`; empty where there is none. `parse_duration` reads it."""

Size = Annotated[str, _measure("size", parse_size), _WRITTEN]
"""A number of bytes in a model, written `5MB`; empty where there is none. `parse_size` reads it."""

Share = Annotated[str, _measure("share", parse_share), _WRITTEN]
"""A share in a model, written `20%` or `0.2`; empty where there is none. `parse_share` reads it."""

TimeOfDay = Annotated[dt.time, BeforeValidator(_time), WithJsonSchema({"type": "string", "examples": ["09:00", "17:30"]})]
"""A time of day in a model, by the clock on the wall, written `09:00`."""
