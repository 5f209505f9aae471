"""OTLP by HTTP: the OpenTelemetry SDK's own exporters against a server, what they retry, and what the specification says of answers."""

import gzip
import json
import logging
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from google.rpc.status_pb2 import Status
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest, ExportMetricsServiceResponse
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricExportResult
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from muxly_dagster_tests.api.collector import Collector, collecting

RESOURCE = Resource({"service.name": "shop", "host.cpus": 4})
PROTOBUF = "application/x-protobuf"
AT = 1_700_000_000_000_000_000


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    """One server for all tests of this file."""
    with collecting(tmp_path_factory.mktemp("otlp")) as found:
        yield found


@pytest.fixture
def fresh(collector: Collector) -> Collector:
    """The same, with nothing in its inbox."""
    collector.clear()
    return collector


def spans(*names: str) -> tuple[ReadableSpan, ...]:
    """Spans that have ended."""
    kept = InMemorySpanExporter()
    provider = TracerProvider(resource=RESOURCE)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    for name in names:
        with provider.get_tracer("test", "1.0").start_as_current_span(name, attributes={"n": 1}) as span:
            span.add_event("half-way")
    provider.shutdown()
    return kept.get_finished_spans()


def metrics(points: int = 1, at: int = AT) -> ExportMetricsServiceRequest:
    """A request of one gauge."""
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name="heat")
    for number in range(points):
        metric.gauge.data_points.add(time_unix_nano=at and at + number, as_int=number)
    return request


def post(collector: Collector, content: Any, content_type: str = PROTOBUF, signal: str = "metrics", **headers: str) -> httpx.Response:
    """By hand."""
    body = content if isinstance(content, bytes) else content.SerializeToString()
    headers = {"content-type": content_type, **collector.signed(), **headers}
    return httpx.post(f"{collector.url}/v1/otlp/v1/{signal}", content=body, headers=headers)


@pytest.mark.parametrize("compression", [Compression.NoCompression, Compression.Gzip, Compression.Deflate])
def test_the_sdks_spans_arrive_once_though_they_are_sent_twice(fresh: Collector, compression: Compression) -> None:
    exporter = OTLPSpanExporter(f"{fresh.url}/v1/otlp/v1/traces", headers=fresh.signed(), compression=compression)
    found = spans("outer", "inner")
    assert exporter.export(found) is SpanExportResult.SUCCESS
    assert exporter.export(found) is SpanExportResult.SUCCESS
    exporter.shutdown()  # type: ignore[no-untyped-call]
    events = fresh.events("telemetry", "otlp_traces")
    assert [event["name"] for event in events] == ["outer", "inner"]
    assert events[0]["service"] == "shop" and events[0]["resource"]["host.cpus"] == 4
    assert events[0]["events"][0]["name"] == "half-way"
    context = found[0].get_span_context()
    assert context is not None
    assert fresh.ids("telemetry", "otlp_traces")[0] == f"{context.trace_id:032x}{context.span_id:016x}"


def test_the_sdks_metrics_arrive_point_by_point(fresh: Collector) -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], RESOURCE)
    meter = provider.get_meter("test")
    meter.create_counter("orders").add(2, {"shop": "a"})
    meter.create_counter("orders").add(3, {"shop": "b"})
    meter.create_histogram("latency", "ms").record(7.5)
    meter.create_gauge("heat").set(20.5)
    exporter = OTLPMetricExporter(f"{fresh.url}/v1/otlp/v1/metrics", headers=fresh.signed(), compression=Compression.Gzip)
    data = reader.get_metrics_data()
    assert data is not None
    assert exporter.export(data) is MetricExportResult.SUCCESS
    assert exporter.export(data) is MetricExportResult.SUCCESS
    exporter.shutdown()
    provider.shutdown()
    events = fresh.events("telemetry", "otlp_metrics")
    assert {(event["name"], event["attributes"].get("shop"), event.get("value"), event.get("count")) for event in events} == {
        ("orders", "a", 2.0, None),
        ("orders", "b", 3.0, None),
        ("latency", None, None, 1),
        ("heat", None, 20.5, None),
    }
    assert len(events) == 4


def test_the_sdks_logs_arrive_in_a_pull_of_another_name(fresh: Collector) -> None:
    provider = LoggerProvider(RESOURCE)
    exporter = OTLPLogExporter(f"{fresh.url}/v1/otlp/v1/logs", headers=fresh.signed())
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    record = LogRecord(timestamp=AT, body="paid", severity_number=SeverityNumber.WARN, severity_text="WARN", attributes={"order": 7})
    provider.get_logger("test").emit(record)
    provider.shutdown()
    (event,) = fresh.events("telemetry", "otlp_logs")
    assert (event["body"], event["severity"], event["attributes"], event["time_unix_nano"]) == ("paid", "WARN", {"order": 7}, AT)


def test_an_exporter_that_is_told_to_wait_waits_and_sends_again(fresh: Collector, caplog: pytest.LogCaptureFixture) -> None:
    exporter = OTLPSpanExporter(f"{fresh.url}/v1/otlp/v1/traces", headers=fresh.signed("slow"))
    sent = 0
    with caplog.at_level(logging.WARNING):
        while "Transient error" not in caplog.text:  # two of them come within one second sooner or later
            assert exporter.export(spans(f"span {sent}")) is SpanExportResult.SUCCESS
            sent += 1
            assert sent < 20
    exporter.shutdown()  # type: ignore[no-untyped-call]
    assert len(fresh.events("telemetry", "otlp_traces")) == sent


def test_a_partial_success_says_what_was_rejected_and_keeps_the_rest(fresh: Collector) -> None:
    request = metrics(3)
    request.resource_metrics[0].scope_metrics[0].metrics[0].gauge.data_points[1].time_unix_nano = 0
    answer = post(fresh, request)
    assert answer.status_code == 200 and answer.headers["content-type"] == PROTOBUF
    partial = ExportMetricsServiceResponse.FromString(answer.content).partial_success
    assert partial.rejected_data_points == 1
    assert partial.error_message == "1 of 3 data points were rejected: item 1 a data point of 'heat' has no time"
    assert len(fresh.events("telemetry", "otlp_metrics")) == 2


def test_json_is_answered_in_json(fresh: Collector) -> None:
    point = {"asInt": "7", "timeUnixNano": str(AT + 77)}
    said = {"resourceMetrics": [{"scopeMetrics": [{"metrics": [{"name": "heat", "gauge": {"dataPoints": [point, {}]}}]}]}]}
    answer = post(fresh, gzip.compress(json.dumps(said).encode()), "application/json", **{"content-encoding": "gzip"})
    assert answer.status_code == 200
    assert answer.json()["partialSuccess"]["rejectedDataPoints"] == "1"
    (event,) = fresh.events("telemetry", "otlp_metrics")
    assert event["int_value"] == 7
    answer = post(fresh, b"{", "application/json")
    assert answer.status_code == 400
    assert answer.json()["code"] == 3 and "not JSON" in answer.json()["message"]


def test_a_request_of_logs_is_known_again_by_its_bytes(fresh: Collector) -> None:
    record = {"timeUnixNano": str(AT), "body": {"stringValue": "twice"}}
    said = {"resourceLogs": [{"scopeLogs": [{"logRecords": [record, record]}]}]}
    for _ in range(2):
        assert post(fresh, json.dumps(said).encode(), "application/json", "logs").json() == {}
    assert len(fresh.events("telemetry", "otlp_logs")) == 2


def refusal(answer: httpx.Response) -> str:
    """What a refusal says, which is a Status."""
    assert answer.headers["content-type"] == PROTOBUF
    return str(Status.FromString(answer.content).message)


def test_refusals_are_statuses_that_say_what_to_do(fresh: Collector) -> None:
    body = metrics()
    missing = httpx.post(f"{fresh.url}/v1/otlp/v1/metrics", content=body.SerializeToString(), headers={"content-type": PROTOBUF})
    assert missing.status_code == 401 and "muxly keys create" in refusal(missing)
    unread = post(fresh, body, **fresh.signed("web"))
    assert unread.status_code == 404
    assert refusal(unread) == (
        "no pull of web reads the stream otlp_metrics; add it to muxly.yaml, under `sources: web: pulls:`, as `otlp_metrics: {}`"
    )
    assert post(fresh, body, **fresh.signed("narrow")).status_code == 403
    cut = post(fresh, body.SerializeToString()[:-2])
    assert cut.status_code == 400 and "cut off" in refusal(cut)
    assert post(fresh, b"x", "text/plain").status_code == 415
    nothing = post(fresh, metrics(at=0))
    assert nothing.status_code == 400 and "no time" in refusal(nothing)
    assert not fresh.events("telemetry", "otlp_metrics")


def test_too_much_is_told_before_it_is_read(fresh: Collector) -> None:
    many = post(fresh, metrics(100_000))
    assert many.status_code == 413 and "more than 50,000 events" in refusal(many)
    bomb = post(fresh, gzip.compress(bytes(64 << 20)), **{"content-encoding": "gzip"})
    assert bomb.status_code == 413 and "once it is decompressed" in refusal(bomb)
    large = metrics(1000)
    large.resource_metrics[0].resource.attributes.add(key="blob").value.string_value = "x" * 900_000
    assert post(fresh, large).status_code == 413
    assert not fresh.events("telemetry", "otlp_metrics")


def test_what_was_sent_comes_into_the_lake(fresh: Collector) -> None:
    assert post(fresh, metrics(3, AT + 1000)).status_code == 200
    fresh.service.runtime.run("telemetry.otlp_metrics")
    table = fresh.service.runtime.lake.table("telemetry.otlp_metrics")
    assert table is not None
    rows = table.current(["name", "value", "int_value", "time_unix_nano", "attributes"]).to_pylist()
    assert [row["time_unix_nano"] for row in rows] == [AT + 1000, AT + 1001, AT + 1002]
    assert rows[2] == {"name": "heat", "value": 2.0, "int_value": 2, "time_unix_nano": AT + 1002, "attributes": "{}"}
    assert not fresh.events("telemetry", "otlp_metrics")
