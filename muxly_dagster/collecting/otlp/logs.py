"""Logs: one event for each record."""

from collections.abc import Iterator

import orjson
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from muxly_dagster.collecting.otlp.values import Event, Read, attributes, dropped, line, moment, origin, plain


def read(request: ExportLogsServiceRequest) -> Iterator[Read]:
    """The records of a request in their order. They have no ids: two that say the same were two."""
    for resource in request.resource_logs:
        for scope in resource.scope_logs:
            shared = origin(resource.resource, scope.scope, scope.schema_url or resource.schema_url)
            for record in scope.log_records:
                try:
                    yield line(_event(record), shared), ""
                except ValueError as error:
                    yield str(error)


def _event(record: LogRecord) -> Event:
    event: Event = {}
    # The protocol says to take the time of observation where a record has no other.
    moment(event, "time", record.time_unix_nano or record.observed_time_unix_nano)
    moment(event, "observed_time", record.observed_time_unix_nano)
    if record.severity_text:
        event["severity"] = record.severity_text
    if record.severity_number:
        event["severity_number"] = record.severity_number
    if record.event_name:
        event["event_name"] = record.event_name
    kind = record.body.WhichOneof("value")
    if kind in ("kvlist_value", "array_value"):
        event["body_json"] = plain(record.body)
    elif kind is not None:
        body = plain(record.body)
        event["body"] = body if isinstance(body, str) else orjson.dumps(body).decode()
    if len(record.trace_id) == 16 and any(record.trace_id):
        event["trace_id"] = record.trace_id.hex()
        if len(record.span_id) == 8 and any(record.span_id):
            event["span_id"] = record.span_id.hex()
    if record.flags:
        event["flags"] = record.flags
    event["attributes"] = attributes(record.attributes)
    dropped(event, record)
    return event
