"""OpenTelemetry's protocol over HTTP: data points, log records and spans, one event each, and the answers that exporters understand.

Source: opentelemetry.io/docs/specs/otlp, and the .proto files of the package `opentelemetry-proto`.
"""

from muxly_dagster.collecting.otlp.answers import Signal, answer, error
from muxly_dagster.collecting.otlp.reading import JSON, PROTOBUF, read

__all__ = ["JSON", "PROTOBUF", "Signal", "answer", "error", "read"]
