"""GET /openapi.json, and GET /docs: the document as a page that needs no script and nothing from elsewhere."""

from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any

import jinja2
import orjson
from fastapi import APIRouter, FastAPI, Request
from starlette.responses import HTMLResponse, Response

from muxly_dagster.api import openapi

router = APIRouter(tags=["Reference"])

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"


@router.get("/openapi.json", include_in_schema=False)
def get_openapi(request: Request) -> Response:
    """The document. Made in a thread, once: that takes a second or two, in which events want to be answered."""
    return Response(_written(request.app), media_type="application/json")


@router.get("/docs", include_in_schema=False)
def get_docs(request: Request) -> Response:
    """The page."""
    content = _template().render(groups=groups(request.app.openapi()), document=request.app.openapi(), **WORDS)
    return HTMLResponse(content, headers={"content-security-policy": _POLICY})


def groups(document: openapi.Document) -> Mapping[str, list[openapi.Operation]]:
    """The operations by their tags."""
    found: dict[str, list[openapi.Operation]] = {tag: [] for tag in openapi.tags(document)}
    for operation in openapi.operations(document):
        found[operation.said.get("tags", ["Other"])[0]].append(operation)
    return found


def type_of(schema: Any) -> str:
    """A schema's type in a word or two."""
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    if "const" in schema:
        return str(schema["const"])
    if "anyOf" in schema:
        return ", ".join(dict.fromkeys(type_of(each) for each in schema["anyOf"] if each.get("type") != "null"))
    if schema.get("type") == "array":
        return f"list of {type_of(schema.get('items', {}))}"
    return str(schema.get("type", "any"))


def shown(example: Any) -> str:
    """An example as people read it."""
    return example if isinstance(example, str) else orjson.dumps(example, option=orjson.OPT_INDENT_2).decode()


def examples(contents: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The examples of a request or an answer, each with its media type."""
    found = []
    for media_type, said in contents.items():
        if "example" in said:
            found.append((media_type, shown(said["example"])))
        found += [(media_type, shown(each["value"])) for each in said.get("examples", {}).values() if "value" in each]
    return found


WORDS: Mapping[str, Any] = {"type_of": type_of, "shown": shown, "examples": examples}


@lru_cache(maxsize=8)
def _written(app: FastAPI) -> bytes:
    return orjson.dumps(app.openapi())


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("muxly_dagster.api"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("docs.html")
