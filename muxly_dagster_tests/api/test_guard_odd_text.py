"""Text that a database may not take, wherever an address has a place for it: refused or not found, and never trouble of ours."""

import asyncio
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from muxly_dagster.errors import MuxlyError
from muxly_dagster_tests.api.shop import Shop, opened

PROJECT = """
sources:
  app: {connector: collector, pulls: {signups: {}, checked: {json_schema: {properties: {n: {type: number}}}}}}
jobs:
  everyday: {select: [app], cron: "@daily"}
  on_call: {select: [app], webhook: {scheme: bearer, secret: the-secret-in-use}}
"""
SIGNED = {"authorization": "Bearer t0ken"}
ODD = ("%00", "%0A", "%ED%A0%80", "9" * 30)


@pytest.fixture(params=["sqlite", "postgres"])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    url = {"MUXLY_DATABASE_URL": request.getfixturevalue("postgres")} if request.param == "postgres" else {}
    (tmp_path / "muxly.yaml").write_text(PROJECT, "utf-8")
    found = opened(tmp_path, {"MUXLY_ADMIN_TOKEN": "t0ken", "MUXLY_RATE_LIMIT": "off", "MUXLY_HOME": str(tmp_path / "home"), **url})
    yield found
    found.service.close()


def test_odd_text_in_addresses_and_bodies_is_no_trouble(shop: Shop) -> None:
    asked: list[tuple[str, str, dict[str, Any]]] = []
    for path, operations in shop.app.openapi()["paths"].items():
        for method, said in operations.items():
            names = [each["name"] for each in said.get("parameters", []) if each["in"] == "query" and each["name"] != "wait"]
            for odd in ODD:
                address = re.sub(r"\{[^}]+\}", odd, path)
                body: dict[str, Any] = {"json": {}} if method in ("post", "put", "patch") else {}
                asked += [(method, address, body)] if "{" in path else []
                asked += [(method, f"{address}?{name}={odd}", body) for name in names]
    asked += [
        ("post", "/v1/keys", {"json": {"source": "app", "name": "a\0b"}}),
        ("post", "/v1/keys", {"content": b'{"source": "app", "name": "\\ud800"}', "headers": {"content-type": "application/json"}}),
        ("post", "/v1/jobs/everyday/runs", {"json": {"tags": {"a\0": "b\0"}}}),
        ("post", "/v1/dead-letters/skip", {"json": {"name": "\0"}}),
        ("post", "/v1/hooks/on_call?x=%00", {"content": b"\0", "headers": {"authorization": "Bearer the-secret-in-use", "x-odd": b"\x80"}}),
    ]
    for stream in ("signups", "checked"):
        for event in (
            b'{"id":"a\\u0000b"}',
            b'{"a":"\\u0000\\u2028"}',
            b'{"n":"\\u0000"}',
            b'{"n":' + b"1" * 5000 + b"}",
            b'{"a":"\\ud800"}',
        ):
            asked.append(("post", f"/v1/collect/app/{stream}", {"content": event, "headers": {"idempotency-key": "once"}}))
            asked.append(("post", f"/v1/collect/app/{stream}", {"content": event}))
    assert asyncio.run(_troubles(shop, asked)) == []


async def _troubles(shop: Shop, asked: list[tuple[str, str, dict[str, Any]]]) -> list[str]:
    """What was answered as trouble of ours."""
    found = []
    async with httpx.AsyncClient(transport=httpx.ASGITransport(shop.app), base_url="http://muxly.example") as client:
        for method, address, sent in asked:
            answer = await client.request(method.upper(), address, **{**sent, "headers": SIGNED | sent.get("headers", {})})
            if answer.status_code >= 500:
                found.append(f"{answer.status_code} {method} {address} {sent} {answer.text[:200]}")
    return found


def test_trouble_with_the_database_does_not_tell_the_log_what_was_posted(shop: Shop) -> None:
    engine = shop.service.state.inbox_engine
    with pytest.raises((sa.exc.DBAPIError, MuxlyError)) as raised, engine.begin() as connection:
        connection.execute(sa.text("insert into nowhere values (:body)"), {"body": "s3cr3t-of-somebody"})
    assert "nowhere" in str(raised.value)
    assert "s3cr3t" not in str(raised.value)
