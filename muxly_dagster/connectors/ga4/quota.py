"""How much of a property's quota is left, and when it comes back (analytics/devguides/reporting/data/v1/quotas)."""

import datetime as dt
from dataclasses import dataclass
from typing import Any, Literal
from zoneinfo import ZoneInfo

_PACIFIC = ZoneInfo("America/Los_Angeles")  # daily quotas are filled again at midnight there


@dataclass(frozen=True, slots=True)
class _Bucket:
    """One of a property's budgets: its size for a standard property and for one of Analytics 360."""

    title: str
    standard: int
    premium: int
    each: Literal["hour", "day"]


_BUCKETS = {
    "tokens_per_day": _Bucket("tokens a day", 200_000, 2_000_000, "day"),
    "tokens_per_hour": _Bucket("tokens an hour", 40_000, 400_000, "hour"),
    "tokens_per_project_per_hour": _Bucket("tokens an hour for one project", 14_000, 140_000, "hour"),
    "potentially_thresholded_requests_per_hour": _Bucket("potentially thresholded requests an hour", 120, 120, "hour"),
    "server_errors_per_project_per_hour": _Bucket("server errors an hour for one project", 10, 50, "hour"),
}
QUOTAS = tuple(f"{bucket.standard:,} {bucket.title} ({bucket.premium:,} with Analytics 360)" for bucket in _BUCKETS.values())
"""The budgets of any property, in words."""

_STANDARD_CONCURRENCY = 10


@dataclass(frozen=True, slots=True)
class Short:
    """A budget of which too little is left, in words, and the seconds until it is surely full again."""

    what: str
    after: float


class Quota:
    """What the newest answer said of each budget.

    An answer tells what is left, not how large a budget is. The size follows from the kind of property: only one of Analytics 360
    ever has more left than a standard one can have, or more than 10 requests at once.
    """

    def __init__(self) -> None:
        self._left: dict[str, int] = {}
        self._premium = False

    def learn(self, quota: Any) -> None:
        """Take in a PropertyQuota."""
        for name, bucket in _BUCKETS.items():
            if name in quota:
                self._left[name] = getattr(quota, name).remaining
                self._premium |= self._left[name] > bucket.standard
        together = quota.concurrent_requests
        self._premium |= together.remaining + together.consumed > _STANDARD_CONCURRENCY

    def short(self, floor: float) -> Short | None:
        """The first budget of which less than this share (0 to 1) is left; None where all have more."""
        for name, left in self._left.items():
            bucket, size = _BUCKETS[name], self._size(name)
            if left < floor * size:
                return Short(f"{left:,} of {size:,} {bucket.title} are left", seconds_until_full(bucket.each))
        return None

    def told(self) -> tuple[str, ...]:
        """Every budget in words."""
        return tuple(f"{left:,} of {self._size(name):,} {_BUCKETS[name].title} left" for name, left in self._left.items())

    def _size(self, name: str) -> int:
        return _BUCKETS[name].premium if self._premium else _BUCKETS[name].standard


def seconds_until_full(each: Literal["hour", "day"]) -> float:
    """The most seconds until a budget of each hour or day is full again."""
    if each == "hour":
        return 3600.0
    now = dt.datetime.now(_PACIFIC)
    midnight = dt.datetime.combine(now.date() + dt.timedelta(days=1), dt.time(), _PACIFIC)
    return (midnight - now.astimezone(dt.UTC)).total_seconds()


def returns(after: float | None) -> str:
    """When to come back, in words."""
    if after is None:
        return "later"
    return f"in {after / 3600:.0f} h at most" if after > 3600 else "in an hour at most"
