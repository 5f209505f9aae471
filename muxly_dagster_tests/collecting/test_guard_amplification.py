"""Small bodies that would become large, or take long: they are refused before that."""

import datetime as dt
import gzip
import json

import cramjam
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from muxly_dagster.collecting import Gathered, TooLarge, Unreadable, influx, otlp, remote_write
from muxly_dagster.collecting.encodings import decoded
from muxly_dagster.collecting.limits import Limits
from muxly_dagster.collecting.sifting import fault_by, refuse
from muxly_dagster.remote_write import Request, WriteRequest

FEW = Limits(items=10, event=1000)
NOW = int(dt.datetime(2026, 1, 1, tzinfo=dt.UTC).timestamp()) * 10**9


def test_a_body_of_very_many_gzip_members_is_refused() -> None:
    """Going on from one to the next by copying the rest takes hours for 16 MiB of them."""
    with pytest.raises(Unreadable, match="members"):
        decoded(gzip.compress(b"", mtime=0) * 800_000, "gzip", 16 << 20)


def test_gzip_members_of_all_sizes_are_put_together() -> None:
    parts = [bytes([number % 251]) * size for number, size in enumerate((0, 1, 1000, 1024, 0, 3000, 70_000, 5))]
    body = b"".join(gzip.compress(part, compresslevel=0) + b"\0" * (number % 3) for number, part in enumerate(parts))
    whole = b"".join(parts)
    assert decoded(body, "gzip", len(whole)) == whole
    with pytest.raises(TooLarge):
        decoded(body, "gzip", len(whole) - 1)
    with pytest.raises(Unreadable, match="cut off"):
        decoded(body.rstrip(b"\0")[:-1], "gzip", len(whole))


def test_a_number_of_thousands_of_digits_is_against_every_schema() -> None:
    line = b'{"n":' + b"1" * 5000 + b"}"
    gathered = Gathered("s", [b'{"n":1}', line], ["", ""], range(2))
    ((index, text, reason),) = refuse(gathered, fault_by({"properties": {"n": {"type": "number"}}}))
    assert (index, text, gathered.lines) == (1, line.decode(), [b'{"n":1}'])
    assert "too long" in reason


def test_a_line_of_influx_that_is_too_long_is_not_looked_into() -> None:
    long = "cpu" + ",a=b" * 300 + " v=1"
    found = influx.read(f"{long}\ncpu v=2".encode(), "influx", "", NOW, FEW)
    assert [json.loads(line)["fields"] for line in found.lines] == [{"v": 2.0}]
    assert [(each.index, each.reason) for each in found.rejected] == [(0, "is longer than 1,000 bytes")]
    with pytest.raises(TooLarge, match="lines"):
        influx.read(b"\n" * 101, "influx", "", NOW, FEW)


def test_what_holds_no_event_is_counted_as_well_in_otlp() -> None:
    logs, spans, metrics = ExportLogsServiceRequest(), ExportTraceServiceRequest(), ExportMetricsServiceRequest()
    for _ in range(21):
        logs.resource_logs.add()
    for _ in range(3):
        scopes = spans.resource_spans.add().scope_spans
        for _ in range(7):
            scopes.add()
    scope = metrics.resource_metrics.add().scope_metrics.add()
    for _ in range(20):
        scope.metrics.add()
    with pytest.raises(TooLarge):
        otlp.read(logs.SerializeToString(), "logs", otlp.PROTOBUF, "s", FEW)
    with pytest.raises(TooLarge):
        otlp.read(spans.SerializeToString(), "traces", otlp.PROTOBUF, "s", FEW)
    with pytest.raises(TooLarge):
        otlp.read(metrics.SerializeToString(), "metrics", otlp.PROTOBUF, "s", FEW)


def test_series_and_their_samples_are_counted_before_anything_is_made_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = WriteRequest(), Request(symbols=["", "__name__", "up"])
    for _ in range(11):
        one.timeseries.add()
    series = two.timeseries.add(labels_refs=[1, 2])
    for _ in range(11):
        series.exemplars.add(labels_refs=[1, 2])
    monkeypatch.setattr("muxly_dagster.collecting.remote_write.reading._labels", lambda *_: pytest.fail("made labels"))
    for request, proto in ((one, ""), (two, ";proto=io.prometheus.write.v2.Request")):
        body = bytes(cramjam.snappy.compress_raw(request.SerializeToString()))
        with pytest.raises(TooLarge):
            remote_write.read(body, f"application/x-protobuf{proto}", "s", FEW)
