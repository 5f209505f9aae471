"""Moments as records hold them: text as in RFC 3339, made of nanoseconds since 1970."""

import datetime as dt
from functools import lru_cache

FIRST, LAST = -(2**63), 2**63 - 1
"""The nanoseconds that an integer of 64 bits holds: the years 1677 to 2262."""

_EPOCH = dt.datetime(1970, 1, 1)


def written(nanoseconds: int) -> str:
    """With all nine digits, so that nothing is lost and text sorts as time does."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{_second(seconds)}.{rest:09d}Z"


def written_ms(milliseconds: int) -> str:
    """With three digits. Raises OverflowError outside the years 1 to 9999."""
    seconds, rest = divmod(milliseconds, 1000)
    return f"{_second(seconds)}.{rest:03d}Z"


@lru_cache(4096)
def _second(seconds: int) -> str:
    return (_EPOCH + dt.timedelta(seconds=seconds)).isoformat()
