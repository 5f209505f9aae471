"""Finds connectors, destinations and transform steps by looking into their folders: nothing registers itself.

A name is a file's name (`connectors/files.py`, `connectors/hubspot.yaml`) or a package's (`connectors/sql/`), and the class in it is
that name in CamelCase. A module is imported only when its name is asked for, so listing names loads no vendor's SDK.
"""

import importlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Protocol

from muxly_dagster import plugins
from muxly_dagster.connector import Connector
from muxly_dagster.destination import Destination
from muxly_dagster.errors import ConfigurationError
from muxly_dagster.plugins import NONE, Kind, Plugins
from muxly_dagster.project.checks import did_you_mean
from muxly_dagster.project.models import Part
from muxly_dagster.project.schema import project_schema
from muxly_dagster.transform import Step

_HERE = Path(__file__).parent
_MANIFESTS = (".yaml", ".yml")


class Catalog(Protocol):
    """Where classes come from: this module, or a stand-in. Each raises ConfigurationError for an unknown name."""

    def connector_class(self, name: str, folder: Path) -> type[Connector]:
        """The connector with this id, or of the manifest at this path, which begins at `folder`."""

    def destination_class(self, name: str) -> type[Destination]:
        """The destination of this type."""

    def step_class(self, name: str) -> type[Step]:
        """The transform step of this name."""


@dataclass(frozen=True)
class Extended:
    """A catalog with what the enabled plugins bring. What is unknown is explained by a plugin that is broken or not enabled, if it is."""

    catalog: Catalog
    plugins: Plugins

    def connector_class(self, name: str, folder: Path = Path()) -> type[Connector]:
        """As in the catalog."""
        found: type[Connector] = self._found("connector", name, lambda: self.catalog.connector_class(name, folder))
        return found

    def connector_names(self) -> list[str]:
        """The ids of all connectors, those that come with Muxly first."""
        return [*connector_names(), *self.plugins.ids("connector")]

    def destination_names(self) -> list[str]:
        """The types of all destinations, those that come with Muxly first."""
        return [*destination_names(), *self.plugins.ids("destination")]

    def destination_class(self, name: str) -> type[Destination]:
        """As in the catalog."""
        found: type[Destination] = self._found("destination", name, lambda: self.catalog.destination_class(name))
        return found

    def step_class(self, name: str) -> type[Step]:
        """As in the catalog."""
        found: type[Step] = self._found("transform", name, lambda: self.catalog.step_class(name))
        return found

    def _found(self, kind: Kind, name: str, otherwise: Callable[[], Any]) -> Any:
        if (found := self.plugins.find(kind, name)) is not None:
            return found
        try:
            return otherwise()
        except ConfigurationError as error:
            known = built_in_names()[kind]
            if name in known or (kind == "connector" and is_manifest_path(name)):
                raise
            raise self.plugins.why_not(kind, name, known) or error from None


def enable_plugins(listed: Sequence[str], folder: Path, seconds: float = plugins.SECONDS) -> Plugins:
    """The plugins that a project lists, its paths beginning at `folder`. What comes with Muxly keeps its names."""
    return plugins.enable(listed, folder, built_in_names(), seconds)


def built_in_names() -> Mapping[Kind, Collection[str]]:
    """All that comes with Muxly, by kind."""
    return {"connector": connector_names(), "destination": destination_names(), "transform": step_names(), "auth": ()}


def connector_names() -> tuple[str, ...]:
    """The ids of all built-in connectors."""
    return tuple(sorted({*_modules("connectors"), *_built_in_manifests()}))


def connector_class(name: str, folder: Path = Path()) -> type[Connector]:
    """The connector with this id, or described by the manifest at this path, which begins at `folder`.

    Raises ConfigurationError for an unknown id, a manifest that is not there, and with every problem of one that is wrong.
    """
    if "://" in name:
        raise ConfigurationError("a manifest is a file, and this is an address", do="download it, read it, and give its path")
    if is_manifest_path(name):
        path = folder / Path(name).expanduser()
        if not path.is_file():
            raise ConfigurationError(f"there is no manifest {path}", do="correct the path; it begins at the project file's folder")
        return _manifest(path)
    if name in _built_in_manifests():
        return _manifest(_built_in_manifests()[name])
    if name not in _modules("connectors"):
        raise _unknown("connector", name, connector_names())
    found: type[Connector] = _class("connectors", name)
    return found


def inline_connector(part: Part, source: str) -> type[Connector]:
    """The connector that a manifest in a project describes, in the source of this name.

    Raises ConfigurationError with every problem of it, each with its place in the project.
    """
    # As below: whoever has no manifest should not wait for what reads them.
    from muxly_dagster.manifest.checking.loading import with_defaults
    from muxly_dagster.manifest.connector import inline_manifest

    complete = Part(part.project, part.path, with_defaults(part.data, source))
    try:
        return inline_manifest(complete, source, part.project.file)
    except ConfigurationError:
        if part.incomplete:
            raise ConfigurationError([]) from None  # what is wrong besides may come of the variable that is missing
        raise


def destination_names() -> tuple[str, ...]:
    """The types of all destinations."""
    return _modules("destinations")


def destination_class(name: str) -> type[Destination]:
    """The destination of this type. Raises ConfigurationError for an unknown one."""
    if name not in _modules("destinations"):
        raise _unknown("type of destination", name, destination_names())
    found: type[Destination] = _class("destinations", name)
    return found


def step_names() -> tuple[str, ...]:
    """The names of all transform steps."""
    return _modules("transforms")


def step_class(name: str) -> type[Step]:
    """The transform step of this name. Raises ConfigurationError for an unknown one."""
    if name not in _modules("transforms"):
        raise _unknown("step", name, step_names())
    found: type[Step] = _class("transforms", name)
    return found


def schema(enabled: Plugins = NONE) -> dict[str, Any]:
    """The JSON Schema of muxly.yaml with the fields of every connector, destination and step, built-in or of an enabled plugin.

    Imports all of them.
    """
    return project_schema(
        connectors={n: connector_class(n) for n in connector_names()} | {n: enabled.find("connector", n) for n in enabled.ids("connector")},
        destinations={n: destination_class(n) for n in destination_names()}
        | {n: enabled.find("destination", n) for n in enabled.ids("destination")},
        steps={n: step_class(n) for n in step_names()} | {n: enabled.find("transform", n) for n in enabled.ids("transform")},
    )


def is_manifest_path(connector: str) -> bool:
    """Whether a source names its connector by the path of a manifest rather than by an id."""
    return "/" in connector or "\\" in connector or connector.lower().endswith(_MANIFESTS)


@cache
def _modules(room: str) -> tuple[str, ...]:
    found = {p.stem for p in (_HERE / room).glob("*.py")} | {p.parent.name for p in (_HERE / room).glob("*/__init__.py")}
    return tuple(sorted(name for name in found if not name.startswith("_")))


@cache
def _built_in_manifests() -> dict[str, Path]:
    return {p.stem: p for p in sorted((_HERE / "connectors").iterdir()) if p.suffix in _MANIFESTS}


def _class(room: str, name: str) -> Any:
    module = importlib.import_module(f"muxly_dagster.{room}.{name}")
    return getattr(module, "".join(part.capitalize() for part in name.split("_")))


def _manifest(path: Path) -> type[Connector]:
    stat = path.stat()
    return _read_manifest(path.absolute(), stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=256)
def _read_manifest(path: Path, modified: int, size: int) -> type[Connector]:
    # Imported when the first manifest is met: reading the names of connectors must stay cheap.
    from muxly_dagster.manifest.connector import load_manifest

    return load_manifest(path)


def _unknown(what: str, name: str, known: tuple[str, ...]) -> ConfigurationError:
    return ConfigurationError(f"there is no {what} {name!r}", do=did_you_mean(name, known))
