"""The OpenAPI document: nothing in it is without a summary, a description, an example; what it shows is what it allows."""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jsonschema_rs
import pytest

from muxly_dagster.api import openapi
from muxly_dagster.api.app import Api, create_app
from muxly_dagster.api.problems import MEDIA_TYPE, Problem
from muxly_dagster.api.routes import ADMIN, OPEN
from muxly_dagster_tests.api.shop import Shop

OPEN_TO_ALL = {"get_health", "get_readiness"}


class NoService:
    """The document is the same whatever the project."""

    environ: Mapping[str, str] = MappingProxyType({})


def _document() -> openapi.Document:
    app = create_app(NoService())  # type: ignore[arg-type]
    assert isinstance(app, Api)
    return app.openapi()


DOCUMENT = _document()
OPERATIONS = list(openapi.operations(DOCUMENT))
each_operation = pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)


def allows(schema: dict[str, Any], value: Any) -> list[str]:
    """What is wrong with a value, by the schema as it stands in the document."""
    whole = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "components": DOCUMENT["components"]}
    return [error.message for error in jsonschema_rs.validator_for(whole).iter_errors(value)]


def examples_of(said: dict[str, Any]) -> list[Any]:
    shown = [said["example"]] if "example" in said else []
    return shown + [each["value"] for each in said.get("examples", {}).values() if "value" in each]


@each_operation
def test_an_operation_says_what_it_is(operation: openapi.Operation) -> None:
    said = operation.said
    assert said.get("summary") and said.get("description") and said.get("tags")
    assert re.fullmatch(r"[a-z]+(_[a-z0-9]+)*", said["operationId"]), said["operationId"]
    assert len(said["summary"]) <= 60 and not said["summary"].endswith(".")
    assert said["description"].rstrip().endswith((".", "`"))


@each_operation
def test_an_operation_says_who_may(operation: openapi.Operation) -> None:
    assert operation.guarded or operation.said["operationId"] in OPEN_TO_ALL or operation.said["tags"] == ["Webhooks"]


@each_operation
def test_every_parameter_has_a_description_and_an_example_that_is_allowed(operation: openapi.Operation) -> None:
    for parameter in operation.said.get("parameters", []):
        assert parameter.get("description"), parameter["name"]
        assert openapi.has_example(parameter), parameter["name"]
        for example in examples_of(parameter):
            assert allows(parameter["schema"], example) == [], parameter["name"]


@each_operation
def test_every_request_and_answer_has_examples_that_are_allowed(operation: openapi.Operation) -> None:
    body = operation.said.get("requestBody", {}).get("content", {})
    answers = {status: response for status, response in operation.said["responses"].items() if status.startswith("2")}
    assert answers
    shown = [("request", *each) for each in body.items()]
    for status, response in answers.items():
        assert response["description"]
        assert status == "204" or response.get("content"), f"{status} has no content"
        shown += [(status, *each) for each in response.get("content", {}).items()]
    for where, media_type, content in shown:
        assert openapi.has_example(content), f"{where} {media_type} has no example"
        if media_type.endswith("json") and "schema" in content:
            for example in examples_of(content):
                assert allows(content["schema"], example) == [], f"{where} {media_type}"


@each_operation
def test_the_problems_of_an_operation_are_documented(operation: openapi.Operation) -> None:
    responses = operation.said["responses"]
    assert {"4XX", "5XX"} <= set(responses)
    assert not operation.guarded or "401" in responses
    assert "{" not in operation.path or "404" in responses
    assert "requestBody" not in operation.said or {"413", "422"} <= set(responses)
    for status, response in responses.items():
        if status[0] in "45" and MEDIA_TYPE in response.get("content", {}):
            content = response["content"][MEDIA_TYPE]
            for example in examples_of(content) or [None]:
                assert Problem.model_validate(example).status // 100 == int(status[0])
                assert allows(content["schema"], example) == []


def test_operation_ids_are_told_apart() -> None:
    ids = [operation.said["operationId"] for operation in OPERATIONS]
    assert sorted(ids) == sorted(set(ids))


def test_every_route_is_in_it() -> None:
    routes = {
        (method.lower(), route.path)  # type: ignore[attr-defined]
        for router in (*OPEN, *ADMIN)
        for route in router.routes
        if getattr(route, "include_in_schema", False)
        for method in route.methods  # type: ignore[attr-defined]
    }
    listed = {(operation.method, operation.path) for operation in OPERATIONS}
    assert {each for each in routes if each not in listed and each[0] != "head"} == set()


def test_it_is_openapi_3_1() -> None:
    assert DOCUMENT["openapi"].startswith("3.1.")
    assert DOCUMENT["info"]["title"] == "Muxly"
    jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", "$defs": DOCUMENT["components"]["schemas"]})


def test_an_operation_without_an_example_would_be_found() -> None:
    bare = {
        "paths": {
            "/x/{id}": {
                "get": {
                    "parameters": [{"name": "id", "in": "path", "schema": {"type": "string"}}],
                    "responses": {"200": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Thing"}}}}},
                }
            }
        },
        "components": {"schemas": {"Thing": {"type": "object", "required": ["a"], "properties": {"a": {"type": "string"}}}}},
    }
    said = openapi.completed(bare)["paths"]["/x/{id}"]["get"]
    assert not openapi.has_example(said["parameters"][0])
    assert not openapi.has_example(said["responses"]["200"]["content"]["application/json"])
    assert "404" in said["responses"] and "401" not in said["responses"]


async def _docs(shop: Shop) -> tuple[str, str, dict[str, Any]]:
    async with shop.client(token="") as client:
        page, document = await client.get("/docs"), await client.get("/openapi.json")
    return page.text, page.headers["content-security-policy"], document.json()


def test_the_page_has_every_operation_and_takes_nothing_from_elsewhere(shop: Shop, run: Any) -> None:
    text, policy, document = run(_docs(shop))
    assert [operation.name for operation in OPERATIONS if f'id="{operation.said["operationId"]}"' not in text] == []
    assert "default-src 'none'" in policy and "<script" not in text
    assert re.findall(r'(?:src|href)="(?!#|openapi\.json)[^"]*"', text) == []
    assert document == DOCUMENT
