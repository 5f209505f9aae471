"""The turn in which one process at a time stores events."""

import sqlalchemy as sa

_LOCK = 7766005  # the number of Postgres' advisory lock under which parcels are stored, and marks leave where others look for them


def take_turn(connection: sa.Connection) -> None:
    """Let one transaction at a time store parcels, so that none turns up behind one with a higher seq, and none sees marks go away between
    two statements. SQLite does so by itself."""
    if connection.dialect.name != "sqlite":
        # A database that is set to answer before a commit is safe must not do so here.
        setting = "current_setting('synchronous_commit')"
        durable = f"set_config('synchronous_commit', case {setting} when 'off' then 'on' else {setting} end, true)"
        connection.exec_driver_sql(f"select pg_advisory_xact_lock({_LOCK}), {durable}")
