"""Lengths of time as people write them: `90s`, `15m`, `2h`, `1d`, `1d12h`."""

import datetime as dt
import re

_UNITS = {"w": "weeks", "d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
_DURATION = re.compile(r"(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")


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
