"""How far a target has come, what it waits for, and how it is set back."""

import datetime as dt
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow.compute as pc

from muxly_dagster import records
from muxly_dagster.assembly import Target
from muxly_dagster.lake import Lake, LakeTable
from muxly_dagster.state import BreakerState, Offset, State, StoredReceipt, Wait


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a target is: changes it has not dealt with, when the oldest of them was read, what it waits for, open dead letters."""

    target: str
    destination: str
    lag: int
    oldest: dt.datetime | None
    wait: Wait | None
    breaker: BreakerState
    dead_letters: int
    last: StoredReceipt | None

    def plain(self) -> dict[str, Any]:
        """As plain values, for commands and the API."""
        told = asdict(self)
        if self.last is not None:
            told["last"]["id"] = self.last.id
        return told


def standing(lake: Lake, state: State, target: Target) -> Standing:
    """Where a target is now."""
    last = state.ledger.receipts(target.name, limit=1)
    waiting, oldest = behind(lake, state, target)
    return Standing(
        target.name,
        target.destination_name,
        waiting,
        oldest,
        state.waiting.read(target.name),
        state.breakers.read(target.destination_name),
        state.ledger.count_open(target.name),
        last[0] if last else None,
    )


def lag(lake: Lake, state: State, target: Target) -> int:
    """How many changes of its table a target has not dealt with yet."""
    table = lake.table(target.table)
    return table.head - _done(state, target, table) if table is not None else 0


def oldest_waiting(lake: Lake, state: State, target: Target) -> dt.datetime | None:
    """When the oldest change was read that a target has not dealt with yet; None where nothing waits."""
    return behind(lake, state, target)[1]


def behind(lake: Lake, state: State, target: Target) -> tuple[int, dt.datetime | None]:
    """`lag` and `oldest_waiting`, with the table opened once: a sensor asks for every target, every minute."""
    table = lake.table(target.table)
    if table is None:
        return 0, None
    done = _done(state, target, table)
    if table.head <= done:
        return table.head - done, None
    first = table.batches([records.AT], filter=pc.field(records.SEQ) == done + 1)
    return table.head - done, next(at for batch in first for at in batch.column(0).to_pylist())


def rewind(lake: Lake, state: State, target: Target) -> None:
    """Forget how far a target has come, here and at the destination, so that every change is delivered again."""
    with state.lock(f"deliver.{target.name}"):
        table = lake.existing(target.table)
        target.destination.rewind(target.name, table.table_id, 0)
        state.ledger.rewind(target.name, None)


def resync(lake: Lake, state: State, target: Target) -> None:
    """Let the newest change of every record be delivered again, and none that another has replaced since."""
    with state.lock(f"deliver.{target.name}"):
        table = lake.existing(target.table)
        target.destination.rewind(target.name, table.table_id, 0)
        state.ledger.rewind(target.name, Offset(table.table_id, 0, resync_upto=table.head))


def _done(state: State, target: Target, table: LakeTable) -> int:
    offset = state.ledger.offset(target.name)
    return offset.seq if offset and offset.table_id == table.table_id else 0
