"""All that Muxly remembers in SQL: cursors, offsets, receipts, dead letters. SQLite by default, Postgres when told."""

from muxly_dagster.state.breakers import BreakerState
from muxly_dagster.state.ledger import Beside, DeadLetter, Ledger, Offset, StoredReceipt
from muxly_dagster.state.state import State
from muxly_dagster.state.waiting import Wait

__all__ = ["Beside", "BreakerState", "DeadLetter", "Ledger", "Offset", "State", "StoredReceipt", "Wait"]
