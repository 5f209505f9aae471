"""Finds connectors, destinations and transform steps by looking into their folders: nothing registers itself.

A name is a file's name (`connectors/files.py`, `connectors/hubspot.yaml`) or a package's (`connectors/sql/`), and the class in it is
that name in CamelCase. A module is imported only when its name is asked for, so listing names loads no vendor's SDK.
"""

import importlib
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from muxly_dagster.connector import Connector
from muxly_dagster.destination import Destination
from muxly_dagster.errors import ConfigurationError
from muxly_dagster.project.checks import did_you_mean
from muxly_dagster.project.schema import project_schema
from muxly_dagster.transform import Step

_HERE = Path(__file__).parent
_MANIFESTS = (".yaml", ".yml")


def connector_names() -> tuple[str, ...]:
    """The ids of all built-in connectors."""
    return tuple(sorted({*_modules("connectors"), *_built_in_manifests()}))


def connector_class(name: str, folder: Path = Path()) -> type[Connector]:
    """The connector with this id, or described by the manifest at this path, which begins at `folder`.

    Raises ConfigurationError for an unknown id, a manifest that is not there, and with every problem of one that is wrong.
    """
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


def schema() -> dict[str, Any]:
    """The JSON Schema of muxly.yaml with the fields of every built-in connector, destination and step. Imports all of them."""
    return project_schema(
        connectors={name: connector_class(name) for name in connector_names()},
        destinations={name: destination_class(name) for name in destination_names()},
        steps={name: step_class(name) for name in step_names()},
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
