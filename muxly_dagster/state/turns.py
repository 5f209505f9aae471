"""Rate budgets in the state database: every process that uses an account takes its turns here."""

import hashlib
import time
import uuid
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from muxly_dagster.services import Grant, Rate, Used
from muxly_dagster.state import tables
from muxly_dagster.state.schedule import Places, Turn, current, plan, reserved, settled, share

LEASE = 5.0
"""Seconds after which the places of a process that died are free for others."""

_MOST_PAUSE = 24 * 3600.0
"""No API asks for more than a day; a larger number is a mistake that must not stop an account for good."""


class SharedTurns:
    """See `services.Turns`. One row for each budget, under a name that tells nothing; each call is one short transaction."""

    def __init__(self, engine: sa.Engine, lease: float = LEASE) -> None:
        self._engine, self._lease = engine, lease

    def reserve(self, rates: Sequence[Rate], wanted: int, used: Used | None = None) -> Grant:
        """Reserve starts at the earliest moment at which all budgets have room."""
        names = {rate.budget: _hidden(rate.budget) for rate in rates}
        grant = uuid.uuid4().hex[:12]
        before = time.monotonic()
        with self._engine.begin() as connection:
            rows = _hold(connection, names.values())
            now = _now(connection)
            at = time.monotonic()
            held = [(rate, current(_turns(rows[names[rate.budget]]), rate.window, now)) for rate in rates]
            if used is not None:
                held = [(rate, settled(rate, turns, used.id, used.count, now - (at - used.last))) for rate, turns in held]
            paused_until = max((float(row["paused_until"]) for row in rows.values()), default=0.0)
            found = plan(held, max(1, wanted), now, min(paused_until, now + _MOST_PAUSE))
            for rate, turns in held:
                kept = reserved(rate, turns, grant, found) if found.starts else turns
                _write(connection, names[rate.budget], turns=[list(turn) for turn in kept])
        # The database's clock was read between `before` and `at`: early enough to close, late enough to open.
        return Grant(grant, found.starts, at + found.begins - now, (before if self._far else at) + found.ends - now)

    def settle(self, rates: Sequence[Rate], used: Used) -> None:
        """Give back what is left of a grant."""
        names = {rate.budget: _hidden(rate.budget) for rate in rates}
        with self._engine.begin() as connection:
            rows = _hold(connection, names.values())
            last = _now(connection) - (time.monotonic() - used.last)
            for rate in rates:
                turns = settled(rate, _turns(rows[names[rate.budget]]), used.id, used.count, last)
                _write(connection, names[rate.budget], turns=[list(turn) for turn in turns])

    def slots(self, budget: str, most: int, holder: str, running: int, wanted: int) -> tuple[int, float]:
        """Take, keep or give back places."""
        name = _hidden(budget)
        before = time.monotonic()
        with self._engine.begin() as connection:
            row = _hold(connection, [name])[name]
            held = {key: Places(*value) for key, value in row["places"].items()}
            may, held = share(held, holder, running, wanted, most, _now(connection), self._lease)
            places = {key: [p.count, p.wants, p.since, p.until] for key, p in held.items()}
            _write(connection, name, places=places)
        return may, before + self._lease

    def pause(self, budgets: Sequence[str], seconds: float) -> None:
        """Let no start be reserved for a while."""
        with self._engine.begin() as connection:
            rows = _hold(connection, [_hidden(budget) for budget in budgets])
            until = _now(connection) + min(seconds, _MOST_PAUSE)
            for name, row in rows.items():
                _write(connection, name, paused_until=max(until, float(row["paused_until"])))

    def paused(self, budgets: Sequence[str]) -> dict[str, float]:
        """When the pauses end."""
        table, names = tables.budgets, {_hidden(budget): budget for budget in budgets}
        with self._engine.begin() as connection:
            now = _now(connection)
            query = sa.select(table.c.name, table.c.paused_until).where(table.c.name.in_(names), table.c.paused_until > now)
            rows = connection.execute(query).all()
        at = time.monotonic()
        return {names[row.name]: at + min(row.paused_until - now, _MOST_PAUSE) for row in rows}

    @property
    def _far(self) -> bool:
        """Whether the clock is the database's, so that reading it takes a while."""
        return self._engine.dialect.name != "sqlite"


def _hold(connection: sa.Connection, names: Any) -> dict[str, Any]:
    """The rows of these budgets, made where there is none, and nobody else's until the transaction ends."""
    wanted = sorted(set(names))  # always in the same order: two transactions never wait for each other
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    table = tables.budgets
    query = sa.select(table).where(table.c.name.in_(wanted)).order_by(table.c.name).with_for_update()
    rows = {row["name"]: row for row in connection.execute(query).mappings()}
    if len(rows) < len(wanted):
        empty = [{"name": name, "turns": [], "places": {}, "paused_until": 0.0} for name in wanted if name not in rows]
        connection.execute(insert(table).on_conflict_do_nothing(), empty)
        rows = {row["name"]: row for row in connection.execute(query).mappings()}
    return {name: rows[name] for name in wanted}


def _turns(row: Any) -> list[Turn]:
    return [Turn(*turn) for turn in row["turns"]]


def _write(connection: sa.Connection, name: str, **values: Any) -> None:
    connection.execute(sa.update(tables.budgets).where(tables.budgets.c.name == name).values(**values))


def _now(connection: sa.Connection) -> float:
    """Seconds since 1970 by the clock that all processes share: this machine's with SQLite, else the database's."""
    if connection.dialect.name == "sqlite":
        return time.time()
    return float(connection.scalar(sa.select(sa.func.extract("epoch", sa.func.clock_timestamp()))) or 0.0)


def _hidden(budget: str) -> str:
    """The name of a row: what a budget is called may hold whatever names an account."""
    return hashlib.sha256(f"muxly budget\n{budget}".encode()).hexdigest()
