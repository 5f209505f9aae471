"""`/v1/runs` on a real API server, with real runs on a code server of Dagster's."""

import contextlib
import dataclasses
import datetime as dt
import json
import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import uvicorn

from muxly_dagster.api import runs
from muxly_dagster.api.app import create_app
from muxly_dagster.api.service import Service
from muxly_dagster.orchestrator import Lines, Orchestrator
from muxly_dagster.settings import Settings
from muxly_dagster.state import START, Start
from muxly_dagster_tests.peers import dagster
from muxly_dagster_tests.peers.dagster import Shop, until

pytestmark = pytest.mark.xdist_group("api runs")

TOKEN = "adm1n"
RUN = "5a4b9b52-6d0c-5d0a-8a46-5a1bb13c62d7"


class Watched(Orchestrator):
    """Counts who looks at logs."""

    looks = 0

    def lines(self, run_id: str, after: str = "", limit: int = 1000) -> Lines:
        self.looks += 1
        return super().lines(run_id, after, limit)


@dataclass
class Api:
    """The shop, its service, and a client of its API."""

    shop: Shop
    service: Service
    client: httpx.Client
    orchestrator: Watched = field(repr=False)

    def submit(self, job: str, run_id: str, tags: dict[str, str] | None = None) -> None:
        """Start a run."""
        self.orchestrator.submit(job, run_id, tags or {})

    def ended(self, run_id: str) -> dict[str, Any]:
        """The run, once it has ended."""
        until(lambda: self.client.get(f"/v1/runs/{run_id}").json()["ended_at"])
        found: dict[str, Any] = self.client.get(f"/v1/runs/{run_id}").json()
        return found


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """One code server, one API, two runs: the second one failed."""
    with dagster.shop(tmp_path_factory.mktemp("shop")) as shop:
        environ = {**shop.environ, "MUXLY_ADMIN_TOKEN": TOKEN, "MUXLY_RATE_LIMIT": "off"}
        orchestrator = Watched(shop.home, shop.address)
        service = Service.open(Settings.from_environ(environ, shop.folder), environ, orchestrator)
        server = uvicorn.Server(uvicorn.Config(create_app(service), port=0, log_level="warning"))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        until(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        headers = {"authorization": f"Bearer {TOKEN}"}
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=120) as client:
            yield Api(shop, service, client, orchestrator)
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def failed(api: Api) -> str:
    """A run that a webhook started, and that failed."""
    run_id = RUN
    start = Start(run_id, "day", "webhook", dt.datetime.now(dt.UTC))
    api.service.state.starts.put(start)
    api.shop.counter.broken.add("/returns")
    api.submit("day", run_id, {START: run_id})
    assert api.ended(run_id)["status"] == "failure"
    api.shop.counter.broken.clear()
    return run_id


def test_a_run_shows_what_started_it_and_what_came_of_it(api: Api, failed: str) -> None:
    shown = api.client.get(f"/v1/runs/{failed}").json()
    assert (shown["job"], shown["cause"], shown["status"], shown["retry_of"]) == ("day", "webhook", "failure", "")
    assert shown["assets"] == ["shop.orders", "shop.returns"]
    assert shown["created_at"] <= shown["started_at"] <= shown["ended_at"]
    [result] = shown["results"]
    assert result["asset"] == "shop.orders" and result["counts"]["read"] == 2
    assert api.client.get("/v1/runs/no-such-run").status_code == 404
    assert api.client.get("/v1/runs", headers={"authorization": ""}).status_code == 401


def test_a_start_that_another_run_began_leads_to_that_run(api: Api, failed: str) -> None:
    began, waits = RUN.replace("5a4b", "8a4b"), RUN.replace("5a4b", "9a4b")
    for id in (began, waits):
        api.service.state.starts.put(Start(id, "day", "cron", dt.datetime.now(dt.UTC)))
    api.service.state.starts.begin(began, failed)
    assert api.client.get(f"/v1/runs/{began}").json()["id"] == failed
    assert api.client.get(f"/v1/runs/{began}/logs").json() == api.client.get(f"/v1/runs/{failed}/logs").json()
    refused = api.client.get(f"/v1/runs/{waits}")
    assert refused.status_code == 404 and "waits to begin" in refused.json()["do"]


def test_a_run_that_died_before_it_began_names_the_one_that_did_its_work(api: Api, failed: str) -> None:
    run = api.orchestrator.run(failed)
    assert run is not None
    assert runs._run(api.service, run).instead == ""
    assert runs._run(api.service, dataclasses.replace(run, id="died")).instead == failed
    assert runs._run(api.service, dataclasses.replace(run, id="again", retry_of=failed)).instead == ""


def test_the_log_comes_in_pages_that_go_on(api: Api, failed: str) -> None:
    whole = api.client.get(f"/v1/runs/{failed}/logs", params={"limit": 1000}).json()
    assert whole["next"] == ""
    [reason] = [line for line in whole["items"] if line["kind"] == "step_failure"]
    assert reason["message"].startswith("shop__returns failed: GET http://") and reason["error"] == ""
    items, cursor = list[Any](), ""
    while True:
        page = api.client.get(f"/v1/runs/{failed}/logs", params={"limit": 4, "cursor": cursor}).json()
        items, cursor = [*items, *page["items"]], page["next"]
        if not cursor:
            break
    assert items == whole["items"]
    assert api.client.get(f"/v1/runs/{failed}/logs", params={"cursor": "WzFd"}).status_code == 400
    assert api.client.get("/v1/runs/no-such-run/logs").status_code == 404


def test_an_event_stream_of_a_run_that_has_ended_ends(api: Api, failed: str) -> None:
    events = list(_events(api.client, failed))
    lines = api.client.get(f"/v1/runs/{failed}/logs", params={"limit": 1000}).json()["items"]
    assert [event["data"] for event in events[:-1]] == lines
    assert (events[-1]["event"], events[-1]["data"]["status"]) == ("end", "failure")

    middle = events[len(events) // 2]["id"]  # it broke off here
    rest = list(_events(api.client, failed, middle))
    assert rest == events[len(events) // 2 + 1 :]
    again = api.client.get(f"/v1/runs/{failed}/logs", headers={"accept": "text/event-stream", "last-event-id": "end"})
    assert again.status_code == 204  # a browser does not come again
    wrong = api.client.get(f"/v1/runs/{failed}/logs", headers={"accept": "text/event-stream", "last-event-id": "x"})
    assert wrong.status_code == 422 and "place in a run's log" in wrong.json()["detail"]


def test_a_run_is_followed_canceled_and_retried(api: Api) -> None:
    let_go = api.shop.counter.hold("/stock")
    run_id = RUN.replace("5a4b", "6a4b")
    api.submit("stocktaking", run_id)
    assert api.client.post(f"/v1/runs/{run_id}/retry").status_code == 409
    seen: list[dict[str, Any]] = []
    follower = threading.Thread(target=lambda: seen.extend(_events(api.client, run_id)))
    follower.start()
    assert api.shop.counter.reached["/stock"].wait(90)
    until(lambda: any(event["data"]["kind"] == "step_start" for event in seen))
    assert follower.is_alive()

    page = api.client.get(f"/v1/runs/{run_id}/logs", params={"limit": 1000}).json()
    assert page["next"]  # there will be more
    canceled = api.client.post(f"/v1/runs/{run_id}/cancel")
    assert canceled.status_code == 202 and canceled.json()["status"] in ("canceling", "canceled")
    follower.join(90)
    assert not follower.is_alive()
    assert (seen[-1]["event"], seen[-1]["data"]["status"]) == ("end", "canceled")
    assert api.client.get(f"/v1/runs/{run_id}/logs", params={"cursor": page["next"]}).json()["items"][-1]["message"]
    refused = api.client.post(f"/v1/runs/{run_id}/cancel")
    assert refused.status_code == 409 and "ended already: canceled" in refused.json()["detail"]

    let_go()
    del api.shop.counter.held["/stock"]
    asked = api.client.post(f"/v1/runs/{run_id}/retry")
    assert asked.status_code == 202
    again = api.ended(asked.json()["id"])
    assert (again["status"], again["cause"], again["retry_of"]) == ("success", "retry", run_id)
    nothing = api.client.post(f"/v1/runs/{again['id']}/retry")
    assert nothing.status_code == 409 and nothing.json()["detail"] == "nothing of it failed"


def test_a_client_that_goes_away_leaves_nothing_behind(api: Api) -> None:
    api.shop.counter.hold("/stock")
    run_id = RUN.replace("5a4b", "7a4b")
    api.submit("stocktaking", run_id)
    with contextlib.closing(_events(api.client, run_id)) as events:
        next(events)
    end = time.monotonic() + 60
    while time.monotonic() < end:  # nobody looks for two whole rounds
        before = api.orchestrator.looks
        time.sleep(0.8)
        if api.orchestrator.looks == before:
            break
    else:
        pytest.fail("somebody still follows the run")
    assert api.client.post(f"/v1/runs/{run_id}/cancel").status_code == 202
    api.ended(run_id)
    api.shop.counter.held.pop("/stock").set()


def test_runs_are_listed_by_job_and_status_and_page(api: Api, failed: str) -> None:
    everything = api.client.get("/v1/runs").json()["items"]
    assert [run["created_at"] for run in everything] == sorted((run["created_at"] for run in everything), reverse=True)
    paged, cursor = list[Any](), ""
    while True:
        page = api.client.get("/v1/runs", params={"limit": 2, "cursor": cursor}).json()
        paged, cursor = [*paged, *page["items"]], page["next"]
        if not cursor:
            break
    assert paged == everything
    chosen = api.client.get("/v1/runs", params={"job": "day", "status": ["failure", "canceled"]}).json()["items"]
    assert [run["id"] for run in chosen] == [failed]
    assert api.client.get("/v1/runs", params={"status": "lost"}).status_code == 422
    assert api.client.get("/v1/runs", params={"cursor": "Im5vbmUi"}).status_code == 400


def _events(client: httpx.Client, run_id: str, last: str = "") -> Generator[dict[str, Any]]:
    """The events of a log as a browser reads them (WHATWG HTML, 9.2)."""
    headers = {"accept": "text/event-stream", **({"last-event-id": last} if last else {})}
    with client.stream("GET", f"/v1/runs/{run_id}/logs", headers=headers) as answer:
        assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/event-stream")
        event: dict[str, Any] = {}
        for line in answer.iter_lines():
            name, _, value = line.partition(": ")
            if line and not line.startswith(":"):
                event[name] = json.loads(value) if name == "data" else value
            elif event:
                yield event
                event = {}
