"""What every destination may say about how it is delivered to: when, how much at a time, what is too much, what happens to failures."""

import datetime as dt
import zoneinfo
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from muxly_dagster.measures import Duration, Share, Size, TimeOfDay, parse_duration, parse_share, parse_size

OnError = Literal["retry", "dead_letter", "stop"]

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
_DAYS: tuple[Day, ...] = get_args(Day)
_DAYS_AHEAD = 16
"""Two weeks and what belongs to them: the only window of a week may fall into the hour that is left out when clocks go forward."""


class _Policy(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _days(value: object) -> object:
    """`mon-fri` and `[mon, wed]` as a list of days."""
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list | tuple):
        return value
    found: list[object] = []
    for each in listed:
        first, dash, last = (part.strip() for part in str(each).lower().partition("-"))
        if dash and first in _DAYS and last in _DAYS:
            start, end = list(_DAYS).index(first), list(_DAYS).index(last)
            found += [_DAYS[(start + step) % 7] for step in range((end - start) % 7 + 1)]
        else:
            found.append(str(each).strip().lower())
    return list(dict.fromkeys(found))


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
    from_: TimeOfDay = Field(dt.time(0), alias="from", description="When a day's window opens, such as `09:00`.")
    to: TimeOfDay = Field(dt.time(0), description="When it closes, `00:00` at midnight; at or before `from`, on the next day.")
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
        """The moment (UTC) from which there may be deliveries: `now` itself within a window, else when the next one opens.

        On the day that clocks go forward, a time that is left out is the moment of the change, and a window that is left out whole
        is none; on the day that they go back, a time that comes twice is its first moment.
        """
        zone = zoneinfo.ZoneInfo(self.timezone)
        now = now.astimezone(dt.UTC)
        today = now.astimezone(zone).date()
        for day in range(-1, _DAYS_AHEAD):
            date = today + dt.timedelta(days=day)
            if _DAYS[date.weekday()] not in self.days:
                continue
            last = date if self.to > self.from_ else date + dt.timedelta(days=1)
            begins, ends = _moment(date, self.from_, zone), _moment(last, self.to, zone)
            if begins < ends and now < ends:
                return max(now, begins)
        raise AssertionError("unreachable: some day of two weeks has a window")


def _moment(date: dt.date, time: dt.time, zone: zoneinfo.ZoneInfo) -> dt.datetime:
    """When a clock on the wall shows this time, in UTC: of two moments the first; where it never does, when the clock jumps over it."""
    wall = dt.datetime.combine(date, time, zone)
    moment = wall.astimezone(dt.UTC)
    if moment.astimezone(zone).replace(tzinfo=None) == wall.replace(tzinfo=None):
        return moment
    # Read by the clock before the jump, the time lies behind it; read by the clock after it (PEP 495), before it.
    before, behind = wall.replace(fold=1).astimezone(dt.UTC), moment
    while behind - before > dt.timedelta(seconds=1):
        middle = before + (behind - before) // 2
        if middle.astimezone(zone).replace(tzinfo=None) < wall.replace(tzinfo=None):
            before = middle
        else:
            behind = middle
    return behind.replace(microsecond=0)


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
        pause, longest = parse_duration(self.pause), parse_duration(self.longest)
        doublings = 2 ** min(max(times, 1) - 1, 62)
        return longest if pause >= longest / doublings else pause * doublings
