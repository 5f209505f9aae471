"""A low-code manifest as far as Muxly reads it itself: which streams it names, and whose code it would run."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from muxly_dagster.errors import ConfigurationError

_DEEPEST = 20  # references that lead to references


@dataclass(frozen=True, slots=True)
class Described:
    """A stream of which the manifest says everything plainly."""

    name: str
    key: tuple[str, ...]
    incremental: bool


@dataclass(frozen=True)
class Manifest:
    """The document, and the file it is from."""

    path: Path
    document: Mapping[str, Any]

    def check_trust(self, trusted: Sequence[str]) -> None:
        """Raises ConfigurationError where the manifest names Python classes that nobody trusts, or keeps tokens that Muxly cannot keep."""
        names = dict.fromkeys(str(name) for name in _values(self.document, "class_name"))
        foreign = [name for name in names if name not in trusted]
        if foreign:
            what = f"{self.path} runs Python code of its own: {', '.join(foreign)}"
            raise ConfigurationError(what, do="read that code; if you trust it, name these classes under `trust`")
        hidden = [value for value in _strings(self.document) if value == "class_name"]
        if hidden and not trusted:
            what = f"{self.path} puts the name of a Python class together while it runs"
            raise ConfigurationError(what, do="name the classes that may run under `trust`, or write the component out")
        if any(_values(self.document, "refresh_token_updater")):
            what = f"{self.path} has a `refresh_token_updater`: each refresh token is good for one use, and the next one would be lost"
            raise ConfigurationError(what, do="use a provider's token that stays valid, or a connector of Muxly's own that keeps tokens")

    @property
    def open_ended(self) -> bool:
        """Whether there may be streams that the document does not name."""
        return bool(self.document.get("dynamic_streams")) or any(name is None for name, _ in self._streams())

    @property
    def names(self) -> list[str]:
        """The streams that the document names."""
        return [name for name, _ in self._streams() if name is not None]

    def stream(self, name: str) -> Described | None:
        """The stream of this name; None where only the CDK can say what it is."""
        found = next((stream for each, stream in self._streams() if each == name), None)
        if found is None or found.get("type") == "StateDelegatingStream":
            return None
        key = _key(_field(found, "primary_key"))
        incremental = found.get("incremental_sync")
        if key is None or isinstance(incremental, str):
            return None
        return Described(name, key, bool(incremental))

    def _streams(self) -> Iterator[tuple[str | None, Mapping[str, Any]]]:
        for each in self.document.get("streams") or ():
            stream = self._followed(each)
            name = _field(stream, "name")
            yield (name if isinstance(name, str) and _plain(name) else None), stream

    def _followed(self, value: Any, depth: int = 0) -> Mapping[str, Any]:
        """A component with its reference resolved; its own fields count before those it refers to."""
        if isinstance(value, str):
            value = {"$ref": value}
        if not isinstance(value, Mapping):
            return {}
        reference = value.get("$ref")
        if reference is None or depth > _DEEPEST:
            return value
        found: Any = self.document
        for part in str(reference).removeprefix("#/").split("/"):
            found = found.get(part) if isinstance(found, Mapping) else None
        return {**self._followed(found, depth + 1), **{name: each for name, each in value.items() if name != "$ref"}}


def read_manifest(path: Path) -> Manifest:
    """Read the file. Raises ConfigurationError where it is not there, or is no manifest of a low-code source."""
    try:
        document = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}", do="correct the source's `manifest`") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigurationError(f"{path} is no YAML: {reason}", do="correct the manifest") from None
    if not isinstance(document, dict) or not (document.get("streams") or document.get("dynamic_streams")):
        do = "export the connector's manifest from the Connector Builder: it has `version`, `check` and `streams`"
        raise ConfigurationError(f"{path} is no low-code manifest", do=do)
    return Manifest(path, document)


def _field(stream: Mapping[str, Any], name: str) -> Any:
    """A field, which the stream's parameters may hold for it."""
    parameters = stream.get("$parameters")
    return stream.get(name) or (parameters.get(name) if isinstance(parameters, Mapping) else None)


def _key(value: Any) -> tuple[str, ...] | None:
    """A primary key that is written out: a name, or a list of names. None for what has to be worked out, or lies within an object."""
    if value in (None, "", []):
        return ()
    parts = value if isinstance(value, list) else [value]
    names = [part[0] if isinstance(part, list) and len(part) == 1 else part for part in parts]
    return tuple(names) if all(isinstance(name, str) and _plain(name) for name in names) else None


def _plain(text: str) -> bool:
    return "{{" not in text and not text.startswith("#/")


def _values(value: Any, key: str) -> Iterator[Any]:
    """Whatever stands under this name, at any depth."""
    if isinstance(value, Mapping):
        for name, each in value.items():
            if name == key:
                yield each
            yield from _values(each, key)
    elif isinstance(value, list):
        for each in value:
            yield from _values(each, key)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _strings(each)
