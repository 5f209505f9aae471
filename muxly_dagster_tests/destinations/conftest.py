"""Where tests deliver to: databases, by their own dialects and by SQLAlchemy's, mail servers, and what keeps or takes metrics."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from muxly_dagster.destinations.database import address
from muxly_dagster.services import MetricStore, OwnMetrics
from muxly_dagster.state import State
from muxly_dagster_tests.destinations.warehouse import Server
from muxly_dagster_tests.peers.certificate import Certificate
from muxly_dagster_tests.peers.mail import MailServer
from muxly_dagster_tests.peers.prometheus import Writer, writer


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


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """What a mail server shows to prove that it is the one at this address."""
    return Certificate.made(tmp_path_factory.mktemp("certificate"), "127.0.0.1", "localhost")


@pytest.fixture
def relay() -> Iterator[MailServer]:
    """A server within the house, without encryption and sign-in."""
    with MailServer(security="none") as server:
        yield server


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MetricStore]:
    """Where metrics are kept."""
    if request.param == "memory":
        yield OwnMetrics()
        return
    url = f"sqlite:///{tmp_path}/state.db" if request.param == "sqlite" else request.getfixturevalue("postgres")
    state = State.open(url, tmp_path)
    yield state.metrics
    state.close()


@pytest.fixture
def receiver() -> Iterator[Writer]:
    """What takes remote writes, unless a file has a receiver of another kind."""
    with writer() as receiver:
        yield receiver
