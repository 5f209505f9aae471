"""Databases to deliver to: SQLite, DuckDB, a real Postgres, a real MariaDB, and the same again by SQLAlchemy's dialects."""

from pathlib import Path

import pytest

from muxly_dagster.destinations.database import address
from muxly_dagster_tests.destinations.warehouse import Server


@pytest.fixture(params=["sqlite", "postgres", "mariadb", "duckdb", "generic-sqlite", "generic-mariadb", "generic-postgres"])
def server(request: pytest.FixtureRequest) -> Server:
    server: Server = request.getfixturevalue(request.param.replace("-", "_") + "_server")
    return server


@pytest.fixture(params=["sqlite", "postgres", "mariadb", "duckdb"])
def own_server(request: pytest.FixtureRequest) -> Server:
    """A database with a dialect of its own, which widens columns."""
    server: Server = request.getfixturevalue(request.param + "_server")
    return server


@pytest.fixture
def postgres_server(postgres: str) -> Server:
    return Server(postgres)


@pytest.fixture
def mariadb_server(mariadb: str) -> Server:
    return Server(mariadb)


@pytest.fixture
def sqlite_server(tmp_path: Path) -> Server:
    return Server(f"sqlite:///{tmp_path / 'warehouse.db'}")


@pytest.fixture
def duckdb_server(tmp_path: Path) -> Server:
    return Server(f"duckdb:///{tmp_path / 'warehouse.duckdb'}")


@pytest.fixture
def generic_sqlite_server(tmp_path: Path) -> Server:
    return Server(f"sqlite+pysqlite:///{tmp_path / 'warehouse.db'}", generic=True)


@pytest.fixture
def generic_mariadb_server(mariadb: str, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The addresses that have a dialect of their own are SQLAlchemy's here."""
    monkeypatch.setattr(address, "_SCHEMES", {})
    return Server(mariadb.replace("mysql://", "mysql+pymysql://"), generic=True)


@pytest.fixture
def generic_postgres_server(postgres: str, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setattr(address, "_SCHEMES", {})
    return Server(postgres.replace("postgresql://", "postgresql+psycopg://"), generic=True)
