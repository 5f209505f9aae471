"""A manifest file, read and checked: every mistake at once, each with its place."""

import difflib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from pydantic import BaseModel, ValidationError

from muxly_dagster.errors import ConfigurationError, Problem
from muxly_dagster.manifest import schema
from muxly_dagster.manifest.checking import positions
from muxly_dagster.manifest.checking.rules import mistakes, warnings
from muxly_dagster.manifest.schema import Manifest

_log = logging.getLogger("muxly.manifest")

_LONGEST = 80  # characters of a value in a message

_KEYS = sorted(
    {
        field.alias or name
        for model in vars(schema).values()
        if isinstance(model, type) and issubclass(model, BaseModel)
        for name, field in model.model_fields.items()
    }
)


class Written(Protocol):
    """A manifest as data, with the place of everything in it: a file of its own, or a part of a project."""

    @property
    def data(self) -> Any:
        """What it says."""

    def problem(self, path: positions.Path, what: str, do: str = "") -> Problem:
        """A mistake at a path, placed at the nearest thing above it that is there."""


def read_manifest(path: Path) -> Manifest:
    """Read and check a manifest. Raises ConfigurationError with every problem found."""
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError:
        raise ConfigurationError([Problem("", "the file is no UTF-8 text", "save it as UTF-8", str(path), 1, 1)]) from None
    except OSError as error:
        raise ConfigurationError([Problem("", f"cannot be read: {error.strerror or error}", "correct the path", str(path), 1, 1)]) from None
    return check_manifest(positions.read_yaml(text, str(path)), path.name)


def with_defaults(data: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A manifest that stands in a project, with what goes without saying there: the source's name names it, and it goes to one host."""
    base_url = data.get("base_url")
    # An address that is filled in has no host yet, and one that is none raises ValueError: both are for `hosts` to say.
    literal = isinstance(base_url, str) and "${" not in base_url and "[" not in base_url
    host = urlsplit(str(base_url)).hostname if literal else None
    return {"muxly": 1, "id": name, "version": "0", "title": name, **({"hosts": [host]} if host else {}), **data}


def check_manifest(document: Written, shown: str) -> Manifest:
    """The manifest, called `shown` in warnings. Raises ConfigurationError with every problem found."""
    try:
        manifest = Manifest.model_validate(document.data)
    except ValidationError as error:
        raise ConfigurationError([_problem(document, detail) for detail in error.errors(include_url=False)]) from None
    found = list(mistakes(manifest))
    if found:
        raise ConfigurationError([document.problem(*each) for each in found])
    for warning in warnings(manifest):
        _log.warning("%s: %s", shown, warning)
    return manifest


def _problem(document: Written, detail: Any) -> Problem:
    path = _path_in(document.data, detail["loc"], missing=detail["type"] == "missing")
    kind, message, given = detail["type"], detail["msg"], detail["input"]
    what, do = message[0].lower() + message[1:], ""
    if not detail["loc"] and kind != "value_error":
        # What stands there may be anybody's: a file of secrets, named by mistake.
        what, do = "a manifest is a map, and this is none", "name a manifest; it begins with `muxly: 1`"
    elif kind == "extra_forbidden":
        close = difflib.get_close_matches(str(path[-1]), _KEYS, 1)
        what, do = "a manifest has no such key here", f"did you mean `{close[0]}`?" if close else "remove it"
    elif kind == "missing":
        what, do = "it is missing", "add it"
        path = (*path, str(detail["loc"][-1])) if not path or path[-1] != detail["loc"][-1] else path
    elif kind == "value_error":
        what = str(detail["ctx"]["error"])
    elif kind == "union_tag_invalid":
        what, do = f"there is no kind {detail['ctx']['tag']!r} here", f"there are {detail['ctx']['expected_tags']}"
    elif kind == "union_tag_not_found":
        what, do = "it does not say its kind", "add `kind:`"
    elif isinstance(given, str | int | float | bool):
        shown = repr(given)
        what += f" (this is {shown if len(shown) <= _LONGEST else shown[: _LONGEST - 1] + '…'})"
    return document.problem(path, what, do)


def _path_in(data: Any, loc: tuple[str | int, ...], *, missing: bool) -> positions.Path:
    """pydantic's location without the names of union members, which stand in no file, and with the key that should be there."""
    path: positions.Path = ()
    for part in loc:
        inside: Any = data if isinstance(data, dict) else dict(enumerate(data)) if isinstance(data, list) else {}
        if part in inside:
            data = inside[part]
            path = (*path, part)
        elif missing and part == loc[-1] and isinstance(part, str) and isinstance(data, dict):
            path = (*path, part)
    return path
