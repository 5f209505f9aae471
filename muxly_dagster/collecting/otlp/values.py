"""What all three signals share: attributes, resources, scopes, and numbers that JSON cannot hold."""

import base64
import math
from collections.abc import Iterable
from typing import Protocol

import orjson
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from muxly_dagster.collecting.moments import LAST, written

Json = str | int | float | bool | None | list["Json"] | dict[str, "Json"]
Event = dict[str, Json]

Read = tuple[bytes, str] | str
"""An event as a line of JSON with its id, or why an item is none."""


def attributes(pairs: Iterable[KeyValue]) -> Event:
    """Attributes as a JSON object."""
    found: Event = {}
    for pair in pairs:
        value = pair.value
        kind = value.WhichOneof("value")
        found[pair.key] = value.string_value if kind == "string_value" else plain(value)
    return found


def plain(value: AnyValue) -> Json:
    """A value as JSON: bytes as base64, numbers that JSON does not know as text."""
    kind = value.WhichOneof("value")
    if kind == "string_value":
        return value.string_value
    if kind == "int_value":
        return value.int_value
    if kind == "double_value":
        return double(value.double_value)
    if kind == "bool_value":
        return value.bool_value
    if kind == "array_value":
        return [plain(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return attributes(value.kvlist_value.values)
    if kind == "bytes_value":
        return base64.b64encode(value.bytes_value).decode()
    return None


def double(number: float) -> float | str:
    """A number within JSON, where NaN and the infinities are texts as protobuf writes them."""
    return number if math.isfinite(number) else special(number)


def special(number: float) -> str:
    """The name of a number that is none that JSON knows."""
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"


def origin(resource: Resource, scope: InstrumentationScope, schema_url: str) -> bytes:
    """Who measured: the fields that all events of one scope share, as the end of a JSON object."""
    found: Event = {}
    of_resource = attributes(resource.attributes)
    service = of_resource.get("service.name")
    if isinstance(service, str):
        found["service"] = service
    found["resource"] = of_resource
    if scope.name:
        found["scope_name"] = scope.name
    if scope.version:
        found["scope_version"] = scope.version
    if scope.attributes:
        found["scope_attributes"] = attributes(scope.attributes)
    if schema_url:
        found["schema_url"] = schema_url
    return orjson.dumps(found)[1:]


def line(event: Event, shared: bytes) -> bytes:
    """An event, which has a field at least, and what it shares with others."""
    return orjson.dumps(event)[:-1] + b"," + shared


def moment(event: Event, name: str, nanoseconds: int) -> None:
    """A moment as text, and exactly as a number; nothing where it is not known (0). Raises ValueError beyond the year 2262."""
    if nanoseconds > LAST:
        raise ValueError(f"{name} {nanoseconds} is beyond the year 2262: is it in nanoseconds?")
    if nanoseconds:
        event[name] = written(nanoseconds)
        event[f"{name}_unix_nano"] = nanoseconds


class Limited(Protocol):
    """What says how many attributes a limit of the sender cost it."""

    @property
    def dropped_attributes_count(self) -> int:
        """How many."""


def dropped(event: Event, of: Limited) -> None:
    """Say that attributes were dropped, where some were."""
    if of.dropped_attributes_count:
        event["dropped_attributes_count"] = of.dropped_attributes_count
