"""The straight way of ordinary posts answers as the ordinary way does, whatever comes and however it comes."""

import json
import re
import socket
import sqlite3
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from muxly_dagster.api.senders import straight
from muxly_dagster.api.senders.straight import Straight
from muxly_dagster_tests.api.collector import Collector, collecting
from muxly_dagster_tests.peers.prometheus import until

PROJECT = """
sources:
  app:
    connector: collector
    pulls:
      signups: {}
      samples: {id: ""}
      strict: {json_schema: {required: [plan]}}
"""
LIMITS = {"MUXLY_COLLECT_BODY": "50kB", "MUXLY_COLLECT_EVENT": "20kB", "MUXLY_COLLECT_DEPTH": "10"}
EVENT = b'{"id": "ID", "plan": "pro"}'
_CHANGES = re.compile(rb"(?m)^(date|x-request-id): .*\r$|[0-9a-f]{16}(?=\")")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Collector, Collector]]:
    """Two servers of one project: one as it is served, and one that knows no straight way."""
    with ExitStack() as stack:
        folder = tmp_path_factory.mktemp("straight")
        yield (
            stack.enter_context(collecting(folder / "a", LIMITS, PROJECT, guarded=False)),
            stack.enter_context(collecting(folder / "b", LIMITS, PROJECT, guarded=False, straight=False)),
        )


@pytest.fixture
def one(two: tuple[Collector, Collector]) -> Collector:
    """The one as it is served."""
    return two[0]


def request(
    body: bytes = EVENT,
    *lines: bytes,
    place: bytes = b"app/signups",
    length: bytes | None = None,
    kind: bytes = b"application/json",
    host: bytes = b"localhost",
) -> bytes:
    head = [b"POST /v1/collect/%b HTTP/1.1" % place, b"Host: %b" % host, b"Content-Type: %b" % kind, *lines]
    return b"\r\n".join([*head, b"Content-Length: %b" % (length or b"%d" % len(body)), b"", body])


def spoken(server: Collector, pieces: Iterable[bytes], answers: int = 1) -> list[bytes]:
    """What a server answers to bytes that come in these pieces, each behind the one before: so many answers, or fewer if it closes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(ConnectionError):  # who refuses the beginning need not read the rest
            for piece in pieces:
                connection.sendall(piece)
        got, found = b"", []
        while len(found) < answers:
            end = got.find(b"\r\n\r\n") + 4
            length = re.search(rb"(?i)content-length: (\d+)", got[:end]) if end > 3 else None
            if length and len(got) >= end + int(length[1]):
                found.append(got[: end + int(length[1])])
                got = got[end + int(length[1]) :]
            elif piece := connection.recv(1 << 16):
                got += piece
            else:
                break
        return found


@pytest.fixture
def arrivals(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What has come over connections, piece by piece."""
    came: list[bytes] = []
    for kind in (Straight, HttpToolsProtocol):
        receive = kind.data_received

        def watched(self: Any, data: bytes, receive: Any = receive, kind: Any = kind) -> None:
            if kind is type(self):  # not what one leaves to the other
                came.append(data)
            receive(self, data)

        monkeypatch.setattr(kind, "data_received", watched)
    return came


def apart(server: Collector, pieces: Sequence[bytes], arrivals: list[bytes], answers: int = 1) -> list[bytes]:
    """What a server answers to pieces of which each comes by itself."""
    del arrivals[:]

    def sent() -> Iterator[bytes]:
        for number, piece in enumerate(pieces):
            until(lambda number=number: len(arrivals) >= number, "the piece before")  # type: ignore[misc]
            yield piece

    return spoken(server, sent(), answers)


ORDINARY = {
    "an event": request(),
    "no kind": b"POST /v1/collect/app/signups HTTP/1.1\r\nHost: localhost\r\nContent-Length: 12\r\n\r\n" + b'{"id": "n"} ',
    "many": request(b'[{"id": "1"}, {"id": "2"}, {"id": "1"}]'),
    "lines": request(b'{"id": "l1"}\n\n{"id": "l2"}\r\n', kind=b"application/x-ndjson; charset=utf-8"),
    "a number for an id": request(b'{"id": 7}'),
    "text beyond ASCII": request('{"id": "ü", "name": "Zoë\u2028"}'.encode()),
    "without ids": request(b'[{"a": 1}, {"a": 1}]', place=b"app/samples"),
    "with a schema": request(place=b"app/strict"),
    "a request id": request(EVENT, b"X-Request-Id: 0123-abcd-0123"),
    "a request id that is none": request(EVENT, b"X-Request-Id: <script>"),
    "other headers": request(EVENT, b"Accept: */*", b"traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    "connection": request(EVENT, b"Connection: Keep-Alive"),
    "no room before a value": request(EVENT, b"X-Thing:1"),
}
OTHERWISE = {
    "not JSON": request(b"{"),
    "nothing": request(b""),
    "no object": request(b"7"),
    "some are none": request(b'[{"id": "3"}, 7, {"id": [1]}]'),
    "an empty array": request(b"[]"),
    "deep": request(b'{"id": "d", "a": ' + b"[" * 12 + b"]" * 12 + b"}"),
    "large": request(b'{"id": "x", "a": "%b"}' % (b"a" * 30_000)),
    "too large": request(b"a" * 60_000),
    "not UTF-8": request(b'{"id": "\xff"}'),
    "a control character in an id": request(b'{"id": "a\\u0000"}'),
    "against the schema": request(b'[{"id": "s1"}, {"id": "s2", "plan": 1}]', place=b"app/strict"),
    "no stream": request(place=b"app/nothing"),
    "no source": request(place=b"nothing/signups"),
    "dots": request(place=b"../signups"),
    "a query": request(place=b"app/signups?ids=true"),
    "percent": request(place=b"app/%73ignups"),
    "another kind": request(kind=b"text/xml"),
    "an event of the cloud": request(kind=b"application/cloudevents+json"),
    "one in headers": request(EVENT, b"ce-specversion: 1.0", b"ce-id: 1", b"ce-source: /a", b"ce-type: b"),
    "a key": request(EVENT, b"Authorization: Bearer mwk_nothing"),
    "a proxy": request(EVENT, b"X-Forwarded-For: 203.0.113.7"),
    "a page": request(EVENT, b"Origin: https://evil.example"),
    "another host": request(host=b"evil.example"),
    "room behind a host": request(host=b"localhost "),
    "room behind a request id": request(EVENT, b"X-Request-Id: 0123-abcd-0123 "),
    "an idempotency key": request(EVENT, b"Idempotency-Key: once"),
    "the same key twice": request(EVENT, b"Idempotency-Key: a", b"Idempotency-Key: b"),
    "a coding": request(EVENT, b"Content-Encoding: gzip"),
    "two kinds": request(EVENT, b"Content-Type: text/xml"),
    "two lengths": request(EVENT, b"Content-Length: 3"),
    "a sign before the length": request(EVENT, length=b"+27"),
    "chunks": b"\r\n".join(
        [b"POST /v1/collect/app/signups HTTP/1.1", b"Host: localhost", b"Transfer-Encoding: chunked", b"", b"1b", EVENT, b"0", b"", b""]
    ),
    "chunks and a length": request(EVENT, b"Transfer-Encoding: chunked"),
    "a folded line": request(EVENT, b"X-Thing: 1\r\n folded"),
    "a bare line feed": request(EVENT, b"X-Thing: 1\nX-Other: 2"),
    "a zero": request(EVENT, b"X-Thing: \x00"),
    "a name that is none": request(EVENT, b"X Thing: 1"),
    "room behind a name": request(EVENT, b"X-Thing : 1"),
    "bytes beyond ASCII": request(EVENT, "X-Thing: ü".encode()),
    "close": request(EVENT, b"Connection: close"),
    "an older version": request().replace(b"HTTP/1.1", b"HTTP/1.0"),
    "another method": request().replace(b"POST", b"PUT"),
}


@pytest.mark.parametrize("name", [*ORDINARY, *OTHERWISE])
def test_both_ways_answer_alike_and_keep_the_same(two: tuple[Collector, Collector], name: str) -> None:
    said = (ORDINARY | OTHERWISE)[name].replace(b"ID", uuid.uuid4().hex[:2].encode())
    found = []
    for server in two:
        for stream in server.service.state.inbox.waiting("app"):
            server.service.state.inbox.let_go("app", stream, 1 << 60)
        [answer] = spoken(server, [said])
        [again] = spoken(server, [said])
        kept = {stream: server.events("app", stream) for stream in ("signups", "samples", "strict")}
        found.append((_alike(answer), _alike(again), kept))
    assert found[0] == found[1]


@pytest.fixture
def went(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The requests that have gone the straight way."""
    found: list[bytes] = []
    answer = Straight._answer

    def watched(self: Straight, asked: Any, receipt: bytes) -> None:
        found.append(asked.data)
        answer(self, asked, receipt)

    monkeypatch.setattr(Straight, "_answer", watched)
    return found


def test_what_is_ordinary_goes_the_straight_way_and_nothing_else_does(one: Collector, went: list[bytes]) -> None:
    for said in (*ORDINARY.values(), *OTHERWISE.values()):
        spoken(one, [said])
    assert went == list(ORDINARY.values())


@pytest.mark.parametrize("name", [*ORDINARY, *OTHERWISE])
def test_both_ways_answer_alike_what_comes_in_pieces(two: tuple[Collector, Collector], name: str, arrivals: list[bytes]) -> None:
    said = (ORDINARY | OTHERWISE)[name].replace(b"ID", uuid.uuid4().hex[:2].encode())
    end = said.index(b"\r\n\r\n") + 4
    for pieces in ([said[:end], said[end:]], [said[:-1], said[-1:]]):
        sent = [piece for piece in pieces if piece]
        found = [_alike(b"".join(apart(server, sent, arrivals))) for server in two]
        assert found[0] == found[1], pieces


def test_what_is_ordinary_goes_the_straight_way_in_pieces_too(one: Collector, went: list[bytes], arrivals: list[bytes]) -> None:
    for said in ORDINARY.values():
        end = said.index(b"\r\n\r\n") + 4
        apart(one, [said[:end], said[end:-1], said[-1:]], arrivals)
    assert went == list(ORDINARY.values())
    assert one.service.collecting._room.held == 0


def test_a_body_with_the_next_request_behind_it_is_answered_in_order(one: Collector, arrivals: list[bytes]) -> None:
    said = request(b'{"id": "%b"}' % uuid.uuid4().hex.encode())
    answers = apart(one, [said[:-3], said[-3:] + said + b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"], arrivals, 3)
    assert [int(each.split()[1]) for each in answers] == [202, 202, 200]


def test_who_takes_long_is_waited_for_the_ordinary_way(
    one: Collector, went: list[bytes], arrivals: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(straight, "_PATIENCE", 0.01)
    said = request(b'{"id": "%b"}' % uuid.uuid4().hex.encode())
    left: list[bool] = []
    leave = Straight._leave

    def watched(self: Straight) -> None:
        left.append(self._begun is not None)
        leave(self)

    monkeypatch.setattr(Straight, "_leave", watched)
    with socket.create_connection(("127.0.0.1", one.port), timeout=60) as connection:
        connection.sendall(said[:-2])
        until(lambda: any(left), "the end of patience")
        connection.sendall(said[-2:])
        assert b" 202 " in connection.recv(1 << 16)
    assert went == [] and one.service.collecting._room.held == 0


def test_who_goes_away_in_the_middle_leaves_nothing_behind(one: Collector, arrivals: list[bytes]) -> None:
    room = one.service.collecting._room
    with socket.create_connection(("127.0.0.1", one.port), timeout=60) as connection:
        connection.sendall(request(b'{"id": "half"}')[:-1])
        until(lambda: room.held, "the beginning")
    until(lambda: not room.held, "the end of the connection")
    assert "half" not in one.ids("app", "signups")


def test_what_was_begun_is_answered_before_the_server_ends(tmp_path: Path) -> None:
    with collecting(tmp_path, None, PROJECT, guarded=False) as server:
        spoken(server, [request(b'{"id": "warm"}')])
        said = request(b'{"id": "begun"}')
        with socket.create_connection(("127.0.0.1", server.port)) as asking:
            asking.sendall(said[:-5])
            until(lambda: server.service.collecting._room.held, "the beginning")
            server.stop()
            until(lambda: _is_closed(server.port), "the server's end")
            asking.sendall(said[-5:])
            answer = b"".join(iter(lambda: asking.recv(1 << 16), b""))
        assert answer.startswith(b"HTTP/1.1 202 ")
        assert server.ids("app", "signups") == ["warm", "begun"]


def test_a_request_that_comes_byte_by_byte_is_answered(one: Collector) -> None:
    said = request(b'{"id": "%b"}' % uuid.uuid4().hex.encode())
    [answer] = spoken(one, [said[at : at + 1] for at in range(len(said))])
    assert answer.startswith(b"HTTP/1.1 202 ") and b'"accepted":1' in answer


def test_requests_that_come_at_once_are_answered_in_their_order(one: Collector) -> None:
    health, bad = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", request(b"{")
    event = request(b'{"id": "%b"}' % uuid.uuid4().hex.encode())
    said = [event, event, health, event, bad, bad, event, health, event]
    answers = spoken(one, [b"".join(said)], len(said))
    statuses = [int(answer.split()[1]) for answer in answers]
    assert statuses == [202, 202, 200, 202, 400, 400, 202, 200, 202]
    accepted = [json.loads(answer.partition(b"\r\n\r\n")[2])["accepted"] for answer in answers if b" 202 " in answer]
    assert accepted == [1, 0, 0, 0, 0]


def test_one_after_the_other_goes_over_one_connection(one: Collector) -> None:
    with httpx.Client(base_url=one.url) as client:
        statuses = []
        for number in range(30):
            path = ("/v1/collect/app/signups", "/v1/collect/app/nothing", "/v1/collect/app/samples")[number % 3]
            statuses.append(client.post(path, json={"id": uuid.uuid4().hex}).status_code)
    assert statuses == [202, 404, 202] * 10


def test_the_rest_of_a_body_that_was_refused_is_no_request_of_its_own(one: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body whose length is refused at once holds what looks like a request: it must not be taken for one."""
    came: list[bytes] = []
    receive = Straight.data_received

    def watched(self: Straight, data: bytes) -> None:
        came.append(data)
        receive(self, data)

    monkeypatch.setattr(Straight, "data_received", watched)
    before = one.service.state.inbox.waiting("app")
    hidden = request(b'{"id": "%b"}' % uuid.uuid4().hex.encode())
    with socket.create_connection(("127.0.0.1", one.port), timeout=60) as connection:
        connection.sendall(request(b"", length=b"%d" % 60_000))
        assert b" 413 " in connection.recv(1 << 16)
        connection.sendall(hidden)
        until(lambda: came[-1] == hidden, "the rest")
        connection.sendall(b" " * (60_000 - len(hidden)) + b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answers = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    assert b" 200 " in answers and b" 202 " not in answers
    assert one.service.state.inbox.waiting("app") == before


def test_what_cannot_be_stored_is_told_the_ordinary_way_and_taken_later(tmp_path: Path) -> None:
    with collecting(tmp_path, None, PROJECT, guarded=False) as server:
        said = request(b'{"id": "first"}')
        assert b'"accepted":1' in spoken(server, [said])[0]
        with closing(sqlite3.connect(tmp_path / "home" / "state-inbox.db")) as database:
            database.execute("alter table inbox rename to hidden")
        refused = spoken(server, [request(b'{"id": "second"}')])[0]
        assert refused.startswith(b"HTTP/1.1 50") and b"application/problem+json" in refused
        with closing(sqlite3.connect(tmp_path / "home" / "state-inbox.db")) as database:
            database.execute("alter table hidden rename to inbox")
        assert b'"accepted":1' in spoken(server, [request(b'{"id": "second"}')])[0]
        assert server.ids("app", "signups") == ["first", "second"]


def test_a_write_key_opens_its_own_stream_alone(tmp_path: Path) -> None:
    with collecting(tmp_path, {"MUXLY_ADMIN_TOKEN": "admin-token"}) as server:
        expected = {"telemetry": 202, "narrow": 202, "web": 403, "slow": 202}
        for name, status in expected.items():
            bearer = b"Authorization: Bearer %b" % server.keys[name].encode()
            [answer] = spoken(server, [request(EVENT, bearer, place=b"telemetry/influx", host=b"muxly.example")])
            assert int(answer.split()[1]) == status, name
        [answer] = spoken(server, [request(EVENT, bearer, place=b"telemetry/influx")])
        assert b" 429 " in answer and b"retry-after" in answer.lower()
        [answer] = spoken(server, [request(EVENT, b"X-Write-Key: " + server.keys["narrow"].encode(), place=b"telemetry/otlp_traces")])
        assert b" 403 " in answer
        [answer] = spoken(server, [request(EVENT, b"Authorization: Bearer admin-token", place=b"telemetry/influx")])
        assert b" 202 " in answer
        [answer] = spoken(server, [request(place=b"telemetry/influx")])
        assert b" 401 " in answer


def test_what_was_asked_is_answered_before_the_server_ends(tmp_path: Path) -> None:
    with collecting(tmp_path, None, PROJECT, guarded=False) as server, socket.create_connection(("127.0.0.1", server.port)) as asking:
        spoken(server, [request(b'{"id": "warm"}')])
        with closing(sqlite3.connect(tmp_path / "home" / "state-inbox.db", isolation_level=None)) as locked:
            locked.execute("begin immediate")
            asking.sendall(request(b'{"id": "asked"}'))
            until(lambda: server.service.collecting.writer.queued, "the request")
            server.stop()
            until(lambda: _is_closed(server.port), "the server's end")
        answer = b"".join(iter(lambda: asking.recv(1 << 16), b""))
        assert answer.startswith(b"HTTP/1.1 202 ") and b"\r\nconnection: close\r\n" in answer
        assert server.ids("app", "signups") == ["warm", "asked"]


def test_it_is_counted_with_all_others(tmp_path: Path) -> None:
    with collecting(tmp_path, None, PROJECT, guarded=False) as server:
        for number in range(3):
            spoken(server, [request(b'{"id": "%d"}' % number)])
        found = httpx.get(f"{server.url}/metrics").text
        route = 'method="POST",route="/v1/collect/{source}/{stream}"'
        assert f'muxly_api_requests_total{{{route},status="202"}} 3.0' in found
        assert f'muxly_api_request_seconds_bucket{{le="+Inf",{route}}} 3.0' in found


def _is_closed(port: int) -> bool:
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) != 0


def _alike(answer: bytes) -> bytes:
    """An answer without what differs from one to the next, its headers in one order."""
    head, _, body = _CHANGES.sub(b"", answer).partition(b"\r\n\r\n")
    return b"\n".join(sorted(head.lower().split(b"\r\n"))) + body
