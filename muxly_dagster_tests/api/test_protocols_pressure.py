"""What every protocol's senders are told while nothing more can be stored: to keep what they have, and when to come again."""

from collections.abc import Iterator
from typing import Any

import cramjam
import httpx
import pytest
from google.rpc.status_pb2 import Status

from muxly_dagster import remote_write
from muxly_dagster_tests.api.collector import Collector, collecting
from muxly_dagster_tests.peers.prometheus import until

PROTOBUF = "application/x-protobuf"


def sample() -> bytes:
    """One sample by remote write."""
    request = remote_write.WriteRequest()
    series = request.timeseries.add()
    series.labels.add(name="__name__", value="up")
    series.samples.add(timestamp=1)
    return bytes(cramjam.snappy.compress_raw(request.SerializeToString()))


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    """A server whose inbox has no more room."""
    with collecting(tmp_path_factory.mktemp("full"), {"MUXLY_INBOX_BYTES": "1B"}) as found:

        def written() -> int:
            return httpx.post(f"{found.url}/write", content="m v=1i", headers=found.signed()).status_code

        assert written() == 204
        until(lambda: written() == 503, "a full inbox")
        yield found


@pytest.mark.parametrize(
    ("path", "key", "sent"),
    [
        ("/api/v2/write", "telemetry", {"content": b"m v=1i 1"}),
        ("/v1/prometheus/write", "telemetry", {"content": sample(), "headers": {"content-type": PROTOBUF, "content-encoding": "snappy"}}),
        ("/v1/otlp/v1/traces", "telemetry", {"content": b"", "headers": {"content-type": PROTOBUF}}),
        ("/v1/otlp/v1/logs", "telemetry", {"json": {}}),
        ("/v1/batch", "web", {"json": {"batch": [{"type": "track", "event": "A"}]}}),
    ],
)
def test_a_sender_is_told_to_come_again(full: Collector, path: str, key: str, sent: dict[str, Any]) -> None:
    answer = httpx.post(full.url + path, **{**sent, "headers": {**sent.get("headers", {}), **full.signed(key)}})
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
    if path == "/v1/otlp/v1/traces":
        text = Status.FromString(answer.content).message
    else:
        text = answer.text if answer.headers["content-type"].startswith("text/plain") else answer.json()["message"]
    assert "the inbox holds more than 1 bytes" in text
