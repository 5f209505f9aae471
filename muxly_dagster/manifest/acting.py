"""Actions: something done at the provider, from checked inputs to what the provider answers."""

import base64
import binascii
import difflib
import uuid
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from muxly_dagster.decoding import parse_path
from muxly_dagster.errors import ConfigurationError, MuxlyError, SourceError
from muxly_dagster.http import Http, Redaction, Request, Response
from muxly_dagster.http.outcomes import failure_of_response
from muxly_dagster.manifest.asking.requests import build_request
from muxly_dagster.manifest.language.expressions import ABSENT, Context, render
from muxly_dagster.manifest.schema import ActionSpec, Input, parse_duration
from muxly_dagster.services import Services

IDEMPOTENCY_KEY = "idempotency_key"
"""The input that every action takes whose API knows idempotency keys."""

_MOST_SENT = 256 * 2**20
_MOST_KEPT = 8 * 2**30
_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float, Decimal),
    "boolean": (bool,),
    "duration": (str, int, float),
    "list": (list, tuple),
    "object": (Mapping,),
    "file": (str, Path),
    "bytes": (bytes, str),
}
_SCHEMAS: dict[str, dict[str, Any]] = {
    "string": {"type": "string"},
    "integer": {"type": "integer"},
    "number": {"type": "number"},
    "boolean": {"type": "boolean"},
    "duration": {"type": ["string", "number"], "description": "90s, 15m, 2h, 3d, or seconds"},
    "list": {"type": "array"},
    "object": {"type": "object"},
    "file": {"type": "string", "description": "the path of a file on this machine"},
    "bytes": {"type": "string", "contentEncoding": "base64"},
}


def input_schema(spec: ActionSpec) -> dict[str, Any]:
    """What the action takes, as a JSON Schema (2020-12) of an object."""
    properties = {name: _property(each) for name, each in spec.input.items()}
    if spec.idempotency:
        said = "Sent twice with the same key, the action is done once. One is made unless it is given."
        properties[IDEMPOTENCY_KEY] = {"type": "string", "title": "Idempotency key", "description": said}
    required = [name for name, each in spec.input.items() if each.required]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def act(http: Http, spec: ActionSpec, name: str, inputs: Mapping[str, Any], context: Context, services: Services) -> Any:
    """Do it: JSON values, a text, or `{url, sha256, size, media_type}` of a stored file, as `response` says; None for an empty answer.

    A request that is not safe to repeat is sent once, unless the API takes an idempotency key. Raises ConfigurationError for inputs
    that are unknown, missing or of another type, SourceError for an answer of another kind, and what the client raises.
    """
    values = _checked(spec, name, inputs)
    key = values.pop(IDEMPOTENCY_KEY, None) if spec.idempotency else None
    inside = {**context, "input": values}
    hidden = Redaction([text for label, each in spec.input.items() if each.secret and isinstance(text := values.get(label), str)])
    if render(spec.request.path, inside, into_path=True) is ABSENT:
        raise ConfigurationError(f"the action {name} has no value for its address {spec.request.path}", do="give every input that it names")
    try:
        request = build_request(spec.request, inside, idempotent=True if spec.idempotency else None)
    except (SourceError, ValueError, AttributeError, TypeError) as error:  # a filter's refusal, or a value that leaves its place
        what = error.what if isinstance(error, SourceError) else str(error)
        raise ConfigurationError(hidden(f"the inputs of the action {name} cannot be sent: {what}"), do="correct them") from None
    if spec.idempotency:
        request = replace(request, headers={**(request.headers or {}), spec.idempotency: key or str(uuid.uuid4())})
    try:
        if spec.response == "binary":
            return _stored(http, request, name, services)
        return _answer(spec, _sent(http, request))
    except MuxlyError as error:
        error.what, error.where = hidden(f"{name}: {error.what}"), hidden(error.where)  # an answer may quote what it was asked
        raise


# ---- inputs ----------------------------------------------------------------------------------------------------------


def _property(each: Input) -> dict[str, Any]:
    found = dict(_SCHEMAS[each.type])
    said = "; ".join(text for text in (each.description, str(found.get("description", ""))) if text)
    found |= {"title": each.title} if each.title else {}
    found |= {"description": said} if said else {}
    return found | ({"default": each.default} if each.default is not None else {}) | ({"writeOnly": True} if each.secret else {})


def _checked(spec: ActionSpec, name: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
    known = [*spec.input, *([IDEMPOTENCY_KEY] if spec.idempotency else [])]
    for given in inputs:
        if given not in known:
            close = difflib.get_close_matches(given, known, 1)
            do = f"did you mean `{close[0]}`?" if close else f"it takes {', '.join(known) or 'none'}"
            raise ConfigurationError(f"the action {name} has no input {given!r}", do=do)
    values: dict[str, Any] = {}
    for label, each in spec.input.items():
        value = inputs.get(label)
        value = each.default if value is None else value
        if value is not None:
            values[label] = _value(name, label, each, value)
        elif each.required:
            raise ConfigurationError(f"the action {name} needs the input `{label}`", do=f"give it: {each.title or each.type}")
    key = inputs.get(IDEMPOTENCY_KEY) if spec.idempotency else None
    if key is not None:
        values[IDEMPOTENCY_KEY] = _value(name, IDEMPOTENCY_KEY, Input(), key)
    return values


def _value(name: str, label: str, each: Input, value: Any) -> Any:
    """The value as the request names it: a file is its content. Raises ConfigurationError, which does not show the value."""
    what = f"the action {name} takes {_kind(each.type)} as `{label}`"
    fits = isinstance(value, _TYPES[each.type]) and (each.type == "boolean" or not isinstance(value, bool))
    if not fits:
        raise ConfigurationError(f"{what}, not {type(value).__name__}", do="correct the input")
    if each.type == "duration":
        try:
            parse_duration(value)
        except ValueError:
            raise ConfigurationError(f"{what}, which this is not", do="write 90s, 15m, 2h, 3d or seconds") from None
    if each.type == "bytes" and isinstance(value, str):
        try:
            return base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            raise ConfigurationError(f"{what}, and a text has to be their base64", do="encode it") from None
    return _content(what, Path(value)) if each.type == "file" else value


def _kind(type_: str) -> str:
    words = {"file": "a file's path", "bytes": "bytes", "integer": "a whole number", "object": "an object", "duration": "a length of time"}
    return words.get(type_, f"a {type_}")


def _content(what: str, path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > _MOST_SENT:
            raise ConfigurationError(
                f"{what}; {path} has {size:,} bytes, of {_MOST_SENT:,} that can be sent at once", do="send it in parts"
            )
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{what}; {path} cannot be read: {error.strerror or error}", do="correct the path") from None


# ---- answers ---------------------------------------------------------------------------------------------------------


def _sent(http: Http, request: Request) -> Response:
    response = http.request(request)
    if response.status >= 400:  # what a rule lets a pull skip, an action was refused
        raise failure_of_response(response, "fail")
    return response


def _answer(spec: ActionSpec, response: Response) -> Any:
    if spec.response == "none" or not response.content.strip():
        return None
    if spec.response == "text":
        try:
            return response.content.decode()
        except UnicodeDecodeError:
            what = "the answer is no UTF-8 text"
            raise SourceError(what, do="say `response: binary` in the action, to store it as a file", where=response.where) from None
    return parse_path(spec.output).first(response.json())


def _stored(http: Http, request: Request, name: str, services: Services) -> dict[str, Any]:
    """The answer as a file that is kept."""
    path = services.files.partial(f"{name}-{uuid.uuid4()}")
    path.parent.mkdir(parents=True, exist_ok=True)
    downloaded = http.download(request, path, max_bytes=_MOST_KEPT)
    if downloaded.path is None:
        raise failure_of_response(downloaded.response, "fail")
    kept = services.files.keep(downloaded.path, downloaded.media_type or "application/octet-stream")
    return {"url": kept.url, "sha256": kept.sha256, "size": kept.size, "media_type": kept.media_type}
