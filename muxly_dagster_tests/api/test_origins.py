"""Web pages of other origins that post events: those that are allowed, with a key, and no others."""

from collections.abc import Iterator

import httpx
import pytest

from muxly_dagster.api.middleware import allowed_origins
from muxly_dagster.errors import ConfigurationError
from muxly_dagster_tests.api.collector import Collector, collecting

SHOP, OTHER = "https://shop.example.com", "https://other.example.com"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    environ = {"MUXLY_ALLOW_ORIGINS": f"{SHOP}/, http://localhost:3000", "MUXLY_ADMIN_TOKEN": "admin"}
    with collecting(tmp_path_factory.mktemp("origins"), environ) as found:
        yield found


def asked(server: Collector, origin: str, path: str = "/v1/collect/web/orders") -> httpx.Response:
    """What a browser asks before it posts JSON with a key."""
    asks = {"origin": origin, "access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}
    return httpx.options(server.url + path, headers=asks)


@pytest.mark.parametrize("path", ["/v1/collect/web/orders", "/v1/track", "/v1/otlp/v1/traces"])
def test_a_browser_is_told_that_it_may_post(server: Collector, path: str) -> None:
    answer = asked(server, SHOP, path)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == SHOP
    assert "authorization" in answer.headers["access-control-allow-headers"].lower()
    assert "access-control-allow-credentials" not in answer.headers


def test_a_page_posts_with_its_key_and_reads_the_answer(server: Collector) -> None:
    answer = httpx.post(f"{server.url}/v1/collect/web/orders", json={"id": "page-1"}, headers={"origin": SHOP} | server.signed("web"))
    assert answer.status_code == 202 and answer.headers["access-control-allow-origin"] == SHOP
    refused = httpx.post(f"{server.url}/v1/collect/web/orders", json={"id": "page-2"}, headers={"origin": SHOP})
    assert refused.status_code == 401 and refused.headers["access-control-allow-origin"] == SHOP


@pytest.mark.parametrize("origin", [OTHER, "null", "http://shop.example.com", SHOP + ".evil.example"])
def test_a_page_of_another_origin_is_told_nothing(server: Collector, origin: str) -> None:
    assert asked(server, origin).status_code == 400
    answer = httpx.post(f"{server.url}/v1/collect/web/orders", json={"id": "x"}, headers={"origin": origin} | server.signed("web"))
    assert "access-control-allow-origin" not in answer.headers


def test_the_rest_of_the_api_answers_no_page(server: Collector) -> None:
    answer = httpx.get(f"{server.url}/v1/sources", headers={"origin": SHOP, "authorization": "Bearer admin"})
    assert answer.status_code == 200 and "access-control-allow-origin" not in answer.headers


def test_what_is_no_origin_is_told() -> None:
    assert allowed_origins("") == () and allowed_origins(" *, ") == ("*",)
    assert allowed_origins("HTTPS://Shop.Example.com/") == ("https://shop.example.com",)  # as browsers write it
    for text in ("shop.example.com", "https://shop.example.com/path", "https://*.example.com"):
        with pytest.raises(ConfigurationError, match="MUXLY_ALLOW_ORIGINS"):
            allowed_origins(text)
