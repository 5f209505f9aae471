"""Destinations as they declare themselves, with nobody asked: list, show, template."""

from dataclasses import asdict

from muxly_dagster import catalog, fragment
from muxly_dagster.cli import plugged, terminal
from muxly_dagster.cli.declared import name_or, print_facts, print_fields, print_head, print_title
from muxly_dagster.sheet import DestinationSheet, destination_sheet_of


def list_destinations(*, json: bool) -> None:
    """Every type of destination that comes with Muxly or with a plugin of the project, one line each."""
    known = _known()
    sheets = [destination_sheet_of(known.destination_class(name)) for name in known.destination_names()]
    if json:
        terminal.print_json(
            [{"type": s.type, "title": s.title, "kind": s.kind, "guarantee": s.guarantee, "bulk": s.bulk, "auth": s.auth} for s in sheets]
        )
        return
    rows = [[s.type, s.title, s.kind, s.guarantee, "yes" if s.bulk else "no", ", ".join(s.auth)] for s in sheets]
    terminal.print_table(["type", "title", "kind", "guarantee", "whole tables", "signs in with"], rows)


def show(name: str, *, json: bool) -> None:
    """The destination's sheet."""
    found = destination_sheet_of(_known().destination_class(name))
    if json:
        terminal.print_json(asdict(found))
    else:
        _tell(found)


def template(name: str, destination: str) -> None:
    """The destination's template, under the name that is asked for."""
    kind = _known().destination_class(name)
    terminal.print_text(kind.config_template(name_or(destination, kind.type)).rstrip("\n"))


def _known() -> catalog.Extended:
    return catalog.Extended(catalog, plugged.plugins()[0])


def _tell(found: DestinationSheet) -> None:
    print_head(found.type, found.title, found.description)
    print_facts(
        {
            "kind": found.kind,
            "signs in with": ", ".join(found.auth),
            "guarantee": found.guarantee,
            "whole tables": "yes; it is an IO manager for assets of your own too" if found.bulk else "no",
            "at most": f"{found.batch_rows:,} changes in one delivery",
            "templates": f"{', '.join(found.templates)} (a rule may say its own)" if found.templates else "",
        }
    )
    print_fields("Fields of its own", found.fields)
    print_fields("Fields that every destination has", found.shared)
    print_title("Example")
    lines = [line for name, value in found.example.items() for line in fragment.setting(name, value)]
    terminal.out.print("\n".join(["destinations:", f"  {found.type}:", *fragment.indented(lines, 4)]), markup=False)
