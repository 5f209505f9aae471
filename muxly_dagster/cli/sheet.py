"""A connector's sheet: what is known of it without asking anybody, as plain values for commands and documentation pages."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pyarrow as pa
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from muxly_dagster import catalog, fragment, records
from muxly_dagster.connector import Connector, PullSettings, Stream
from muxly_dagster.project.checks import is_secret

_TYPES = {str: "text", int: "whole number", float: "number", bool: "true or false"}


@dataclass(frozen=True, slots=True)
class FieldSheet:
    """One setting: its name in YAML, its type in words, and its default as a JSON value (None where it has none, or is a secret)."""

    name: str
    type: str
    required: bool
    default: Any
    description: str


@dataclass(frozen=True, slots=True)
class StreamSheet:
    """One stream. `deletes` says whether its pulls hear of deletions; `columns` are those known beforehand, by name, with their types."""

    name: str
    key: tuple[str, ...]
    sync: str
    deletes: bool
    columns: Mapping[str, str]
    description: str


@dataclass(frozen=True, slots=True)
class Sheet:
    """What `muxly connectors show` tells. `auth` are the ways to sign in, or the secret fields that stand in their place.

    `pull` are the settings that its pulls have beyond those of every pull; `deletes` says in words which pulls hear of deletions;
    `actions` are titles by name; `limits` are in words.
    """

    id: str
    title: str
    description: str
    kind: Literal["python", "manifest", "plugin"]
    auth: tuple[str, ...]
    fields: tuple[FieldSheet, ...]
    pull: tuple[FieldSheet, ...]
    streams: tuple[StreamSheet, ...]
    syncs: tuple[str, ...]
    deletes: str
    actions: Mapping[str, str]
    limits: tuple[str, ...]
    api_version: str
    sunset: str
    docs: str


def sheet(name: str, folder: Path = Path()) -> Sheet:
    """The sheet of the connector with this id, or of the manifest at this path. Raises ConfigurationError as the catalog does."""
    return sheet_of(catalog.connector_class(name, folder))


def sheet_of(kind: type[Connector]) -> Sheet:
    """The sheet of a connector class."""
    declared = kind.declaration()
    sunset = declared.metadata.sunset
    streams = tuple(map(stream_sheet, declared.streams))
    return Sheet(
        id=kind.id,
        title=kind.title,
        description=declared.description or _paragraph(kind),
        kind=_kind(kind),
        auth=_auth(kind),
        fields=_fields(kind),
        pull=tuple(field for field in _fields(kind.Pull) if field.name not in PullSettings.model_fields),
        streams=streams,
        syncs=tuple(dict.fromkeys(stream.sync for stream in streams)) or declared.syncs,
        deletes=_deletes(streams, declared.syncs),
        actions={action.name: action.title for action in declared.actions},
        limits=declared.metadata.limits,
        api_version=declared.metadata.api_version,
        sunset=sunset.isoformat() if sunset else "",
        docs=declared.docs,
    )


def stream_sheet(stream: Stream) -> StreamSheet:
    """The sheet of a stream."""
    columns = {field.name: _column(field) for field in stream.schema or ()}
    # Whoever reads everything sees what is missing.
    return StreamSheet(stream.name, stream.key, stream.sync, stream.deletes or stream.sync == "full", columns, stream.description)


def default_text(field: FieldSheet) -> str:
    """A default as it is written in YAML; empty where there is none, or where it is a map with defaults of its own."""
    return "" if field.default in (None, "", []) or isinstance(field.default, Mapping) else fragment.inline(field.default)


def _deletes(streams: Sequence[StreamSheet], syncs: Sequence[str]) -> str:
    if streams:
        heard = [stream.deletes for stream in streams]
        return "yes" if all(heard) else "some streams" if any(heard) else "no"
    return "full pulls" if "full" in syncs else ""


def _kind(kind: type[Connector]) -> Literal["python", "manifest", "plugin"]:
    # By the name of its module: to import what reads manifests for this alone would slow down whoever asks about another connector.
    if kind.__module__.startswith("muxly_dagster.manifest."):
        return "manifest"
    return "python" if kind.__module__.startswith("muxly_dagster.") else "plugin"


def _auth(kind: type[Connector]) -> tuple[str, ...]:
    if "auth" in kind.model_fields:
        return tuple(fragment.tag(model) for model in fragment.kinds(kind.model_fields["auth"].annotation))
    return tuple(info.alias or name for name, info in kind.model_fields.items() if is_secret(info.annotation))


def _fields(model: type[BaseModel]) -> tuple[FieldSheet, ...]:
    return tuple(_field(info.alias or name, info) for name, info in model.model_fields.items())


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


def _column(field: "pa.Field") -> str:
    return "json" if records.is_json(field) else str(field.type)


def _paragraph(kind: type[Connector]) -> str:
    return " ".join(re.split(r"\n\s*\n", (kind.__doc__ or "").strip(), maxsplit=1)[0].split())
