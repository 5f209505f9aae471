"""Who is not taken for this machine or an administrator: what a proxy passed on, and what a page of another site had a browser send."""

import base64
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from muxly_dagster_tests.api.shop import TOKEN, Shop, opened

Run = Callable[[Any], Any]

PROJECT = """
sources:
  app:
    connector: collector
    pulls: [signups]
jobs:
  everyday: {select: [app], cron: "@daily"}
"""
OTHER = "https://evil.example"


@pytest.fixture(scope="module")
def shops(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Shop]]:
    """The project twice: `open` to this machine, and `signed` with an admin token."""
    folder: Path = tmp_path_factory.mktemp("guard")
    found = {}
    for name, environ in (("open", {}), ("signed", {"MUXLY_ADMIN_TOKEN": TOKEN})):
        (folder / name).mkdir()
        (folder / name / "muxly.yaml").write_text(PROJECT, "utf-8")
        found[name] = opened(folder / name, {"MUXLY_RATE_LIMIT": "off", **environ})
    yield found
    for shop in found.values():
        shop.service.close()


def ask(shop: Shop, method: str, path: str, headers: dict[str, str], **asked: Any) -> Coroutine[Any, Any, httpx.Response]:
    async def answer() -> httpx.Response:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(shop.app, client=("127.0.0.1", 4711)), base_url="http://127.0.0.1:8000"
        ) as client:
            return await client.request(method, path, headers=headers, **asked)

    return answer()


# ---- this machine ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        {"x-forwarded-for": "203.0.113.9"},
        {"x-forwarded-for": "127.0.0.1"},
        {"forwarded": "for=203.0.113.9"},
        {"x-real-ip": "127.0.0.1"},
        {"x-forwarded-host": "127.0.0.1"},
        {"via": "1.1 proxy"},
    ],
)
def test_what_a_proxy_of_this_machine_passed_on_does_not_come_from_it(shops: dict[str, Shop], run: Run, header: dict[str, str]) -> None:
    assert run(ask(shops["open"], "GET", "/v1/jobs", {})).status_code == 200
    assert run(ask(shops["open"], "GET", "/v1/jobs", header)).status_code == 403
    assert run(ask(shops["open"], "POST", "/v1/collect/app/signups", header, json={"id": "a"})).status_code == 403


def test_a_page_of_another_site_cannot_look_at_what_this_machine_may(shops: dict[str, Shop], run: Run) -> None:
    embedded = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}
    assert run(ask(shops["open"], "GET", "/v1/diagnostics?offline=true", embedded)).status_code == 403
    followed = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert run(ask(shops["open"], "GET", "/v1/jobs", followed)).status_code == 200


# ---- basic authentication, which browsers add by themselves ------------------------------------------------------------


def basic(user: str, password: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.mark.parametrize(
    "of_a_page",
    [{"origin": OTHER}, {"origin": "null"}, {"origin": OTHER, "sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}],
)
def test_a_page_of_another_site_does_nothing_in_the_name_of_who_has_signed_in(
    shops: dict[str, Shop], run: Run, of_a_page: dict[str, str]
) -> None:
    signed = basic("", TOKEN) | of_a_page
    assert run(ask(shops["signed"], "POST", "/v1/jobs/everyday/pause", signed)).status_code == 401
    assert run(ask(shops["signed"], "POST", "/v1/collect/app/signups", signed, content=b'{"id":"a"}')).status_code == 401
    assert run(ask(shops["signed"], "GET", "/v1/jobs/everyday", basic("", TOKEN))).json()["paused"] is False


@pytest.mark.parametrize(
    "of_a_page", [{}, {"origin": "http://127.0.0.1:8000"}, {"origin": "https://muxly.example", "sec-fetch-site": "same-origin"}]
)
def test_scripts_and_the_own_pages_sign_in_with_basic(shops: dict[str, Shop], run: Run, of_a_page: dict[str, str]) -> None:
    answer = run(ask(shops["signed"], "POST", "/v1/collect/app/signups", basic("", TOKEN) | of_a_page, json={"id": "mine"}))
    assert answer.status_code == 202


def test_a_token_that_a_page_knows_itself_counts_from_anywhere(shops: dict[str, Shop], run: Run) -> None:
    signed = {"authorization": f"Bearer {TOKEN}", "origin": OTHER, "sec-fetch-site": "cross-site"}
    assert run(ask(shops["signed"], "POST", "/v1/collect/app/signups", signed, json={"id": "theirs"})).status_code == 202
