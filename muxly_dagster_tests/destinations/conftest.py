"""Databases to deliver to: SQLite and a real Postgres."""

from pathlib import Path

import pytest

from muxly_dagster_tests.destinations.warehouse import Server


@pytest.fixture(params=["sqlite", "postgres"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Server:
    if request.param == "postgres":
        return Server(request.getfixturevalue("postgres"))
    return Server(f"sqlite:///{tmp_path / 'warehouse.db'}")


@pytest.fixture
def postgres_server(postgres: str) -> Server:
    return Server(postgres)


@pytest.fixture
def sqlite_server(tmp_path: Path) -> Server:
    return Server(f"sqlite:///{tmp_path / 'warehouse.db'}")
