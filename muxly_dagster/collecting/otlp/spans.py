"""Traces: one event for each span."""

from collections.abc import Iterator

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from muxly_dagster.collecting.otlp.values import Event, Json, Read, attributes, dropped, line, moment, origin

_KINDS = {1: "internal", 2: "server", 3: "client", 4: "producer", 5: "consumer"}
_STATUS = {0: "unset", 1: "ok", 2: "error"}


def read(request: ExportTraceServiceRequest) -> Iterator[Read]:
    """The spans of a request in their order, with the ids of trace and span as id."""
    for resource in request.resource_spans:
        for scope in resource.scope_spans:
            shared = origin(resource.resource, scope.scope, scope.schema_url or resource.schema_url)
            for span in scope.spans:
                try:
                    yield _span(span, shared)
                except ValueError as error:
                    yield str(error)


def _span(span: Span, shared: bytes) -> Read:
    if len(span.trace_id) != 16 or not any(span.trace_id) or len(span.span_id) != 8 or not any(span.span_id):
        return f"the span {span.name[:100]!r} has no trace id of 16 bytes and span id of 8"
    trace, own = span.trace_id.hex(), span.span_id.hex()
    event: Event = {"trace_id": trace, "span_id": own}
    if span.parent_span_id:
        event["parent_span_id"] = span.parent_span_id.hex()
    event |= {"name": span.name, "kind": _KINDS.get(span.kind)}
    moment(event, "start_time", span.start_time_unix_nano)
    moment(event, "end_time", span.end_time_unix_nano)
    if span.start_time_unix_nano and span.end_time_unix_nano:
        event["duration_nano"] = span.end_time_unix_nano - span.start_time_unix_nano
    event["status"] = _STATUS.get(span.status.code)
    if span.status.message:
        event["status_message"] = span.status.message
    if span.trace_state:
        event["trace_state"] = span.trace_state
    if span.flags:
        event["flags"] = span.flags
    event["attributes"] = attributes(span.attributes)
    dropped(event, span)
    if span.events:
        event["events"] = [_event(each) for each in span.events]
    if span.links:
        event["links"] = [_link(each) for each in span.links]
    for name, count in (("dropped_events_count", span.dropped_events_count), ("dropped_links_count", span.dropped_links_count)):
        if count:
            event[name] = count
    return line(event, shared), trace + own


def _event(of_span: Span.Event) -> Json:
    event: Event = {"name": of_span.name}
    moment(event, "time", of_span.time_unix_nano)
    event["attributes"] = attributes(of_span.attributes)
    dropped(event, of_span)
    return event


def _link(link: Span.Link) -> Json:
    found: Event = {"trace_id": link.trace_id.hex(), "span_id": link.span_id.hex(), "attributes": attributes(link.attributes)}
    if link.trace_state:
        found["trace_state"] = link.trace_state
    dropped(found, link)
    return found
