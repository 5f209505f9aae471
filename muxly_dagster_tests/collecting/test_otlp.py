"""OTLP in both encodings: messages made by hand, the JSON examples of the specification, and the answers."""

import base64
import json
from typing import Any

import pytest
from google.protobuf import json_format
from google.rpc.status_pb2 import Status
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest, ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse

from muxly_dagster.collecting import Gathered, UnknownType, Unreadable, otlp
from muxly_dagster.collecting.otlp import JSON, PROTOBUF

AT = 1_700_000_000_123_456_789
NAN, INFINITY = float("nan"), float("inf")


def events(gathered: Gathered) -> list[dict[str, Any]]:
    """The events of a request, of which nothing was rejected."""
    assert not gathered.rejected
    return [json.loads(line) for line in gathered.lines]


def metrics() -> tuple[ExportMetricsServiceRequest, Any]:
    """A request of one metric, and the metric."""
    request = ExportMetricsServiceRequest()
    resource = request.resource_metrics.add(schema_url="https://example.org/schema")
    resource.resource.attributes.add(key="service.name").value.string_value = "shop"
    scope = resource.scope_metrics.add()
    scope.scope.name, scope.scope.version = "http", "1.2"
    return request, scope.metrics.add(name="requests", unit="1", description="How many.")


def read(request: Any) -> Gathered:
    """A request as it is sent."""
    return otlp.read(request.SerializeToString(), "metrics", PROTOBUF, "otlp_metrics")


def test_a_sum_of_whole_numbers() -> None:
    request, metric = metrics()
    metric.sum.is_monotonic, metric.sum.aggregation_temporality = True, 2
    point = metric.sum.data_points.add(time_unix_nano=AT, start_time_unix_nano=AT - 1, as_int=2**62 + 1)
    point.attributes.add(key="code").value.int_value = 200
    gathered = read(request)
    assert events(gathered) == [
        {
            "name": "requests",
            "type": "sum",
            "unit": "1",
            "description": "How many.",
            "temporality": "cumulative",
            "monotonic": True,
            "time": "2023-11-14T22:13:20.123456789Z",
            "time_unix_nano": AT,
            "start_time": "2023-11-14T22:13:20.123456788Z",
            "start_time_unix_nano": AT - 1,
            "value": float(2**62),
            "int_value": 2**62 + 1,
            "attributes": {"code": 200},
            "service": "shop",
            "resource": {"service.name": "shop"},
            "scope_name": "http",
            "scope_version": "1.2",
            "schema_url": "https://example.org/schema",
        }
    ]
    assert gathered.ids == read(request).ids
    point.as_int = 5
    assert gathered.ids != read(request).ids


@pytest.mark.parametrize(("value", "special"), [(NAN, "NaN"), (INFINITY, "Infinity"), (-INFINITY, "-Infinity"), (1.5, None)])
def test_a_gauge_and_numbers_that_json_cannot_hold(value: float, special: str | None) -> None:
    request, metric = metrics()
    metric.gauge.data_points.add(time_unix_nano=AT, as_double=value)
    (event,) = events(read(request))
    assert event.get("special") == special
    assert event.get("value") == (None if special else value)
    assert "int_value" not in event


def test_a_point_without_a_recorded_value_is_stale() -> None:
    request, metric = metrics()
    metric.gauge.data_points.add(time_unix_nano=AT, flags=1)
    (event,) = events(read(request))
    assert event["special"] == "stale" and "value" not in event


def test_histograms_of_both_kinds_and_summaries() -> None:
    request, metric = metrics()
    point = metric.histogram.data_points.add(time_unix_nano=AT, count=3, sum=4.5, min=1, max=2, bucket_counts=[1, 2], explicit_bounds=[1.5])
    exemplar = point.exemplars.add(time_unix_nano=AT, as_double=1.25, trace_id=bytes(range(16)), span_id=bytes(range(8)))
    exemplar.filtered_attributes.add(key="user").value.string_value = "ann"
    exponential = request.resource_metrics[0].scope_metrics[0].metrics.add(name="exponential")
    exponential.exponential_histogram.aggregation_temporality = 1
    each = exponential.exponential_histogram.data_points.add(time_unix_nano=AT, count=3, scale=-2, zero_count=1)
    each.positive.offset = -3
    each.positive.bucket_counts.extend([1, 1])
    summary = request.resource_metrics[0].scope_metrics[0].metrics.add(name="summary")
    summary.summary.data_points.add(time_unix_nano=AT, count=2, sum=NAN).quantile_values.add(quantile=0.5, value=NAN)
    first, second, third = events(read(request))
    assert (first["count"], first["sum"], first["min"], first["max"]) == (3, 4.5, 1.0, 2.0)
    assert (first["bucket_counts"], first["bounds"]) == ([1, 2], [1.5])
    assert first["exemplars"][0]["trace_id"] == bytes(range(16)).hex()
    assert first["exemplars"][0]["attributes"] == {"user": "ann"}
    assert (second["temporality"], second["scale"], second["positive"]) == ("delta", -2, {"offset": -3, "bucket_counts": [1, 1]})
    assert "sum" not in second and "negative" not in second
    assert (third["special"], third["quantiles"]) == ("NaN", [{"quantile": 0.5, "value": "NaN"}])


def test_points_without_a_time_a_name_or_a_kind_are_rejected() -> None:
    request, metric = metrics()
    metric.gauge.data_points.add(as_int=1)
    metric.gauge.data_points.add(as_int=2, time_unix_nano=AT)
    metric.gauge.data_points.add(as_int=3, time_unix_nano=2**63)
    request.resource_metrics[0].scope_metrics[0].metrics.add().gauge.data_points.add(time_unix_nano=AT)
    strange = request.resource_metrics[0].scope_metrics[0].metrics.add(name="strange")
    strange.MergeFromString(b"\xa2\x06\x00")  # field 100, as a later version of the protocol may have it
    request.resource_metrics[0].scope_metrics[0].metrics.add(name="empty")
    gathered = read(request)
    assert list(gathered.indexes) == [1]
    reasons = [each.reason for each in gathered.rejected]
    assert [each.index for each in gathered.rejected] == [0, 2, 3, 4]
    for reason, word in zip(reasons, ("no time", "2262", "no name", "does not know"), strict=True):
        assert word in reason


def test_log_records() -> None:
    request = ExportLogsServiceRequest()
    scope = request.resource_logs.add().scope_logs.add()
    record = scope.log_records.add(time_unix_nano=AT, observed_time_unix_nano=AT + 1, severity_number=9, severity_text="INFO", flags=1)
    record.body.string_value = "paid"
    record.trace_id, record.span_id = bytes(range(16)), bytes(range(8))
    record.attributes.add(key="tags").value.array_value.values.add().bytes_value = b"\x00"
    second = scope.log_records.add(observed_time_unix_nano=AT, event_name="login", trace_id=b"short", dropped_attributes_count=2)
    second.body.kvlist_value.values.add(key="user").value.string_value = "ann"
    scope.log_records.add().body.int_value = 5
    scope.log_records.add(time_unix_nano=2**64 - 1)
    gathered = otlp.read(request.SerializeToString(), "logs", PROTOBUF, "otlp_logs")
    assert gathered.repeatable and gathered.ids == ["", "", ""]
    assert [each.index for each in gathered.rejected] == [3]
    first, structured, number = (json.loads(line) for line in gathered.lines)
    assert (first["body"], first["severity"], first["severity_number"], first["flags"]) == ("paid", "INFO", 9, 1)
    assert (first["trace_id"], first["span_id"]) == (bytes(range(16)).hex(), bytes(range(8)).hex())
    assert first["attributes"] == {"tags": ["AA=="]}
    assert structured["body_json"] == {"user": "ann"}
    assert (structured["time_unix_nano"], structured["event_name"], structured["dropped_attributes_count"]) == (AT, "login", 2)
    assert "trace_id" not in structured and "body" not in structured
    assert number["body"] == "5" and "time" not in number


def test_spans() -> None:
    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    span = spans.add(
        name="GET /", kind=2, trace_id=bytes(range(16)), span_id=bytes(range(8)), start_time_unix_nano=AT, end_time_unix_nano=AT + 7
    )
    span.status.code, span.status.message = 2, "no"
    span.events.add(name="retry", time_unix_nano=AT)
    span.links.add(trace_id=bytes(range(1, 17)), span_id=bytes(range(1, 9)))
    spans.add(name="without ids")
    spans.add(name="zeros", trace_id=bytes(16), span_id=bytes(range(8)))
    gathered = otlp.read(request.SerializeToString(), "traces", PROTOBUF, "otlp_traces")
    assert [each.index for each in gathered.rejected] == [1, 2]
    (event,) = (json.loads(line) for line in gathered.lines)
    assert gathered.ids == [bytes(range(16)).hex() + bytes(range(8)).hex()]
    assert (event["kind"], event["status"], event["status_message"], event["duration_nano"]) == ("server", "error", "no", 7)
    assert event["events"][0]["name"] == "retry"
    assert event["links"][0]["trace_id"] == bytes(range(1, 17)).hex()
    assert "parent_span_id" not in event


def test_json_has_hex_ids_numbers_as_text_and_enums_as_numbers() -> None:
    span = {
        "traceId": "5B8EFFF798038103D269B633813FC60C",
        "spanId": "EEE19B7EC3C1B174",
        "parentSpanId": "EEE19B7EC3C1B173",
        "name": "I'm a server span",
        "startTimeUnixNano": "1544712660000000000",
        "endTimeUnixNano": 1544712661000000000,
        "kind": 2,
        "status": {"code": "STATUS_CODE_ERROR"},
        "attributes": [
            {"key": "my.span.attr", "value": {"stringValue": "some value"}},
            {"key": "n", "value": {"intValue": "9007199254740993"}},
            {"key": "d", "value": {"doubleValue": "NaN"}},
            {"key": "b", "value": {"bytesValue": "AP8"}},
            {"key": "l", "value": {"arrayValue": {"values": [{"boolValue": False}, {}]}}},
        ],
        "fieldOfTheFuture": {"a": [1]},
        "traceState": None,
    }
    body = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}).encode()
    gathered = otlp.read(body, "traces", "application/json; charset=utf-8", "otlp_traces")
    (event,) = events(gathered)
    assert gathered.ids == ["5b8efff798038103d269b633813fc60ceee19b7ec3c1b174"]
    assert event["duration_nano"] == 10**9
    assert event["parent_span_id"] == "eee19b7ec3c1b173"
    assert (event["kind"], event["status"]) == ("server", "error")
    assert event["attributes"] == {"my.span.attr": "some value", "n": 9007199254740993, "d": "NaN", "b": "AP8=", "l": [False, None]}


def in_hex(message: Any) -> Any:
    """Protobuf's JSON of a message as OTLP has it: ids in hex."""
    if isinstance(message, list):
        return [in_hex(each) for each in message]
    if not isinstance(message, dict):
        return message
    ids = ("traceId", "spanId", "parentSpanId")
    return {name: base64.b64decode(value).hex() if name in ids else in_hex(value) for name, value in message.items()}


numbers = st.floats() | st.integers(-(2**63), 2**63 - 1)


@settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(numbers, st.integers(0, 2**64 - 1), st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=3)), max_size=4
    )
)
def test_both_encodings_say_the_same(points: list[tuple[float | int, int, dict[str, str]]]) -> None:
    request, metric = metrics()
    for value, at, attributes in points:
        point = metric.gauge.data_points.add(time_unix_nano=at)
        if isinstance(value, int):
            point.as_int = value
        else:
            point.as_double = value
        point.exemplars.add(trace_id=bytes(range(16)), as_double=1)
        for key, text in attributes.items():
            point.attributes.add(key=key).value.string_value = text
    body = json.dumps(in_hex(json_format.MessageToDict(request, use_integers_for_enums=True))).encode()
    assert otlp.read(body, "metrics", JSON, "otlp_metrics") == read(request)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b'{"resourceMetrics": 5}',
        b'{"resourceMetrics": [5]}',
        b'{"resourceMetrics": [{"scopeMetrics": [{"metrics": [{"gauge": {"dataPoints": [{"asInt": "x"}]}}]}]}]}',
        b'{"resourceMetrics": [{"scopeMetrics": [{"metrics": [{"gauge": {"dataPoints": [{"asInt": "99999999999999999999"}]}}]}]}]}',
        b'{"resourceMetrics": [{"scopeMetrics": [{"metrics": [{"gauge": {"dataPoints": [{"asDouble": []}]}}]}]}]}',
        b'{"resourceMetrics": [{"scopeMetrics": [{"metrics": [{"gauge": {"dataPoints": [{"exemplars": [{"traceId": "xyz"}]}]}}]}]}]}',
        b'{"resourceMetrics": [{"scopeMetrics": [{"metrics": [{"name": 5}]}]}]}',
        b'{"resourceMetrics": [{"resource": {"attributes": [{"value": ' + b'{"arrayValue": {"values": [' * 200 + b"]}}" * 200 + b"}]}}]}",
    ],
)
def test_json_that_is_no_message_is_unreadable(body: bytes) -> None:
    with pytest.raises(Unreadable):
        otlp.read(body, "metrics", JSON, "otlp_metrics")


def test_a_body_that_is_cut_off_and_a_type_that_nobody_knows() -> None:
    request, metric = metrics()
    metric.gauge.data_points.add(time_unix_nano=AT, as_int=1)
    with pytest.raises(Unreadable, match="cut off"):
        otlp.read(request.SerializeToString()[:-3], "metrics", PROTOBUF, "otlp_metrics")
    with pytest.raises(UnknownType, match="text/plain"):
        otlp.read(b"", "metrics", "text/plain", "otlp_metrics")
    assert otlp.read(b"", "metrics", PROTOBUF, "otlp_metrics").lines == []


@settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=200), st.sampled_from(["metrics", "logs", "traces"]), st.sampled_from([PROTOBUF, JSON]))
def test_anything_is_read_rejected_or_unreadable(body: bytes, signal: otlp.Signal, content_type: str) -> None:
    try:
        gathered = otlp.read(body, signal, content_type, "s")
    except Unreadable:
        return
    assert len(gathered.lines) == len(gathered.ids) == len(gathered.indexes)


def test_answers_in_both_encodings() -> None:
    assert otlp.answer("metrics", 0, "", as_json=False) == b""
    assert json.loads(otlp.answer("traces", 0, "", as_json=True)) == {}
    points = ExportMetricsServiceResponse.FromString(otlp.answer("metrics", 2, "no time", as_json=False)).partial_success
    assert (points.rejected_data_points, points.error_message) == (2, "no time")
    assert ExportLogsServiceResponse.FromString(otlp.answer("logs", 3, "", as_json=False)).partial_success.rejected_log_records == 3
    assert ExportTraceServiceResponse.FromString(otlp.answer("traces", 4, "", as_json=False)).partial_success.rejected_spans == 4
    for signal, kind in (
        ("metrics", ExportMetricsServiceResponse),
        ("logs", ExportLogsServiceResponse),
        ("traces", ExportTraceServiceResponse),
    ):
        said = json_format.Parse(otlp.answer(signal, 5, "why", as_json=True), kind())  # type: ignore[arg-type]
        assert said == kind.FromString(otlp.answer(signal, 5, "why", as_json=False))  # type: ignore[arg-type]
    status = Status.FromString(otlp.error(404, "no pull reads otlp_logs", as_json=False))
    assert (status.code, status.message) == (5, "no pull reads otlp_logs")
    assert json.loads(otlp.error(503, "busy", as_json=True)) == {"code": 14, "message": "busy"}
