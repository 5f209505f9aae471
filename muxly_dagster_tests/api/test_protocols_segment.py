"""Segment's own library for Python against a server: its batches, gzip, retries and error callback; and calls by hand."""

import json
import logging
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from segment.analytics.client import Client  # type: ignore[import-untyped]

from muxly_dagster_tests.api.collector import Collector, collecting


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    """One server for all tests of this file."""
    with collecting(tmp_path_factory.mktemp("segment"), {"MUXLY_COLLECT_ITEMS": "2000"}) as found:
        yield found


@pytest.fixture
def fresh(server: Collector) -> Collector:
    """The same, with nothing in its inbox."""
    server.clear()
    return server


class Told:
    """What the library tells its error callback."""

    def __init__(self) -> None:
        self.errors: list[Exception] = []

    def __call__(self, error: Exception, _items: object) -> None:
        self.errors.append(error)


def client(collector: Collector, key: str = "web", **how: Any) -> tuple[Client, Told]:
    """The library, pointed at the server."""
    told = Told()
    return Client(collector.keys[key], host=collector.url, on_error=told, max_retries=3, upload_interval=0.05, **how), told


@pytest.mark.parametrize("gzip", [False, True])
def test_the_librarys_calls_arrive_in_the_streams_of_their_types(fresh: Collector, gzip: bool) -> None:
    library, told = client(fresh, gzip=gzip)
    library.identify("u1", {"email": "ada@example.com"})
    library.track("u1", "Order paid", {"total": 19.9})
    library.page("u1", "docs", "Pricing")
    library.group("u1", "g1", {"name": "Initech"})
    library.shutdown()
    assert told.errors == []
    (track,) = fresh.events("web", "track")
    assert (track["event"], track["userId"], track["properties"]) == ("Order paid", "u1", {"total": 19.9})
    assert track["context"]["library"]["name"] == "analytics-python"
    assert track["sentAt"] and track["originalTimestamp"] and track["receivedAt"].endswith("Z")
    assert fresh.ids("web", "track") == [track["messageId"]]
    assert fresh.keys["web"] not in json.dumps(track)
    for stream, name, value in (
        ("identify", "traits", {"email": "ada@example.com"}),
        ("page", "name", "Pricing"),
        ("group", "groupId", "g1"),
    ):
        (event,) = fresh.events("web", stream)
        assert event[name] == value


def test_a_message_that_is_sent_again_is_known(fresh: Collector) -> None:
    library, told = client(fresh, sync_mode=True)
    for _ in range(2):
        library.track("u1", "Order paid", message_id="twice")
    assert told.errors == []
    assert len(fresh.events("web", "track")) == 1


def test_what_no_pull_reads_is_told_to_the_error_callback_and_the_rest_stored(fresh: Collector) -> None:
    library, told = client(fresh)
    library.track("u1", "Kept")
    library.screen("u1", "Basket")
    library.shutdown()
    assert [event["event"] for event in fresh.events("web", "track")] == ["Kept"]
    (error,) = told.errors
    assert "1 of 2 messages were rejected" in str(error)
    assert "no pull of web reads the stream screen; add it to muxly.yaml" in str(error)


def test_the_library_gives_up_where_it_should(fresh: Collector) -> None:
    library, told = client(fresh, "telemetry")
    library.track("u1", "Lost")
    library.shutdown()
    (error,) = told.errors
    assert "[Segment] not_found: no pull of telemetry reads the stream track" in str(error)


def test_the_library_tries_again_where_it_should(fresh: Collector, caplog: pytest.LogCaptureFixture) -> None:
    project = "sources: {telemetry: {connector: collector, pulls: [track]}}"
    with caplog.at_level(logging.DEBUG, "segment"), collecting(fresh.service.home / "slow", project=project) as found:
        told, sent = Told(), 0
        library = Client(found.keys["slow"], host=found.url, on_error=told, upload_interval=0.01, upload_size=1)
        while "Rate-limited" not in caplog.text:  # two of them come within one second sooner or later
            library.track("u1", f"Event {sent}")
            sent += 1
            assert sent < 20
            library.flush()
        library.shutdown()
        assert told.errors == []
        assert len(found.events("telemetry", "track")) == sent


def test_single_calls_are_answered_as_segment_does(fresh: Collector) -> None:
    message = {"userId": "u", "event": "A", "messageId": "single", "timestamp": "2026-01-02T03:04:05Z"}
    answer = httpx.post(f"{fresh.url}/v1/track", json=message, auth=(fresh.keys["web"], ""))
    assert (answer.status_code, answer.json()) == (200, {"success": True})
    in_body = httpx.post(
        f"{fresh.url}/v1/page", content=json.dumps({"name": "P", "writeKey": fresh.keys["web"]}), headers={"content-type": "text/plain"}
    )
    assert in_body.json() == {"success": True}
    assert "writeKey" not in fresh.events("web", "page")[0]
    imported = {"batch": [{"type": "track", "event": "Old", "messageId": "old", "timestamp": "2020-01-01T00:00:00Z"}]}
    assert httpx.post(f"{fresh.url}/v1/import", json=imported, auth=(fresh.keys["web"], "")).json() == {"success": True}
    assert fresh.events("web", "track")[-1]["timestamp"] == "2020-01-01T00:00:00.000Z"


@pytest.mark.parametrize(
    ("call", "body", "status", "code"),
    [
        ("track", b"{", 400, "invalid"),
        ("batch", b"{}", 400, "invalid"),
        ("batch", b'{"batch": [5]}', 400, "invalid"),
        ("screen", b"{}", 404, "not_found"),
        ("batch", json.dumps({"batch": [{"type": "track"}] * 2001}).encode(), 413, "too_large"),
        (
            "batch",
            b'{"context": "' + b"x" * 500_000 + b'", "batch": [' + b",".join([b'{"type": "track"}'] * 1000) + b"]}",
            413,
            "too_large",
        ),
    ],
)
def test_refusals_have_a_code_and_a_message(fresh: Collector, call: str, body: bytes, status: int, code: str) -> None:
    answer = httpx.post(f"{fresh.url}/v1/{call}", content=body, auth=(fresh.keys["web"], ""))
    assert (answer.status_code, answer.json()["success"], answer.json()["code"]) == (status, False, code)
    assert answer.json()["message"]
    assert not fresh.events("web", "track")


def test_a_batch_of_nothing_is_a_success(fresh: Collector) -> None:
    assert httpx.post(f"{fresh.url}/v1/batch", json={"batch": []}, auth=(fresh.keys["web"], "")).json() == {"success": True}


def test_without_a_key_nothing_is_taken(fresh: Collector) -> None:
    for body in (b"{}", b"{", b'{"writeKey": "mwk_x"}'):
        assert httpx.post(f"{fresh.url}/v1/track", content=body).status_code == 401
    with socket.create_connection(("127.0.0.1", fresh.port)) as connection:
        connection.sendall(b"POST /v1/track HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\n{")
    assert not fresh.events("web", "track")
