"""Google's own description of its REST APIs (the discovery documents in google-api-python-client), to hold traffic against."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import googleapiclient.discovery_cache
import jsonschema


class Discovery:
    """One API, such as `Discovery("bigquery", "v2")`. Fields that the document does not know are refused."""

    def __init__(self, api: str, version: str) -> None:
        folder = Path(googleapiclient.discovery_cache.__file__).parent / "documents"
        self._document = json.loads((folder / f"{api}.{version}.json").read_text("utf-8"))
        self._schemas = {name: _schema(schema) for name, schema in self._document["schemas"].items()}
        self._methods = list(_methods(self._document))

    def violations(self, method: str, path: str, query: list[str], sent: Any, answer: Any) -> list[str]:
        """What is wrong with one exchange; empty for none."""
        found = self._find(method, path)
        if found is None:
            return [f"there is no method {method} {path}"]
        known = set(found.get("parameters", {})) | set(self._document.get("parameters", {}))
        wrong = [f"unknown parameter {name}" for name in query if name not in known]
        if sent is not None:
            wrong += self._check(found["request"]["$ref"], sent)
        return wrong + self._check(found["response"]["$ref"], answer)

    def _find(self, method: str, path: str) -> dict[str, Any] | None:
        base = "/" + self._document["servicePath"].strip("/")
        for candidate in self._methods:
            pattern = "/" + (candidate.get("flatPath") or candidate["path"]).strip("/")
            pattern = pattern if pattern.startswith(base) else base + pattern
            if candidate["httpMethod"] == method and re.fullmatch(re.sub(r"\{[^}]*\}", "[^/]+", pattern), path):
                return dict(candidate)
        return None

    def _check(self, name: str, body: Any) -> list[str]:
        validator = jsonschema.Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": self._schemas})
        return [f"{name} {'/'.join(map(str, error.path))}: {error.message[:200]}" for error in validator.iter_errors(body)]


def _methods(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from node.get("methods", {}).values()
    for resource in node.get("resources", {}).values():
        yield from _methods(resource)


def _schema(node: dict[str, Any]) -> dict[str, Any]:
    """A schema of a discovery document as JSON Schema."""
    if "$ref" in node:
        return {"$ref": f"#/$defs/{node['$ref']}"}
    type_ = node.get("type")
    if type_ == "any":
        return {}
    if type_ == "string" and node.get("format") in ("int64", "uint64"):
        return {"type": ["string", "integer"], "pattern": r"^-?\d+$"}  # servers send text, clients may send numbers
    made: dict[str, Any] = {"type": type_} if type_ else {}
    if "enum" in node:
        made["enum"] = node["enum"]
    if type_ == "array":
        made["items"] = _schema(node["items"])
    if type_ == "object":
        properties = {name: _schema(inner) for name, inner in node.get("properties", {}).items()}
        made["properties"] = properties
        made["additionalProperties"] = _schema(node["additionalProperties"]) if "additionalProperties" in node else not properties
    return made
