"""SQLite and DuckDB files that are locked, full, read-only, missing or no database at all: nothing is lost, and none is harmed."""

import contextlib
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from muxly_dagster.errors import ConfigurationError, RetryLater
from muxly_dagster.testing import delivery
from muxly_dagster_tests.destinations.warehouse import Server, database

_HOLDING = """
import duckdb, sys
with duckdb.connect(sys.argv[1]) as file:
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_duckdb_file_that_another_process_has_open_is_explained(duckdb_server: Server) -> None:
    destination = duckdb_server.destination()
    destination.deliver(delivery([{"id": 1}]))
    file = duckdb_server.url.partition(":///")[2]
    with subprocess.Popen([sys.executable, "-c", _HOLDING, file], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdin and holder.stdout and holder.stdout.readline() == "held\n"
        with pytest.raises(RetryLater, match="another program has the database file open"):
            destination.deliver(delivery([{"id": 2}], after=1))
        check = destination.check()
        assert check.status == "failed" and "another program" in check.what and check.do
        holder.stdin.close()
        holder.wait()
    assert destination.deliver(delivery([{"id": 2}], after=1)).accepted == 1


def test_a_duckdb_file_that_is_none_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("dear diary, " * 10_000)
    destination = database(url=f"duckdb:///{tmp_path / 'notes.txt'}")
    with pytest.raises(ConfigurationError, match="no DuckDB database"):
        destination.deliver(delivery([{"id": 1}]))
    assert destination.check().status == "failed"
    assert (tmp_path / "notes.txt").read_text().startswith("dear diary")


def test_checking_a_duckdb_file_does_not_create_it(tmp_path: Path) -> None:
    destination = database(url=f"duckdb:///{tmp_path / 'new' / 'warehouse.duckdb'}")
    assert destination.check().status == "ok"
    assert destination.position("a.b", "c") is None
    assert list(tmp_path.iterdir()) == []


def test_a_sqlite_file_that_is_none_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("dear diary, " * 1000)
    destination = database(url=f"sqlite:///{tmp_path / 'notes.txt'}")
    with pytest.raises(ConfigurationError, match="no SQLite database"):
        destination.deliver(delivery([{"id": 1}]))
    assert destination.check().status == "failed"
    assert (tmp_path / "notes.txt").read_text().startswith("dear diary")


def test_checking_a_sqlite_file_does_not_create_it(tmp_path: Path) -> None:
    destination = database(url=f"sqlite:///{tmp_path / 'new' / 'warehouse.db'}")
    assert destination.check().status == "ok"
    assert destination.position("a.b", "c") is None
    assert list(tmp_path.iterdir()) == []


def test_a_full_sqlite_disk_asks_for_room(sqlite_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite itself is told to stop growing the file, which it reports as it does a full disk."""
    connect = sqlite3.connect

    def small(*args: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*args, **options)
        connection.execute("pragma max_page_count = 20")
        return connection

    monkeypatch.setattr(sqlite3, "connect", small)
    with pytest.raises(RetryLater, match="full"):
        sqlite_server.destination().deliver(delivery([{"id": n, "text": "x" * 500} for n in range(1_000)]))
    monkeypatch.undo()
    assert sqlite_server.destination().position("big_deals.warehouse", "0b8e1f9c") is None
    assert sqlite_server.destination().deliver(delivery([{"id": 1}])).accepted == 1


def test_a_locked_sqlite_file_asks_for_another_time(sqlite_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    from muxly_dagster.destinations.database import sqlite

    monkeypatch.setattr(sqlite, "_BUSY_SECONDS", 0.01)
    sqlite_server.destination().deliver(delivery([{"id": 1}]))
    with contextlib.closing(sqlite3.connect(sqlite_server.url.removeprefix("sqlite:///"), isolation_level=None)) as other:
        other.execute("begin immediate")
        with pytest.raises(RetryLater, match="another program"):
            sqlite_server.destination().deliver(delivery([{"id": 2}], after=1))
        other.execute("rollback")
    assert sqlite_server.destination().deliver(delivery([{"id": 2}], after=1)).accepted == 1


def test_a_read_only_sqlite_file_is_for_a_person_to_change(sqlite_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opened read-only, because a file's mode does not stop root, who may run these tests."""
    sqlite_server.run("create table crm_deals (id bigint primary key)")
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda file, **options: connect(f"file:{file}?mode=ro", uri=True, **options))
    with pytest.raises(ConfigurationError, match="read-only"):
        sqlite_server.destination().deliver(delivery([{"id": 1}]))
