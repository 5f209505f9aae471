"""Where plugins are: installed distributions by their entry points, files in a folder. Nothing is imported here."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import getaddresses
from importlib import metadata
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from muxly_dagster.plugins.plugin import GROUPS, Kind

MUXLY = "muxly-dagster"
"""Our own distribution."""

_MANIFESTS = (".yaml", ".yml")


@dataclass(frozen=True, slots=True)
class Offer:
    """One thing that an installed plugin brings; `value` says where it is (`module:name`)."""

    kind: Kind
    id: str
    value: str


@dataclass(frozen=True, slots=True)
class Found:
    """A plugin as far as it is known without importing it.

    `name` is the distribution's, or the file's path. `muxly` are the versions of Muxly it works with (PEP 440; empty: any). `place` is
    the folder a distribution is installed in, or the file; `local` tells the two apart. What a file brings, only its import tells.
    """

    name: str
    version: str = ""
    author: str = ""
    muxly: str = ""
    offers: tuple[Offer, ...] = ()
    place: Path = Path()
    local: bool = False


def installed() -> list[Found]:
    """Every installed distribution with an entry point in one of our groups, by name."""
    offers: dict[str, list[Offer]] = {}
    distributions: dict[str, metadata.Distribution] = {}
    for group, kind in GROUPS.items():
        for entry in metadata.entry_points(group=group):
            if entry.dist is not None:
                name = entry.dist.name or "unnamed"
                distributions.setdefault(canonical(name), entry.dist)
                offers.setdefault(canonical(name), []).append(Offer(kind, entry.name, entry.value))
    return [_described(distributions[name], tuple(offers[name])) for name in sorted(distributions)]


def in_folder(folder: Path, shown: str) -> list[Found]:
    """The plugins in a folder, called `shown` in muxly.yaml: files and packages, without those whose names begin with _ or a dot."""
    named = sorted(path for path in folder.iterdir() if not path.name.startswith(("_", ".")))
    return [in_file(path, f"{shown.rstrip('/')}/{path.name}") for path in named if is_plugin(path)]


def in_file(path: Path, shown: str) -> Found:
    """The plugin that is this file or package."""
    return Found(shown, place=path.absolute(), local=True)


def is_plugin(path: Path) -> bool:
    """Whether a path can be a plugin: a Python file, a package, or a manifest."""
    return (path / "__init__.py").is_file() if path.is_dir() else path.suffix in (".py", *_MANIFESTS)


def is_manifest(path: Path) -> bool:
    """Whether a plugin is a manifest."""
    return path.suffix in _MANIFESTS


def canonical(name: str) -> str:
    """A distribution's name as indexes compare it (PEP 503): `Acme_Weather` and `acme-weather` are one."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _described(distribution: metadata.Distribution, offers: tuple[Offer, ...]) -> Found:
    said = distribution.metadata
    people = [name or address for name, address in getaddresses(said.get_all("Author") or said.get_all("Author-email") or [])]
    return Found(
        name=distribution.name,
        version=distribution.version or "",
        author=", ".join(person for person in people if person),
        muxly=", ".join(_wanted(distribution)),
        offers=offers,
        place=Path(str(distribution.locate_file(""))),
    )


def _wanted(distribution: metadata.Distribution) -> Iterator[str]:
    """The versions of Muxly that the distribution's own requirements name."""
    for text in distribution.requires or ():
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if canonical(requirement.name) == MUXLY and requirement.specifier and applies:
            yield str(requirement.specifier)
