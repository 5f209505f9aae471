"""The JSON Schema of a muxly.yaml, for editors: the project's own models with the fields of connectors, destinations and steps."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from muxly_dagster.connector import Connector
from muxly_dagster.destination import Destination
from muxly_dagster.project.models import Project, RouteSpec, RuleSpec, TransformSpec
from muxly_dagster.transform import Step

Schema = dict[str, Any]

_VARIABLE = r"\$\{"
_NUMBER = r"^\s*[-+]?[0-9._]+([eE][-+]?[0-9]+)?\s*$"
_TRUTHS = ["true", "false", "yes", "no", "on", "off", "y", "n", "t", "f", "1", "0"]
_RESTRICTIONS = ("enum", "const", "pattern", "minLength", "maxLength")
_NAME: Schema = {"type": "string", "pattern": "^[a-z][a-z0-9_]*$"}
_ENTRIES: Schema = {"type": "object", "minProperties": 1, "additionalProperties": {"type": ["object", "null"]}}
_NAMES: Schema = {"type": "array", "items": {"type": "string"}}


def project_schema(
    *, connectors: Mapping[str, type[Connector]], destinations: Mapping[str, type[Destination]], steps: Mapping[str, type[Step]]
) -> Schema:
    """The schema (draft 2020-12) of a project that may use these connectors, destinations and steps.

    It takes everything that Muxly takes: the short forms, `${NAME}` in place of a number or a choice, and numbers in quotes.
    """
    definitions: Schema = {}
    root = _model(Project, definitions)
    properties = root["properties"]
    sources = _named_by(
        "connector",
        "The connector's id, the path of a manifest, or a manifest itself.",
        _connectors(connectors, definitions),
        open_ended=True,
    )
    targets = _named_by("type", "The type of destination.", {n: (_model(c, definitions), {}) for n, c in destinations.items()})
    _list_or_one(root, "plugins")
    routes, jobs = _route(steps, definitions), _list_or_one(_model_at(properties["jobs"], definitions), "select")
    for where in (properties, jobs["properties"]):
        for key in ("on_failure", "on_recovery"):
            where[key] = {"$ref": "#/$defs/to", "description": where[key].get("description", "")}
    contents: Schema = {
        "sources": sources,
        "destinations": targets,
        "transforms": _transform(steps, definitions),
        "routes": routes,
        "jobs": jobs,
    }
    for section, schema in contents.items():
        definitions[section] = schema
        properties[section] = {
            "description": properties[section].get("description", ""),
            "type": ["object", "null"],
            "propertyNames": _NAME,
            "additionalProperties": {"$ref": f"#/$defs/{section}"},
        }
    used = _used(root, definitions)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "muxly.yaml",
        **_lenient(root),
        "$defs": {name: _lenient(schema) for name, schema in sorted(definitions.items()) if name in used},
    }


def _model(model: type[BaseModel], definitions: Schema, prefix: str = "") -> Schema:
    """A model's schema; the models inside it go to the definitions, under names of their own for each model they come from."""
    name = prefix or f"{model.__module__.rpartition('.')[2]}.{model.__name__}"
    schema = model.model_json_schema(ref_template=f"#/$defs/{name}.{{model}}", schema_generator=_Quiet)
    definitions |= {f"{name}.{inner}": definition for inner, definition in schema.pop("$defs", {}).items()}
    return schema


class _Quiet(GenerateJsonSchema):
    """Does not warn about defaults that JSON cannot hold: it leaves them out."""

    def emit_warning(self, kind: Any, detail: str) -> None:
        """Say nothing."""


def _model_at(section: Schema, definitions: Schema) -> Schema:
    """The schema of the entries of a section."""
    reference: str = section["additionalProperties"]["$ref"]
    found: Schema = definitions[reference.removeprefix("#/$defs/")]
    return found


def _connectors(connectors: Mapping[str, type[Connector]], definitions: Schema) -> dict[str, tuple[Schema, Schema]]:
    found: dict[str, tuple[Schema, Schema]] = {}
    for name, kind in connectors.items():
        definitions[f"pull.{name}"] = {**_model(kind.Pull, definitions, f"pull.{name}"), "type": ["object", "null"]}
        pulls = {"type": "object", "propertyNames": _NAME, "additionalProperties": {"$ref": f"#/$defs/pull.{name}"}}
        found[name] = (_model(kind, definitions, f"connector.{name}"), {"pulls": {"anyOf": [pulls, _NAMES, {"type": "null"}]}})
    return found


def _named_by(key: str, description: str, kinds: Mapping[str, tuple[Schema, Schema]], *, open_ended: bool = False) -> Schema:
    """An object whose other fields depend on what `key` says."""
    names: list[Schema] = [{"enum": sorted(kinds)}]
    if open_ended:
        names += [{"type": "string", "pattern": r"[/\\]|\.[yY][aA]?[mM][lL]$"}, {"type": "object"}]
    branches = []
    for name, (schema, more) in sorted(kinds.items()):
        fields = {key: True, **more, **schema.get("properties", {})}
        then = {**{k: v for k, v in schema.items() if k not in ("title", "type")}, "properties": fields}
        branches.append({"if": {"properties": {key: {"const": name}}, "required": [key]}, "then": then})
    return {"type": "object", "required": [key], "properties": {key: {"description": description, "anyOf": names}}, "allOf": branches}


def _transform(steps: Mapping[str, type[Step]], definitions: Schema) -> Schema:
    schema = _model(TransformSpec, definitions)
    schema["properties"]["steps"] |= {"type": ["array", "null"], "minItems": 1, "items": _steps(steps, definitions)}
    schema["properties"]["steps"].pop("anyOf", None)
    return _list_or_one(_list_or_one(schema, "from"), "key")


def _steps(steps: Mapping[str, type[Step]], definitions: Schema) -> Schema:
    """One step as it may be written: by its name alone, or with settings."""
    written: list[Schema] = [{"enum": sorted(steps)}]
    for name, step in sorted(steps.items()):
        definitions[f"step.{name}"] = _step(step, definitions, f"step.{name}")
        written.append(
            {"type": "object", "required": [name], "properties": {name: {"$ref": f"#/$defs/step.{name}"}}, "additionalProperties": False}
        )
    definitions["step"] = {"anyOf": written}
    return {"$ref": "#/$defs/step"}


def _step(step: type[Step], definitions: Schema, name: str) -> Schema:
    schema = _model(step, definitions, name)
    if step.parse.__func__ is Step.parse.__func__ or step.written.__func__ is not Step.written.__func__:  # type: ignore[attr-defined]
        return schema
    # The step reads a shorter form of its own, which its model does not describe; the form with fields stays for completion.
    return {"description": schema.get("description", ""), "anyOf": [schema, {"type": ["object", "array", "string"]}]}


def _route(steps: Mapping[str, type[Step]], definitions: Schema) -> Schema:
    entry: Schema = {"anyOf": [{"type": "string"}, _ENTRIES]}
    definitions["to"] = {"anyOf": [{"type": "string"}, _ENTRIES, {"type": "array", "items": entry}]}
    rule, route = _model(RuleSpec, definitions), _model(RouteSpec, definitions)
    for schema in (rule, route):
        schema["properties"]["steps"] |= {"items": _steps(steps, definitions)}
        for key in ("to", "otherwise"):
            if key in schema["properties"]:
                schema["properties"][key] = {"$ref": "#/$defs/to", "description": schema["properties"][key].get("description", "")}
    definitions["rule"] = rule
    route["properties"]["rules"] |= {"items": {"$ref": "#/$defs/rule"}}
    return route


def _list_or_one(schema: Schema, key: str) -> Schema:
    """A list of texts that may be written as one text."""
    listed = schema["properties"][key]
    schema["properties"][key] = {"description": listed.pop("description", ""), "anyOf": [listed, {"type": "string"}]}
    return schema


def _used(root: Schema, definitions: Schema) -> set[str]:
    """The definitions that the root needs, directly or not."""
    used: set[str] = set()
    waiting: list[Any] = [root]
    while waiting:
        at = waiting.pop()
        if isinstance(at, dict):
            name = str(at.get("$ref", "")).removeprefix("#/$defs/")
            if name in definitions and name not in used:
                used.add(name)
                waiting.append(definitions[name])
        if isinstance(at, dict | list):
            waiting += at.values() if isinstance(at, dict) else at
    return used


def _lenient(schema: Any) -> Any:
    """The schema, taking text for numbers and truths as Muxly does, and `${NAME}` where only some texts are right."""
    if isinstance(schema, list):
        return [_lenient(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: value for key, value in schema.items() if key in ("if", "propertyNames", "default", "enum", "const", "examples")}
    changed: Schema = {
        # More than one branch may match once `${NAME}` may stand for the word that tells them apart.
        ("anyOf" if key == "oneOf" else key): {name: _lenient(part) for name, part in value.items()}
        if key == "properties"
        else _lenient(value)
        for key, value in schema.items()
        if key not in kept and key != "discriminator"
    } | kept
    texts: list[Schema] = []
    if schema.get("type") in ("integer", "number"):
        texts = [{"type": "string", "pattern": _NUMBER}]
    elif schema.get("type") == "boolean":
        texts = [{"enum": [*_TRUTHS, *(t.upper() for t in _TRUTHS), *(t.capitalize() for t in _TRUTHS), 0, 1]}]
    elif schema.get("format", "password") == "password" and not any(key in schema for key in _RESTRICTIONS):
        return changed
    told = {key: changed.pop(key) for key in ("title", "description", "default") if key in changed}
    return told | {"anyOf": [changed, *texts, {"type": "string", "pattern": _VARIABLE}]}
