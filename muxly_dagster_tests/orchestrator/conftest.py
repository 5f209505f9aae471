"""One code server and one home of Dagster for all tests of a module."""

from collections.abc import Iterator

import pytest

from muxly_dagster.orchestrator import Orchestrator, Run
from muxly_dagster_tests.peers import dagster
from muxly_dagster_tests.peers.dagster import Shop


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A shop whose code server runs."""
    with dagster.shop(tmp_path_factory.mktemp("shop")) as made:
        yield made


@pytest.fixture(scope="module")
def orchestrator(shop: Shop) -> Iterator[Orchestrator]:
    """Dagster as an API process sees it."""
    made = Orchestrator(shop.home, shop.address)
    yield made
    made.close()


def finished(orchestrator: Orchestrator, run_id: str) -> Run:
    """The run, once it has ended."""
    for _ in orchestrator.follow(run_id):
        pass
    run = orchestrator.run(run_id)
    assert run is not None and run.ended
    return run
