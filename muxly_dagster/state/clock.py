"""What time it is for the state database, where that is a server with a clock of its own."""

import datetime as dt

import sqlalchemy as sa


def database_time(engine: sa.Engine) -> dt.datetime | None:
    """The server's present moment; None for SQLite, whose clock is this machine's."""
    if engine.dialect.name == "sqlite":
        return None
    with engine.connect() as connection:
        found = connection.scalar(sa.select(sa.func.clock_timestamp(type_=sa.DateTime(timezone=True))))
    return found.astimezone(dt.UTC) if found is not None else None


def migration(engine: sa.Engine) -> str:
    """The migration that the database stands at."""
    with engine.connect() as connection:
        return str(connection.scalar(sa.text("select version_num from alembic_version")))
