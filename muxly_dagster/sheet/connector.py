"""A connector's sheet: what is known of it without asking anybody, as plain values for commands and documentation pages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from muxly_dagster import catalog, records
from muxly_dagster.connector import Connector, PullSettings, Stream
from muxly_dagster.sheet.fields import FieldSheet, Kind, auth_of, fields_of, kind_of, paragraph


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
    kind: Kind
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


def summary(sheet: Sheet) -> dict[str, Any]:
    """What lists tell of a connector; `streams` is how many there are, None where that depends on the account."""
    return {"id": sheet.id, "title": sheet.title, "kind": sheet.kind, "auth": sheet.auth, "streams": len(sheet.streams) or None}


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
        description=declared.description or paragraph(kind),
        kind=kind_of(kind),
        auth=auth_of(kind),
        fields=fields_of(kind),
        pull=tuple(field for field in fields_of(kind.Pull) if field.name not in PullSettings.model_fields),
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


def _deletes(streams: Sequence[StreamSheet], syncs: Sequence[str]) -> str:
    if streams:
        heard = [stream.deletes for stream in streams]
        return "yes" if all(heard) else "some streams" if any(heard) else "no"
    return "full pulls" if "full" in syncs else ""


def _column(field: "pa.Field") -> str:
    return "json" if records.is_json(field) else str(field.type)
