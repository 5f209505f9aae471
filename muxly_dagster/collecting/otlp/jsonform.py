"""OTLP's own JSON, made into the same messages as its protobuf.

It is protobuf's JSON (numbers of 64 bits as text, lowerCamelCase) with two differences: ids of traces and spans are hex, enums are numbers.
Unknown fields are passed over. Source: opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding.
"""

import base64
import binascii
from collections.abc import Callable, Mapping
from functools import cache
from typing import TypeVar

import orjson
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from muxly_dagster.collecting.events import Unreadable

M = TypeVar("M", bound=Message)

_INT64 = (FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64)
_INT32 = (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_UINT32)
_DEEPEST = 100  # as protobuf's own parser

Convert = Callable[[object, int], object]
_Fields = Mapping[str, tuple[str, Convert | None]]


def message(body: bytes, kind: type[M]) -> M:
    """The message that a JSON text stands for. Raises Unreadable."""
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Unreadable(f"the body is not JSON: {error}") from None
    try:
        found: M = kind(**_message(content, kind.DESCRIPTOR, 0))
    except (TypeError, ValueError, OverflowError) as error:
        raise Unreadable(f"the body is JSON, but no {kind.DESCRIPTOR.name}: {str(error)[:200]}") from None
    return found


def _message(value: object, descriptor: Descriptor, depth: int) -> dict[str, object]:
    if not isinstance(value, dict):
        raise ValueError(f"{descriptor.name} is {_told(value)} and no object")
    if depth > _DEEPEST:
        raise ValueError(f"nested deeper than {_DEEPEST} levels")
    fields = _fields(descriptor)
    found: dict[str, object] = {}
    for key, given in value.items():
        field = fields.get(key)
        if field is not None and given is not None:
            name, convert = field
            found[name] = given if convert is None else convert(given, depth + 1)
    return found


@cache
def _fields(descriptor: Descriptor) -> _Fields:
    """By the names that a field goes by in JSON: its name in Python, and how its value is read (None: as it stands)."""
    found: dict[str, tuple[str, Convert | None]] = {}
    for field in descriptor.fields:
        found[field.json_name] = found[field.name] = field.name, _reader(field)
    return found


def _reader(field: FieldDescriptor) -> Convert | None:
    one = _single(field)
    if not field.is_repeated:
        return one
    name = field.json_name

    def many(value: object, depth: int) -> object:
        if not isinstance(value, list):
            raise ValueError(f"{name} is {_told(value)} and no list")
        return value if one is None else [one(item, depth) for item in value]

    return many


def _single(field: FieldDescriptor) -> Convert | None:
    kind, name = field.cpp_type, field.json_name
    if kind == FieldDescriptor.CPPTYPE_MESSAGE:
        descriptor = field.message_type
        return lambda value, depth: _message(value, descriptor, depth)
    if kind in _INT64 or kind in _INT32:
        return lambda value, _: value if type(value) is int else _whole(value, name)
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        numbers = {one.name: one.number for one in field.enum_type.values}
        return lambda value, _: numbers[value] if isinstance(value, str) and value in numbers else _whole(value, name)
    if kind == FieldDescriptor.CPPTYPE_DOUBLE:
        return lambda value, _: value if type(value) is float else _double(value, name)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return _hex(name) if field.name.endswith(("trace_id", "span_id")) else _base64(name)
    return None


def _whole(value: object, name: str) -> int:
    if type(value) is int:
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    try:
        if isinstance(value, str) and len(value) <= 20:
            return int(value)
    except ValueError:
        pass
    raise ValueError(f"{name} is {_told(value)} and no whole number")


def _double(value: object, name: str) -> float:
    if type(value) is int or type(value) is float:
        return float(value)
    try:
        if isinstance(value, str):
            return float(value)  # also NaN, Infinity and -Infinity, as protobuf writes them
    except ValueError:
        pass
    raise ValueError(f"{name} is {_told(value)} and no number")


def _hex(name: str) -> Convert:
    def read(value: object, _depth: int) -> bytes:
        text = _text(value, name)
        try:
            return bytes.fromhex(text)
        except ValueError:
            raise ValueError(f"{name} is {_told(value)} and no hexadecimal text") from None

    return read


def _base64(name: str) -> Convert:
    def read(value: object, _depth: int) -> bytes:
        text = _text(value, name)
        try:
            return base64.b64decode(text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4), validate=True)
        except binascii.Error:
            raise ValueError(f"{name} is {_told(value)} and no base64") from None

    return read


def _text(value: object, name: str) -> str:
    if isinstance(value, str):
        return value
    raise ValueError(f"{name} is {_told(value)} and no text")


def _told(value: object) -> str:
    text = orjson.dumps(value).decode()
    return text if len(text) <= 40 else f"{text[:40]}…"
