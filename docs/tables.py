"""Writes the parts of README.md and of pages that declarations know: `python -m docs.tables`, or `--check` in CI.

A part stands between `<!-- generated: NAME -->` and `<!-- end -->`. Where a page has no such marks, nothing is written.
"""

import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from pydantic import BaseModel

from docs.reference import reference
from muxly_dagster import catalog, fragment
from muxly_dagster.connector import Connector
from muxly_dagster.destination import Destination
from muxly_dagster.sheet import FieldSheet, default_text, destination_sheet, shared_fields, sheet
from muxly_dagster.sheet.fields import auth_of

ROOT = Path(__file__).parents[1]

_PART = re.compile(r"(?P<begin>^<!-- generated: (?P<name>\w+) -->\n)(?P<text>.*?)(?P<end>^<!-- end -->$)", re.MULTILINE | re.DOTALL)
Parts = dict[str, Callable[[str], str]]
"""By name: what writes a part of the page of one connector or destination."""

_MANIFEST = "any REST API that a YAML file describes"


def pages() -> list[Path]:
    """The pages that may have generated parts."""
    rooms = [ROOT / "docs" / room for room in _OF_ONE]
    return [
        ROOT / "README.md",
        ROOT / "docs" / "reference" / "api.md",
        *(page for room in rooms for page in (room.with_suffix(".md"), *sorted(room.glob("*.md")))),
    ]


def written(page: Path) -> str:
    """The page's text with its generated parts as they should be. Raises KeyError for a part that nobody knows how to write."""
    below = "docs/" if page.name == "README.md" else ""
    parts: dict[str, Callable[[], str]] = {
        "connectors": partial(connectors, f"{below}connectors"),
        "destinations": partial(destinations, f"{below}destinations"),
        "shared": shared,
        "api": reference,
    }
    if page.parent.name in _OF_ONE:
        parts = {name: partial(write, page.stem) for name, write in _OF_ONE[page.parent.name].items()}

    def part(match: re.Match[str]) -> str:
        return f"{match['begin']}{parts[match['name']]().strip()}\n{match['end']}"

    return _PART.sub(part, page.read_text("utf-8"))


def connectors(below: str) -> str:
    """One line for each connector, with a link to its page in the folder `below`."""
    rows = []
    for each in map(sheet, catalog.connector_names()):
        streams = f"{len(each.streams)} streams" if each.streams else ""
        rows.append([f"[`{each.id}`]({below}/{each.id}.md)", each.title, _codes(each.auth), streams, ", ".join(each.syncs), each.deletes])
    manifest = f"[a manifest]({'docs/' if below.startswith('docs') else ''}connectors/manifest.md)"
    rows.append([manifest, _MANIFEST, "what the API takes", "its own", "full, cursor, delta", ""])
    return _table(["Connector", "Pulls from", "Signs in with", "Streams", "Sync", "Hears deletes"], rows)


def destinations(below: str) -> str:
    """One line for each destination, with a link to its page in the folder `below`."""
    sheets = map(destination_sheet, catalog.destination_names())
    rows = [
        [f"[`{s.type}`]({below}/{s.type}.md)", s.title, s.guarantee, "yes" if s.bulk else "", _codes(s.templates), _codes(s.auth)]
        for s in sheets
    ]
    return _table(["Destination", "Delivers to", "Guaranteed", "Whole tables", "Templates", "Signs in with"], rows)


def shared() -> str:
    """What every destination may say."""
    return _field_table(shared_fields())


def main(arguments: Sequence[str]) -> int:
    """Write the pages, or with --check say which are out of date and answer 1."""
    stale = [page for page in pages() if written(page) != page.read_text("utf-8")]
    for page in stale:
        print(f"{page.relative_to(ROOT)} {'is out of date: run make tables' if '--check' in arguments else 'written'}")
        if "--check" not in arguments:
            page.write_text(written(page), "utf-8")
    return 1 if stale and "--check" in arguments else 0


# ---- parts of a connector's page ---------------------------------------------------------------------------------------


def _pull(name: str) -> str:
    return _field_table(sheet(name).pull) or "What every pull may say, and nothing more."


def _auth(kind: type[BaseModel]) -> str:
    rows = []
    for model in fragment.kinds(kind.model_fields["auth"].annotation) if "auth" in kind.model_fields else ():
        fields = [f"`{n}`" if info.is_required() else f"[`{n}`]" for n, info in model.model_fields.items() if n != "kind"]
        rows.append([f"`{fragment.tag(model)}`", ", ".join(fields), (model.__doc__ or "").partition("\n")[0]])
    return _table(["`kind`", "Fields (in brackets: may be left out)", "Meaning"], rows) if rows else _secret_fields(auth_of(kind))


def _secret_fields(names: Sequence[str]) -> str:
    return f"Its credentials stand in {_codes(names)}." if names else "There is nothing to sign in with."


def _streams(name: str) -> str:
    rows = [[f"`{s.name}`", _codes(s.key), s.sync, "yes" if s.deletes else "no", s.description] for s in sheet(name).streams]
    return _table(["Stream", "Key", "Sync", "Hears deletes", "Holds"], rows) if rows else "`muxly connectors streams SOURCE` lists them."


def _limits(name: str) -> str:
    found = sheet(name)
    version = f"Version {found.api_version} of the API is spoken" + (f"; it ends on {found.sunset}." if found.sunset else ".")
    lines = [f"- {limit}" for limit in found.limits] + ([f"- {version}"] if found.api_version else [])
    return "\n".join(lines) or "None beyond what the provider itself says."


def _actions(name: str) -> str:
    return _table(["Action", "Does"], [[f"`{action}`", title] for action, title in sheet(name).actions.items()]) or "None."


def _template(kind: type[Connector] | type[Destination], name: str) -> str:
    return f"```yaml muxly\n{kind.config_template(name)}```"


_OF_A_CONNECTOR: Parts = {
    "fields": lambda name: _field_table(sheet(name).fields),
    "pull": _pull,
    "auth": lambda name: _auth(catalog.connector_class(name)),
    "streams": _streams,
    "limits": _limits,
    "actions": _actions,
    "template": lambda name: _template(catalog.connector_class(name), name),
}


# ---- parts of a destination's page -------------------------------------------------------------------------------------


_OF_A_DESTINATION: Parts = {
    "fields": lambda name: _field_table(destination_sheet(name).fields),
    "auth": lambda name: _auth(catalog.destination_class(name)),
    "template": lambda name: _template(catalog.destination_class(name), name),
}

_OF_ONE = {"connectors": _OF_A_CONNECTOR, "destinations": _OF_A_DESTINATION}


# ---- Markdown ----------------------------------------------------------------------------------------------------------


def _field_table(fields: Sequence[FieldSheet]) -> str:
    rows = [[f"`{f.name}`", f.type.replace(" | ", ", "), _default(f), f.description] for f in fields]
    return _table(["Field", "Type", "Default", "Meaning"], rows)


def _default(field: FieldSheet) -> str:
    text = default_text(field)
    return "required" if field.required else f"`{text}`" if text else ""


def _codes(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    cells = [[" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in rows]
    lines = ["|".join(["", *(f" {cell} " if cell else " " for cell in row), ""]) for row in [columns, *cells]]
    return "\n".join([lines[0], f"|{'---|' * len(columns)}", *lines[1:]])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
