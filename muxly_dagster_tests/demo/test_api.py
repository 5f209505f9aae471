"""The demo's API: paging that gives every record once, credentials, limits, bad moments, and what a day changes."""

import asyncio
import datetime as dt
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from muxly_dagster.demo import api
from muxly_dagster.demo.api import BILLING_KEY, CRM_TOKEN, create_app, serve
from muxly_dagster.demo.data import collection
from muxly_dagster.errors import MuxlyError

HEADERS = {"Authorization": f"Bearer {CRM_TOKEN}", "X-API-Key": BILLING_KEY}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serve(day=2) as url:
        yield url


@pytest.fixture
def own_url() -> Iterator[str]:
    with serve(day=1) as url:
        yield url


def get(client: httpx.Client, url: str, params: dict[str, Any] | None = None) -> httpx.Response:
    """The answer once the API's bad moments are over."""
    for _ in range(200):
        answer = client.get(url, params=params)
        if answer.status_code not in (429, 503):
            return answer.raise_for_status()
        time.sleep(0.02)
    raise AssertionError(f"{url} stays busy")


def contacts(client: httpx.Client, url: str) -> Iterator[dict[str, Any]]:
    after = ""
    while after is not None:
        page = get(client, f"{url}/crm/contacts", {"limit": 200, "after": after}).json()
        yield from page["results"]
        after = page["paging"].get("next", {}).get("after")


def companies(client: httpx.Client, url: str) -> Iterator[dict[str, Any]]:
    number, pages = 1, 1
    while number <= pages:
        page = get(client, f"{url}/crm/companies", {"page": number, "per_page": 100}).json()
        yield from page["companies"]
        number, pages = number + 1, page["pages"]


def deals(client: httpx.Client, url: str) -> Iterator[dict[str, Any]]:
    offset, total = 0, 1
    while offset < total:
        page = get(client, f"{url}/crm/deals", {"offset": offset, "limit": 200}).json()
        yield from page["results"]
        offset, total = offset + 200, page["total"]


def customers(client: httpx.Client, url: str) -> Iterator[dict[str, Any]]:
    following: str | None = f"{url}/billing/customers?per_page=100"
    while following:
        answer = get(client, following)
        yield from answer.json()
        following = answer.links.get("next", {}).get("url")


def invoices(client: httpx.Client, url: str) -> Iterator[dict[str, Any]]:
    after = ""
    while after is not None:
        page = get(client, f"{url}/billing/invoices", {"limit": 250, "starting_after": after}).json()
        yield from page["data"]
        after = page["next_cursor"]


@pytest.mark.parametrize("walk", [contacts, companies, deals, customers, invoices], ids=lambda walk: walk.__name__)
def test_paging_to_the_end_gives_every_record_exactly_once(url: str, walk: Callable[[httpx.Client, str], Iterator[dict[str, Any]]]) -> None:
    with httpx.Client(headers=HEADERS) as client:
        seen = sorted(record["id"] for record in walk(client, url))
    assert seen == sorted(item.id for item in collection(walk.__name__, 2))


@pytest.mark.parametrize("path", ["/crm/contacts", "/crm/account", "/billing/invoices"])
def test_a_request_without_the_right_credential_is_refused(url: str, path: str) -> None:
    assert httpx.get(url + path).status_code == 401
    wrong = {"Authorization": "Bearer nobody", "X-API-Key": "nothing"}
    assert httpx.get(url + path, headers=wrong).status_code == 401


def test_the_37th_request_fails_and_the_89th_is_told_to_wait_a_second(own_url: str) -> None:
    with httpx.Client(base_url=own_url, headers=HEADERS) as client:
        answers = [client.get("/crm/account") for _ in range(90)]
    failed = {number: answer.status_code for number, answer in enumerate(answers, 1) if answer.status_code != 200}
    assert failed == {37: 503, 74: 503, 89: 429}
    assert answers[88].headers["Retry-After"] == "1"


def test_more_than_200_requests_within_a_second_are_throttled_until_it_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_000.0]
    monkeypatch.setattr(api, "time", type("Clock", (), {"monotonic": staticmethod(lambda: now[0])}))

    async def statuses(requests: int) -> list[int]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://demo", headers=HEADERS) as client:
            return [(await client.get("/billing/account")).status_code for _ in range(requests)]

    app = create_app()
    within = asyncio.run(statuses(260))
    assert within[:202].count(429) == 2, "the 89th and the 178th only"
    assert set(within[202:]) == {429}
    now[0] += 1
    assert asyncio.run(statuses(1)) == [200]


def test_updated_since_gives_what_changed_at_that_moment_or_later(url: str) -> None:
    changed = sorted(item.updated_at for item in collection("deals", 2))
    moment = changed[-50]
    with httpx.Client(headers=HEADERS) as client:
        page = get(client, f"{url}/crm/deals", {"updated_since": moment.isoformat(), "limit": 200}).json()
    times = [dt.datetime.fromisoformat(deal["updatedAt"]) for deal in page["results"]]
    assert times == changed[-50:]
    assert page["total"] == 50


@pytest.mark.parametrize("query", ["limit=0", "limit=201", "limit=ten", "offset=-1", "updated_since=yesterday"])
def test_a_bad_parameter_is_answered_with_400_and_a_reason(url: str, query: str) -> None:
    with httpx.Client(headers=HEADERS) as client:
        answer = client.get(f"{url}/crm/deals?{query}")
        while answer.status_code in (429, 503):
            answer = client.get(f"{url}/crm/deals?{query}")
    assert answer.status_code == 400
    assert query.partition("=")[0] in answer.json()["error"]


def test_a_cursor_of_somebody_elses_making_is_refused(own_url: str) -> None:
    answer = httpx.get(f"{own_url}/crm/contacts?after=nowhere", headers=HEADERS)
    assert (answer.status_code, "cursor" in answer.text) == (400, True)


@pytest.mark.parametrize(("name", "deletes"), [("contacts", True), ("companies", True), ("customers", True), ("deals", False)])
def test_a_day_changes_a_few_records_adds_some_and_deletes_others(name: str, deletes: bool) -> None:
    first, second = ({item.id: item.json for item in collection(name, day)} for day in (1, 2))
    changed = [key for key in first.keys() & second.keys() if first[key] != second[key]]
    assert 0 < len(changed) < len(first) / 20
    assert second.keys() - first.keys()
    assert bool(first.keys() - second.keys()) == deletes


@pytest.mark.parametrize("name", ["deals", "invoices"])
def test_whoever_has_read_a_day_finds_the_next_days_changes_by_time(name: str) -> None:
    first = {item.id: item for item in collection(name, 1)}
    read_until = max(item.updated_at for item in first.values())
    news = [item for item in collection(name, 2) if item.id not in first or first[item.id].json != item.json]
    assert news
    assert all(item.updated_at > read_until for item in news)


def test_one_day_is_the_same_in_every_process() -> None:
    program = "import sys; from muxly_dagster.demo.data import collection; sys.stdout.buffer.write(collection('deals', 3)[-1].json)"
    made_elsewhere = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout
    assert made_elsewhere == collection("deals", 3)[-1].json


def test_the_hook_fails_now_and_then_refuses_a_deal_without_a_name_and_counts_repeats(own_url: str) -> None:
    def post(client: httpx.Client, identity: str, dealname: str) -> int:
        return client.post(f"{own_url}/hooks", json={"id": identity, "op": "upsert", "data": {"dealname": dealname}}).status_code

    with httpx.Client() as client:
        assert post(client, "a", "Ada Bikes 1: new") == 202
        assert post(client, "a", "Ada Bikes 1: new") == 202
        assert post(client, "b", "") == 422
        assert client.post(f"{own_url}/hooks", content=b"{").status_code == 400
        rest = [post(client, f"c{number}", "named") for number in range(19)]
        assert rest == [202] * 18 + [503]
        assert client.get(f"{own_url}/hooks").json() == {"taken": 20, "distinct": 19, "refused": 1}


def test_the_server_ends_with_its_context() -> None:
    with serve() as url:
        assert httpx.get(url).json()["day"] == 1
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)


def test_the_server_ends_when_the_process_that_started_it_is_killed() -> None:
    program = "from muxly_dagster.demo.api import serve\nwith serve() as url:\n    print(url, flush=True)\n    input()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        url = parent.stdout.readline().strip()
        assert httpx.get(url).status_code == 200
        parent.kill()
    for _ in range(600):
        try:
            httpx.get(url)
        except httpx.TransportError:
            return
        time.sleep(0.05)
    raise AssertionError("the API outlived its parent")


def test_a_port_that_is_taken_is_an_error_that_says_so(url: str, capfd: pytest.CaptureFixture[str]) -> None:
    port = int(url.rpartition(":")[2])
    with pytest.raises(MuxlyError, match="did not start"), serve(port):
        pass
    assert f"Port {port} of 127.0.0.1 cannot be had" in capfd.readouterr().err
