"""From a call to the run that deals with it, on a real code server of Dagster's; and the sensor beside it."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from muxly_dagster.api.service import Service
from muxly_dagster.defs.starts import STARTS
from muxly_dagster.lake import Lake
from muxly_dagster.orchestrator import Orchestrator
from muxly_dagster_tests.api.called import post
from muxly_dagster_tests.api.shop import Shop, opened
from muxly_dagster_tests.defs import hooked
from muxly_dagster_tests.peers import dagster
from muxly_dagster_tests.peers.dagster import until

pytestmark = pytest.mark.xdist_group("hooks")


@pytest.fixture(scope="module")
def hooks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """The API, and Dagster with the same project."""
    folder: Path = tmp_path_factory.mktemp("hooks")
    with dagster.shop(folder) as served:
        (folder / "muxly.yaml").write_text(hooked.PROJECT)
        (folder / "deals.py").write_text(hooked.FUNCTION)
        orchestrator = Orchestrator(served.home, served.address)
        orchestrator.reload()
        api = opened(folder, {**served.environ, "MUXLY_RATE_LIMIT": "off"}, orchestrator)
        yield api
        api.service.close()


def call(api: Shop, delivery: str) -> str:
    """Call the webhook; the start that this opened."""
    answer = post(api, "/v1/hooks/on_deal", b'{"id": 7}', hooked.signed(delivery, b'{"id": 7}'))
    assert answer.status_code in (200, 202), answer.text
    return str(answer.json()["start"])


def ended(service: Service, run_id: str) -> str:
    """How a run ended."""
    until(lambda: service.orchestrator.run(run_id))
    for _ in service.orchestrator.follow(run_id):
        pass
    run = service.orchestrator.run(run_id)
    assert run is not None
    return run.status


def column(api: Shop, table: str, name: str) -> list[str]:
    found = Lake(api.service.runtime.settings.lake_url).table(table)
    return sorted(found.current([name])[name].to_pylist()) if found else []


def test_a_call_runs_its_job_at_once_under_the_id_of_its_start(hooks: Shop) -> None:
    start = call(hooks, "a")
    assert ended(hooks.service, start) == "success"
    assert column(hooks, "hooks.deals", "delivery_id") == column(hooks, "seen", "delivery") == ["a"]
    found = hooks.service.state.starts.find(start)
    assert found is not None and (found.run_id, found.ended, found.attempts) == (start, "begun", 1)
    assert call(hooks, "a") == "", "a repetition starts nothing"
    assert [run.id for run in hooks.service.orchestrator.runs(job="on_deal")] == [start]


def test_the_sensor_and_the_api_ask_for_the_same_start_and_one_of_their_runs_does_it(hooks: Shop) -> None:
    """As where an API was so slow that the sensor thought it dead."""
    service = hooks.service
    service.state.jobs.pause("on_deal", paused=True)
    start = call(hooks, "b")
    assert [each.attempts for each in service.state.starts.open("on_deal")] == [0]
    service.state.jobs.pause("on_deal", paused=False)
    definitions = hooked.definitions(hooks.folder)
    muxly = dict(definitions.resources or {})["muxly"]
    instance = service.orchestrator._instance()
    with dg.build_sensor_context(instance, definitions=definitions, resources={"muxly": muxly}) as context:
        (request,) = list(definitions.resolve_sensor_def(STARTS).evaluate_tick(context).run_requests or [])
    assert request.job_name == "on_deal"
    service.orchestrator.submit("on_deal", start, request.tags)
    again = "7d0c1f8e-9e1c-4e0b-8f5a-1d2f3a4b5c6d"
    service.orchestrator.submit("on_deal", again, request.tags)
    assert sorted([ended(service, start), ended(service, again)]) == ["canceled", "success"]
    assert column(hooks, "hooks.deals", "delivery_id") == ["a", "b"]
    assert column(hooks, "seen", "delivery") == ["b"]


def test_a_run_that_failed_is_retried_with_the_calls_that_it_took(hooks: Shop) -> None:
    works = (hooks.folder / "deals.py").read_text()
    (hooks.folder / "deals.py").write_text(works.replace("    return", "    raise ValueError('not today')\n    return"))
    start = call(hooks, "c")
    assert ended(hooks.service, start) == "failure"
    (hooks.folder / "deals.py").write_text(works)
    again = hooks.service.orchestrator.retry(start)
    assert ended(hooks.service, again) == "success"
    assert column(hooks, "seen", "delivery") == ["c"]
    assert column(hooks, "hooks.deals", "delivery_id") == ["a", "b", "c"]
