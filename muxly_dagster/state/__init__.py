"""All that Muxly remembers in SQL: cursors, offsets, receipts, dead letters. SQLite by default, Postgres when told."""

from muxly_dagster.state.ledger import DeadLetter, Ledger, Offset, StoredReceipt
from muxly_dagster.state.state import State

__all__ = ["DeadLetter", "Ledger", "Offset", "State", "StoredReceipt"]
