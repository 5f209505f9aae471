"""The rates of write keys, counted in memory: each API process lets a key send that much."""

import math
import time

import limits
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter

from muxly_dagster.errors import ConfigurationError
from muxly_dagster.state.keys import WriteKey


class Rates:
    """Counts requests by key."""

    def __init__(self) -> None:
        self._limiter = FixedWindowRateLimiter(MemoryStorage())
        self._read: dict[str, limits.RateLimitItem] = {}

    def wait(self, key: WriteKey) -> int:
        """Count a request; 0 if the key may send it, else the seconds until it may send the next."""
        if not key.rate:
            return 0
        rate = self._read.get(key.rate) or self._read.setdefault(key.rate, read_rate(key.rate))
        if self._limiter.hit(rate, key.id):
            return 0
        return max(1, math.ceil(self._limiter.get_window_stats(rate, key.id).reset_time - time.time()))


def read_rate(text: str) -> limits.RateLimitItem:
    """The rate that a text such as `100/second` or `5000/minute` says. Raises ConfigurationError for anything else."""
    try:
        found = limits.parse_many(text)
    except ValueError:
        found = []
    if len(found) != 1 or found[0].amount < 1:
        raise ConfigurationError(f"{text!r} is no rate", do="write it like 100/second or 5000/minute")
    return found[0]
