"""A request of any signal, in either encoding, read into events."""

import itertools
from collections.abc import Iterable, Iterator
from typing import TypeVar

from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from muxly_dagster.collecting.events import Gathered, Rejected, TooLarge, UnknownType, Unreadable
from muxly_dagster.collecting.limits import Limits
from muxly_dagster.collecting.otlp import logs, metrics, spans
from muxly_dagster.collecting.otlp.answers import Signal
from muxly_dagster.collecting.otlp.jsonform import message
from muxly_dagster.collecting.otlp.values import Read
from muxly_dagster.collecting.tally import ORDINARY, Tally

M = TypeVar("M", bound=Message)

_GROUPS = 2  # as many more of what holds events than events a body may have

PROTOBUF, JSON = "application/x-protobuf", "application/json"


def read(body: bytes, signal: Signal, content_type: str, stream: str, limits: Limits = ORDINARY) -> Gathered:
    """The events of a request; logs have no ids, but a request of the same bytes is the same one. Raises Unreadable, TooLarge."""
    gathered = Gathered(stream, repeatable=signal == "logs")
    indexes: list[int] = []
    tally = Tally(limits)
    for number, found in enumerate(_reads(body, signal, content_type, limits)):
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


def _reads(body: bytes, signal: Signal, content_type: str, limits: Limits) -> Iterator[Read]:
    if signal == "metrics":
        measured = _message(body, content_type, ExportMetricsServiceRequest)
        _check((1 + len(s.metrics) for r in measured.resource_metrics for s in r.scope_metrics), len(measured.resource_metrics), limits)
        return metrics.read(measured)
    if signal == "logs":
        logged = _message(body, content_type, ExportLogsServiceRequest)
        _check((len(resource.scope_logs) for resource in logged.resource_logs), len(logged.resource_logs), limits)
        return logs.read(logged)
    traced = _message(body, content_type, ExportTraceServiceRequest)
    _check((len(resource.scope_spans) for resource in traced.resource_spans), len(traced.resource_spans), limits)
    return spans.read(traced)


def _check(counts: Iterable[int], resources: int, limits: Limits) -> None:
    """Raise TooLarge where what holds events is so much that going through it takes long, whether or not there is an event in it."""
    most = limits.items * _GROUPS
    if resources > most or any(total > most for total in itertools.accumulate(counts)):
        raise TooLarge(f"the body holds more than {most:,} resources, scopes or metrics")


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
