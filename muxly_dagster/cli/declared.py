"""Connectors as they declare themselves, with nobody asked: list, show, template."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from pydantic import TypeAdapter, ValidationError

from muxly_dagster.cli import plugged, terminal
from muxly_dagster.connector import Connector
from muxly_dagster.errors import ConfigurationError
from muxly_dagster.project.models import Name
from muxly_dagster.sheet import FieldSheet, Sheet, StreamSheet, default_text, sheet_of, summary

_MOST_COLUMNS = 6


def list_connectors(*, json: bool) -> None:
    """Every connector that comes with Muxly or with a plugin of the project, one line each."""
    known = plugged.connectors()
    sheets = [sheet_of(known.connector_class(name)) for name in known.connector_names()]
    if json:
        terminal.print_json([summary(each) for each in sheets])
        return
    rows = [[each.id, each.title, each.kind, ", ".join(each.auth), len(each.streams) or None] for each in sheets]
    terminal.print_table(["id", "title", "kind", "signs in with", "streams"], rows, numbers=["streams"])


def show(name: str, *, json: bool) -> None:
    """The connector's sheet."""
    found = sheet_of(plugged.connectors().connector_class(name))
    if json:
        terminal.print_json(asdict(found))
    else:
        _tell(found)


def template(name: str, source: str) -> None:
    """The connector's template, with the connector named as it was here."""
    kind = plugged.connectors().connector_class(name)
    terminal.print_text(kind.config_template(source_name(kind, source), name).rstrip("\n"))


def source_name(kind: type[Connector], wanted: str = "") -> str:
    """What a source of this connector is called. Raises ConfigurationError for what is no name."""
    return name_or(wanted, kind.id)


def name_or(wanted: str, otherwise: str) -> str:
    """The name that was asked for, or else this one. Raises ConfigurationError for what is no name."""
    try:
        return TypeAdapter[str](Name).validate_python(wanted or otherwise)
    except ValidationError as error:
        raise ConfigurationError(f"{wanted!r} {error.errors()[0]['msg']}", do="give another --name") from None


def print_streams(streams: Sequence[StreamSheet]) -> None:
    """Streams as a table."""
    rows = [[s.name, ", ".join(s.key), s.sync, "yes" if s.deletes else "no", _columns(s)] for s in streams]
    terminal.print_table(["stream", "key", "sync", "hears deletes", "known columns"], rows)


def print_facts(facts: Mapping[str, str]) -> None:
    """Names and values, those that there are."""
    terminal.print_grid([[name, value] for name, value in facts.items() if value])


def print_head(name: str, title: str, description: str) -> None:
    """What it is called and what it is."""
    terminal.out.print(f"{name}: {title}", style="bold", markup=False)
    if description and description.rstrip(".") != title:
        terminal.out.print(description, markup=False)


def print_title(title: str) -> None:
    """What follows, after an empty line."""
    terminal.out.print(f"\n{title}", style="bold")


def print_fields(title: str, fields: Sequence[FieldSheet]) -> None:
    """Fields under a title, where there are any."""
    if fields:
        print_title(title)
        terminal.print_grid([[f.name, f.type, "required" if f.required else default_text(f), f.description] for f in fields])


def _columns(stream: StreamSheet) -> str:
    names = list(stream.columns)
    more = f" and {len(names) - _MOST_COLUMNS} more" if len(names) > _MOST_COLUMNS else ""
    return ", ".join(names[:_MOST_COLUMNS]) + more


def _tell(found: Sheet) -> None:
    print_head(found.id, found.title, found.description)
    facts = {"kind": found.kind, "signs in with": ", ".join(found.auth), "API version": found.api_version, "ends on": found.sunset}
    print_facts({**facts, "limits": "\n".join(found.limits), "documentation": found.docs})
    print_fields("Fields of the source", found.fields)
    print_fields("Fields of a pull, beside those of every pull", found.pull)
    if found.streams:
        print_title("Streams")
        print_streams(found.streams)
    if found.actions:
        print_title("Actions")
        terminal.print_grid([[name, title] for name, title in found.actions.items()])
