"""Pulls that patterns select: found by asking a source's provider, named, and kept on disk, so that projects load without asking."""

import json
import logging
import os
import re
import unicodedata
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from muxly_dagster.connector import Connector, Selected
from muxly_dagster.errors import ConfigurationError, MuxlyError, Problem
from muxly_dagster.project.locate import Segment
from muxly_dagster.project.models import Name, Project

Asking = Literal["once", "always", "never"]
"""When providers are asked: where nothing is kept for the patterns, at every load (what is kept counts while they are away), or never."""

_log = logging.getLogger("muxly.selecting")

_FOLDER = "selected"
_NAME: TypeAdapter[str] = TypeAdapter(Name)
_MOST_NAMES = 20

Pulls = dict[str, dict[str, Any]]


class Selections:
    """What the patterns of one project's sources select.

    Kept as one JSON file for each source in the folder `selected` under `home`; without a home, nothing is kept. `news` says in words
    what has come or gone since it was kept; `warnings` are sources whose pulls are not known because nobody may be asked.
    """

    def __init__(self, home: Path | None = None, ask: Asking = "once") -> None:
        self._folder = home / _FOLDER if home is not None else None
        self._ask = ask
        self._pulls: dict[str, Pulls] = {}
        self._unknown: set[str] = set()
        self._new: dict[str, dict[str, Any]] = {}
        self.news: list[str] = []
        self.warnings: list[Problem] = []

    def pulls(self, project: Project, source: str, connector: Connector, problems: list[Problem]) -> Pulls:
        """The pulls that a source's patterns add to those written out, by name, with their settings. Adds to `problems`."""
        selection = connector.selection()
        if selection is None:
            return {}
        found = self._found(project, source, connector, selection, problems)
        if found is None:
            self._unknown.add(source)
            return {}
        added, clashes = _named(project, source, connector, found)
        problems += clashes
        self._pulls[source] = added
        return added

    def missed(self, source: str) -> None:
        """Note that nobody can know a source's pulls, since the source itself is wrong."""
        self._unknown.add(source)

    def project(self, project: Project) -> Project:
        """The project with the selected pulls; what names others of a source whose pulls are not known is not to blame."""
        return project.with_pulls(self._pulls, self._unknown) if self._pulls or self._unknown else project

    def keep(self) -> None:
        """Keep what was found by asking: to be called once the project is known to be sound with it."""
        for source, content in self._new.items():
            try:
                self._write(source, content)
            except OSError as error:
                _log.warning("what %s selects cannot be kept in %s (%s): it will be asked for again", source, self._folder, error.strerror)

    def _found(
        self, project: Project, source: str, connector: Connector, selection: Mapping[str, Any], problems: list[Problem]
    ) -> Sequence[Selected] | None:
        """What is selected, kept or asked for; None, with a problem or a warning, where it cannot be known."""
        kept = self._read(source, selection)
        if kept is not None and self._ask != "always":
            return kept
        if self._ask == "never":
            what = "which pulls its patterns select is not known, so nothing that names them was checked"
            self.warnings.append(project.problem(("sources", source), what, "run `muxly check` where the source can be reached"))
            return None
        try:
            found = connector.selected()
        except ConfigurationError as error:
            problems += [project.problem(("sources", source, *_segments(p.path)), p.what, p.do) for p in error.problems]
            return None
        except MuxlyError as error:
            if kept is not None:
                return kept
            what = f"its patterns cannot be looked up: {error.what}"
            problems.append(project.problem(("sources", source), what, error.do or "try again when the source can be reached"))
            return None
        if kept is None or list(found) != list(kept):
            self._new[source] = {"selection": selection, "selected": [asdict(each) for each in found]}
        if kept is not None:
            self._tell(source, [each.name for each in kept], [each.name for each in found])
        return found

    def _tell(self, source: str, before: Sequence[str], now: Sequence[str]) -> None:
        for word, names in (("new", [n for n in now if n not in before]), ("gone", [n for n in before if n not in now])):
            if names:
                more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
                self.news.append(f"{source}: {word} since the last time: {', '.join(names[:_MOST_NAMES])}{more}")

    def _read(self, source: str, selection: Mapping[str, Any]) -> list[Selected] | None:
        """What is kept for these patterns; None also where the file is damaged."""
        if self._folder is None:
            return None
        try:
            content = json.loads((self._folder / f"{source}.json").read_bytes())
            if content["selection"] != json.loads(json.dumps(selection)):
                return None
            return [Selected(e["name"], e["settings"], e["short"], tuple(e["names"])) for e in content["selected"]]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def _write(self, source: str, content: Mapping[str, Any]) -> None:
        if self._folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        # Under a name of its own first: another process may be reading the file, or writing it too.
        new = self._folder / f"{source}.{uuid.uuid4().hex}.new"
        try:
            new.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")
            os.replace(new, self._folder / f"{source}.json")
        finally:
            with suppress(OSError):
                new.unlink(missing_ok=True)


def pull_name(name: str) -> str:
    """A provider's name as the name of a pull: `Order Items` is `order_items`, `2024` is `t_2024`; empty where nothing is left."""
    plain = unicodedata.normalize("NFKD", name.casefold())
    text = re.sub(r"[^a-z0-9_]+", "_", "".join(c for c in plain if not unicodedata.combining(c))).strip("_")
    if not text:
        return ""
    try:
        return _NAME.validate_python(text)
    except ValidationError:
        return f"t_{text}"  # begins with a digit, or is a word that Muxly or SQL keeps for itself


def _segments(path: str) -> list[Segment]:
    return [int(part) if part.isdecimal() else part for part in path.split(".") if part]


def _named(project: Project, source: str, connector: Connector, found: Sequence[Selected]) -> tuple[Pulls, list[Problem]]:
    """What was found as pulls, without what is written out; a problem where two would have one name, or one has none."""
    path, written = ("sources", source), project.sources[source].pulls
    reads = {name: connector.reads(name, said) for name, said in written.items()}
    pulls: Pulls = {}
    named: dict[str, str] = {}
    problems: list[Problem] = []
    do = "write one of the two under `pulls:` with a name of its own, or leave it out of the patterns"
    for each in found:
        if {each.name, *each.names} & set(reads.values()):
            continue
        name = pull_name(each.short or each.name)
        if not name:
            how = "write it under `pulls:` with a name of its own, or leave it out of the patterns"
            problems.append(project.problem(path, f"no name for a pull can be made of {each.name}", how))
        elif name in named:
            problems.append(project.problem(path, f"{named[name]} and {each.name} would both be the pull {name}", do))
        elif name not in written:
            named[name] = each.name
            pulls[name] = dict(each.settings)
        elif reads[name]:
            what = f"{each.name} would be the pull {name}, which is written out and reads {reads[name]}"
            problems.append(project.problem(path, what, do))
    return pulls, problems
