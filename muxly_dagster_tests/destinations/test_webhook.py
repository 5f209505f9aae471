"""Records reach a real HTTP server once it wants them, and every one of them is answered for."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from pydantic import ValidationError

from muxly_dagster.auth import ApiKey, Bearer
from muxly_dagster.destinations.webhook import Webhook
from muxly_dagster.errors import ConfigurationError, RetryLater, SignInError
from muxly_dagster.http import Retries
from muxly_dagster.testing import EVERY_TYPE, DestinationContract, delivery
from muxly_dagster_tests.peers.oauth import AuthorizationServer

IMPATIENT = Retries(attempts=2, base=0.001, cap=0.001)


def webhook(**fields: Any) -> Webhook:
    """A destination from fields as they stand in muxly.yaml, that may send to this machine."""
    return Webhook(**{"allow_private": True, **fields})


@dataclass
class Hook:
    """A receiver: remembers what came and what it answered, once per idempotency key."""

    url: str = ""
    answer: Callable[[Any], int | tuple[int, str] | bytes] = lambda body: 200
    came: list[tuple[dict[str, str], Any]] = field(default_factory=list)
    taken: dict[str, Any] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def bodies(self) -> list[Any]:
        return [body for _, body in self.came]


@pytest.fixture
def hook() -> Iterator[Hook]:
    hook = Hook()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _take(self) -> None:
            text = self.rfile.read(int(self.headers.get("content-length", 0)))
            body = json.loads(text) if text else None
            with hook.lock:
                answer = hook.answer(body)
                hook.came.append(({"method": self.command, **{k.lower(): v for k, v in self.headers.items()}}, body))
                if answer == 200 and body is not None:
                    hook.taken[self.headers["Idempotency-Key"]] = body
            if isinstance(answer, bytes):
                self.wfile.write(answer)
                self.close_connection = True
                return
            status, said = answer if isinstance(answer, tuple) else (answer, "")
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("location", "http://127.0.0.1:1/elsewhere")
            self.send_header("content-length", str(len(said)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(said.encode())

        do_POST = do_PUT = do_HEAD = _take

        def log_message(self, *_: object) -> None:
            """Nothing is logged."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    hook.url = f"http://127.0.0.1:{server.server_port}/hooks/T0001-a-long-secret"
    yield hook
    server.shutdown()
    server.server_close()
    thread.join()


def ids(body: Any) -> list[int]:
    return [record["data"]["id"] for record in body.get("records", [body])]


def refusing(*bad: int, status: int = 422) -> Callable[[Any], int | tuple[int, str]]:
    return lambda body: (status, "no such deal") if body is not None and set(bad) & set(ids(body)) else 200


class TestSingle(DestinationContract):
    keeps = "changes"
    columns = tuple(name for name in EVERY_TYPE if name not in ("a_decimal", "some_bytes", "a_date", "a_time"))

    @pytest.fixture
    def destination(self, hook: Hook) -> Iterator[Webhook]:
        self.hook = hook
        yield webhook(url=hook.url, concurrency=1)

    def stored(self, destination: Webhook) -> list[dict[str, Any]]:
        return [body["data"] for body in self.hook.taken.values()]

    def away(self) -> Webhook:
        return webhook(url="http://127.0.0.1:1/hook", retries=IMPATIENT)


class TestBatches(TestSingle):
    """A receiver of batches must look into them: what a repeat that has grown holds is its own to compare."""

    @pytest.fixture
    def destination(self, hook: Hook) -> Iterator[Webhook]:
        self.hook = hook
        yield webhook(url=hook.url, concurrency=1, batch=10)

    def stored(self, destination: Webhook) -> list[dict[str, Any]]:
        records = {r["id"]: r["data"] for body in self.hook.taken.values() for r in body["records"]}
        return list(records.values())


def test_a_record_is_sent_in_the_record_form_with_its_id(hook: Hook) -> None:
    webhook(url=hook.url).deliver(delivery([{"id": 7, "tags": ["a"]}], after=41))
    ((headers, body),) = hook.came
    assert (headers["method"], headers["content-type"]) == ("POST", "application/json")
    assert headers["idempotency-key"] == headers["webhook-id"] == body["id"] == "crm.deals:0b8e1f9c:42"
    assert (body["op"], body["key"], body["data"]) == ("upsert", "7", {"id": 7, "tags": ["a"]})


def test_a_batch_is_sent_as_a_list_with_an_id_of_its_own(hook: Hook) -> None:
    receipt = webhook(url=hook.url, batch=2, concurrency=1).deliver(delivery([{"id": n} for n in range(5)]))
    assert receipt.accepted == 5
    assert [ids(body) for body in hook.bodies] == [[0, 1], [2, 3], [4]]
    assert [h["idempotency-key"].rpartition(":")[2] for h, _ in hook.came] == ["1-2", "3-4", "5-5"]
    assert all(h["idempotency-key"].startswith("big_deals.warehouse:0b8e1f9c:") for h, _ in hook.came)


def test_a_batch_can_be_a_bare_list(hook: Hook) -> None:
    webhook(url=hook.url, batch=2, wrap="").deliver(delivery([{"id": 1}]))
    assert [r["data"] for r in hook.bodies[0]] == [{"id": 1}]


def test_method_headers_and_sign_in_are_as_configured(hook: Hook) -> None:
    webhook(url=hook.url, method="PUT", headers={"X-Team": "sales"}, auth=Bearer(token="t0ken")).deliver(delivery([{"id": 1}]))
    webhook(url=hook.url, auth=ApiKey(key="k3y", name="X-Key")).deliver(delivery([{"id": 1}]))
    (first, _), (second, _) = hook.came
    assert (first["method"], first["x-team"], first["authorization"]) == ("PUT", "sales", "Bearer t0ken")
    assert second["x-key"] == "k3y"


def test_many_records_arrive_over_several_connections_and_are_all_counted(hook: Hook) -> None:
    receipt = webhook(url=hook.url, concurrency=8).deliver(delivery([{"id": n} for n in range(1_500)]))
    assert receipt.accepted == 1_500
    assert sorted(ids(body)[0] for body in hook.bodies) == list(range(1_500))


def test_a_refused_record_is_named_with_the_answer_and_the_rest_goes_on(hook: Hook) -> None:
    hook.answer = refusing(2)
    receipt = webhook(url=hook.url).deliver(delivery([{"id": n} for n in (1, 2, 3)]))
    assert (receipt.accepted, receipt.upto, receipt.retry) == (2, None, None)
    assert [(r.seq, r.reason) for r in receipt.refused] == [(2, "422 Unprocessable Entity: no such deal")]


@pytest.mark.parametrize("bad", [(0,), (9,), (3, 4), (0, 5, 9), tuple(range(10))])
def test_the_records_at_fault_in_a_refused_batch_are_found_and_no_other_is_sent_twice(hook: Hook, bad: tuple[int, ...]) -> None:
    hook.answer = refusing(*bad)
    receipt = webhook(url=hook.url, batch=4, concurrency=3).deliver(delivery([{"id": n} for n in range(10)]))
    assert [r.seq - 1 for r in receipt.refused] == list(bad)
    assert receipt.accepted == 10 - len(bad)
    assert sorted(i for body in hook.taken.values() for i in ids(body)) == [n for n in range(10) if n not in bad]


def test_a_passing_trouble_is_waited_out(hook: Hook) -> None:
    troubles = [503, 500, 429]
    hook.answer = lambda body: troubles.pop() if troubles else 200
    retries = Retries(attempts=4, base=0.001, cap=0.001)
    assert webhook(url=hook.url, concurrency=1, retries=retries).deliver(delivery([{"id": 1}])).accepted == 1
    assert len({h["idempotency-key"] for h, _ in hook.came}) == 1
    assert len(hook.came) == 4


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_trouble_that_stays_confirms_what_came_before_it(hook: Hook, status: int) -> None:
    hook.answer = lambda body: status if ids(body) == [3] else 200
    target = webhook(url=hook.url, retries=IMPATIENT)
    receipt = target.deliver(delivery([{"id": n} for n in (1, 2, 3, 4)]))
    assert (receipt.accepted, receipt.upto, set(receipt.ahead)) == (2, 2, {4})
    assert isinstance(receipt.retry, RetryLater)
    with pytest.raises(RetryLater):
        target.deliver(delivery([{"id": 3}], after=2, upto=4))
    hook.answer = lambda body: 200
    assert target.deliver(delivery([{"id": 3}], after=2, upto=4)).accepted == 1


def test_a_trouble_in_the_middle_of_a_refused_batch_confirms_what_is_settled(hook: Hook) -> None:
    hook.answer = lambda body: 503 if ids(body) == [3] else 422 if set(ids(body)) & {2, 3} else 200
    receipt = webhook(url=hook.url, batch=4, retries=IMPATIENT).deliver(delivery([{"id": n} for n in (1, 2, 3, 4)]))
    assert (receipt.accepted, [r.seq for r in receipt.refused], receipt.upto) == (1, [2], 2)
    assert receipt.retry is not None


def test_a_receiver_that_asks_for_patience_is_told_on(hook: Hook) -> None:
    hook.answer = lambda body: b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 3600\r\ncontent-length: 0\r\n\r\n"
    with pytest.raises(RetryLater) as caught:
        webhook(url=hook.url, retries=IMPATIENT).deliver(delivery([{"id": 1}]))
    assert caught.value.after == 3600


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_sign_in_stops_everything_and_refuses_no_record(hook: Hook, status: int) -> None:
    hook.answer = lambda body: status
    with pytest.raises(SignInError):
        webhook(url=hook.url).deliver(delivery([{"id": 1}, {"id": 2}]))


def test_a_receiver_may_want_tokens_that_run_out() -> None:
    with AuthorizationServer() as server:
        auth = {"kind": "oauth2", "client_id": server.client_id, "client_secret": server.client_secret, "token_url": server.token_url}
        target = webhook(url=f"{server.url}/hook", auth=auth)
        assert target.deliver(delivery([{"id": 1}])).accepted == 1
        server.forget_tokens()
        assert target.deliver(delivery([{"id": 2}], after=1)).accepted == 1
    assert len(server.forms) == 2


def test_a_sign_in_that_ends_in_the_middle_confirms_what_came_before_it(hook: Hook) -> None:
    hook.answer = lambda body: 401 if body["data"]["id"] > 2 else 200
    target = webhook(url=hook.url)
    receipt = target.deliver(delivery([{"id": n} for n in (1, 2, 3)]))
    assert (receipt.accepted, receipt.upto, receipt.retry) == (2, 2, None)
    with pytest.raises(SignInError):
        target.deliver(delivery([{"id": 3}], after=2))


def test_a_wrong_address_does_not_fill_the_dead_letters(hook: Hook) -> None:
    hook.answer = lambda body: 404
    with pytest.raises(ConfigurationError, match="nothing takes records at this address"):
        webhook(url=hook.url).deliver(delivery([{"id": n} for n in range(500)]))
    assert len(hook.came) < 100


def test_a_404_for_one_record_is_about_that_record(hook: Hook) -> None:
    hook.answer = refusing(2, status=404)
    receipt = webhook(url=hook.url).deliver(delivery([{"id": 1}, {"id": 2}]))
    assert [r.seq for r in receipt.refused] == [2]


def test_a_redirect_is_not_followed_with_records_in_hand(hook: Hook) -> None:
    hook.answer = lambda body: 302
    with pytest.raises(ConfigurationError, match="has moved"):
        webhook(url=hook.url).deliver(delivery([{"id": 1}]))


@pytest.mark.parametrize("garbage", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nhal", b"SSH-2.0-OpenSSH_9.6\r\n"])
def test_garbage_for_an_answer_confirms_nothing(hook: Hook, garbage: bytes) -> None:
    hook.answer = lambda body: garbage
    with pytest.raises((RetryLater, ConfigurationError)):
        webhook(url=hook.url, retries=IMPATIENT).deliver(delivery([{"id": 1}]))


def test_a_receiver_that_never_answers_is_left_after_the_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(RetryLater):
            webhook(url=f"http://127.0.0.1:{port}/hook", timeout=0.1, retries=Retries(attempts=1)).deliver(delivery([{"id": 1}]))


def test_checking_sends_no_record(hook: Hook) -> None:
    check = webhook(url=hook.url).check()
    assert (check.status, check.what) == ("ok", "answered 200 OK; no record was sent")
    assert [h["method"] for h, _ in hook.came] == ["HEAD"]
    hook.answer = lambda body: 405
    assert webhook(url=hook.url).check().status == "ok"
    hook.answer = lambda body: 401
    assert webhook(url=hook.url).check().status == "failed"


def test_a_secret_in_the_address_or_a_header_is_shown_to_nobody(hook: Hook, caplog: pytest.LogCaptureFixture) -> None:
    hook.answer = lambda body: (503, "T0001-a-long-secret 0123456789abcdef")
    target = webhook(url=hook.url, headers={"X-Token": "0123456789abcdef"}, retries=IMPATIENT)
    with caplog.at_level("DEBUG"), pytest.raises(RetryLater) as caught:
        target.deliver(delivery([{"id": 1}]))
    check = target.check()
    shown = f"{caught.value} {caught.value!r} {target!r} {target.public_name('x')} {check} {target.model_dump_json()} {caplog.text}"
    assert "a-long-secret" not in shown
    assert "0123456789abcdef" not in shown


@pytest.mark.parametrize("url", ["ftp://hunter2@example.com/x", "hunter2", "https://"])
def test_an_address_that_is_none_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ValidationError, match="must start with https") as caught:
        webhook(url=url)
    assert "hunter2" not in str(caught.value)
