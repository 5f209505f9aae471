"""What all of the state comes to, in a few queries: for a scraper that asks every quarter of a minute."""

import datetime as dt
import time
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from muxly_dagster.state import tables
from muxly_dagster.state.state import State


@dataclass(frozen=True, slots=True)
class Delivered:
    """The receipts of one target, summed up. `seconds` is how long its destination took."""

    receipts: int = 0
    accepted: int = 0
    refused: int = 0
    unrouted: int = 0
    seconds: float = 0.0
    last: str = ""


@dataclass(frozen=True, slots=True)
class Budget:
    """One rate budget, under the hash that is its name: places that are taken now, and seconds until the pause it was told to make ends."""

    name: str
    places: int
    paused: float


class Figures:
    """Sums and counts over everything remembered."""

    def __init__(self, state: State) -> None:
        self._engine, self._inbox = state.engine, state.inbox_engine

    def ping(self) -> None:
        """Ask both databases for nothing. Raises MuxlyError where one of them does not answer."""
        for engine in (self._engine, self._inbox):
            self._rows(sa.select(1), engine)

    def pulls(self) -> dict[str, dt.datetime]:
        """When each pull last read everything there was."""
        table = tables.pulls
        return {pull: dt.datetime.fromisoformat(at) for pull, at in self._rows(sa.select(table.c.pull, table.c.last_success))}

    def deliveries(self) -> dict[str, Delivered]:
        """The receipts of every target that ever had one."""
        table = tables.receipts
        sums = [sa.func.sum(table.c[name]) for name in ("accepted", "refused", "unrouted", "seconds")]
        rows = self._rows(sa.select(table.c.target, sa.func.count(), *sums, sa.func.max(table.c.at)).group_by(table.c.target))
        return {
            target: Delivered(count, int(accepted), int(refused), int(unrouted), float(seconds), last)
            for target, count, accepted, refused, unrouted, seconds, last in rows
        }

    def offsets(self) -> dict[str, tuple[str, int]]:
        """How far every target has come: table id and seq."""
        table = tables.offsets
        return {target: (table_id, seq) for target, table_id, seq in self._rows(sa.select(table.c.target, table.c.table_id, table.c.seq))}

    def open_letters(self) -> dict[tuple[str, str], int]:
        """How many dead letters are open, by kind and name."""
        table = tables.dead_letters
        query = sa.select(table.c.kind, table.c.name, sa.func.count()).where(table.c.status == "open").group_by(table.c.kind, table.c.name)
        return {(kind, name): count for kind, name, count in self._rows(query)}

    def budgets(self) -> list[Budget]:
        """All rate budgets."""
        table, now = tables.budgets, time.time()
        rows = self._rows(sa.select(table.c.name, table.c.places, table.c.paused_until).order_by(table.c.name))
        return [
            Budget(name, sum(int(place[0]) for place in places.values() if float(place[3]) > now), max(0.0, paused_until - now))
            for name, places, paused_until in rows
        ]

    def _rows(self, query: sa.Select, engine: sa.Engine | None = None) -> Sequence[sa.Row]:  # type: ignore[type-arg]  # what they hold differs
        with (engine or self._engine).begin() as connection:
            return connection.execute(query).all()
