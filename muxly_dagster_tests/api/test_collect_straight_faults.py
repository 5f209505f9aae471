"""The straight way when something goes wrong on it, or the server or the client goes away meanwhile."""

import re
import socket
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from muxly_dagster.api.collecting import receipts
from muxly_dagster.api.senders import straight
from muxly_dagster.errors import RetryLater
from muxly_dagster.state.posts import Post
from muxly_dagster_tests.api.collector import Collector, collecting
from muxly_dagster_tests.peers.prometheus import until

PROJECT = 'sources: {app: {connector: collector, pulls: {signups: {}, samples: {id: ""}}}}'
COUNTED = re.compile(r'muxly_api_requests_total\{method="POST",route="/v1/collect/\{source\}/\{stream\}",status="(\d+)"\} (\d+)')


def request(body: bytes = b'{"id": "1"}', stream: bytes = b"signups") -> bytes:
    head = b"POST /v1/collect/app/%b HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % (stream, len(body)) + body


def asked(server: Collector) -> socket.socket:
    """A new connection."""
    return socket.create_connection(("127.0.0.1", server.port), timeout=30)


def answer(connection: socket.socket) -> bytes:
    """The next answer, whole."""
    got = b""
    while not (found := re.search(rb"(?is)content-length: (\d+)\r\n.*?\r\n\r\n", got)) or len(got) < found.end() + int(found[1]):
        piece = connection.recv(1 << 16)
        assert piece, got
        got += piece
    return got


def said(connection: socket.socket) -> bytes:
    """All that a server says until it closes."""
    return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def test_a_body_beyond_the_limit_is_refused_however_small_the_limit(tmp_path: Path) -> None:
    with collecting(tmp_path, {"MUXLY_COLLECT_BODY": "1kB"}, PROJECT, guarded=False) as server, asked(server) as connection:
        for size, status in ((1000, b" 202 "), (1001, b" 413 ")):
            connection.sendall(request(b'{"id": "%b"}' % (b"1" * 100) + b" " * (size - 110)))
            assert status in answer(connection)


def test_what_may_have_been_stored_is_not_stored_again_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection to a database may break just when it has committed: nobody knows then."""
    with collecting(tmp_path, None, PROJECT, guarded=False) as server, asked(server) as connection:
        inbox = server.service.state.inbox
        put, times = inbox.put, []

        def broken(posts: Sequence[Post]) -> None:
            times.append(len(posts))
            put(posts)
            if len(times) == 2:
                raise RetryLater("the connection broke", do="come again", after=3)

        monkeypatch.setattr(inbox, "put", broken)
        for status in (b" 202 ", b" 503 ", b" 202 "):
            connection.sendall(request(b'{"a": 1}', b"samples"))
            told = answer(connection)
            assert status in told
            assert (b"retry-after: 5" in told.lower() and b"the connection broke" in told) == (status == b" 503 ")
        assert times == [1, 1, 1] and inbox.waiting("app") == {"samples": 3}


def test_a_request_that_cannot_be_stored_while_the_server_ends_is_told_and_its_connection_closed(tmp_path: Path) -> None:
    with collecting(tmp_path, None, PROJECT, guarded=False) as server, asked(server) as connection:
        connection.sendall(request())
        assert b" 202 " in answer(connection)
        with closing(sqlite3.connect(tmp_path / "home" / "state-inbox.db", isolation_level=None)) as locked:
            locked.execute("begin immediate")
            locked.execute("alter table inbox rename to hidden")
            connection.sendall(request(b'{"id": "2"}'))
            until(lambda: server.service.collecting.writer.queued, "the request")
            server.stop()
            until(lambda: _is_closed(server.port), "the server's end")
            locked.execute("commit")
        told = said(connection)
        assert b" 503 " in told and b"\r\nconnection: close\r\n" in told


def test_nothing_is_taken_that_can_have_no_answer_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    came: list[bytes] = []
    receive = straight.Straight.data_received

    def watched(self: straight.Straight, data: bytes) -> None:
        came.append(data)
        receive(self, data)

    monkeypatch.setattr(straight.Straight, "data_received", watched)
    with collecting(tmp_path, None, PROJECT, guarded=False) as server, asked(server) as connection:
        connection.sendall(request())
        assert b" 202 " in answer(connection)
        with closing(sqlite3.connect(tmp_path / "home" / "state-inbox.db", isolation_level=None)) as locked:
            locked.execute("begin immediate")
            connection.sendall(request(b'{"id": "2"}'))
            until(lambda: server.service.collecting.writer.queued, "the request")
            connection.sendall(request(b'{"id": "3"}'))
            until(lambda: came[-1].endswith(b'{"id": "3"}'), "the one behind")
            server.stop()
            until(lambda: _is_closed(server.port), "the server's end")
        assert said(connection).count(b" 202 ") == 1
        server.service.collecting.writer.close()
        assert server.ids("app", "signups") == ["1", "2"]


def test_a_fault_of_ours_is_answered_and_not_by_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> Any:
        raise RuntimeError("a fault")

    with collecting(tmp_path, None, PROJECT, guarded=False) as server:
        with asked(server) as connection:
            connection.sendall(request())
            assert b" 202 " in answer(connection)
            with monkeypatch.context() as patched:
                patched.setattr("muxly_dagster.collecting.plain.read", fails)
                connection.sendall(request())
                told = answer(connection)
                assert b" 500 " in told and b"application/problem+json" in told
            connection.sendall(request())
            assert b'"duplicate":1' in answer(connection)
            monkeypatch.setattr(receipts, "ordinary", fails)
            connection.sendall(request(b'{"id": "2"}'))
            assert said(connection) == b""
        monkeypatch.undo()
        with asked(server) as connection:
            connection.sendall(request(b'{"id": "2"}'))
            assert b'"duplicate":1' in answer(connection)


def test_a_request_whose_sender_is_gone_is_stored_and_counted(tmp_path: Path) -> None:
    with collecting(tmp_path, None, PROJECT, guarded=False) as server:
        with asked(server) as connection:
            connection.sendall(request())
            assert b" 202 " in answer(connection)
        with closing(sqlite3.connect(tmp_path / "home" / "state-inbox.db", isolation_level=None)) as locked:
            locked.execute("begin immediate")
            with asked(server) as connection:
                connection.sendall(request(b'{"id": "2"}'))
                until(lambda: server.service.collecting.writer.queued, "the request")
        until(lambda: not server.service.collecting.writer.queued, "the answer to nobody")
        assert server.ids("app", "signups") == ["1", "2"]
        assert COUNTED.findall(httpx.get(f"{server.url}/metrics").text) == [("202", "2")]


def test_what_requests_hold_in_memory_counts_and_not_only_their_events(tmp_path: Path) -> None:
    with collecting(tmp_path, None, PROJECT, guarded=False) as server, asked(server) as connection:
        connection.sendall(request())
        assert b" 202 " in answer(connection)
        with closing(sqlite3.connect(tmp_path / "home" / "state-inbox.db", isolation_level=None)) as locked:
            locked.execute("begin immediate")
            connection.sendall(request(b'[{"id": "2"},' + b" " * 3_000 + b'{"id": "3"}]'))
            until(lambda: server.service.collecting.writer.queued, "the request")
            assert server.service.collecting.writer.queued > 3_000
        assert b" 202 " in answer(connection)
        assert server.service.collecting.writer.queued == 0


def _is_closed(port: int) -> bool:
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) != 0
