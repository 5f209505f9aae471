"""How long one run waits out passing troubles, and when a delivery that failed is tried again."""

import datetime as dt
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from muxly_dagster.errors import RetryLater

T = TypeVar("T")

_FIRST = 30.0
_LONGEST = 3600.0
_MOST_ASKED = 24 * 3600.0
"""Nobody asks for more than a day; a larger number is a mistake that must not stop a delivery for good."""


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long one run waits out passing troubles before it leaves the rest to the next run; `now` is its clock, in UTC."""

    attempts: int = 4
    base: float = 0.5
    cap: float = 15.0
    sleep: Callable[[float], None] = time.sleep
    now: Callable[[], dt.datetime] = _now

    def wait(self, attempt: int, asked: float | None) -> None:
        """Full jitter, or what the destination asked for. Raises nothing: a longer wish than the cap is the caller's to see."""
        self.sleep(asked if asked is not None else random.uniform(0, min(self.cap, self.base * 2**attempt)))

    def retrying(self, attempt: Callable[[], T]) -> T:
        """What the attempt gives, tried again while it raises RetryLater and a wait within this run is worth it."""
        for number in range(self.attempts):
            try:
                return attempt()
            except RetryLater as error:
                if number + 1 == self.attempts or (error.after or 0) > self.cap:
                    raise
                self.wait(number, error.after)
        raise AssertionError("unreachable: attempts is at least 1")

    def next_try(self, failures: int, asked: float | None) -> dt.datetime:
        """When a delivery that failed so often in a row (from 1) is due again: later each time, at least as late as it was asked for."""
        backoff = min(_LONGEST, _FIRST * 2.0 ** min(failures - 1, 20)) * random.uniform(0.5, 1)
        return self.now() + dt.timedelta(seconds=max(backoff, min(asked or 0.0, _MOST_ASKED)))
