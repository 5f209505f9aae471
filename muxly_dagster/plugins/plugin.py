"""What a plugin in a project's own folder says of itself, and the four kinds of things that plugins bring."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from muxly_dagster.auth import MakeSource
from muxly_dagster.connector import Connector
from muxly_dagster.destination import Destination
from muxly_dagster.transform import Step

Kind = Literal["connector", "destination", "transform", "auth"]

GROUPS: Mapping[str, Kind] = {
    "muxly.connectors": "connector",
    "muxly.destinations": "destination",
    "muxly.transforms": "transform",
    "muxly.auth": "auth",
}
"""The entry point groups, each with what its entries are."""


@dataclass(frozen=True, slots=True)
class Plugin:
    """The header of a plugin that is a Python file: `plugin = Plugin(version="1.0", author="Ada", connectors=[Billing])`.

    `muxly` says which versions of Muxly it works with (PEP 440: `>=0.1`; empty: any). `auth` holds ways to sign in by name: what makes
    a token source from the settings in muxly.yaml. A distribution needs none of this: its metadata say the same.
    """

    version: str
    author: str = ""
    muxly: str = ""
    connectors: Sequence[type[Connector]] = ()
    destinations: Sequence[type[Destination]] = ()
    transforms: Sequence[type[Step]] = ()
    auth: Mapping[str, MakeSource] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises TypeError where the plugin is imported, so that its author is told the line."""
        for name in ("version", "author", "muxly"):
            if not isinstance(getattr(self, name), str):
                raise TypeError(f"`{name}` is no text")
        for name in ("connectors", "destinations", "transforms"):
            if not isinstance(getattr(self, name), list | tuple):
                raise TypeError(f"`{name}` is no list of classes")
        if not isinstance(self.auth, Mapping):
            raise TypeError("`auth` is no map of names to ways to sign in")
