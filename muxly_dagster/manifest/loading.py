"""A manifest file, read and checked: every mistake at once, each with its place."""

import difflib
import logging
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ValidationError

from muxly_dagster.errors import ConfigurationError, Problem
from muxly_dagster.manifest import positions, schema
from muxly_dagster.manifest.expressions import expressions, mistake
from muxly_dagster.manifest.runner import column_of
from muxly_dagster.manifest.schema import CursorSync, Manifest, RequestSpec, StreamSpec

_log = logging.getLogger("muxly.manifest")

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_TIMES = ("timestamp", "date", "epoch_ms", "epoch_s")
_TAKEN = ("auth", "base_url", "pulls", "connector")
_KEYS = sorted(
    {
        field.alias or name
        for model in vars(schema).values()
        if isinstance(model, type) and issubclass(model, BaseModel)
        for name, field in model.model_fields.items()
    }
)

_Found = tuple[positions.Path, str, str]


def read_manifest(path: Path) -> Manifest:
    """Read and check a manifest. Raises ConfigurationError with every problem found."""
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError:
        raise ConfigurationError([Problem("", "the file is no UTF-8 text", "save it as UTF-8", str(path), 1, 1)]) from None
    except OSError as error:
        raise ConfigurationError([Problem("", f"cannot be read: {error.strerror or error}", "correct the path", str(path), 1, 1)]) from None
    document = positions.read_yaml(text, str(path))
    try:
        manifest = Manifest.model_validate(document.data)
    except ValidationError as error:
        raise ConfigurationError([_problem(document, detail) for detail in error.errors(include_url=False)]) from None
    found = list(_mistakes(manifest))
    if found:
        raise ConfigurationError([document.problem(*each) for each in found])
    for name, stream in manifest.streams.items():
        if isinstance(stream.sync, CursorSync) and not _bounds(stream):
            _log.warning(
                "%s: stream %s places neither ${cursor} nor ${window.start} in its request: everything is read each time", path.name, name
            )
    return manifest


def _problem(document: positions.Document, detail: Any) -> Problem:
    path = _path_in(document.data, detail["loc"])
    kind, message, given = detail["type"], detail["msg"], detail["input"]
    what, do = message[0].lower() + message[1:], ""
    if kind == "extra_forbidden":
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
        what += f" (this is {given!r})"
    return document.problem(path, what, do)


def _path_in(data: Any, loc: tuple[str | int, ...]) -> positions.Path:
    """pydantic's location without the names of union members, which stand in no file."""
    path: positions.Path = ()
    for part in loc:
        inside: Any = data if isinstance(data, dict) else dict(enumerate(data)) if isinstance(data, list) else {}
        if part in inside:
            data = inside[part]
            path = (*path, part)
        elif part == loc[-1] and isinstance(part, str) and isinstance(data, dict) and part != "[key]":
            path = (*path, part)
    return path


# ---- what the model alone cannot see -----------------------------------------------------------------------------------


def _mistakes(manifest: Manifest) -> Iterator[_Found]:
    yield from _address_mistakes(manifest)
    for name, each in manifest.config.items():
        at: positions.Path = ("config", name)
        if name in _TAKEN and not (name == "base_url" and each.type == "string"):
            yield at, "this name is taken: every source has it", "choose another name"
        if each.secret and each.type != "string":
            yield at, "only a string can be secret", "make it `type: string`"
        if each.secret and each.default not in (None, ""):
            yield (*at, "default"), "a secret has no default", "remove the default"
        if not each.secret and (name.endswith("api_key") or {"secret", "password", "token"} & set(name.split("_"))):
            yield at, "this looks like a secret, but is shown like any other setting", "add `secret: true`, or choose another name"
    roots = {"cursor", "window.start", "window.end"}
    common = {f"config.{name}" for name in manifest.config} | ({"api_version"} if manifest.api_version is not None else set())
    if manifest.check is not None:
        yield from _expression_mistakes(("check",), manifest.check.model_dump(by_alias=True), common)
    for name, stream in manifest.streams.items():
        at = ("streams", name)
        synced = isinstance(stream.sync, CursorSync)
        yield from _expression_mistakes((*at, "request"), stream.request.model_dump(by_alias=True), common | (roots if synced else set()))
        yield from _expression_mistakes((*at, "sync"), stream.sync.model_dump(), common)
        yield from _host_mistakes((*at, "request", "path"), stream.request, manifest.hosts)
        yield from _sync_mistakes((*at, "sync"), stream)


def _address_mistakes(manifest: Manifest) -> Iterator[_Found]:
    if "${" in manifest.base_url:
        known = {f"config.{name}" for name in manifest.config} | {"config.base_url", "api_version"}
        yield from _expression_mistakes(("base_url",), manifest.base_url, known)
        return
    yield from url_mistakes(("base_url",), manifest.base_url, manifest.hosts)


def _host_mistakes(at: positions.Path, request: RequestSpec, hosts: list[str]) -> Iterator[_Found]:
    if "://" in request.path and not request.path.startswith("${"):
        yield from url_mistakes(at, request.path, hosts)


def url_mistakes(at: positions.Path, text: str, hosts: list[str]) -> Iterator[_Found]:
    """Why an address may not be asked: its path in the file, what is wrong, what to do."""
    url = urlsplit(text)
    host = (url.hostname or "").lower()
    if url.scheme not in ("http", "https") or not host:
        yield at, f"{text!r} is no address", "write https://HOST/PATH"
    elif url.scheme == "http" and host not in _LOOPBACK:
        yield at, f"{text!r} would send everything in the clear", "write https:// (http is for this machine only)"
    elif not any(fnmatchcase(host, allowed.lower()) or url.netloc.lower() == allowed.lower() for allowed in hosts):
        yield at, f"the host {host} is not among `hosts`", "add it there"


def _expression_mistakes(at: positions.Path, value: Any, known: set[str]) -> Iterator[_Found]:
    for path, filters in expressions(value):
        found = mistake(path, filters, known.__contains__)
        if found:
            yield (*at, *_path_of(value, "${" + path)), *found


def _path_of(value: Any, text: str) -> positions.Path:
    """Where in the value the text stands."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        if isinstance(inner, str) and text in inner:
            return (key,)
        found = _path_of(inner, text)
        if found:
            return (key, *found)
    return ()


def _sync_mistakes(at: positions.Path, stream: StreamSpec) -> Iterator[_Found]:
    sync = stream.sync
    if not isinstance(sync, CursorSync):
        return
    column = column_of(sync.field, stream.flatten)
    if (sync.lag or sync.lookback or sync.window) and stream.types.get(column) not in _TIMES:
        do = f"declare its type: `types: {{{column}: timestamp}}`"
        yield (*at, "field"), f"lag, lookback and window count in time, and {column} is not known to be one", do
    if sync.window and {"window.start", "window.end"} - _bounds(stream):
        yield (*at, "window"), "the request does not place ${window.start} and ${window.end}", "place both, or remove `window`"
    if sync.window and sync.start is None:
        yield (*at, "window"), "slices need a beginning", "add `start:`, such as 2020-01-01"


def _bounds(stream: StreamSpec) -> set[str]:
    named = {path for path, _ in expressions(stream.request.model_dump())}
    return named & {"cursor", "window.start", "window.end"}
