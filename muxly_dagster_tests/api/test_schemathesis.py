"""The whole OpenAPI document against a real server: whatever the document allows, and much that it does not, is answered as it says.

Nothing leaves this machine: the project's source is a folder, its webhook a stand-in, its other destinations files, and Dagster is quiet.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import CHECKS

from muxly_dagster.api import openapi
from muxly_dagster_tests.api.shop import PROJECT, TOKEN, running, served
from muxly_dagster_tests.api.test_document import DOCUMENT, OPEN_TO_ALL, OPERATIONS

CHECKED = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)
SECONDS = 30
CUT_BY_THE_SERVER = b"Invalid HTTP request received."
"""What uvicorn says of a head that is longer than it reads; no route hears of it."""

PROJECT_THAT_COLLECTS = PROJECT.replace(
    "sources:\n", "sources:\n  app: {connector: collector, pulls: {signups: {}, track: {}, influx: {}, metrics: {}}}\n", 1
)

THERE = {
    "/v1/collect": {"source": "app", "stream": "signups"},
    "/v1/sources": {"name": "shop"},
    "/v1/tables": {"name": "shop.orders"},
    "/v1/routes": {"name": "big_orders"},
    "/v1/destinations": {"name": "hook"},
    "/v1/deliveries": {"name": "big_orders.hook"},
    "/v1/jobs": {"name": "everyday"},
    "/v1/connectors": {"connector_id": "files"},
}
"""Names that the project has, by how addresses begin: no generator comes upon them."""

# Diagnostics ask every part of an installation, which takes its time; the document says of it what the other tests of it try.
schema = schemathesis.openapi.from_dict(DOCUMENT).exclude(operation_id="get_diagnostics")


@schemathesis.serializer("application/x-ndjson", "application/x-protobuf")
def as_it_stands(_context: Any, value: Any) -> bytes:
    """Lines and bytes need no writing."""
    return value if isinstance(value, bytes) else getattr(value, "data", None) or str(value).encode("utf-8", "surrogatepass")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that this file alone asks, since it asks for everything, also to change and delete."""
    folder = tmp_path_factory.mktemp("schemathesis") / "shop"
    with running(folder, project=PROJECT_THAT_COLLECTS) as shop, served(shop.app) as address:
        yield address


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    """One connection for all of it."""
    with requests.Session() as found:
        yield found


@schema.parametrize()
@settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_is_as_the_document_says(case: schemathesis.Case, url: str, session: requests.Session) -> None:
    for begins, names in THERE.items():
        if case.path.startswith(begins) and len(str(case.path_parameters)) % 2:
            case.path_parameters |= {name: value for name, value in names.items() if name in case.path_parameters}
    (case.query or {}).pop("wait", None)  # for the lake: nobody pulls here
    response = case.call(base_url=url, session=session, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=SECONDS)
    if response.content != CUT_BY_THE_SERVER:
        case.validate_response(response, checks=[CHECKS.get_one(name) for name in CHECKED])


@pytest.mark.parametrize("operation", [each for each in OPERATIONS if each.guarded], ids=lambda operation: operation.name)
def test_without_credentials_nothing_is_answered_that_is_not_open(
    operation: openapi.Operation, url: str, session: requests.Session
) -> None:
    path = operation.path
    for parameter in operation.said.get("parameters", []):
        if parameter["in"] == "path":
            path = path.replace(f"{{{parameter['name']}}}", str(parameter["example"]))
    content: dict[str, Any] = operation.said.get("requestBody", {}).get("content", {})
    sent = {"json": content["application/json"].get("example")} if "application/json" in content else {}
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic d3Jvbmc6d3Jvbmc="}):
        answer = session.request(operation.method, url + path, headers=headers, timeout=SECONDS, **sent)
        assert answer.status_code == 401, answer.text
        told = operation.said["responses"]["401"]["content"]
        assert answer.headers["content-type"].partition(";")[0] in told, (
            f"senders of some protocols want it in their own form: {list(told)}"
        )
        assert answer.headers["www-authenticate"]
    assert operation.said["operationId"] not in OPEN_TO_ALL
