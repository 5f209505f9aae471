"""Places on this machine that a project names: a relative one begins at the project's folder, wherever a command is run."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin
from urllib.parse import quote

from pydantic import BaseModel

_FILES = ("sqlite", "duckdb")
"""The schemes of databases that are files."""


@dataclass(frozen=True, slots=True)
class InProject:
    """Marks a field (`path: Annotated[str, InProject()]`) that names a place on this machine: a path, or the URL of a database that is
    a file (`sqlite:///`, `duckdb:///`).

    A relative one begins at the folder of the project that says it, wherever the command is run.
    """


def in_project(model: type[BaseModel], values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The values for a model, with those of fields marked InProject made absolute, also in models within it."""
    found = dict(values)
    for field, info in model.model_fields.items():
        for name in {field, info.alias or field} & found.keys():
            value = found[name]
            if isinstance(value, str) and InProject() in info.metadata:
                found[name] = _absolute(value, folder)
            elif isinstance(value, Mapping):
                for inner in _models_in(info.annotation):
                    value = in_project(inner, value, folder)
                found[name] = value
    return found


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models that a field's annotation names, one or several of a union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Annotated, Union, UnionType):
        for part in get_args(annotation):
            yield from _models_in(part)


def _absolute(text: str, folder: Path) -> str:
    scheme, found, place = text.partition("://")
    if found:
        path = place.removeprefix("/")
        relative = scheme in _FILES and place.startswith("/") and path and not path.startswith(("/", "~", ":"))
        return f"{scheme}:///{quote(folder.absolute().as_posix())}/{path.removeprefix('./')}" if relative else text
    return str(folder.absolute() / Path(text).expanduser()) if text else text
