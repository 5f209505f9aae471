"""A webhook whose other side misbehaves, lies elsewhere, or whose sender is killed: nothing is lost, and a repetition can be told."""

import json
import multiprocessing
import os
import random
import socket
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from muxly_dagster.destinations.webhook import Webhook
from muxly_dagster.errors import ConfigurationError, MuxlyError, RetryLater
from muxly_dagster.http import Retries, guard
from muxly_dagster.testing import DestinationContract, delivery
from muxly_dagster_tests.destinations import posting
from muxly_dagster_tests.http.server import Asked, Server, answer
from muxly_dagster_tests.peers.certificate import Certificate

ROOT = Path(__file__).parents[2]
QUICK = Retries(attempts=4, base=0.001, cap=0.001)
ONCE = Retries(attempts=1)
KILLED = -9


def webhook(url: str, **fields: Any) -> Webhook:
    return Webhook(**{"url": url, "allow": ["127.0.0.1"], "retries": QUICK, **fields})


class TestBehindASignIn(DestinationContract):
    """Every promise again, with events, a signature, a token, several requests under way, and a receiver that breaks off."""

    keeps = "changes"
    columns = ("a_bool", "an_int", "a_float", "a_text")

    @pytest.fixture(autouse=True)
    def _receiver(self) -> Iterator[None]:
        self.taken: dict[str, dict[str, Any]] = {}
        self.cuts = 0
        with Server(self._reply) as self.server:
            yield

    def _reply(self, asked: Asked) -> bytes | list[bytes]:
        if asked.headers.get("authorization") != "Bearer the-right-token":
            return answer(401, f"not {asked.headers.get('authorization')}")
        if asked.method == "HEAD":
            return b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        if self.cuts and json.loads(asked.body)["data"]["id"] in (3, 5):
            self.cuts -= 1
            return [b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nhal", Server.cut]
        event = json.loads(asked.body)
        self.taken[event["id"]] = event["data"]
        return answer()

    def hook(self, token: str = "the-right-token", **fields: Any) -> Webhook:
        auth = {"kind": "bearer", "token": token}
        signing = {"signature": {"kind": "stripe"}, "secrets": ["a-signing-secret"]}
        return webhook(**{"url": f"{self.server.url}/in", "form": "cloudevents", "auth": auth, "concurrency": 4, **signing, **fields})

    @pytest.fixture
    def destination(self) -> Webhook:
        return self.hook()

    def stored(self, destination: Webhook) -> list[dict[str, Any]]:
        return [data for _, data in sorted(self.taken.items(), key=lambda item: int(item[0].rpartition(":")[2]))]

    def away(self) -> Webhook:
        return self.hook(url="http://127.0.0.1:1/in")

    def wrong(self) -> Webhook:
        return self.hook("the-wrong-token")

    def interrupted(self) -> Webhook:
        self.cuts = 2
        return self.hook(retries=ONCE)


# ---- receivers that misbehave -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        [Server.cut],
        [b"HTTP/1.1 200 OK\r\nContent-Le", Server.cut],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nhal", Server.cut],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", Server.cut],
        [b"\x16\x03\x01garbage\r\n\r\n", Server.cut],
        answer(500),
        answer(502, "<html>Bad gateway</html>"),
        answer(429, Retry_After="0"),
        answer(503, Retry_After="0.001"),
        answer(408),
        answer(425),
    ],
    ids=lambda fault: str(fault[0] if isinstance(fault, list) else fault)[2:26],
)
def test_a_fault_now_and_then_costs_attempts_and_nothing_else(fault: bytes | list[bytes]) -> None:
    tried: dict[str, int] = defaultdict(int)
    taken: list[int] = []
    lock = threading.Lock()

    def reply(asked: Asked) -> bytes | list[bytes]:
        record = json.loads(asked.body)
        assert record["id"] == asked.headers["idempotency-key"]
        with lock:
            tried[record["id"]] += 1
            if record["data"]["id"] % 3 == 0 and tried[record["id"]] < 3:
                return fault
            taken.append(record["data"]["id"])
        return answer()

    with Server(reply) as server:
        receipt = webhook(server.url, concurrency=6).deliver(delivery([{"id": n} for n in range(60)]))
    assert (receipt.accepted, receipt.refused, receipt.upto) == (60, (), None)
    assert sorted(taken) == list(range(60))
    assert receipt.detail["attempts"] == 100


def test_a_receiver_that_asks_for_a_pause_gets_it_from_every_request() -> None:
    limited = threading.Event()

    def reply(asked: Asked) -> bytes:
        if not limited.is_set():
            limited.set()
            return answer(429, Retry_After="0.2")
        return answer()

    with Server(reply) as server:
        receipt = webhook(server.url, concurrency=1).deliver(delivery([{"id": n} for n in range(5)]))
    assert receipt.accepted == 5
    first, second = (asked.at for asked in server.asked[:2])
    assert second - first >= 0.2  # the least it may be: a promise to the receiver, not a measurement


def test_nobody_listening_a_slow_answer_and_a_silent_one_are_passing_troubles() -> None:
    with pytest.raises(RetryLater, match="no connection"):
        webhook("http://127.0.0.1:1/").deliver(delivery([{"id": 1}]))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        with pytest.raises(RetryLater, match="in time"):
            webhook(url, timeout=0.1, retries=ONCE).deliver(delivery([{"id": 1}, {"id": 2}]))


def test_an_endless_answer_ends_and_confirms_nothing() -> None:
    with (
        Server(lambda asked: [answer(200, Content_Length="999999999999"), b"x" * 100_000, Server.cut]) as server,
        pytest.raises(MuxlyError),
    ):
        webhook(server.url, retries=ONCE).deliver(delivery([{"id": 1}]))


# ---- addresses ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1", "0177.0.0.1", "127.1", "127.0.0.%31"]
)
def test_this_machine_is_not_sent_to_unless_that_is_allowed(host: str) -> None:
    with Server(lambda asked: answer()) as server:
        hook = Webhook(url=f"http://{host}:{server.port}/hook-with-a-long-secret", retries=QUICK)
        with pytest.raises(ConfigurationError) as caught:
            hook.deliver(delivery([{"id": 1}]))
        result = hook.check()
        assert server.asked == [] and server.connections == 0
    assert (result.status, bool(result.do)) == ("failed", True)
    assert "hook-with-a-long-secret" not in f"{caught.value}{result}"


def test_a_name_that_leads_inside_is_refused_and_one_that_is_allowed_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "_resolved", lambda host, port: ["127.0.0.1"])
    with Server(lambda asked: answer(200, asked.headers["host"])) as server:
        url = f"http://hook.internal.test:{server.port}/in"
        with pytest.raises(ConfigurationError, match="which is 127.0.0.1"):
            Webhook(url=url).deliver(delivery([{"id": 1}]))
        for allowed in ({"allow": ["127.0.0.0/8"]}, {"allow": ["*.internal.test"]}):
            assert Webhook(url=url, **allowed).deliver(delivery([{"id": 1}])).accepted == 1
    assert {asked.headers["host"] for asked in server.asked} == {f"hook.internal.test:{server.port}"}


def test_a_name_that_changes_its_meaning_is_only_connected_to_where_it_was_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    meanings = iter([["127.0.0.1"], ["127.0.0.2"], ["127.0.0.2"]])
    monkeypatch.setattr(guard, "_resolved", lambda host, port: next(meanings))
    with Server(lambda asked: answer()) as server:
        hook = webhook(f"http://rebound.test:{server.port}/in")
        assert hook.deliver(delivery([{"id": n} for n in range(100)])).accepted == 100
        assert len(server.asked) == 100
        with pytest.raises(ConfigurationError, match="which is 127.0.0.2"):
            hook.deliver(delivery([{"id": 1}], after=100))
    assert len(server.asked) == 100


SEND = """
import sys
from muxly_dagster.destinations.webhook import Webhook
from muxly_dagster.errors import MuxlyError
from muxly_dagster.http import Retries, guard, transport
from muxly_dagster.testing import delivery
guard._resolved = lambda host, port: ["127.0.0.1"]
transport.HAS_PYREQWEST = sys.argv[2] == "pyreqwest"
try:
    hook = Webhook(url=sys.argv[1], allow=["127.0.0.1"], retries=Retries(attempts=2, base=0.001))
    print(hook.deliver(delivery([{"id": 1}, {"id": 2}])).accepted)
except MuxlyError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize("over", ["pyreqwest", "httpx"])
def test_a_pinned_address_is_still_held_to_the_name_in_its_certificate(tmp_path: Path, over: str) -> None:
    certificate = Certificate.made(tmp_path, "hook.test")
    names: list[str | None] = []
    context = certificate.context
    context.sni_callback = lambda connection, name, _: names.append(name)  # type: ignore[assignment]
    with Server(lambda asked: answer()) as server:
        server._server.socket = context.wrap_socket(server._server.socket, server_side=True, do_handshake_on_connect=False)
        told = {}
        for host in ("hook.test", "other.test"):
            command = [sys.executable, "-c", SEND, f"https://{host}:{server.port}/in", over]
            environ = {**os.environ, "SSL_CERT_FILE": str(certificate.cert), "PYTHONPATH": str(ROOT)}
            ran = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120, check=False)
            told[host] = ran.stdout + ran.stderr
        assert [asked.headers["host"] for asked in server.asked] == [f"hook.test:{server.port}"] * 2
    assert told["hook.test"] == "2\n"
    assert told["other.test"].startswith("ConfigurationError") and "certificate" in told["other.test"]
    assert set(names) == {"hook.test", "other.test"}


# ---- a sender that is killed ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 7])
def test_killed_at_any_moment_nothing_is_lost_and_what_comes_twice_has_the_same_id(tmp_path: Path, batch: int) -> None:
    processes = multiprocessing.get_context("forkserver")
    count, moments = 400, random.Random(batch)
    came: list[dict[str, Any]] = []
    lock = threading.Lock()
    deadly: dict[str, Any] = {"after": None, "process": None}

    def reply(asked: Asked) -> bytes:
        body = json.loads(asked.body)
        with lock:
            came.extend(body["records"] if batch > 1 else [body])
            if deadly["after"] is not None and len(came) >= deadly["after"]:
                deadly["after"] = None
                deadly["process"].kill()
        return answer()

    killed = 0
    with Server(reply) as server:
        for run in range(12):
            process = processes.Process(target=posting.run, args=(tmp_path, server.url, batch, count))
            with lock:
                # The last runs are left alone, so that the test ends.
                deadly.update(after=len(came) + moments.randint(1, 90) if run < 6 else None, process=process)
                process.start()
            process.join(120)
            if process.exitcode == 0:
                break
            assert process.exitcode == KILLED
            killed += 1
    assert killed >= 3
    assert posting.accepted(tmp_path) == count
    bodies: dict[str, set[str]] = defaultdict(set)
    for record in came:
        bodies[record["id"]].add(json.dumps(record["data"], sort_keys=True))
    assert len(bodies) == count and all(len(versions) == 1 for versions in bodies.values())
    assert {json.loads(next(iter(versions)))["id"] for versions in bodies.values()} == set(range(count))
    assert len(came) - count <= killed * 40  # at most a delivery's worth is sent again each time
