"""The bad line does what the tests that use it say it does."""

import socket
from collections.abc import Iterator

import httpx
import pytest

from muxly_dagster_tests.http.server import Asked, Server, answer
from muxly_dagster_tests.peers.faults import Fault, Line, blackhole, cut, cut_sent, delay, garbage, ok, refuse, reset, reset_sent, slow

LARGE = b"x" * 200_000


@pytest.fixture
def server() -> Iterator[Server]:
    def reply(asked: Asked) -> bytes:
        return answer(200, LARGE if asked.path == "/large" else b"small")

    with Server(reply) as found:
        yield found


@pytest.mark.parametrize("fault", [ok, delay(0.01), slow(20_000)], ids=lambda fault: str(fault.kind))
def test_a_slow_line_loses_nothing(server: Server, fault: Fault) -> None:
    with Line(server.port, fault) as line:
        assert httpx.get(line.url).content == b"small"
        assert line.connections == 1


@pytest.mark.parametrize("fault", [refuse, garbage, cut(100_000), reset(100_000)], ids=lambda fault: str(fault.kind))
def test_a_broken_line_breaks_the_answer(server: Server, fault: Fault) -> None:
    with Line(server.port, fault) as line, pytest.raises(httpx.HTTPError):
        httpx.get(f"{line.url}/large")


@pytest.mark.parametrize("fault", [cut_sent(50_000), reset_sent(50_000)], ids=lambda fault: str(fault.kind))
def test_a_line_that_breaks_on_the_way_there_shows_the_server_no_whole_request(server: Server, fault: Fault) -> None:
    with Line(server.port, fault) as line, pytest.raises(httpx.HTTPError):
        httpx.post(line.url, content=LARGE)
    assert not [asked for asked in server.asked if len(asked.body) == len(LARGE)]


def test_a_black_hole_answers_nothing(server: Server) -> None:
    with Line(server.port, blackhole) as line, pytest.raises(httpx.ReadTimeout):
        httpx.get(line.url, timeout=0.2)
    assert server.asked == []


def test_a_reset_is_one(server: Server) -> None:
    with Line(server.port, reset(0)) as line, socket.create_connection(("127.0.0.1", line.port)) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            connection.recv(1)


def test_faults_come_in_turn_and_the_last_one_stays(server: Server) -> None:
    with Line(server.port) as line:
        line.then(refuse, ok)
        with pytest.raises(httpx.HTTPError):
            httpx.get(line.url)
        assert [httpx.get(line.url).content for _ in range(2)] == [b"small", b"small"]
        assert line.connections == 3
