"""How often and how long to try again: full jitter between attempts, and what the server itself asks for."""

import datetime as dt
import random
from email.utils import parsedate_to_datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from muxly_dagster.http.messages import Response
from muxly_dagster.measures import Duration, Share, parse_duration, parse_share

PASSING = frozenset({408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524})
"""Statuses that say "not now": the standard's own, and those a content delivery network sends for a server it cannot reach."""

_UNBOUNDED = 1e9
UNTOUCHED = frozenset({429, 503})
"""Statuses that say the request was not carried out, so that even a POST may be sent again."""


class Retries(BaseModel):
    """How a passing trouble is met. `attempts` counts the first one; `budget_seconds` bounds what one request may lose to trouble.

    A `schedule` names the waits themselves in place of `attempts`, `base` and `cap`, and takes the time it takes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    attempts: int = Field(6, ge=1, description="How often a request is sent before giving up.")
    base: float = Field(0.5, ge=0, description="Longest wait before the second attempt, in seconds; doubles each time.")
    cap: float = Field(60.0, ge=0, description="Longest wait between two attempts, in seconds.")
    budget_seconds: float = Field(300, ge=0, description="Most seconds one request may spend on failed attempts and waits.")
    schedule: tuple[Duration, ...] = Field(
        (), description="The waits between attempts, one by one, instead.", examples=[["5s", "30s", "2m"]]
    )
    jitter: Share = Field("10%", description="By how much, at most, a wait of the `schedule` is lengthened.")

    @model_validator(mode="before")
    @classmethod
    def _scheduled(cls, said: Any) -> Any:
        """A schedule says how many attempts there are, and how long they may take."""
        if not isinstance(said, dict) or not said.get("schedule"):
            return said
        if taken := [name for name in ("attempts", "base", "cap") if name in said]:
            raise ValueError(f"`schedule` says how often and how long to wait; leave out `{taken[0]}`")
        waits = said["schedule"] if isinstance(said["schedule"], list | tuple) else ()
        return {"budget_seconds": _UNBOUNDED, **said, "attempts": len(waits) + 1}

    @field_validator("schedule")
    @classmethod
    def _no_gap(cls, waits: tuple[str, ...]) -> tuple[str, ...]:
        if not all(waits):
            raise ValueError("a wait of the schedule is empty; write it like 30s or 2m")
        return waits

    def delay(self, attempt: int, asked: float = 0.0) -> float:
        """The wait after failed attempt number `attempt` (from 1), in seconds, where the server asked for a wait of its own.

        Anything up to the doubled base, evenly spread, on top of what was asked; of a schedule its own wait or, if longer, what was asked.
        """
        if self.schedule:
            wait = max(parse_duration(self.schedule[min(attempt, len(self.schedule)) - 1]).total_seconds(), asked)
            return wait * random.uniform(1, 1 + parse_share(self.jitter or "0"))
        return asked + random.uniform(0, min(self.cap, self.base * 2 ** min(attempt - 1, 60)))


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
