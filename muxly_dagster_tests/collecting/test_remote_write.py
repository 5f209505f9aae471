"""Prometheus remote write in both versions, written with the destination's own messages and by hand."""

import json
import struct
from typing import Any

import cramjam
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from muxly_dagster.collecting import TooLarge, UnknownType, Unreadable, remote_write
from muxly_dagster.collecting.limits import Limits
from muxly_dagster.destinations.prometheus import writing
from muxly_dagster.remote_write import Request, WriteRequest

ONE = "application/x-protobuf"
TWO = "application/x-protobuf;proto=io.prometheus.write.v2.Request"
AT = 1_700_000_000_000
STALE = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[0]


def compressed(message: Any) -> bytes:
    """As it is sent."""
    return bytes(cramjam.snappy.compress_raw(message.SerializeToString()))


def read(message: Any, content_type: str = ONE) -> remote_write.Written:
    """A message as it is sent, read."""
    return remote_write.read(compressed(message), content_type, "prometheus")


def events(written: remote_write.Written) -> list[dict[str, Any]]:
    """The events of a request, of which nothing was rejected."""
    assert not written.gathered.rejected
    return [json.loads(line) for line in written.gathered.lines]


def one(name: str = "up", **labels: str) -> Any:
    """A request of version 1.0 with one series."""
    request = WriteRequest()
    series = request.timeseries.add()
    for key, value in {"__name__": name, **labels}.items():
        series.labels.add(name=key, value=value)
    return request


def test_a_sample_of_version_one() -> None:
    request = one(job="node")
    request.timeseries[0].samples.add(value=1.5, timestamp=AT)
    request.metadata.add(type=1, metric_family_name="up", help="is passed over")
    written = read(request)
    assert events(written) == [
        {"name": "up", "labels": {"job": "node"}, "kind": "sample", "time": "2023-11-14T22:13:20.000Z", "time_unix_ms": AT, "value": 1.5}
    ]
    assert written.version == "1.0"
    assert read(request).gathered.ids == written.gathered.ids
    request.timeseries[0].samples[0].value = 2
    assert read(request).gathered.ids != written.gathered.ids


def test_a_sample_of_version_two_has_its_metadata_and_counts_for_the_answer() -> None:
    request = Request(symbols=["", "__name__", "hits_total", "job", "web", "Hits.", "hits"])
    series = request.timeseries.add(labels_refs=[1, 2, 3, 4])
    series.metadata.type, series.metadata.help_ref, series.metadata.unit_ref = 1, 5, 6
    series.samples.add(value=3, timestamp=AT, start_timestamp=AT - 1000)
    written = read(request, TWO)
    (event,) = events(written)
    assert (event["name"], event["labels"], event["value"]) == ("hits_total", {"job": "web"}, 3.0)
    assert (event["type"], event["help"], event["unit"]) == ("counter", "Hits.", "hits")
    assert event["start_time"] == "2023-11-14T22:13:19.000Z"
    assert written.counts() == {
        "X-Prometheus-Remote-Write-Samples-Written": "1",
        "X-Prometheus-Remote-Write-Histograms-Written": "0",
        "X-Prometheus-Remote-Write-Exemplars-Written": "0",
    }


@pytest.mark.parametrize(
    ("value", "special"),
    [(STALE, "stale"), (writing.STALE, "stale"), (float("nan"), "NaN"), (float("inf"), "Infinity"), (-float("inf"), "-Infinity")],
)
def test_values_that_json_cannot_hold_have_names(value: float, special: str) -> None:
    request = one()
    request.timeseries[0].samples.add(value=value, timestamp=AT)
    (event,) = events(read(request))
    assert event["special"] == special
    assert "value" not in event


def test_native_histograms_and_exemplars_are_events_of_their_own() -> None:
    request = WriteRequest()
    series = request.timeseries.add()
    series.labels.add(name="__name__", value="latency")
    histogram = series.histograms.add(timestamp=AT, count_int=7, sum=1.5, schema=3, zero_threshold=0.001, zero_count_int=1)
    histogram.positive_spans.add(offset=-1, length=2)
    histogram.positive_deltas.extend([3, -1])
    exemplar = series.exemplars.add(value=0.5, timestamp=AT)
    exemplar.labels.add(name="trace_id", value="abc")
    first, second = events(read(request))
    assert (first["kind"], first["count"], first["sum"]) == ("histogram", 7, 1.5)
    assert first["histogram"] == {
        "schema": 3,
        "zero_threshold": 0.001,
        "zero_count": 1,
        "positive_spans": [{"offset": -1, "length": 2}],
        "positive_deltas": [3, -1],
    }
    assert (second["kind"], second["value"], second["exemplar_labels"]) == ("exemplar", 0.5, {"trace_id": "abc"})
    assert read(request).counts()["X-Prometheus-Remote-Write-Histograms-Written"] == "1"


def test_exemplars_of_version_two_refer_to_symbols() -> None:
    request = Request(symbols=["", "__name__", "latency", "trace_id", "abc"])
    series = request.timeseries.add(labels_refs=[1, 2])
    series.exemplars.add(labels_refs=[3, 4], value=0.5, timestamp=AT)
    series.histograms.add(timestamp=AT, count_float=2.5, sum=float("nan"))
    histogram, exemplar = events(read(request, TWO))
    assert (histogram["count"], histogram["special"]) == (2.5, "NaN")
    assert exemplar["exemplar_labels"] == {"trace_id": "abc"}


@pytest.mark.parametrize(
    ("labels", "why"),
    [(["job", "a"], "no name"), (["__name__", ""], "no name"), (["__name__", "up", "a", "1", "a", "2"], "twice"), (["__name__"], "pairs")],
)
def test_series_whose_labels_are_wrong_are_rejected_sample_by_sample(labels: list[str], why: str) -> None:
    request = Request(symbols=["", *labels])
    series = request.timeseries.add(labels_refs=range(1, len(labels) + 1))
    series.samples.add(timestamp=AT)
    series.samples.add(timestamp=AT + 1)
    request.symbols.extend(["__name__", "up"])
    request.timeseries.add(labels_refs=[len(labels) + 1, len(labels) + 2]).samples.add(timestamp=AT)
    gathered = read(request, TWO).gathered
    assert [(each.index, why in each.reason) for each in gathered.rejected] == [(0, True), (1, True)]
    assert list(gathered.indexes) == [2]


def test_symbols_that_are_not_there_and_times_that_cannot_be_are_rejected() -> None:
    request = Request(symbols=[""])
    request.timeseries.add(labels_refs=[1, 2]).samples.add(timestamp=AT)
    assert "no symbol" in read(request, TWO).gathered.rejected[0].reason
    late = one()
    late.timeseries[0].samples.add(timestamp=AT * 1_000_000)
    assert "milliseconds" in read(late).gathered.rejected[0].reason


def test_what_is_not_remote_write_is_told_apart() -> None:
    body = compressed(one())
    for content_type in ("application/json", "", "application/x-protobuf;proto=io.prometheus.write.v3.Request"):
        with pytest.raises(UnknownType):
            remote_write.read(body, content_type, "p")
    assert remote_write.version_of('application/x-protobuf; proto="io.prometheus.write.v2.Request"') == "2.0"
    for broken in (b"", b"abc", body[:-1], one().SerializeToString()):
        with pytest.raises(Unreadable):
            remote_write.read(broken, ONE, "p")


def test_a_bomb_is_not_unpacked() -> None:
    bomb = bytes(cramjam.snappy.compress_raw(bytes(50_000_000)))
    with pytest.raises(TooLarge, match="50,000,000"):
        remote_write.read(bomb, ONE, "p", Limits(body=1_000_000))
    with pytest.raises(Unreadable):  # it says that it is small, and is not
        remote_write.read(b"\x05" + bomb[4:], ONE, "p", Limits(body=1_000_000))


@settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=300), st.sampled_from([ONE, TWO]))
def test_anything_is_read_rejected_or_unreadable(content: bytes, content_type: str) -> None:
    for body in (content, bytes(cramjam.snappy.compress_raw(content))):
        try:
            written = remote_write.read(body, content_type, "p")
        except Unreadable:
            continue
        assert len(written.gathered.lines) == len(written.gathered.indexes) == len(written.kinds) - len(written.gathered.rejected)
