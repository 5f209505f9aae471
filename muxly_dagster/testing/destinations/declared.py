"""What a destination's template says, loaded as a project would be, and what a destination keeps to itself."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, SecretBytes, SecretStr

from muxly_dagster import catalog
from muxly_dagster.assembly import assemble
from muxly_dagster.connector import Connector
from muxly_dagster.destination import Destination
from muxly_dagster.project.load import load_project
from muxly_dagster.transform import Step

_VARIABLE = re.compile(r"\$\{(\w+)\}")
_SHORTEST = 8  # characters: what is shorter stands in other words by chance


def loaded(destination: Destination, template: str, folder: Path, values: Mapping[str, str]) -> Destination:
    """The destination `mine` of a template, each variable set to `values` or else to what `destination` has in its place.

    Raises ConfigurationError with every problem of a template that does not load.
    """
    said = yaml.safe_load(template)["destinations"]["mine"]
    environ = {name: _text(value) for name, value in _variables(said, destination)} | dict(values)
    (folder / "muxly.yaml").write_text(template, "utf-8")
    return assemble(load_project(folder / "muxly.yaml", environ), _With(type(destination))).destinations["mine"]


def secrets_of(value: Any) -> Iterator[str]:
    """What stands in fields for secrets; of an address, its password."""
    if isinstance(value, SecretStr | SecretBytes):
        secret = _text(value)
        private = (urlsplit(secret).password or "") if "://" in secret else secret
        if len(private) >= _SHORTEST:
            yield private
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from secrets_of(getattr(value, name))
    elif isinstance(value, Mapping):
        yield from secrets_of(list(value.values()))
    elif isinstance(value, list | tuple | set | frozenset):
        for each in value:
            yield from secrets_of(each)


@dataclass(frozen=True)
class _With:
    """The catalog, with this destination under its own type, wherever its class was made."""

    kind: type[Destination]

    def connector_class(self, name: str, folder: Path) -> type[Connector]:
        return catalog.connector_class(name, folder)

    def destination_class(self, name: str) -> type[Destination]:
        return self.kind if name == self.kind.type else catalog.destination_class(name)

    def step_class(self, name: str) -> type[Step]:
        return catalog.step_class(name)


def _variables(said: Any, held: Any) -> Iterator[tuple[str, Any]]:
    """The variables in what a template says, each with what is held in the same place."""
    if isinstance(said, Mapping):
        for name, value in said.items():
            yield from _variables(value, _member(held, name))
    elif isinstance(said, list):
        several = held if isinstance(held, Sequence) and not isinstance(held, str) else ()
        for number, value in enumerate(said):
            yield from _variables(value, several[number] if number < len(several) else None)
    elif isinstance(said, str):
        whole = _VARIABLE.fullmatch(said)
        yield from ((name, held if whole else None) for name in _VARIABLE.findall(said))


def _member(held: Any, name: str) -> Any:
    if isinstance(held, Mapping):
        return held.get(name)
    fields = type(held).model_fields if isinstance(held, BaseModel) else {}
    return next((getattr(held, field) for field, info in fields.items() if name in (field, info.alias)), None)


def _text(value: Any) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, SecretBytes):
        return value.get_secret_value().decode()
    return str(value) if isinstance(value, str | int | float) and value != "" else "something"
