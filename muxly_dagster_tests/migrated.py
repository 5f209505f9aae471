"""A new SQLite state is written from what the migrations made once: they take a fifth of a second, and hundreds of tests begin with them.

The tests of the migrations (state/test_state.py) and all child processes run them, and so does whatever is no new SQLite file.
"""

import contextlib
import functools
import tempfile
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from muxly_dagster.state import state
from muxly_dagster.state.reading import reading

run_migrations = state._migrate


@contextlib.contextmanager
def once() -> Iterator[None]:
    """From here on, migrations run once in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(state, "_migrate", _migrate)
        yield


@contextlib.contextmanager
def every_time() -> Iterator[None]:
    """From here on, they run whenever they would."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(state, "_migrate", run_migrations)
        yield


def _migrate(engine: sa.Engine) -> None:
    if engine.dialect.name != "sqlite" or _has_tables(engine):
        run_migrations(engine)
        return
    with contextlib.closing(engine.raw_connection()) as connection:
        assert connection.driver_connection
        connection.driver_connection.executescript(_script())


def _has_tables(engine: sa.Engine) -> bool:
    with reading(engine) as connection:
        return bool(sa.inspect(connection).get_table_names())


@functools.cache
def _script() -> str:
    """The SQL that makes what the migrations make."""
    with tempfile.TemporaryDirectory() as folder:
        engine = state._engine(f"sqlite:///{folder}/state.db")
        run_migrations(engine)
        with contextlib.closing(engine.raw_connection()) as connection:
            assert connection.driver_connection
            script = "\n".join(connection.driver_connection.iterdump())
        engine.dispose()
    return script
