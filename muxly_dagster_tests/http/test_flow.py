"""Requests that one thread has under way: every promise of a single request holds for each of them."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from muxly_dagster.errors import ConfigurationError, RetryLater, SignInError, SourceError
from muxly_dagster.http import Http, Limit, Outcome, Request, Retries, sign_in
from muxly_dagster.http.outgoing import Outgoing
from muxly_dagster_tests.http.server import Asked, Server, answer
from muxly_dagster_tests.peers.oauth import AuthorizationServer

pytestmark = pytest.mark.usefixtures("over")

QUICK = Retries(attempts=4, base=0.001, cap=0.001)


def posts(count: int) -> Iterable[Request]:
    return [Request("POST", f"/{n}", content=b"x", tag=n, idempotent=True) for n in range(count)]


class Listed:
    """Gives requests in their order, and keeps what becomes of them."""

    def __init__(self, requests: Iterable[Request]) -> None:
        self._left = iter(requests)
        self.outcomes: dict[object, Outcome] = {}
        self.threads: set[int] = set()

    def next(self) -> Request | None:
        self.threads.add(threading.get_ident())
        return next(self._left, None)

    def take(self, outcome: Outcome) -> None:
        self.threads.add(threading.get_ident())
        self.outcomes[outcome.request.tag] = outcome


def test_every_request_is_answered_by_its_own_answer_and_the_source_sees_one_thread() -> None:
    source = Listed(posts(300))
    with Server(lambda asked: answer(200, asked.path)) as server, Http(server.url) as http:
        http.flow(source, 20)
    assert {tag: outcome.response.content for tag, outcome in source.outcomes.items() if outcome.response} == {
        n: f"/{n}".encode() for n in range(300)
    }
    assert len(source.threads) == 1 and threading.get_ident() not in source.threads
    assert all(outcome.course.statuses == [200] and outcome.course.seconds > 0 for outcome in source.outcomes.values())


def test_no_more_than_so_many_are_under_way_and_so_many_are() -> None:
    gate = threading.Barrier(7)

    def reply(asked: Asked) -> bytes:
        gate.wait(30)
        return answer()

    with Server(reply) as server, Http(server.url) as http:
        http.flow(Listed(posts(70)), 7)
    assert server.most_at_once == 7


def test_troubles_are_waited_out_one_by_one_and_told_where_they_stay() -> None:
    seen: dict[str, int] = {}
    lock = threading.Lock()

    def reply(asked: Asked) -> bytes | list[bytes]:
        with lock:
            seen[asked.path] = times = seen.get(asked.path, 0) + 1
        number = int(asked.path[1:])
        if number % 4 == 0 and times < 3:
            return answer(503) if times == 1 else [Server.cut]
        return answer({1: 404, 2: 500, 3: 401}.get(number, 200))

    source = Listed(posts(40))
    with Server(reply) as server, Http(server.url, retries=QUICK) as http:
        http.flow(source, 10)
    errors = {tag: type(outcome.error) for tag, outcome in source.outcomes.items() if outcome.error}
    assert errors == {1: SourceError, 2: RetryLater, 3: SignInError}
    assert source.outcomes[8].course.statuses == [503, 0, 200]
    assert source.outcomes[2].course.statuses == [500] * 4
    assert len(source.outcomes) == 40


def test_a_request_that_cannot_be_sent_is_told_like_any_other() -> None:
    source = Listed([Request("POST", "http://elsewhere.example/", tag="a"), Request("POST", "/", headers={"X": "a\nb"}, tag="b")])
    with Server(lambda asked: answer()) as server, Http(server.url) as http:
        http.flow(source, 4)
        assert server.asked == []
    assert {tag: type(outcome.error) for tag, outcome in source.outcomes.items()} == {"a": SourceError, "b": ConfigurationError}


def test_credentials_are_renewed_once_for_all() -> None:
    with AuthorizationServer() as server:
        auth = {"kind": "oauth2", "client_id": server.client_id, "client_secret": server.client_secret, "token_url": server.token_url}
        from pydantic import TypeAdapter

        from muxly_dagster.auth import Auth

        source = sign_in(TypeAdapter(Auth).validate_python(auth))
        first, second = Listed(posts(50)), Listed(posts(50))
        with Http(server.url, auth=source) as http:
            http.flow(first, 8)
            server.forget_tokens()
            http.flow(second, 8)
    for listed in (first, second):
        assert [outcome.response.status for outcome in listed.outcomes.values() if outcome.response] == [200] * 50
    assert len(server.forms) == 2


def test_every_attempt_is_signed_anew() -> None:
    numbers = iter(range(1, 100))

    def signer(asked: Outgoing) -> dict[str, str]:
        return {"X-Number": str(next(numbers)), "X-Of": asked.address}

    statuses = iter([503, 500, 200])
    with Server(lambda asked: answer(next(statuses))) as server, Http(server.url, retries=QUICK, signer=signer) as http:
        http.flow(Listed(posts(1)), 1)
    assert [asked.headers["x-number"] for asked in server.asked] == ["1", "2", "3"]
    assert {asked.headers["x-of"] for asked in server.asked} == {f"{server.url}/0"}


def test_limits_hold_here_too() -> None:
    source = Listed(posts(12))
    with Server(lambda asked: answer()) as server, Http(server.url, limits=[Limit(concurrency=2)]) as http:
        http.flow(source, 8)
    assert len(source.outcomes) == 12
    assert server.most_at_once <= 2


def test_what_the_source_raises_ends_everything() -> None:
    class Broken(Listed):
        def take(self, outcome: Outcome) -> None:
            raise LookupError("lost the book")

    with Server(lambda asked: answer()) as server, Http(server.url) as http, pytest.raises(LookupError, match="lost the book"):
        http.flow(Broken(posts(50)), 5)
    assert server.running == 0


def test_closing_the_client_ends_what_waits() -> None:
    patient = Retries(attempts=9, base=1000, cap=1000, budget_seconds=10_000)
    reached = threading.Barrier(4)

    def reply(asked: Asked) -> bytes:
        reached.wait(30)
        return answer(503)

    source = Listed(posts(3))
    with Server(reply) as server:
        http = Http(server.url, retries=patient)
        with ThreadPoolExecutor() as threads:
            running = threads.submit(http.flow, source, 3)
            reached.wait(30)
            http.close()
            with suppress(RetryLater):  # it says so where nobody else was told
                running.result(30)
    assert all("stopped" in str(outcome.error) for outcome in source.outcomes.values())


def test_flows_run_in_threads_that_come_and_go() -> None:
    """pyreqwest once crashed the process when the thread that first used it had ended."""
    with Server(lambda asked: answer()) as server:
        for _ in range(4):
            source = Listed(posts(20))

            def run(source: Listed = source) -> None:
                with Http(server.url) as http:
                    http.flow(source, 4)

            thread = threading.Thread(target=run)
            thread.start()
            thread.join()
            assert len(source.outcomes) == 20


INTERRUPTED = """
import sys
from muxly_dagster.http import Http, Request, transport
transport.HAS_PYREQWEST = sys.argv[2] == "pyreqwest"
class Source:
    left = [Request("POST", "/", content=b"x") for _ in range(4)]
    def next(self):
        return self.left.pop() if self.left else None
    def take(self, outcome):
        pass
try:
    with Http(sys.argv[1]) as http:
        http.flow(Source(), 4)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_an_interrupt_does_not_wait_for_slow_answers(over: str) -> None:
    if over == "httpx":
        pytest.skip("httpx cannot end an answer that another thread waits for")
    came, never = threading.Barrier(5), threading.Event()

    def reply(asked: Asked) -> bytes:
        came.wait(60)
        never.wait(60)
        return answer()

    with Server(reply) as server:
        command = [sys.executable, "-c", INTERRUPTED, server.url, over]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ})
        came.wait(60)
        child.send_signal(signal.SIGINT)
        told, _ = child.communicate(timeout=50)
        never.set()
    assert told == "interrupted\n"
