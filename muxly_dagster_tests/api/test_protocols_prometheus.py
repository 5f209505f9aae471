"""Remote write by HTTP: a real Prometheus that writes to us, and messages of both versions by hand."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cramjam
import httpx
import pytest

from muxly_dagster import remote_write
from muxly_dagster_tests.api.collector import Collector, collecting
from muxly_dagster_tests.peers import prometheus as peer

ONE = "application/x-protobuf"
TWO = "application/x-protobuf;proto=io.prometheus.write.v2.Request"
AT = 1_700_000_000_000
WRITTEN = "x-prometheus-remote-write-{}-written"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    """One server for all tests of this file."""
    with collecting(tmp_path_factory.mktemp("prometheus"), {"MUXLY_COLLECT_ITEMS": "2000"}) as found:
        yield found


@pytest.fixture
def fresh(server: Collector) -> Collector:
    """The same, with nothing in its inbox."""
    server.clear()
    return server


def one(*values: float, name: str = "up") -> Any:
    """A request of version 1.0 with one series."""
    request = remote_write.WriteRequest()
    series = request.timeseries.add()
    series.labels.add(name="__name__", value=name)
    for number, value in enumerate(values):
        series.samples.add(value=value, timestamp=AT + number)
    return request


def two(count: int) -> Any:
    """A request of version 2.0 with so many samples of one series."""
    request = remote_write.Request(symbols=["", "__name__", "up"])
    series = request.timeseries.add(labels_refs=[1, 2])
    for number in range(count):
        series.samples.add(value=number, timestamp=AT + number)
    return request


def post(collector: Collector, message: Any, content_type: str = ONE, path: str = "/v1/prometheus/write", **headers: str) -> httpx.Response:
    """By hand."""
    content = message if isinstance(message, bytes) else bytes(cramjam.snappy.compress_raw(message.SerializeToString()))
    said = {"content-type": content_type, "content-encoding": "snappy", **collector.signed(), **headers}
    return httpx.post(collector.url + path, content=content, headers=said)


@pytest.mark.skipif(bool(peer.missing("prometheus")), reason=peer.missing("prometheus"))
def test_a_real_prometheus_writes_what_it_scrapes(fresh: Collector, tmp_path: Path) -> None:
    with peer.prometheus(tmp_path, sends_to=f"{fresh.url}/v1/prometheus/write", key=fresh.keys["telemetry"]) as server:
        peer.until(lambda: any(event["name"] == "up" for event in fresh.events("telemetry", "prometheus")), "a sample")
        failed = server.ask("query", query="prometheus_remote_storage_samples_failed_total")["result"]
    events = fresh.events("telemetry", "prometheus")
    up = next(event for event in events if event["name"] == "up")
    assert up["value"] == 1.0 and up["labels"]["job"] == "muxly"
    assert all(event["kind"] == "sample" and ("value" in event or "special" in event) for event in events)
    assert len(set(fresh.ids("telemetry", "prometheus"))) == len(events) > 100
    assert [each["value"][1] for each in failed] in ([], ["0"])


@pytest.mark.parametrize("path", ["/v1/prometheus/write", "/api/v1/write"])
def test_version_one_at_both_addresses(fresh: Collector, path: str) -> None:
    for _ in range(2):
        answer = post(fresh, one(1, float("nan"), name=path.strip("/").replace("/", ":")), path=path)
        assert (answer.status_code, answer.content) == (204, b"")
        assert WRITTEN.format("samples") not in answer.headers
    assert [(event.get("value"), event.get("special")) for event in fresh.events("telemetry", "prometheus")] == [(1.0, None), (None, "NaN")]


def test_version_two_is_told_what_was_written(fresh: Collector) -> None:
    answer = post(fresh, two(3), TWO)
    assert answer.status_code == 204
    assert [answer.headers[WRITTEN.format(each)] for each in ("samples", "histograms", "exemplars")] == ["3", "0", "0"]
    again = post(fresh, two(4), TWO)
    assert again.headers[WRITTEN.format("samples")] == "4"  # those that were there are written as well
    assert len(fresh.events("telemetry", "prometheus")) == 4


def test_samples_that_are_none_are_told_and_the_others_stored(fresh: Collector) -> None:
    request = two(2)
    request.timeseries.add(labels_refs=[1, 9]).samples.add(timestamp=AT)
    request.timeseries[0].samples.add(timestamp=AT + 100)
    answer = post(fresh, request, TWO)
    assert answer.status_code == 400
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.text == "1 of 4 samples were rejected: sample 3 a label refers to no symbol\n"
    assert answer.headers[WRITTEN.format("samples")] == "3"


@pytest.mark.parametrize(
    ("message", "content_type", "headers", "status", "said"),
    [
        (one(1), "application/json", {}, 415, "application/x-protobuf"),
        (one(1), ONE, {"content-encoding": "gzip"}, 415, "snappy"),
        (b"\x05abc", ONE, {}, 400, "snappy"),
        (bytes(cramjam.snappy.compress_raw(b"\x0a\x05abc")), ONE, {}, 400, "cut off"),
        (bytes(cramjam.snappy.compress_raw(bytes(64 << 20))), ONE, {}, 413, "decompressed"),
        (one(1), ONE, {"authorization": "Bearer mwk_x"}, 401, "muxly keys create"),
        (one(1), ONE, {"authorization": ""}, 401, "muxly keys create"),
        (one(*range(2001)), ONE, {}, 413, "more than 2,000 events"),
        (two(1), TWO, {"authorization": "Bearer mwk_x"}, 401, "muxly keys create"),
    ],
)
def test_refusals_are_one_line_of_text(
    fresh: Collector, message: Any, content_type: str, headers: dict[str, str], status: int, said: str
) -> None:
    answer = post(fresh, message, content_type, **headers)
    assert answer.status_code == status
    assert said in answer.text and answer.text.count("\n") == 1
    if content_type == TWO:
        assert answer.headers[WRITTEN.format("samples")] == "0"
    assert not fresh.events("telemetry", "prometheus")


def test_a_stream_that_nobody_reads_is_told_with_what_to_add(fresh: Collector) -> None:
    answer = post(fresh, one(1), **fresh.signed("web"))
    assert answer.status_code == 404
    assert (
        answer.text
        == "no pull of web reads the stream prometheus; add it to muxly.yaml, under `sources: web: pulls:`, as `prometheus: {}`\n"
    )
