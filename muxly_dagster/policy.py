"""What every destination may say about how it is delivered to: when, how much at a time, what is too much, what happens to failures."""

import datetime as dt
import zoneinfo
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from muxly_dagster.measures import Duration, Share, Size, parse_duration, parse_share, parse_size

OnError = Literal["retry", "dead_letter", "stop"]

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
_DAYS: tuple[Day, ...] = get_args(Day)


class _Policy(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _days(value: object) -> object:
    """`mon-fri` and `[mon, wed]` as a list of days."""
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list | tuple):
        return value
    found: list[object] = []
    for each in listed:
        first, dash, last = str(each).lower().partition("-")
        if dash and first in _DAYS and last in _DAYS:
            start, end = list(_DAYS).index(first), list(_DAYS).index(last)
            found += [_DAYS[(start + step) % 7] for step in range((end - start) % 7 + 1)]
        else:
            found.append(str(each).lower())
    return found


class Batching(_Policy):
    """How many changes go at a time, and what is waited for. Without `age` nothing waits: a run delivers all there is."""

    count: int | None = Field(None, ge=1, description="Most changes in one delivery; with `age`, so many go at once.")
    bytes: Size = Field("", description="About the most bytes in one delivery, such as `5MB`; with `age`, so many go at once.")
    age: Duration = Field("", description="Changes wait until the oldest of them was read so long ago, such as `1h`, or there are enough.")

    @property
    def most_bytes(self) -> int | None:
        """Bytes of one delivery; None without a limit."""
        return parse_size(self.bytes) if self.bytes else None

    @property
    def patience(self) -> dt.timedelta | None:
        """How long the oldest change may wait; None: nothing waits."""
        return parse_duration(self.age) if self.age else None


class Window(_Policy):
    """The hours in which there are deliveries, such as `{days: mon-fri, from: "09:00", to: "17:00", timezone: Europe/Berlin}`."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    days: Annotated[tuple[Day, ...], BeforeValidator(_days)] = Field(_DAYS, min_length=1, description="Days: `mon-fri`, or a list of them.")
    from_: dt.time = Field(dt.time(0), alias="from", description="When a day's window opens, such as `09:00`.")
    to: dt.time = Field(dt.time(0), description="When it closes; at or before `from` it is on the next day.")
    timezone: str = Field("UTC", description="The time zone of both, such as Europe/Berlin.")

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, name: str) -> str:
        try:
            zoneinfo.ZoneInfo(name)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(f"there is no time zone {name}; name one such as UTC or Europe/Berlin") from None
        return name

    def opens(self, now: dt.datetime) -> dt.datetime:
        """The moment (UTC) from which there may be deliveries: `now` itself within a window, else when the next one opens."""
        zone = zoneinfo.ZoneInfo(self.timezone)
        today = now.astimezone(zone).date()
        for day in range(-1, 9):
            date = today + dt.timedelta(days=day)
            if _DAYS[date.weekday()] not in self.days:
                continue
            # Wall-clock times become moments one by one: the day on which clocks change has 23 or 25 hours.
            last = date if self.to > self.from_ else date + dt.timedelta(days=1)
            begins = dt.datetime.combine(date, self.from_, zone).astimezone(dt.UTC)
            ends = dt.datetime.combine(last, self.to, zone).astimezone(dt.UTC)
            if now < ends:
                return max(now, begins)
        raise AssertionError("unreachable: some day of the week has a window")


class Dedupe(_Policy):
    """Deliver a record only if no record alike was delivered a short while ago."""

    within: Duration = Field(min_length=1, description="For how long a delivered record keeps others like it back, such as `1h`.")
    by: tuple[str, ...] = Field((), description="The columns in which records are alike; the record's key unless told otherwise.")

    @property
    def time(self) -> dt.timedelta:
        """The length of time."""
        return parse_duration(self.within)


class Guard(_Policy):
    """Stops a run that would change more than it should, until a person has looked. Shares are of the rows delivered before."""

    deletes: Share = Field("50%", description="Most of the rows that one run may delete where deletions are passed on; empty: no limit.")
    changes: Share = Field("", description="Most of the rows that one run may change or delete; empty: no limit.")
    at_least: int = Field(100, ge=1, description="Fewer rows than so many are never too much.")

    @property
    def most_deletes(self) -> float | None:
        """The share that may be deleted; None without a limit."""
        return parse_share(self.deletes) if self.deletes else None

    @property
    def most_changes(self) -> float | None:
        """The share that may be changed or deleted; None without a limit."""
        return parse_share(self.changes) if self.changes else None


class Breaker(_Policy):
    """After some deliveries in a row that failed, the destination is left alone for a while, then tried with a single one."""

    failures: int = Field(5, ge=0, description="So many failed deliveries in a row, of any route, open the breaker; 0: never.")
    pause: Duration = Field("1m", min_length=1, description="How long it stays open the first time; twice as long each further time.")
    longest: Duration = Field("1h", min_length=1, description="The longest it stays open.")

    def open_for(self, times: int) -> dt.timedelta:
        """How long it stays open when it opens for the n-th time in a row (from 1)."""
        pause = parse_duration(self.pause) * float(2 ** min(times - 1, 20))
        return min(parse_duration(self.longest), pause)
