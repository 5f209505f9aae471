"""How often and how long to try again: full jitter between attempts, and what the server itself asks for."""

import datetime as dt
import random
from email.utils import parsedate_to_datetime

from pydantic import BaseModel, ConfigDict, Field

from muxly_dagster.http.messages import Response

PASSING = frozenset({408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524})
"""Statuses that say "not now": the standard's own, and those a content delivery network sends for a server it cannot reach."""

UNTOUCHED = frozenset({429, 503})
"""Statuses that say the request was not carried out, so that even a POST may be sent again."""


class Retries(BaseModel):
    """How a passing trouble is met. `attempts` counts the first one; `budget_seconds` bounds what one request may lose to trouble."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    attempts: int = Field(6, ge=1, description="How often a request is sent before giving up.")
    base: float = Field(0.5, ge=0, description="Longest wait before the second attempt, in seconds; doubles each time.")
    cap: float = Field(60.0, ge=0, description="Longest wait between two attempts, in seconds.")
    budget_seconds: float = Field(300, ge=0, description="Most seconds one request may spend on failed attempts and waits.")

    def delay(self, attempt: int) -> float:
        """The wait after failed attempt number `attempt` (from 1), in seconds: anything up to the doubled base, evenly spread."""
        return random.uniform(0, min(self.cap, self.base * 2 ** min(attempt - 1, 60)))


def retry_after(response: Response, now: dt.datetime | None = None) -> float | None:
    """The wait a response asks for in `Retry-After`, in seconds: a number or a date (RFC 9110, 10.2.3); None for none.

    A date counts from the server's own `Date`, so that a clock that is off does not matter; else from `now`.
    """
    text = response.headers.get("retry-after", "").strip()
    try:
        seconds = float(text)
    except ValueError:
        until = _date(text)
        if until is None:
            return None
        seconds = (until - (_date(response.headers.get("date", "")) or now or dt.datetime.now(dt.UTC))).total_seconds()
    return max(0.0, seconds) if seconds == seconds and seconds != float("inf") else None


def _date(text: str) -> dt.datetime | None:
    try:
        date = parsedate_to_datetime(text)
    except (TypeError, ValueError, IndexError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=dt.UTC)
