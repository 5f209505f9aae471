"""A destination's sheet: what is known of it without asking anybody, as plain values for commands and documentation pages."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from muxly_dagster import catalog
from muxly_dagster.destination import Destination
from muxly_dagster.sheet.fields import FieldSheet, Kind, auth_of, kind_of, paragraph, with_inner_fields


@dataclass(frozen=True, slots=True)
class DestinationSheet:
    """What `muxly destinations show` tells. `auth` are the ways to sign in, or the secret fields that stand in their place.

    `fields` are its own, `shared` those that every destination has, both with the fields within them (`batching.count`); `templates`
    are the fields that a rule may say anew; `bulk` says whether it holds whole tables; `example` is what to begin with, as in muxly.yaml.
    """

    type: str
    title: str
    description: str
    kind: Kind
    guarantee: str
    bulk: bool
    batch_rows: int
    auth: tuple[str, ...]
    templates: tuple[str, ...]
    fields: tuple[FieldSheet, ...]
    shared: tuple[FieldSheet, ...]
    example: Mapping[str, Any]


def destination_sheet(name: str) -> DestinationSheet:
    """The sheet of the destination of this type. Raises ConfigurationError as the catalog does."""
    return destination_sheet_of(catalog.destination_class(name))


def destination_sheet_of(kind: type[Destination]) -> DestinationSheet:
    """The sheet of a destination class."""
    everybodys = {info.alias or name for name, info in Destination.model_fields.items()}
    fields = with_inner_fields(kind)
    return DestinationSheet(
        type=kind.type,
        title=kind.title,
        description=paragraph(kind),
        kind=kind_of(kind),
        guarantee=kind.guarantee,
        bulk=kind.bulk,
        batch_rows=kind.batch_rows,
        auth=auth_of(kind),
        templates=kind.templates,
        fields=tuple(field for field in fields if field.name.partition(".")[0] not in everybodys),
        # Asked of the class itself, which may have defaults of its own.
        shared=tuple(field for field in fields if field.name.partition(".")[0] in everybodys),
        example=yaml.safe_load(kind.config_template(kind.type))["destinations"][kind.type],
    )


def shared_fields() -> tuple[FieldSheet, ...]:
    """What every destination may say, with the fields within fields."""
    return with_inner_fields(Destination)
