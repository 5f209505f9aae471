"""What every test can ask for: a home of its own and real databases.

`MUXLY_TEST_POSTGRES_URL` and `MUXLY_TEST_MARIADB_URL` name servers to use instead of the ones the suite starts; the user in
the URL must be allowed to create databases.
"""

import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from muxly_dagster_tests import migrated
from muxly_dagster_tests.cli import warm
from muxly_dagster_tests.peers import mariadb as mariadb_peer
from muxly_dagster_tests.peers import postgres as postgres_peer
from muxly_dagster_tests.peers.certificate import Certificate

_PEERS = pytest.StashKey[Path]()


def pytest_configure(config: pytest.Config) -> None:
    """Say what children begin with and whom to trust; make the folder where the workers of this run note the servers they started."""
    multiprocessing.set_forkserver_preload(["muxly_dagster_tests.preloaded"])
    if not hasattr(config, "workerinput"):
        folder = config.stash[_PEERS] = Path(tempfile.mkdtemp(prefix="muxly-tests-"))
        _trust_nobody(folder / "trusted")


def _trust_nobody(folder: Path) -> None:
    """Trust one certificate that no server has, here and in every child, in place of the system's.

    No test speaks with the world, and to read the hundred and more certificates of the world takes each new client, and each
    connection to MariaDB, 10 to 50 ms.
    """
    certificate = Certificate.made(folder, "nobody.invalid", days=7, subject="Muxly trusts nobody")
    (folder / "none").mkdir()
    os.environ |= {"SSL_CERT_FILE": str(certificate.cert), "SSL_CERT_DIR": str(folder / "none")}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """For each two cores three workers: a third of the time, tests wait for processes that they started."""
    return max(2, (os.cpu_count() or 1) * 3 // 2)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let those begin first that are given the most time: one that takes minutes leaves no core idle at the end."""

    def given(item: pytest.Item) -> float:
        mark = item.get_closest_marker("timeout")
        return float(mark.args[0]) if mark and mark.args else 0.0

    items.sort(key=given, reverse=True)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a pytest-xdist worker about that folder."""
    node.workerinput["muxly_peers"] = str(node.config.stash[_PEERS])


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop what this process started, and the servers that this run started, once all its workers are through."""
    warm.end()
    postgres_peer.end()
    folder = config.stash.get(_PEERS, None)
    if folder is not None:
        postgres_peer.stop(folder)
        mariadb_peer.stop(folder)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def peers_folder(pytestconfig: pytest.Config) -> Path:
    """A folder that all workers of this run share."""
    workerinput = getattr(pytestconfig, "workerinput", None)
    return Path(workerinput["muxly_peers"]) if workerinput else pytestconfig.stash[_PEERS]


@pytest.fixture(scope="session", autouse=True)
def _migrated_once() -> Iterator[None]:
    """A new SQLite state costs no migrations."""
    with migrated.once():
        yield


@pytest.fixture
def muxly_home(tmp_path: Path) -> Path:
    """An empty folder for what Muxly itself keeps."""
    home = tmp_path / ".muxly"
    home.mkdir()
    return home


@pytest.fixture(scope="session")
def postgres_url(peers_folder: Path) -> str:
    """The URL of a Postgres server, shared by the whole run."""
    return os.environ.get("MUXLY_TEST_POSTGRES_URL") or postgres_peer.shared(peers_folder)


@pytest.fixture
def postgres(postgres_url: str) -> Iterator[str]:
    """The URL (`postgresql://...`) of an empty Postgres database of the test's own."""
    with postgres_peer.fresh_database(postgres_url) as url:
        yield url


@pytest.fixture(scope="session")
def mariadb_url(peers_folder: Path) -> str:
    """The URL of a MariaDB server, shared by the whole run; skips where there is none."""
    if url := os.environ.get("MUXLY_TEST_MARIADB_URL"):
        return url
    if not mariadb_peer.found():
        pytest.skip("no MariaDB here: install the package mariadb-server, or name a server in MUXLY_TEST_MARIADB_URL")
    return mariadb_peer.shared(peers_folder)


@pytest.fixture
def mariadb(mariadb_url: str) -> Iterator[str]:
    """The URL (`mysql://...`) of an empty MariaDB database of the test's own."""
    with mariadb_peer.fresh_database(mariadb_url) as url:
        yield url
