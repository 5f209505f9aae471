"""Whether what a plugin brings is what it says: a connector, a destination, a step or a way to sign in that Muxly can use."""

import inspect
import re
from pathlib import Path
from typing import Any

from muxly_dagster.auth import MakeSource, TokenSource
from muxly_dagster.connector import Connector, PullSettings
from muxly_dagster.destination import Destination
from muxly_dagster.errors import ConfigurationError
from muxly_dagster.plugins.plugin import Kind
from muxly_dagster.transform import Step

_CONTRACTS: dict[Kind, tuple[type, str, str]] = {
    "connector": (Connector, "id", "muxly_dagster.connector.Connector"),
    "destination": (Destination, "type", "muxly_dagster.destination.Destination"),
    "transform": (Step, "name", "muxly_dagster.transform.Step"),
}
"""By kind: the contract, the class variable that names it in muxly.yaml, and where the contract is."""

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_DO = "correct the plugin, or take it out of `plugins`"


def checked(kind: Kind, thing: Any, name: str = "") -> tuple[str, Any]:
    """Its id and the class (or, for `auth`, what makes token sources), once it keeps the contract.

    A connector may also be the path of a manifest. `name` is what an entry point calls it. Raises ConfigurationError with all that
    is missing, in words that go on from the plugin's name.
    """
    if kind == "auth":
        return _way(thing, name)
    base, variable, contract = _CONTRACTS[kind]
    if kind == "connector" and isinstance(thing, Path):
        thing = manifest_class(thing)
    shown = name or getattr(thing, "__name__", type(thing).__name__)
    if not (isinstance(thing, type) and issubclass(thing, base)):
        raise ConfigurationError(f"its {kind} {shown} is no subclass of {contract}", do=_DO)
    wrong = _lacks(thing, variable, titled=kind != "transform")
    id = getattr(thing, variable, None)
    if not wrong and name and id != name:
        wrong.append(f"calls itself {id} in `{variable}`, but {name} in its entry point")
    pull = getattr(thing, "Pull", PullSettings)
    if not (isinstance(pull, type) and issubclass(pull, PullSettings)):
        wrong.append("has a `Pull` that is no subclass of muxly_dagster.connector.PullSettings")
    if wrong:
        raise ConfigurationError(f"its {kind} {shown} {' and '.join(wrong)}", do=_DO)
    return str(id), thing


def manifest_class(path: Path) -> type[Connector]:
    """The connector of a manifest. Raises ConfigurationError with every problem of it, each with its place."""
    # Imported when the first manifest is met: most plugins are none, and what reads manifests is large.
    from muxly_dagster.manifest.connector import load_manifest

    return load_manifest(path)


def _lacks(thing: type, variable: str, *, titled: bool) -> list[str]:
    wrong: list[str] = []
    if missing := sorted(getattr(thing, "__abstractmethods__", ())):
        wrong.append(f"does not define {', '.join(missing)}")
    id = getattr(thing, variable, None)
    if not isinstance(id, str):
        wrong.append(f'has no `{variable}` (write `{variable}: ClassVar[str] = "..."`)')
    elif not _NAME.fullmatch(id):
        wrong.append(f"has the `{variable}` {id!r}, which is no name: a lower-case letter, then lower-case letters, digits and underscores")
    if titled and not (isinstance(title := getattr(thing, "title", None), str) and title):
        wrong.append('has no `title` (write `title: ClassVar[str] = "..."`)')
    return wrong


def _way(thing: Any, name: str) -> tuple[str, MakeSource]:
    if not callable(thing):
        raise ConfigurationError(f"its way to sign in {name} cannot be called with settings", do=_DO)
    if isinstance(thing, type):
        members = [n for n in vars(TokenSource) if not n.startswith("_") and callable(vars(TokenSource)[n])]
        if missing := [member for member in members if not callable(getattr(thing, member, None))]:
            raise ConfigurationError(f"its way to sign in {name} does not define {', '.join(missing)}", do=_DO)
        if inspect.isabstract(thing):
            raise ConfigurationError(f"its way to sign in {name} is abstract", do=_DO)
    if not _NAME.fullmatch(name):
        raise ConfigurationError(f"its way to sign in {name!r} has no name of lower-case letters, digits and underscores", do=_DO)
    return name, thing
