"""Writes the reference of the API from its OpenAPI document; `docs.tables` calls it."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from muxly_dagster.api.app import Api, create_app
from muxly_dagster.api.openapi import Operation
from muxly_dagster.api.reference import examples, groups, shown, type_of

_LONGEST = 1_500
"""Characters of an example; what is longer is left to /openapi.json."""


class _NoService:
    """The document is the same whatever the project."""

    environ: Mapping[str, str] = MappingProxyType({})


def document() -> dict[str, Any]:
    """The OpenAPI document of an app that answers for no project."""
    app = create_app(_NoService())  # type: ignore[arg-type]
    assert isinstance(app, Api)
    return app.openapi()


def reference() -> str:
    """All operations, by their tags."""
    parts = []
    for tag, found in groups(document()).items():
        parts.append(f"## {tag}")
        rows = [f"| [`{each.name}`](#{each.said['operationId']}) | {_cell(each.said['summary'])} |" for each in found]
        parts.append("\n".join(["| Request | Does |", "|---|---|", *rows]))
        parts += [_operation(each) for each in found]
    return "\n\n".join(parts)


def _operation(operation: Operation) -> str:
    said = operation.said
    signs_in = [name for each in said.get("security", []) for name in each]
    parts = [
        f"### `{operation.name}` {{ #{said['operationId']} }}",
        " ".join(said["description"].split()),
        f"Signs in with: {', '.join(f'`{name}`' for name in dict.fromkeys(signs_in))}." if signs_in else "Needs no credentials.",
    ]
    if parameters := said.get("parameters", []):
        rows = [_parameter(each) for each in parameters]
        parts.append("\n".join(["| Parameter | In | Type | Meaning | Example |", "|---|---|---|---|---|", *rows]))
    for media_type, example in examples(said.get("requestBody", {}).get("content", {})):
        parts += [f"Request, `{media_type}`:", _fence(example)]
    for status, response in said["responses"].items():
        if status.startswith("2"):
            found = examples(response.get("content", {}))
            parts += [f"Answer {status}{f', `{media_type}`' if media_type else ''}:\n\n{_fence(text)}" for media_type, text in found]
            parts += [] if found else [f"Answer {status}: {response['description']}"]
    problems = [
        f"{status} ({_cell(each['description']).rstrip('.').lower()})" for status, each in said["responses"].items() if status[0] in "45"
    ]
    parts.append(f"Problems: {', '.join(problems)}.")
    return "\n\n".join(parts)


def _parameter(said: Mapping[str, Any]) -> str:
    name = f"`{said['name']}`{' (required)' if said.get('required') else ''}"
    example = f"`{_cell(shown(said['example']))}`" if "example" in said and shown(said["example"]) else ""
    return f"| {name} | {said['in']} | {_cell(type_of(said['schema']))} | {_cell(said.get('description', ''))} | {example} |"


def _fence(text: str) -> str:
    cut = text if len(text) <= _LONGEST else text[:_LONGEST].rpartition("\n")[0] + "\n..."
    return f"```json\n{cut.rstrip()}\n```" if cut[:1] in "{[" else f"```text\n{cut.rstrip()}\n```"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
