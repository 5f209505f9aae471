"""All that Muxly remembers in SQL: cursors, offsets, receipts, dead letters. SQLite by default, Postgres when told."""

from muxly_dagster.state.breakers import BreakerState
from muxly_dagster.state.ledger import Beside, DeadLetter, Ledger, Offset, StoredReceipt
from muxly_dagster.state.starts import START, Start
from muxly_dagster.state.state import State
from muxly_dagster.state.waiting import Wait

__all__ = ["START", "Beside", "BreakerState", "DeadLetter", "Ledger", "Offset", "Start", "State", "StoredReceipt", "Wait"]
