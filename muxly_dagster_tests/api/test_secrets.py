"""No answer holds a secret: the full example with a marker in every credential, and every route that can be got."""

import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr

from muxly_dagster.api import openapi
from muxly_dagster_tests.api.shop import TOKEN, Shop, opened
from muxly_dagster_tests.api.test_document import OPERATIONS

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "full"
MARK = "m4rk3r"
SLOW = {"get_diagnostics"}
"""It asks every provider, and has tests of its own."""


def environ() -> dict[str, str]:
    """A marker for every variable, in the form that its name wants; nobody listens where the addresses lead."""
    found = {}
    for name in re.findall(r"\$\{([A-Z][A-Z0-9_]*)\}", (EXAMPLE / "muxly.yaml").read_text("utf-8")):
        if name.endswith("DATABASE_URL") or name == "WAREHOUSE_URL":
            found[name] = f"postgresql://someone:{MARK}-{name}@127.0.0.1:1/shop"
        elif name.endswith("_URL"):
            found[name] = "http://127.0.0.1:1"
        elif name in ("GA4_KEY", "BIGQUERY_KEY"):
            found[name] = (
                f'{{"type": "service_account", "client_email": "a@b.example", "private_key": "{MARK}-{name}", "token_uri": "http://127.0.0.1:1"}}'
            )
        elif name == "CARRIER_WEBHOOK_SECRET":
            found[name] = f"whsec_{MARK}aa"  # base64, as Standard Webhooks wants it
        else:
            found[name] = "properties/1" if name == "GA4_PROPERTY" else f"{MARK}-{name}"
    return found


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """The full example, never run."""
    folder = tmp_path_factory.mktemp("full") / "fjordkit"
    shutil.copytree(EXAMPLE, folder)
    found = opened(
        folder, {**environ(), "MUXLY_ADMIN_TOKEN": f"{MARK}-admin", "MUXLY_METRICS_TOKEN": f"{MARK}-metrics", "MUXLY_RATE_LIMIT": "off"}
    )
    yield found
    found.service.close()


def secrets_in(value: Any) -> Iterator[str]:
    """All that stands in a SecretStr, however deep."""
    if isinstance(value, SecretStr):
        yield value.get_secret_value()
    elif isinstance(value, BaseModel):
        for _, each in value:
            yield from secrets_in(each)
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from secrets_in(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from secrets_in(each)


def paths(operation: openapi.Operation, shop: Shop) -> list[str]:
    """Addresses of an operation, for every name that there is."""
    assembly = shop.service.runtime.assembly
    names = {
        "/v1/sources": assembly.sources,
        "/v1/tables": assembly.pulls,
        "/v1/routes": assembly.project.routes,
        "/v1/destinations": assembly.destinations,
        "/v1/deliveries": assembly.targets,
        "/v1/jobs": assembly.jobs,
    }
    known = next((list(found) for begins, found in names.items() if operation.path.startswith(begins)), [])
    filled = [operation.path]
    for parameter in operation.said.get("parameters", []):
        if parameter["in"] == "path":
            hole = f"{{{parameter['name']}}}"
            filled = [path.replace(hole, name) for path in filled for name in known or [str(parameter["example"])]]
    query = "&".join(
        f"{p['name']}={p['example']}" for p in operation.said.get("parameters", []) if p["in"] == "query" and p.get("required")
    )
    return [f"{path}?{query}" if query else path for path in filled]


def test_every_credential_of_the_example_is_marked(company: Shop) -> None:
    assembly = company.service.runtime.assembly
    held = [secret for thing in (*assembly.sources.values(), *assembly.destinations.values()) for secret in secrets_in(thing)]
    assert len(held) >= 12 and [secret for secret in held if MARK not in secret] == []


def test_no_answer_to_a_get_holds_a_secret(company: Shop, run: Any) -> None:
    asked = [
        path
        for operation in OPERATIONS
        if operation.method == "get" and operation.said["operationId"] not in SLOW and "{name}/streams" not in operation.path
        for path in paths(operation, company)
    ] + ["/docs", "/openapi.json", "/v1/nowhere"]
    assert len(asked) > 80

    async def answers() -> list[tuple[str, int, str, str]]:
        async with company.client(f"{MARK}-admin") as client:
            found = [(path, await client.get(path)) for path in asked]
        return [(path, answer.status_code, answer.text, str(answer.headers)) for path, answer in found]

    found = run(answers())
    assert [(path, status) for path, status, _, _ in found if status >= 500] == []
    assert [path for path, _, text, headers in found if MARK in text or MARK in headers or TOKEN in text] == []
    assert sum(status == 200 for _, status, _, _ in found) > 70


def test_no_answer_about_a_trouble_holds_a_secret(company: Shop, run: Any) -> None:
    """Sources and destinations that cannot be reached: what they say of it names addresses, and no credential."""
    asked = ["/v1/sources/shop/test", "/v1/sources/support/test", "/v1/sources/payments/test", "/v1/destinations/warehouse/test"]
    assembly = company.service.runtime.assembly
    tried = [path for path in asked if path.split("/")[3] in (*assembly.sources, *assembly.destinations) and "payments" not in path]

    async def answers() -> list[str]:
        async with company.client(f"{MARK}-admin") as client:
            return [(await client.post(path)).text for path in tried]

    found = run(answers())
    assert len(found) == 3 and all('"status":"failed"' in text for text in found)
    assert [text for text in found if MARK in text] == []
