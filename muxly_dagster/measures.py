"""Measures as people write them: lengths of time (`15m`, `1d12h`), sizes (`5MB`, `1GiB`), shares (`20%`)."""

import datetime as dt
import re
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

_UNITS = {"w": "weeks", "d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
_DURATION = re.compile(r"(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
_BYTES = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)")


def parse_duration(text: str) -> dt.timedelta:
    """The length of time that `text` says. Raises ValueError, with the way to write one, for anything else and for nothing at all."""
    match = _DURATION.fullmatch(text.strip().lower())
    parts = {unit: int(number) for unit, number in zip(_UNITS.values(), match.groups(), strict=True) if number} if match else {}
    try:
        duration = dt.timedelta(**parts)
    except OverflowError:
        duration = dt.timedelta()
    if not duration:
        raise ValueError("is not a length of time such as 90s, 15m, 2h, 1d or 1d12h")
    return duration


def parse_size(text: str) -> int:
    """The bytes that `text` says. Raises ValueError, with the way to write a size, for anything else."""
    match = _SIZE.fullmatch(text.strip().lower())
    if match is None or match[2] not in _BYTES:
        raise ValueError("is not a size such as 500kB, 5MB or 1GiB")
    return int(float(match[1]) * _BYTES[match[2]])


def parse_share(text: str) -> float:
    """The share that `text` says, from 0 to 1: `20%` or `0.2`. Raises ValueError, with the way to write one, for anything else."""
    said = text.strip()
    try:
        share = float(said.removesuffix("%")) / (100 if said.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise ValueError("is not a share such as 20% or 0.2")
    return share


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


_WRITTEN = WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "number"}]})

Duration = Annotated[str, _measure("duration", parse_duration), WithJsonSchema({"type": "string", "examples": ["15m", "2h", "1d"]})]
"""A length of time in a model, written `15m`; empty where there is none. `parse_duration` reads it."""

Size = Annotated[str, _measure("size", parse_size), _WRITTEN]
"""A number of bytes in a model, written `5MB`; empty where there is none. `parse_size` reads it."""

Share = Annotated[str, _measure("share", parse_share), _WRITTEN]
"""A share in a model, written `20%` or `0.2`; empty where there is none. `parse_share` reads it."""
