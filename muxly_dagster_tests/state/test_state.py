"""The state database opens, migrates, locks, and says what is wrong with it."""

import multiprocessing
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from muxly_dagster.errors import BusyError, ConfigurationError, MuxlyError, RetryLater
from muxly_dagster.state import State, tables
from muxly_dagster_tests import migrated


@pytest.fixture(autouse=True)
def _migrations_run() -> Iterator[None]:
    with migrated.every_time():
        yield


def test_migrations_make_exactly_the_declared_tables(url: str, tmp_path: Path) -> None:
    state = State.open(url, tmp_path)
    with state.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, tables.metadata) == []
    with state.inbox_engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), tables.metadata) == []
    state.close()


def test_opening_again_finds_what_was_written(url: str, tmp_path: Path) -> None:
    first = State.open(url, tmp_path)
    first.cursors.write("crm.contacts", 1, {"value": "x"}, "t")
    first.close()
    second = State.open(url, tmp_path)
    assert second.cursors.read("crm.contacts", 1) == {"value": "x"}
    second.close()


def _open(url: str, home: Path) -> None:
    State.open(url, home).close()


def test_many_processes_may_open_a_fresh_database_at_once(url: str, tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=_open, args=(url, tmp_path)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]


def test_a_lock_is_held_by_one_run_and_freed_after_it(url: str, tmp_path: Path) -> None:
    one, two = State.open(url, tmp_path), State.open(url, tmp_path)
    with one.lock("pull.crm.contacts"):
        with pytest.raises(BusyError, match="another run of pull.crm.contacts is going on"), two.lock("pull.crm.contacts"):
            pass
        with two.lock("pull.crm.deals"):
            pass
    with two.lock("pull.crm.contacts"):
        pass
    one.close()
    two.close()


def test_a_database_that_another_program_holds_is_told_and_used_later(tmp_path: Path) -> None:
    state = State.open(f"sqlite:///{tmp_path}/state.db", tmp_path)
    with state.engine.connect() as connection:  # the only one of the pool
        connection.exec_driver_sql("pragma busy_timeout=0")
    with closing(sqlite3.connect(tmp_path / "state.db", isolation_level=None)) as other:
        other.execute("begin immediate")
        with pytest.raises(RetryLater, match="database is locked") as error, state.engine.begin():
            pass
        assert "state.db" in str(error.value) and "close what holds it open" in error.value.do
    state.cursors.write("crm.contacts", 1, {"value": "x"}, "t")
    state.close()


def test_a_database_from_the_future_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/state.db"
    state = State.open(url, tmp_path)
    with state.engine.begin() as connection:
        connection.execute(sa.text("update alembic_version set version_num = '9999'"))
    state.close()
    with pytest.raises(MuxlyError, match="written by a newer Muxly"):
        State.open(url, tmp_path)


@pytest.mark.parametrize("bad", ["not a url", "oracle://x"])
def test_a_url_that_cannot_be_used_says_so(bad: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        State.open(bad, tmp_path)


def test_an_unreachable_database_never_shows_its_password(tmp_path: Path) -> None:
    with pytest.raises(RetryLater) as error:
        State.open("postgresql://user:hunter2@127.0.0.1:1/none", tmp_path)
    assert "hunter2" not in str(error.value)
