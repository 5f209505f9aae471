"""Measures how quickly what other protocols send is read: events per CPU second of each reader, on requests of 1,000 events.

Run: `python benchmarks/senders.py [--requests N]`. Of several rounds the best counts: the machine is shared.
"""

import argparse
import datetime as dt
import json
import time
from collections.abc import Callable
from typing import Any

import cramjam
import orjson
from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from muxly_dagster.collecting import cloudevents, influx, otlp, remote_write, segment
from muxly_dagster.remote_write import Request, WriteRequest

_EVENTS = 1000
_AT = 1_700_000_000_000_000_000
_TWO = "application/x-protobuf;proto=io.prometheus.write.v2.Request"
_LABELS = {"__name__": "http_requests_total", "job": "web", "code": "200", "method": "GET"}


def _attributes(to: Any, number: int) -> None:
    for name in ("http.method", "http.route", "http.status", "host.name", "deployment"):
        to.add(key=name).value.string_value = f"value {number % 7}"


def _metrics() -> ExportMetricsServiceRequest:
    request = ExportMetricsServiceRequest()
    resource = request.resource_metrics.add()
    resource.resource.attributes.add(key="service.name").value.string_value = "shop"
    metric = resource.scope_metrics.add().metrics.add(name="http.requests", unit="1")
    metric.sum.aggregation_temporality, metric.sum.is_monotonic = 2, True
    for number in range(_EVENTS):
        point = metric.sum.data_points.add(time_unix_nano=_AT + number, start_time_unix_nano=_AT, as_int=number)
        _attributes(point.attributes, number)
    return request


def _logs() -> ExportLogsServiceRequest:
    request = ExportLogsServiceRequest()
    scope = request.resource_logs.add().scope_logs.add()
    for number in range(_EVENTS):
        record = scope.log_records.add(time_unix_nano=_AT + number, severity_number=9, severity_text="INFO")
        record.body.string_value = f"request {number} was answered in time"
        _attributes(record.attributes, number)
    return request


def _traces() -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for number in range(_EVENTS):
        ids = {"trace_id": (number + 1).to_bytes(16, "big"), "span_id": (number + 1).to_bytes(8, "big")}
        span = scope.spans.add(name="GET /", kind=2, start_time_unix_nano=_AT, end_time_unix_nano=_AT + number, **ids)
        _attributes(span.attributes, number)
    return request


def _lines(text: bool) -> bytes:
    more = ',note="a text, quoted"' if text else ""
    return b"".join(
        b"cpu,cpu=cpu%d,host=web-%d usage_user=%d.5,usage_system=1.25,usage_idle=90.1,usage_iowait=0,procs=12i%b %d\n"
        % (number % 16, number % 50, number % 100, more.encode(), _AT + number)
        for number in range(_EVENTS)
    )


def _events() -> bytes:
    event = {"specversion": "1.0", "source": "/shop", "type": "order.paid", "time": "2026-01-02T03:04:05Z"}
    return orjson.dumps([{**event, "id": str(n), "data": {"order": n, "total": 9.5, "who": "x" * 40}} for n in range(_EVENTS)])


def _messages() -> bytes:
    message = {"type": "track", "event": "Paid", "userId": "u1", "timestamp": "2026-01-02T03:04:05Z", "properties": {"total": 9.5}}
    return orjson.dumps({"sentAt": "2026-01-02T03:04:06Z", "batch": [{**message, "messageId": str(n)} for n in range(_EVENTS)]})


def _samples_one() -> bytes:
    request = WriteRequest()
    for number in range(_EVENTS):
        series = request.timeseries.add()
        for name, value in {**_LABELS, "instance": f"web-{number}"}.items():
            series.labels.add(name=name, value=value)
        series.samples.add(value=number, timestamp=_AT // 1_000_000)
    return bytes(cramjam.snappy.compress_raw(request.SerializeToString()))


def _samples_two() -> bytes:
    symbols = {"": 0}
    request = Request()
    for number in range(_EVENTS):
        pairs = [text for pair in {**_LABELS, "instance": f"web-{number}"}.items() for text in pair]
        series = request.timeseries.add(labels_refs=[symbols.setdefault(text, len(symbols)) for text in pairs])
        series.samples.add(value=number, timestamp=_AT // 1_000_000)
    request.symbols.extend(symbols)
    return bytes(cramjam.snappy.compress_raw(request.SerializeToString()))


def _readers() -> dict[str, Callable[[], object]]:
    points, logs, spans = _metrics().SerializeToString(), _logs().SerializeToString(), _traces().SerializeToString()
    as_json = json.dumps(json_format.MessageToDict(_metrics(), use_integers_for_enums=True)).encode()
    plain, texts, events, messages = _lines(False), _lines(True), _events(), _messages()
    one, two, now = _samples_one(), _samples_two(), dt.datetime.now(dt.UTC)
    return {
        "OTLP metrics, protobuf": lambda: otlp.read(points, "metrics", otlp.PROTOBUF, "s"),
        "OTLP metrics, JSON": lambda: otlp.read(as_json, "metrics", otlp.JSON, "s"),
        "OTLP logs, protobuf": lambda: otlp.read(logs, "logs", otlp.PROTOBUF, "s"),
        "OTLP traces, protobuf": lambda: otlp.read(spans, "traces", otlp.PROTOBUF, "s"),
        "Influx lines of five fields": lambda: influx.read(plain, "s", "ns", 0),
        "Influx lines with a text": lambda: influx.read(texts, "s", "ns", 0),
        "CloudEvents, batch": lambda: cloudevents.read(events, cloudevents.BATCH, {}, "s"),
        "Segment, batch": lambda: segment.read(messages, "batch", now),
        "remote write 1.0": lambda: remote_write.read(one, "application/x-protobuf", "s"),
        "remote write 2.0": lambda: remote_write.read(two, _TWO, "s"),
    }


def main() -> None:
    """Print a line for each reader."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20)
    requests = parser.parse_args().requests
    for name, read in _readers().items():
        best = 0.0
        for _ in range(5):
            began = time.process_time()
            for _ in range(requests):
                read()
            best = max(best, requests * _EVENTS / (time.process_time() - began))
        print(f"{name:32} {best:10,.0f} events per CPU second")


if __name__ == "__main__":
    main()
