"""Circuit breakers, one for each destination: after failures in a row it is left alone for a while, then tried with one delivery."""

import datetime as dt
from dataclasses import dataclass
from typing import Literal

import sqlalchemy as sa

from muxly_dagster.errors import GoneError, RetryLater
from muxly_dagster.policy import Breaker
from muxly_dagster.state import tables

Status = Literal["closed", "open", "probing", "disabled"]

_PROBE = dt.timedelta(minutes=15)
"""After so long a probe counts as dead: whoever made it was killed."""

_SKEW = dt.timedelta(minutes=5)
"""How far the clocks of two machines may be apart."""


@dataclass(frozen=True, slots=True)
class BreakerState:
    """How a destination's breaker stands.

    `failures` are those in a row, `times` how often it opened in a row, `until` when it may be tried.
    """

    destination: str
    status: Status = "closed"
    failures: int = 0
    times: int = 0
    until: dt.datetime | None = None
    reason: str = ""
    since: str = ""

    def holds(self, now: dt.datetime) -> bool:
        """Whether deliveries have to wait. What a clock wrote that ran ahead and was set back holds up nobody for longer than it was to."""
        if self.until is None or now >= self.until:
            return False
        return not self.since or dt.datetime.fromisoformat(self.since) <= now + _SKEW


class Breakers:
    """Reads and moves breakers. Each move is one transaction, so that of several processes one makes the probe."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def read(self, destination: str) -> BreakerState:
        """How the breaker stands; closed where nothing ever failed."""
        with self._engine.begin() as connection:
            return _read(connection, destination)

    def all(self) -> list[BreakerState]:
        """Those that something ever failed at, by name."""
        with self._engine.begin() as connection:
            rows = connection.execute(sa.select(tables.breakers).order_by(tables.breakers.c.destination)).mappings().all()
        return [_of(row) for row in rows]

    def admit(self, destination: str, now: dt.datetime, *, by_hand: bool = False) -> bool:
        """Let a delivery through; answers whether it is a probe, as it is where the breaker was open long enough or a person asks for it.

        Raises RetryLater while it is open, GoneError while the destination is switched off.
        """
        with self._engine.begin() as connection:
            held = _read(connection, destination)
            if held.status == "closed":
                return False
            if held.status == "disabled":
                raise GoneError(
                    f"the destination {destination} was switched off: {held.reason}",
                    do=f"correct it, then `muxly destinations resume {destination}`",
                )
            if held.until is not None and held.holds(now) and not by_hand:
                tried = "is being tried by another run" if held.status == "probing" else "is left alone for a while"
                raise RetryLater(
                    f"the destination {destination} {tried} after {held.failures} failed deliveries in a row: {held.reason}",
                    do=f"it is tried again by itself; `muxly destinations resume {destination}` does not wait",
                    after=(held.until - now).total_seconds(),
                )
            _write(connection, destination, status="probing", until=tables.written(now + _PROBE), since=tables.written(now))
        return True

    def release(self, destination: str, now: dt.datetime) -> None:
        """Take back a probe that found out nothing: the next delivery makes it."""
        with self._engine.begin() as connection:
            if _read(connection, destination).status == "probing":
                _write(connection, destination, status="open", until=tables.written(now), since=tables.written(now))

    def failed(self, destination: str, policy: Breaker, reason: str, now: dt.datetime) -> None:
        """Count a failed delivery; open the breaker where there were too many in a row, or where it was a probe.

        One that is open already stays open for as long as it was to: runs that began before it opened say nothing new.
        """
        with self._engine.begin() as connection:
            held = _read(connection, destination)
            failures = held.failures + 1
            values: dict[str, object] = {"failures": failures, "reason": reason[:1000]}
            if not policy.failures and held.status in ("open", "probing"):
                values |= {"status": "closed", "times": 0, "until": None, "since": tables.written(now)}
            elif held.status == "probing" or (held.status == "closed" and policy.failures and failures >= policy.failures):
                times = held.times + 1
                values |= {
                    "status": "open",
                    "times": times,
                    "until": tables.written(now + policy.open_for(times)),
                    "since": tables.written(now),
                }
            _write(connection, destination, **values)

    def succeeded(self, destination: str, now: dt.datetime) -> None:
        """Close the breaker: a delivery went well."""
        with self._engine.begin() as connection:
            held = _read(connection, destination)
            if held.failures or held.status != "closed":
                _write(connection, destination, status="closed", failures=0, times=0, until=None, reason="", since=tables.written(now))

    def disable(self, destination: str, reason: str, now: dt.datetime) -> None:
        """Switch the destination off until a person resumes it."""
        with self._engine.begin() as connection:
            _write(connection, destination, status="disabled", reason=reason[:1000], until=None, since=tables.written(now))

    def resume(self, destination: str, now: dt.datetime) -> BreakerState:
        """Close the breaker by hand; answers how it stood."""
        with self._engine.begin() as connection:
            held = _read(connection, destination)
            if held != BreakerState(destination):
                _write(connection, destination, status="closed", failures=0, times=0, until=None, reason="", since=tables.written(now))
        return held


def _read(connection: sa.Connection, destination: str) -> BreakerState:
    query = sa.select(tables.breakers).where(tables.breakers.c.destination == destination).with_for_update()
    row = connection.execute(query).mappings().one_or_none()
    return _of(row) if row else BreakerState(destination)


def _of(row: sa.RowMapping) -> BreakerState:
    until = dt.datetime.fromisoformat(row["until"]) if row["until"] else None
    return BreakerState(**{**row, "until": until})


def _write(connection: sa.Connection, destination: str, **values: object) -> None:
    table = tables.breakers
    empty = {"status": "closed", "failures": 0, "times": 0, "until": None, "reason": "", "since": tables.now()}
    tables.ensure(connection, table, destination=destination, **empty)
    connection.execute(sa.update(table).where(table.c.destination == destination).values(**values))
