"""A plugin that was found, made ready: its code imported, its version and everything that it brings checked."""

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import metadata
from typing import Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from muxly_dagster.errors import ConfigurationError, MuxlyError
from muxly_dagster.plugins.contract import checked, manifest_class
from muxly_dagster.plugins.finding import MUXLY, Found, Offer, is_manifest
from muxly_dagster.plugins.importing import import_file, import_value
from muxly_dagster.plugins.plugin import Kind, Plugin

Thing = tuple[Kind, str, Any]
"""What a plugin brings: the kind, its id, and the class (for `auth`: what makes token sources)."""

_HEADER = 'plugin = Plugin(version="1.0.0", author="...", connectors=[...])'


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a plugin, or the one thing that `kind` and `id` name, cannot be used; `what` goes on from the plugin's name."""

    what: str
    do: str = ""
    kind: Kind | None = None
    id: str = ""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A plugin whose code has been imported; `found` now knows version and author of a file too."""

    found: Found
    things: tuple[Thing, ...] = ()
    faults: tuple[Fault, ...] = ()


def load(found: Found, offers: Collection[Offer], seconds: float) -> Loaded:
    """Import what is wanted of a plugin (of a file: all), each import within so many seconds. Never raises: it says what is wrong."""
    if found.local:
        try:
            stat = (found.place / "__init__.py" if found.place.is_dir() else found.place).stat()
        except OSError as error:
            return Loaded(found, (), (Fault(f"it cannot be opened: {error.strerror}", "correct or remove the file"),))
        return _file(found, stat.st_mtime_ns, stat.st_size, seconds)
    if fault := _wrong_version(found.muxly):
        return Loaded(found, (), (fault,))
    loaded = [_offer(found, offer, seconds) for offer in found.offers if offer in offers]
    return Loaded(
        found, tuple(each for each in loaded if isinstance(each, tuple)), tuple(each for each in loaded if isinstance(each, Fault))
    )


# Once in a process: a module that hung or failed does so again, and classes should stay the same ones.
@cache
def _offer(found: Found, offer: Offer, seconds: float) -> Thing | Fault:
    try:
        id, thing = checked(offer.kind, import_value(offer.value, seconds), offer.id)
    except Exception as error:  # to look at what somebody else made can fail too
        return _fault(error, offer)
    return offer.kind, id, thing


@lru_cache(maxsize=256)
def _file(found: Found, _changed: int, _size: int, seconds: float) -> Loaded:
    try:
        if is_manifest(found.place):
            return _manifest(found)
        return _module(found, seconds)
    except Exception as error:  # as above
        return Loaded(found, (), (_fault(error),))


def _manifest(found: Found) -> Loaded:
    kind: Any = manifest_class(found.place)
    told = dataclasses.replace(found, version=kind.manifest.version, author=kind.manifest.author)
    return Loaded(told, (("connector", kind.id, kind),))


def _module(found: Found, seconds: float) -> Loaded:
    header = getattr(import_file(found.place, seconds), "plugin", None)
    if not isinstance(header, Plugin):
        raise ConfigurationError(
            "it does not say what it is", do=f"add `from muxly_dagster.plugins import Plugin` and `{_HEADER}`, or begin its name with _"
        )
    told = dataclasses.replace(found, version=header.version, author=header.author, muxly=header.muxly)
    if fault := _wrong_version(header.muxly):
        return Loaded(told, (), (fault,))
    wanted: list[tuple[Kind, Any, str]] = [("connector", each, "") for each in header.connectors]
    wanted += [("destination", each, "") for each in header.destinations]
    wanted += [("transform", each, "") for each in header.transforms]
    wanted += [("auth", make, name) for name, make in header.auth.items()]
    things: list[Thing] = []
    faults = [] if wanted else [Fault("it brings nothing", f"name what it brings: `{_HEADER}`")]
    for kind, thing, name in wanted:
        try:
            id, made = checked(kind, thing, name)
        except MuxlyError as error:
            faults.append(dataclasses.replace(_fault(error), kind=kind, id=name or str(getattr(thing, _NAMED.get(kind, ""), ""))))
        else:
            things.append((kind, id, made))
    return Loaded(told, tuple(things), tuple(faults))


_NAMED: dict[Kind, str] = {"connector": "id", "destination": "type", "transform": "name"}


def _wrong_version(wanted: str) -> Fault | None:
    version = metadata.version(MUXLY)
    try:
        fits = SpecifierSet(wanted).contains(version, prereleases=True)
    except InvalidSpecifier:
        return Fault(f"it needs Muxly {wanted!r}, which is no version", "correct it: `muxly` takes versions such as >=0.1")
    return None if fits else Fault(f"it needs Muxly {wanted}, and this is {version}", "update Muxly, or take another version of the plugin")


def _fault(error: Exception, offer: Offer | None = None) -> Fault:
    """What it said; of a manifest with many mistakes, the first."""
    if not isinstance(error, MuxlyError):
        what, do = f"it fails with {type(error).__name__} when it is looked at", "repair or update the plugin, or take it out of `plugins`"
    elif isinstance(error, ConfigurationError):
        first, *others = error.problems
        what = str(dataclasses.replace(first, do="")) if first.file else first.what
        what += f" (and {len(others)} more)" if others else ""
        do = first.do
    else:
        what, do = error.what, error.do
    return Fault(what, do, offer.kind if offer else None, offer.id if offer else "")
