"""What an exporter is answered, in the encoding of its request: how much was taken, or why nothing was."""

from typing import Literal

import orjson
from google.protobuf.message import Message
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsPartialSuccess, ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsPartialSuccess, ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTracePartialSuccess, ExportTraceServiceResponse

Signal = Literal["metrics", "logs", "traces"]

_REJECTED = {"metrics": "rejectedDataPoints", "logs": "rejectedLogRecords", "traces": "rejectedSpans"}
_CODES = {400: 3, 401: 16, 403: 7, 404: 5, 413: 8, 415: 3, 429: 8, 503: 14}
"""The codes of google.rpc.Code by HTTP status."""


def answer(signal: Signal, rejected: int, message: str, *, as_json: bool) -> bytes:
    """A success (status 200), whole or partial: an exporter must not send again what was rejected."""
    if as_json:  # 64-bit numbers are texts in protobuf's JSON
        return orjson.dumps({"partialSuccess": {_REJECTED[signal]: str(rejected), "errorMessage": message}} if rejected else {})
    if not rejected:
        return b""  # a message in which nothing is set
    if signal == "metrics":
        points = ExportMetricsPartialSuccess(rejected_data_points=rejected, error_message=message)
        return _written(ExportMetricsServiceResponse(partial_success=points))
    if signal == "logs":
        logs = ExportLogsPartialSuccess(rejected_log_records=rejected, error_message=message)
        return _written(ExportLogsServiceResponse(partial_success=logs))
    spans = ExportTracePartialSuccess(rejected_spans=rejected, error_message=message)
    return _written(ExportTraceServiceResponse(partial_success=spans))


def error(status: int, message: str, *, as_json: bool) -> bytes:
    """A failure as google.rpc.Status."""
    code = _CODES.get(status, 13 if status >= 500 else 9)
    return orjson.dumps({"code": code, "message": message}) if as_json else _written(Status(code=code, message=message))


def _written(message: Message) -> bytes:
    content: bytes = message.SerializeToString()
    return content
