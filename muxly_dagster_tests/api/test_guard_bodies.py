"""Bodies of whoever has not proven yet who he is: they are small, may not take long, and take no room from others."""

import json
import socket
from collections.abc import Iterator

import httpx
import pytest

from muxly_dagster.api.receiving import Room
from muxly_dagster.errors import RetryLater
from muxly_dagster_tests.api.collector import Collector, collecting

PROJECT = """
sources:
  web: {connector: collector, pulls: [track, orders]}
  telemetry: {connector: collector, pulls: [influx]}
jobs:
  on_call: {select: [web], webhook: {scheme: github, secret: the-secret-in-use}}
"""
HOOK, TRACK = "/v1/hooks/on_call", "/v1/track"


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    with collecting(tmp_path_factory.mktemp("bodies") / "project", project=PROJECT) as found:
        yield found


@pytest.fixture
def lobby(collector: Collector) -> Iterator[Room]:
    """Where bodies of the unproven are held."""
    room = collector.service.collecting.hold(proven=False).room
    patience = room.patience
    yield room
    room.patience = patience
    assert room.held == 0


def slowly(collector: Collector, path: str, *headers: str) -> bytes:
    """What a sender is answered whose body never ends, until the server hangs up."""
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", "Content-Length: 100", *headers, "", '{"writeKey":']
    with socket.create_connection(("127.0.0.1", collector.port), timeout=30) as connection:
        connection.sendall("\r\n".join(lines).encode())
        return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.parametrize("path", [HOOK, TRACK])
def test_a_body_that_does_not_come_to_its_end_is_not_waited_for(collector: Collector, lobby: Room, path: str) -> None:
    lobby.patience = 0.05
    answer = slowly(collector, path)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"connection: close" in answer.lower()


def test_a_proven_sender_is_waited_for_longer_but_not_for_ever(collector: Collector, lobby: Room) -> None:
    room = collector.service.collecting.hold().room
    assert room.patience > lobby.patience
    patience, room.patience = room.patience, 0.05
    try:
        answer = slowly(collector, "/v1/collect/web/orders", f"Authorization: Bearer {collector.keys['web']}")
    finally:
        room.patience = patience
    assert answer.startswith(b"HTTP/1.1 408")
    assert room.held == 0


def test_a_body_that_holds_its_key_itself_is_small(collector: Collector, lobby: Room) -> None:
    body = json.dumps({"writeKey": collector.keys["web"], "userId": "u", "event": "e", "context": {"long": ["x" * 1000] * 1100}}).encode()
    unsigned, small = (
        httpx.post(collector.url + TRACK, content=body),
        httpx.post(collector.url + TRACK, content=body.replace(b"x" * 999, b"")),
    )
    signed = httpx.post(collector.url + "/v1/batch", content=b'{"batch":[' + b" " * (2 << 20) + b"]}", auth=(collector.keys["web"], ""))
    assert (unsigned.status_code, small.status_code, signed.status_code) == (413, 200, 200)


def test_the_unproven_take_no_room_from_others(collector: Collector, lobby: Room) -> None:
    with lobby.hold() as hold:
        hold.add(lobby.most)
        for path in (HOOK, TRACK):
            refused = httpx.post(collector.url + path, content=b"{}")
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        taken = httpx.post(collector.url + "/v1/collect/web/orders", json={"id": "a"}, headers=collector.signed("web"))
    assert taken.status_code == 202


def test_what_one_request_may_hold_it_may_hold_alone() -> None:
    room = Room(10)
    with room.hold() as first:
        first.add(5)
        first.add(10)
        with room.hold() as second, pytest.raises(RetryLater):
            second.add(1)
    assert room.held == 0
