"""A request of any signal, in either encoding, read into events."""

from collections.abc import Iterator
from typing import TypeVar

from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from muxly_dagster.collecting.events import Gathered, Rejected, UnknownType, Unreadable
from muxly_dagster.collecting.limits import Limits
from muxly_dagster.collecting.otlp import logs, metrics, spans
from muxly_dagster.collecting.otlp.answers import Signal
from muxly_dagster.collecting.otlp.jsonform import message
from muxly_dagster.collecting.otlp.values import Read
from muxly_dagster.collecting.tally import ORDINARY, Tally

M = TypeVar("M", bound=Message)

PROTOBUF, JSON = "application/x-protobuf", "application/json"


def read(body: bytes, signal: Signal, content_type: str, stream: str, limits: Limits = ORDINARY) -> Gathered:
    """The events of a request; logs have no ids, but a request of the same bytes is the same one. Raises Unreadable, TooLarge."""
    gathered = Gathered(stream, repeatable=signal == "logs")
    indexes: list[int] = []
    tally = Tally(limits)
    for number, found in enumerate(_reads(body, signal, content_type)):
        if isinstance(found, str):
            tally.add()
            gathered.rejected.append(Rejected(number, found))
        else:
            tally.add(found[0])
            gathered.lines.append(found[0])
            gathered.ids.append(found[1])
            indexes.append(number)
    gathered.indexes = indexes
    return gathered


def _reads(body: bytes, signal: Signal, content_type: str) -> Iterator[Read]:
    if signal == "metrics":
        return metrics.read(_message(body, content_type, ExportMetricsServiceRequest))
    if signal == "logs":
        return logs.read(_message(body, content_type, ExportLogsServiceRequest))
    return spans.read(_message(body, content_type, ExportTraceServiceRequest))


def _message(body: bytes, content_type: str, kind: type[M]) -> M:
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type == JSON:
        return message(body, kind)
    if media_type != PROTOBUF:
        raise UnknownType(f"OTLP over HTTP is {PROTOBUF} or {JSON}, not {media_type[:80] or 'without a Content-Type'}")
    try:
        found: M = kind.FromString(body)
        return found
    except DecodeError:
        raise Unreadable(f"the body is no {kind.DESCRIPTOR.name} of protobuf, or is cut off") from None
