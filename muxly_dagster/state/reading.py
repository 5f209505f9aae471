"""Transactions that only read."""

import sqlalchemy as sa

_ONLY = "muxly_reads"


def reading(engine: sa.Engine) -> sa.Connection:
    """A connection whose transactions only read: with SQLite they neither wait for whoever writes nor let them wait."""
    return engine.connect().execution_options(**{_ONLY: True})


def only_reads(connection: sa.Connection) -> bool:
    """Whether a connection is such a one."""
    return bool(connection.get_execution_options().get(_ONLY, False))
