"""The plugins that a project lists, ready to use, and in words why others are not."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from muxly_dagster.auth import CustomAuth, MakeSource
from muxly_dagster.errors import ConfigurationError
from muxly_dagster.plugins.finding import Found, Offer, canonical, in_file, in_folder, installed, is_plugin
from muxly_dagster.plugins.importing import SECONDS
from muxly_dagster.plugins.loading import Loaded, load
from muxly_dagster.plugins.plugin import Kind
from muxly_dagster.plugins.signing import guarded
from muxly_dagster.project.checks import did_you_mean

_WORDS: Mapping[Kind, str] = {
    "connector": "connector",
    "destination": "type of destination",
    "transform": "step",
    "auth": "way to sign in",
}

_Named = tuple[Kind, str]


@dataclass(frozen=True, slots=True)
class Notice:
    """What is wrong with an entry of `plugins:`, by its place in the list, and the plugins that it is about.

    It is a mistake of the project only where such a plugin is used.
    """

    entry: int
    what: str
    do: str = ""
    plugins: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plugins:
    """What the enabled plugins bring. `loaded` are the plugins themselves, broken ones too; `missing` are entries that lead nowhere."""

    things: Mapping[_Named, Any] = field(default_factory=dict)
    owners: Mapping[_Named, str] = field(default_factory=dict)
    """The name of the plugin that brings each of them."""
    notices: tuple[Notice, ...] = ()
    loaded: tuple[Loaded, ...] = ()
    missing: tuple[str, ...] = ()
    unusable: Mapping[_Named, str] = field(default_factory=dict)
    """Why something that an enabled plugin should bring cannot be used, in a sentence."""

    def find(self, kind: Kind, id: str) -> Any:
        """The class (for `auth`: what makes token sources); None where no enabled plugin brings it."""
        return self.things.get((kind, id))

    def ids(self, kind: Kind) -> list[str]:
        """All of a kind."""
        return sorted(id for of, id in self.things if of == kind)

    def let_sign_in(self, thing: object) -> None:
        """Give a source or destination whose `auth` is custom the way to sign in that it names. Raises ConfigurationError."""
        auth = getattr(thing, "auth", None)
        if isinstance(auth, CustomAuth):
            make: MakeSource | None = self.find("auth", auth.use)
            if make is None:
                raise self.why_not("auth", auth.use) or ConfigurationError(f"there is no way to sign in {auth.use!r}")
            auth.bind(make)

    def why_not(self, kind: Kind, id: str, others: Collection[str] = ()) -> ConfigurationError | None:
        """Why there is no such thing, as far as plugins have to do with it; `others` are names that come with Muxly."""
        if why := self.unusable.get((kind, id)):
            return ConfigurationError(why, do="mend the plugin (`muxly plugins list` says what is wrong with it), or use another")
        if files := [each.found.name for each in self.loaded if each.found.local and each.faults and each.found.place.stem == id]:
            what = f"the {_WORDS[kind]} {id!r} should come with the plugin {files[0]}, which is broken"
            return ConfigurationError(what, do="mend the plugin (`muxly plugins list` says what is wrong with it)")
        for found in installed():
            if any((offer.kind, offer.id) == (kind, id) for offer in found.offers):
                what = f"the {_WORDS[kind]} {id!r} comes with the plugin {found.name}, which is not enabled"
                return ConfigurationError(what, do=f"add {found.name} to `plugins`")
        what = f"there is no {_WORDS[kind]} {id!r}"
        if packages := [name for name in self.missing if not is_path(name)]:
            return ConfigurationError(what, do=f"correct the name, or install {' and '.join(packages)}, which `plugins` lists")
        ours = self.ids(kind)
        do = did_you_mean(id, [*others, *ours]) or "install a plugin that brings it, and add the plugin to `plugins`"
        return ConfigurationError(what, do=do) if ours or kind == "auth" else None


NONE = Plugins()
"""No plugin is enabled."""


def enable(
    listed: Sequence[str], folder: Path, built_in: Mapping[Kind, Collection[str]] | None = None, seconds: float = SECONDS
) -> Plugins:
    """The plugins that `plugins:` lists: distributions, ids that they bring, folders and files (beginning at `folder`).

    `built_in` are the names that come with Muxly, which plugins cannot take. Never raises for a plugin that is broken: it warns.
    """
    if not listed:
        return NONE
    wanted: dict[tuple[str, Path], tuple[int, Found, dict[Offer, None]]] = {}
    notices: list[Notice] = []
    missing: list[str] = []
    for entry, name in enumerate(listed):
        found = _in_project(name, folder) if is_path(name) else _named(name)
        if isinstance(found, Notice):
            notices.append(Notice(entry, found.what, found.do, (name,)))
            missing.append(name)
            continue
        for plugin, offers in found:
            wanted.setdefault((plugin.name, plugin.place), (entry, plugin, {}))[2].update(dict.fromkeys(offers))
    loaded = [(entry, load(plugin, offers, seconds), offers) for entry, plugin, offers in wanted.values()]
    return _told_apart(loaded, notices, tuple(missing), built_in or {})


def is_path(name: str) -> bool:
    """Whether an entry of `plugins:` is a folder or a file of the project rather than the name of something installed."""
    return "/" in name or "\\" in name or name.startswith((".", "~")) or name.lower().endswith((".py", ".yaml", ".yml"))


def _in_project(name: str, folder: Path) -> list[tuple[Found, tuple[Offer, ...]]] | Notice:
    path = folder / Path(name).expanduser()
    if not path.exists():
        return Notice(0, f"there is no folder or file {path}", "correct the path; it begins at the project file's folder")
    if is_plugin(path):
        return [(in_file(path, name), ())]
    if not path.is_dir():
        return Notice(0, f"{name} is no plugin", "name a folder, a Python file or a manifest")
    return [(found, ()) for found in in_folder(path, name)]


def _named(name: str) -> list[tuple[Found, tuple[Offer, ...]]] | Notice:
    everything = installed()
    for found in everything:
        if canonical(found.name) == canonical(name):
            return [(found, found.offers)]
    named = [(found, offers) for found in everything if (offers := tuple(offer for offer in found.offers if offer.id == name))]
    if named:
        return named
    near = did_you_mean(name, [*(found.name for found in everything), *(offer.id for found in everything for offer in found.offers)])
    install = f"install it into the environment that Muxly runs in: pip install {canonical(name)}"
    return Notice(0, f"no plugin {name} is installed", near if near.startswith("did you mean") else install)


def _told_apart(
    loaded: Sequence[tuple[int, Loaded, Collection[Offer]]],
    notices: list[Notice],
    missing: tuple[str, ...],
    built_in: Mapping[Kind, Collection[str]],
) -> Plugins:
    """All of them together: no name means two things."""
    things: dict[_Named, Any] = {}
    owners: dict[_Named, str] = {}
    unusable: dict[_Named, str] = {}
    for entry, plugin, offers in loaded:
        name = plugin.found.name
        for fault in plugin.faults:
            notices.append(Notice(entry, f"the plugin {name} is broken: {fault.what}", fault.do, (name,)))
            lost = [(fault.kind, fault.id)] if fault.kind else [(offer.kind, offer.id) for offer in offers]
            for kind, id in lost:
                unusable[kind, id] = f"the {_WORDS[kind]} {id!r} comes with the plugin {name}, which is broken: {fault.what}"
        for kind, id, thing in plugin.things:
            shown = f"the {_WORDS[kind]} {id!r}"
            if id in built_in.get(kind, ()):
                what = f"the plugin {name} brings {shown}, which Muxly has already: the one that comes with Muxly is used"
                notices.append(Notice(entry, what, "give the plugin's another name", (name,)))
            elif (kind, id) in owners:
                both = f"{owners[kind, id]} and {name}"
                what = f"the plugins {both} both bring {shown}: neither is used"
                notices.append(Notice(entry, what, "enable one of the two", (owners[kind, id], name)))
                unusable[kind, id] = f"the plugins {both} both bring {shown}"
            else:
                owners[kind, id] = name
                things[kind, id] = guarded(thing, name, id) if kind == "auth" else thing
    usable = {named: thing for named, thing in things.items() if named not in unusable}
    in_order = tuple(sorted(notices, key=lambda notice: notice.entry))
    return Plugins(
        usable, {named: owners[named] for named in usable}, in_order, tuple(plugin for _, plugin, _ in loaded), missing, unusable
    )
