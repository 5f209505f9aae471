"""Who may post events: write keys for their source and streams, the admin token, and this machine while there is neither."""

import base64
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from muxly_dagster_tests.api.collector import Collector, collecting
from muxly_dagster_tests.peers import postgres as postgres_peer
from muxly_dagster_tests.peers.prometheus import until

TOKEN = "adm1n-token-of-the-tests"
PROJECT = """
sources:
  app: {connector: collector, pulls: [signups, visits]}
  shop: {connector: collector, pulls: [orders]}
"""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> Iterator[tuple[Collector, Collector]]:
    """Two processes' worth of API on one database, with an admin token."""
    with (
        postgres_peer.fresh_database(postgres_url) as url,
        collecting(tmp_path_factory.mktemp("one"), {"MUXLY_DATABASE_URL": url, "MUXLY_ADMIN_TOKEN": TOKEN}, PROJECT, guarded=False) as one,
        collecting(tmp_path_factory.mktemp("two"), {"MUXLY_DATABASE_URL": url, "MUXLY_ADMIN_TOKEN": TOKEN}, PROJECT, guarded=False) as two,
    ):
        yield one, two


@pytest.fixture
def server(pair: tuple[Collector, Collector]) -> Collector:
    return pair[0]


def made(server: Collector, source: str = "app", *streams: str, rate: str = "") -> tuple[str, str]:
    """A key by way of the API: its id and its text."""
    wanted = {"source": source, "streams": list(streams), "rate": rate}
    answer = httpx.post(f"{server.url}/v1/keys", json=wanted, headers={"authorization": f"Bearer {TOKEN}"})
    assert answer.status_code == 201, answer.text
    return answer.json()["id"], answer.json()["key"]


def status(server: Collector, path: str, key: str = "", **headers: str) -> int:
    said = {name.replace("_", "-"): value for name, value in headers.items()} | ({"authorization": f"Bearer {key}"} if key else {})
    return httpx.post(f"{server.url}/v1/collect/{path}", json={}, headers=said).status_code


def test_a_key_opens_its_source_however_it_is_sent(server: Collector) -> None:
    _, key = made(server)
    basic = {"authorization": "Basic " + base64.b64encode(f"{key}:".encode()).decode()}
    for headers in ({"authorization": f"Bearer {key}"}, {"authorization": f"bearer  {key}"}, basic, {"x-write-key": key}):
        assert httpx.post(f"{server.url}/v1/collect/app/signups", json={}, headers=headers).status_code == 202
    assert status(server, "app/visits", key) == 202
    assert status(server, "shop/orders", key) == 403


def test_a_key_with_streams_opens_these_alone(server: Collector) -> None:
    _, key = made(server, "app", "signups")
    assert status(server, "app/signups", key) == 202
    answer = httpx.post(f"{server.url}/v1/collect/app/visits", json={}, headers={"authorization": f"Bearer {key}"})
    assert answer.status_code == 403 and "app/visits" in answer.json()["detail"] and key not in answer.text


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer nobody", "Bearer", "Basic !!!", "Basic bm9ib2R5", "Digest x", "Bearer mwk_0123456789ab_nobody", "Bearer \xff"],
)
def test_whoever_has_no_key_has_to_sign_in(server: Collector, authorization: str) -> None:
    made(server)
    headers = {"authorization": authorization.encode("latin-1")} if authorization else {}
    answer = httpx.post(f"{server.url}/v1/collect/app/signups", json={}, headers=headers)
    assert answer.status_code == 401 and answer.headers["www-authenticate"].startswith("Bearer")
    assert "muxly keys create" in answer.json()["do"]


def test_the_admin_token_may_post_anywhere(server: Collector) -> None:
    assert status(server, "app/signups", TOKEN) == status(server, "shop/orders", TOKEN) == 202
    assert status(server, "app/signups", TOKEN[:-1]) == 401


def test_a_key_is_known_to_all_at_once_and_revoked_everywhere_within_seconds(pair: tuple[Collector, Collector]) -> None:
    one, two = pair
    id, key = made(one)
    assert status(two, "app/signups", key) == 202
    assert status(one, "app/signups", key) == 202
    admin = {"authorization": f"Bearer {TOKEN}"}
    answer = httpx.delete(f"{two.url}/v1/keys/{id}", headers=admin)
    assert answer.status_code == 200 and answer.json()["revoked_at"]
    for server in pair:
        until(lambda server=server: status(server, "app/signups", key) == 401, "the end of the key")  # type: ignore[misc]
    assert httpx.delete(f"{two.url}/v1/keys/nobody", headers=admin).status_code == 404


def test_a_key_has_a_rate_of_its_own(server: Collector) -> None:
    _, slow = made(server, "app", rate="2/hour")
    _, other = made(server, "app")
    assert [status(server, "app/signups", slow) for _ in range(2)] == [202, 202]
    answer = httpx.post(f"{server.url}/v1/collect/app/signups", json={}, headers={"authorization": f"Bearer {slow}"})
    assert answer.status_code == 429 and 1 <= int(answer.headers["retry-after"]) <= 3600
    assert status(server, "app/signups", other) == 202


def test_keys_are_listed_without_what_opens(server: Collector) -> None:
    id, key = made(server, "shop", "orders", rate="5/second")
    answer = httpx.get(f"{server.url}/v1/keys?source=shop&limit=1000", headers={"authorization": f"Bearer {TOKEN}"})
    [shown] = [each for each in answer.json()["items"] if each["id"] == id]
    assert (shown["streams"], shown["rate"], shown["revoked_at"]) == (["orders"], "5/second", None)
    assert key.split("_", 2)[2] not in answer.text and "hash" not in shown
    assert httpx.get(f"{server.url}/v1/keys").status_code == 401


@pytest.mark.parametrize(
    "wanted",
    [{"source": "nobody"}, {"source": "app", "streams": ["orders"]}, {"source": "app", "rate": "fast"}, {"source": "app", "more": 1}, {}],
)
def test_a_key_that_would_open_nothing_is_not_made(server: Collector, wanted: dict[str, object]) -> None:
    answer = httpx.post(f"{server.url}/v1/keys", json=wanted, headers={"authorization": f"Bearer {TOKEN}"})
    assert answer.status_code == 422 and answer.json()["detail"]


def test_without_keys_and_token_this_machine_may_post_until_there_is_a_key(tmp_path: Path) -> None:
    with collecting(tmp_path, project=PROJECT, guarded=False) as server:
        assert status(server, "app/signups") == 202
        assert status(server, "app/signups", "any key that a client has to have") == 202
        assert status(server, "app/signups", origin="http://localhost:5173") == 202
        for headers in (
            {"origin": "https://evil.example"},
            {"origin": "null"},
            {"host": "evil.example"},
            {"host": "[::1"},
            {"host": "a b"},
        ):
            assert status(server, "app/signups", **headers) in (400, 403)
        key, text = server.service.state.keys.create("app")
        until(lambda: status(server, "app/signups") == 401, "the guard")
        assert status(server, "app/signups", text) == 202
        assert status(server, "shop/orders") == 401  # a source without a key is closed while others have one
        server.service.state.keys.revoke(key.id)
        until(lambda: status(server, "app/signups", text) == 401, "the end of the key")
        assert status(server, "app/signups") == 401  # whoever began to guard does not open everything by revoking the last key
