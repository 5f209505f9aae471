"""The OpenAPI document, completed: an example for every request and answer, and the problems that each operation may answer with."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from muxly_dagster.api.problems import MEDIA_TYPE, Problem

Document = dict[str, Any]

METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
_MISSING: Final = object()
_REF = "#/components/schemas/"
_DEEPEST = 24
"""Models that hold themselves have examples that end."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of the document."""

    method: str
    path: str
    said: Document

    @property
    def name(self) -> str:
        """Method and path."""
        return f"{self.method.upper()} {self.path}"

    @property
    def guarded(self) -> bool:
        """Whether it asks for credentials of any kind."""
        return bool(self.said.get("security"))


def operations(document: Document) -> Iterator[Operation]:
    """All operations, in the document's order."""
    for path, item in document["paths"].items():
        for method, said in item.items():
            if method in METHODS:
                yield Operation(method, path, said)


def completed(document: Document) -> Document:
    """The document with what FastAPI cannot know. Nothing that a route has said itself is changed."""
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas.setdefault("Problem", Problem.model_json_schema(ref_template=_REF + "{model}"))
    for operation in operations(document):
        said = operation.said
        for parameter in said.get("parameters", []):
            _give_example(parameter, schemas)
        for content in said.get("requestBody", {}).get("content", {}).values():
            _give_example(content, schemas)
        for status, problem in _problems(operation).items():
            said["responses"].setdefault(status, problem)
        said["responses"] = dict(sorted(said["responses"].items()))
        for status, response in said["responses"].items():
            for media_type, content in response.get("content", {}).items():
                if media_type == MEDIA_TYPE:
                    content.setdefault("example", _problem(status))
                _give_example(content, schemas)
    return document


def example_of(schema: Any, schemas: Mapping[str, Any], depth: int = 0) -> Any:
    """A value that the schema allows, made of the examples that it and its parts give; `_MISSING` where they give none."""
    if not isinstance(schema, dict) or depth > _DEEPEST:
        return _MISSING
    if "examples" in schema:
        return schema["examples"][0]
    for word in ("example", "const", "default"):
        if word in schema:
            return schema[word]
    if "enum" in schema:
        return schema["enum"][0]
    if "$ref" in schema:
        return example_of(schemas.get(schema["$ref"].removeprefix(_REF)), schemas, depth + 1)
    for choices in (schema.get("anyOf"), schema.get("oneOf"), schema.get("allOf")):
        found = [example_of(choice, schemas, depth + 1) for choice in choices or ()]
        if known := [each for each in found if each is not _MISSING]:
            return known[0]
    if schema.get("type") == "array":
        item = example_of(schema.get("items"), schemas, depth + 1)
        return _MISSING if item is _MISSING else [item]
    if schema.get("type") == "object" or "properties" in schema:
        return _object(schema, schemas, depth)
    return None if schema.get("type") == "null" else _MISSING


def has_example(said: Document) -> bool:
    """Whether a parameter, request body or answer has one."""
    return "example" in said or bool(said.get("examples"))


def _object(schema: Document, schemas: Mapping[str, Any], depth: int) -> Any:
    made: Document = {}
    for name, part in schema.get("properties", {}).items():
        value = example_of(part, schemas, depth + 1)
        if value is not _MISSING:
            made[name] = value
        elif name in schema.get("required", ()):
            return _MISSING
    return made


def _give_example(said: Document, schemas: Mapping[str, Any]) -> None:
    if not has_example(said) and (value := example_of(said.get("schema"), schemas)) is not _MISSING:
        said["example"] = value


# ---- problems ----------------------------------------------------------------------------------------------------------

_TEXTS = {
    "401": ("Sign in", "No credentials, or the wrong ones.", "this needs the admin token", "send `Authorization: Bearer TOKEN`"),
    "403": (
        "Only from this machine",
        "No credentials are set up, and the request is not from this machine.",
        "no admin token is set",
        "set MUXLY_ADMIN_TOKEN where the API runs",
    ),
    "404": ("Not found", "There is nothing of that name.", "there is no source named crn", "did you mean crm?"),
    "413": ("Content too large", "The body is too large.", "a body may have 1,048,576 bytes", "send less at a time"),
    "415": (
        "Unsupported media type",
        "The body is of a kind that is not taken here.",
        "this takes JSON that is not compressed, and nothing else",
        "send it with Content-Type: application/json",
    ),
    "422": (
        "The request is not valid",
        "A parameter or the body is not as it should be.",
        "query.limit: Input should be less than or equal to 1000",
        "",
    ),
    "429": ("Too many requests", "More requests than one client may make.", "at most 600 per 1 minute from one client", "wait 12 seconds"),
    "4XX": ("This cannot work", "Any other request that cannot be answered.", "the cursor is of another list", "leave it out"),
    "5XX": (
        "Try again later",
        "Muxly, or the other side that it asked, cannot answer now.",
        "the state database does not answer",
        "see GET /readyz",
    ),
}


def _problems(operation: Operation) -> dict[str, Document]:
    """The problems that an operation may answer with, beside those that it says itself."""
    said = operation.said
    wanted = ["429"]
    if operation.guarded:
        wanted += ["401", "403"]
    if "{" in operation.path:
        wanted.append("404")
    if said.get("parameters") or said.get("requestBody"):
        wanted.append("422")
    if said.get("requestBody"):
        wanted += ["413", "415"]
    return {
        status: {"description": _TEXTS[status][1], "content": {MEDIA_TYPE: {"schema": {"$ref": _REF + "Problem"}}}} for status in wanted
    }


def _problem(status: str) -> Document:
    title, _, detail, do = _TEXTS.get(status, (f"Status {status}", "", "", ""))
    number = {"4XX": 400, "5XX": 503}.get(status) or int(status)
    made = Problem(title=title, status=number, detail=detail, do=do, request_id="9f2c6e1b7a3d5048").model_dump(exclude_defaults=True)
    return {"type": "about:blank"} | made


def tags(document: Document) -> Sequence[str]:
    """The tags in the order in which they come."""
    return list(dict.fromkeys(tag for operation in operations(document) for tag in operation.said.get("tags", ["Other"])))
