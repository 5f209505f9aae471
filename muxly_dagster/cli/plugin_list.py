"""What `muxly plugins list` tells of every plugin: version, author, what it brings, whether it is enabled and why it is broken."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from muxly_dagster.cli import plugged, terminal
from muxly_dagster.plugins import Found, Loaded, Plugins, in_folder, installed, is_path

_FOLDER = "plugins"  # where people look for plugins of a project first, listed or not


@dataclass(frozen=True, slots=True)
class _Brings:
    kind: str
    id: str
    enabled: bool


@dataclass(frozen=True, slots=True)
class _Listed:
    """One plugin. `from_` is "package" or "folder"; `why` and `do` say what is wrong with one that is broken."""

    name: str
    version: str
    author: str
    muxly: str
    brings: tuple[_Brings, ...]
    status: Literal["enabled", "disabled", "broken"]
    from_: Literal["package", "folder"]
    why: str = ""
    do: str = ""


def list_plugins(*, json: bool) -> None:
    """Every plugin that is installed, in the project's folders, or listed and not there."""
    enabled, folder = plugged.plugins()
    listed = list(_all(enabled, folder))
    if json:
        terminal.print_json([{("from" if name == "from_" else name): value for name, value in asdict(each).items()} for each in listed])
    elif listed:
        rows = [[p.name, p.version, p.author, _in_words(p), p.muxly, terminal.status(p.status), p.from_] for p in listed]
        terminal.print_table(["plugin", "version", "author", "brings", "Muxly", "status", "from"], rows)
        for each in listed:
            if each.why:
                terminal.say(f"{each.name}: {each.why}" + (f"\n  → {each.do}" if each.do else ""))
    else:
        terminal.say("no plugins: none is installed, and none is in the project")


def _all(plugins: Plugins, folder: Path | None) -> Iterator[_Listed]:
    known = {(each.found.name, each.found.place) for each in plugins.loaded}
    complaints: dict[str, list[tuple[str, str]]] = {}
    for notice in plugins.notices:
        for name in notice.plugins:
            complaints.setdefault(name, []).append((notice.what, notice.do))
    for each in plugins.loaded:
        yield _enabled(plugins, each, complaints.get(each.found.name, []))
    for found in installed():
        if (found.name, found.place) not in known:
            yield _disabled(found)
    local = folder / _FOLDER if folder else None
    places = {each.found.place for each in plugins.loaded}
    for found in in_folder(local, f"./{_FOLDER}") if local and local.is_dir() else ():
        if found.place not in places:
            yield _disabled(found)
    for name in plugins.missing:  # packages, and paths that lead nowhere
        for what, do in complaints.get(name, []):
            yield _Listed(name, "", "", "", (), "broken", "folder" if is_path(name) else "package", what, do)


def _enabled(plugins: Plugins, loaded: Loaded, complaints: list[tuple[str, str]]) -> _Listed:
    found = loaded.found
    usable = {(kind, id) for kind, id, thing in loaded.things if plugins.owners.get((kind, id)) == found.name}
    named = {(offer.kind, offer.id): None for offer in found.offers} | {(kind, id): None for kind, id, _ in loaded.things}
    brings = tuple(_Brings(kind, id, (kind, id) in usable) for kind, id in named)
    why, do = "; ".join(what for what, _ in complaints), "; ".join(dict.fromkeys(do for _, do in complaints if do))
    status: Literal["enabled", "broken"] = "broken" if loaded.faults else "enabled"
    return _Listed(found.name, found.version, found.author, found.muxly, brings, status, _origin(found), why, do)


def _disabled(found: Found) -> _Listed:
    brings = tuple(_Brings(offer.kind, offer.id, False) for offer in found.offers)
    return _Listed(found.name, found.version, found.author, found.muxly, brings, "disabled", _origin(found))


def _origin(found: Found) -> Literal["package", "folder"]:
    return "folder" if found.local else "package"


def _in_words(listed: _Listed) -> str:
    return ", ".join(f"{each.kind} {each.id}" for each in listed.brings)
