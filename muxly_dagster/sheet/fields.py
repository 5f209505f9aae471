"""What models say of their fields, as plain values: the part of a sheet that connectors and destinations share."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from muxly_dagster import fragment
from muxly_dagster.project.checks import is_secret

_TYPES = {str: "text", int: "whole number", float: "number", bool: "true or false"}

Kind = Literal["python", "manifest", "plugin"]


@dataclass(frozen=True, slots=True)
class FieldSheet:
    """One setting: its name in YAML, its type in words, and its default as a JSON value (None where it has none, or is a secret)."""

    name: str
    type: str
    required: bool
    default: Any
    description: str


def fields_of(model: type[BaseModel]) -> tuple[FieldSheet, ...]:
    """The fields of a model, as they are named in YAML."""
    return tuple(_field(info.alias or name, info) for name, info in model.model_fields.items())


def with_inner_fields(model: type[BaseModel]) -> tuple[FieldSheet, ...]:
    """The same, and below a field that holds one model the fields of that (`batching.count`), with the defaults they have there."""
    found: list[FieldSheet] = []
    for info, field in zip(model.model_fields.values(), fields_of(model), strict=True):
        inner = fragment.kinds(info.annotation)
        found.append(field)
        for each in with_inner_fields(inner[0]) if len(inner) == 1 else ():
            default = field.default.get(each.name, each.default) if isinstance(field.default, Mapping) else each.default
            found.append(replace(each, name=f"{field.name}.{each.name}", default=default))
    return tuple(found)


def default_text(field: FieldSheet) -> str:
    """A default as it is written in YAML; empty where there is none, or where it is a map with defaults of its own."""
    return "" if field.default in (None, "", []) or isinstance(field.default, Mapping) else fragment.inline(field.default)


def kind_of(declared: type[BaseModel]) -> Kind:
    """Where a connector or destination comes from: a class of Muxly's own, a manifest, a plugin."""
    # By the name of its module: to import what reads manifests for this alone would slow down whoever asks about another connector.
    if declared.__module__.startswith("muxly_dagster.manifest."):
        return "manifest"
    return "python" if declared.__module__.startswith("muxly_dagster.") else "plugin"


def auth_of(declared: type[BaseModel]) -> tuple[str, ...]:
    """The ways to sign in, or the secret fields that stand in their place."""
    if "auth" in declared.model_fields:
        return tuple(fragment.tag(model) for model in fragment.kinds(declared.model_fields["auth"].annotation))
    return tuple(info.alias or name for name, info in declared.model_fields.items() if is_secret(info.annotation))


def paragraph(declared: type) -> str:
    """The first paragraph of what a class says of itself, on one line."""
    return " ".join(re.split(r"\n\s*\n", (declared.__doc__ or "").strip(), maxsplit=1)[0].split())


def _field(name: str, info: FieldInfo) -> FieldSheet:
    required = info.is_required()
    hidden = required or is_secret(info.annotation)
    default = None if hidden else to_jsonable_python(info.get_default(call_default_factory=True), by_alias=True)
    return FieldSheet(name, _type(info.annotation), required, default, info.description or "")


def _type(annotation: Any) -> str:
    if is_secret(annotation):
        return "secret"
    models = fragment.kinds(annotation)
    if models:
        return " | ".join(filter(None, map(fragment.tag, models))) or "map"
    origin, parts = get_origin(annotation), [part for part in get_args(annotation) if part is not type(None)]
    if origin is Literal:
        return " | ".join(map(str, parts))
    if origin in (list, tuple, set, frozenset, Sequence):
        return "list"
    if origin in (dict, Mapping):
        return "map"
    if parts:
        # `Annotated` brings values beside its type, a union brings types only.
        types = parts[:1] if hasattr(annotation, "__metadata__") else parts
        return " or ".join(dict.fromkeys(map(_type, types)))
    return _TYPES.get(annotation, "text" if annotation is Any else getattr(annotation, "__name__", str(annotation)).lower())
