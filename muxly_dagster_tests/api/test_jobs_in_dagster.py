"""A job that is made by the API is one of Dagster's a moment later: it is loaded by the code server, and runs."""

import os
from collections.abc import Iterator

import pytest

from muxly_dagster.api.service import Service
from muxly_dagster.orchestrator import Orchestrator
from muxly_dagster.settings import Settings
from muxly_dagster_tests.api.inside import Api
from muxly_dagster_tests.peers import dagster
from muxly_dagster_tests.peers.dagster import Shop, until


@pytest.fixture
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with dagster.shop(tmp_path_factory.mktemp("shop")) as made:
        yield made


@pytest.fixture
def api(shop: Shop) -> Iterator[Api]:
    environ = {**os.environ, **shop.environ}
    service = Service.open(Settings.from_environ(environ), environ, Orchestrator(shop.home, shop.address))
    yield Api(service)
    service.close()


def test_a_job_that_is_made_runs_with_what_it_is_given(api: Api) -> None:
    dagster = api.service.orchestrator
    made = api("POST", "/v1/jobs", {"name": "evening", "select": ["shop"]})
    assert made.status_code == 201

    until(lambda: not api.service.reloading.busy)
    run = api("POST", "/v1/jobs/evening/runs", {"select": ["shop.orders"], "from_start": True, "tags": {"team": "sales"}}).json()["id"]
    until(lambda: (found := dagster.run(run)) is not None and found.ended)
    ended = dagster.run(run)
    assert ended is not None
    assert (ended.job, ended.status, ended.assets) == ("evening", "success", ("shop.orders",))
    assert ended.tags["team"] == "sales"
    listed = api("GET", "/v1/jobs/evening/runs?limit=10").json()["items"]
    assert run in [each["id"] for each in listed]
    assert {each["cause"] for each in listed if each["id"] == run} == {"api"}
    start = api.service.state.starts.find(run)
    assert start is not None
    assert (start.ended, start.run_id) == ("begun", run)
