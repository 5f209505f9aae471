"""POST /v1/collect, against a real server on SQLite and on Postgres: what is sent, what is answered, and what the inbox holds then."""

import gzip
import json
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cramjam
import httpx
import pytest

from muxly_dagster_tests.api.collector import Collector, collecting
from muxly_dagster_tests.peers import postgres as postgres_peer
from muxly_dagster_tests.peers.prometheus import until

PROJECT = """
sources:
  app:
    connector: collector
    pulls:
      signups: {}
      visits: {stream: views, id: eventId}
      samples: {id: ""}
      strict: {json_schema: {required: [plan], properties: {plan: {enum: [free, pro]}}}}
"""
NDJSON = {"content-type": "application/x-ndjson"}


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    folder = tmp_path_factory.mktemp("collect")
    limits = {
        "MUXLY_COLLECT_BODY": "100kB",
        "MUXLY_COLLECT_ITEMS": "300",
        "MUXLY_COLLECT_EVENT": "20kB",
        "MUXLY_COLLECT_DEPTH": "10",
    }
    if request.param == "sqlite":
        with collecting(folder, limits, PROJECT, guarded=False) as found:
            yield found
        return
    with (
        postgres_peer.fresh_database(request.getfixturevalue("postgres_url")) as url,
        collecting(folder, {"MUXLY_DATABASE_URL": url, **limits}, PROJECT, guarded=False) as found,
    ):
        yield found


@pytest.fixture
def client(server: Collector) -> Iterator[httpx.Client]:
    """An inbox in which nothing waits, and a client of its server."""
    for stream in server.service.state.inbox.waiting("app"):
        server.service.state.inbox.let_go("app", stream, 1 << 60)
    with httpx.Client(base_url=f"{server.url}/v1/collect/app", timeout=60) as found:
        yield found


def new() -> str:
    """An id that no other test has sent."""
    return uuid.uuid4().hex


def lines(server: Collector, stream: str = "signups") -> list[bytes]:
    """What waits, as it is kept."""
    return [line for parcel in server.service.state.inbox.parcels("app", stream, 0, 1 << 30) for line in parcel.body.split(b"\n")]


def counts(answer: httpx.Response) -> tuple[int, int, int, int]:
    """Accepted, duplicate, rejected, quarantined."""
    said = answer.json()
    return said["accepted"], said["duplicate"], said["rejected"], said["quarantined"]


def test_an_event_is_durable_once_it_is_acknowledged_and_stays_as_it_came(server: Collector, client: httpx.Client) -> None:
    event = b'{"id": "%s", "big": 12345678901234567890, "price": 1.10, "text": "\xc3\xa4"}' % new().encode()
    answer = client.post("/signups", content=event)
    assert (answer.status_code, answer.json()) == (202, {"accepted": 1, "duplicate": 0, "rejected": 0, "quarantined": 0})
    assert answer.headers["content-type"] == "application/json" and answer.headers["x-request-id"]
    assert lines(server) == [event]
    assert server.ids("app", "signups") == [json.loads(event)["id"]]


def zstd(body: bytes) -> bytes:
    return bytes(cramjam.zstd.compress(body))


@pytest.mark.parametrize(("coding", "compress"), [("identity", bytes), ("gzip", gzip.compress), ("zstd", zstd)])
@pytest.mark.parametrize("form", ["array", "lines"])
def test_many_events_come_in_one_request(
    server: Collector, client: httpx.Client, coding: str, compress: Callable[[bytes], bytes], form: str
) -> None:
    ids = [new() for _ in range(100)]
    texts = [f'{{"id":"{id}"}}' for id in ids]
    body = f"[{','.join(texts)}]" if form == "array" else "\n".join(texts)
    headers = {"content-encoding": coding} | (NDJSON if form == "lines" else {})
    assert counts(client.post("/signups", content=compress(body.encode()), headers=headers)) == (100, 0, 0, 0)
    assert server.ids("app", "signups") == ids and lines(server) == [text.encode() for text in texts]


def test_the_receipt_tells_each_kind_of_item(server: Collector, client: httpx.Client) -> None:
    known, fresh = new(), new()
    client.post("/signups", json={"id": known})
    answer = client.post("/signups", json=[{"id": known}, 7, {"id": fresh}, {"id": fresh}, {"x": 1}])
    assert (answer.status_code, counts(answer)) == (202, (2, 2, 1, 0))
    assert answer.json()["errors"] == [{"index": 1, "reason": "is no JSON object"}]
    assert server.ids("app", "signups")[:2] == [known, fresh] and len(server.ids("app", "signups")) == 3


def test_the_ids_are_named_if_asked_for(client: httpx.Client, server: Collector) -> None:
    given = new()
    said = client.post("/signups?ids=true", json=[{"id": given}, {"x": 1}]).json()["ids"]
    assert said[0] == given and said == server.ids("app", "signups")


def test_where_nothing_can_be_taken_every_reason_is_told(server: Collector, client: httpx.Client) -> None:
    answer = client.post("/signups", content=b"1\n[]\n", headers=NDJSON)
    assert answer.status_code == 400 and answer.headers["content-type"] == "application/problem+json"
    assert [error["index"] for error in answer.json()["errors"]] == [0, 1]
    many = client.post("/signups", content=b"1\n" * 200, headers=NDJSON)
    assert len(many.json()["errors"]) == 100 and "none of the 200 items" in many.json()["detail"]
    assert client.post("/signups", content=b"").status_code == 400
    assert counts(client.post("/signups", json=[])) == (0, 0, 0, 0)
    assert lines(server) == []


def test_the_field_of_the_id_is_the_streams_own(server: Collector, client: httpx.Client) -> None:
    event = {"id": "always", "eventId": new()}
    assert counts(client.post("/views", json=[event, event])) == (1, 1, 0, 0)
    assert counts(client.post("/samples", json=[event, event])) == (2, 0, 0, 0)
    assert server.ids("app", "views") == [event["eventId"]]
    assert len(set(server.ids("app", "samples"))) == 2
    assert client.post("/visits", json=event).status_code == 404  # a pull's name is not its stream's


def test_a_repeated_request_is_answered_as_before(server: Collector, client: httpx.Client) -> None:
    key, body = new(), {"text": "an event without an id"}
    first = client.post("/signups", json=body, headers={"idempotency-key": key})
    again = client.post("/signups", json=body, headers={"idempotency-key": f'"{key}"'})
    zipped = {"idempotency-key": key, "content-encoding": "gzip"}
    differently = client.post("/signups", content=gzip.compress(first.request.content), headers=zipped)
    assert first.json() == again.json() == differently.json() and first.status_code == again.status_code == 202
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == differently.headers["idempotent-replayed"] == "true"
    other = client.post("/signups", json={"text": "another"}, headers={"idempotency-key": key})
    assert other.status_code == 422 and "Idempotency-Key" in other.json()["detail"]
    assert counts(client.post("/views", json=body, headers={"idempotency-key": key})) == (1, 0, 0, 0)
    assert len(lines(server)) == 1


@pytest.mark.parametrize("key", ["", '""', "x" * 256, "a\tb"])
def test_an_idempotency_key_that_is_none_is_refused(client: httpx.Client, key: str) -> None:
    answer = client.post("/signups", json={}, headers={"idempotency-key": key})
    assert (answer.status_code, answer.json()["title"]) == (400, "The Idempotency-Key is not one")


def test_cloudevents_are_known_by_their_headers(server: Collector, client: httpx.Client) -> None:
    headers = {"ce-specversion": "1.0", "ce-id": new(), "ce-source": "/shop", "ce-type": "order.paid"}
    assert counts(client.post("/signups", json={"total": 9.5}, headers=headers)) == (1, 0, 0, 0)
    assert counts(client.post("/signups", json={"total": 9.5}, headers=headers)) == (0, 1, 0, 0)
    [event] = server.events("app", "signups")
    assert (event["ce_type"], event["total"]) == ("order.paid", 9.5)


def test_what_is_against_the_schema_goes_to_quarantine(server: Collector, client: httpx.Client) -> None:
    answer = client.post("/strict", json=[{"plan": "pro"}, {"plan": "gold"}, 5, {}])
    assert (answer.status_code, counts(answer)) == (202, (1, 0, 1, 2))
    assert [error["index"] for error in answer.json()["errors"]] == [1, 2, 3]
    assert client.post("/strict", json={}).status_code == 202
    first, second = server.service.state.inbox.parcels("app", "strict", 0, 1 << 30)
    assert [json.loads(text) for text, _ in first.refused + second.refused] == [{"plan": "gold"}, {}, {}]
    assert "plan" in first.refused[0][1]


def test_a_stream_that_nobody_reads_says_what_to_add(client: httpx.Client, server: Collector) -> None:
    answer = client.post("/singups", json={})
    assert answer.status_code == 404 and "`singups: {}`" in answer.json()["do"]
    other = httpx.post(f"{server.url}/v1/collect/shop/orders", json={})
    assert other.status_code == 404 and "shop" in other.json()["detail"]


# ---- waiting -----------------------------------------------------------------------------------------------------------


def test_a_sender_may_wait_until_its_events_are_in_the_lake(server: Collector, client: httpx.Client) -> None:
    answers: list[httpx.Response] = []
    event = {"id": new()}
    waiting = threading.Thread(target=lambda: answers.append(client.post("/signups?wait=stored&timeout=60", json=event)))
    waiting.start()
    until(lambda: server.ids("app", "signups"), "the event")
    assert not answers
    server.service.runtime.run("app.signups")
    waiting.join()
    assert (answers[0].status_code, answers[0].json()["stored"]) == (200, True)
    again = client.post("/signups?wait=stored", json=event)
    assert (again.status_code, again.json()["duplicate"], again.json()["stored"]) == (200, 1, True)


def test_a_sender_does_not_wait_for_longer_than_it_said(client: httpx.Client) -> None:
    event, key = {"id": new()}, {"idempotency-key": new()}
    for _ in range(2):  # the second time as a repetition
        answer = client.post("/signups?wait=stored&timeout=0.05", json=event, headers=key)
        assert (answer.status_code, answer.json()["stored"], answer.json()["accepted"]) == (202, False, 1)
    answer = client.post("/signups?wait=stored&timeout=0", json=event)
    assert (answer.status_code, answer.json()["stored"], answer.json()["duplicate"]) == (202, False, 1)


@pytest.mark.parametrize("query", ["wait=delivered", "wait=stored&timeout=soon", "wait=stored&timeout=-1", "wait=stored&timeout=nan"])
def test_what_cannot_be_waited_for_is_refused_before_anything_is_stored(server: Collector, client: httpx.Client, query: str) -> None:
    assert client.post(f"/signups?{query}", json={}).status_code == 400
    assert lines(server) == []


# ---- limits and rubbish --------------------------------------------------------------------------------------------------


class Pieces:
    """A body whose length is not said."""

    def __iter__(self) -> Iterator[bytes]:
        yield from [b"x" * 10_000] * 20


PIECES = Pieces()


@pytest.mark.parametrize(
    ("sent", "limit"),
    [
        ({"content": b'{"x":"' + b"x" * 100_000 + b'"}'}, "100,000 bytes"),
        ({"content": PIECES}, "100,000 bytes"),
        ({"content": gzip.compress(b" " * 50_000_000), "headers": {"content-encoding": "gzip"}}, "100,000 bytes"),
        ({"content": zstd(b" " * 50_000_000), "headers": {"content-encoding": "zstd"}}, "100,000 bytes"),
        ({"json": [{}] * 301}, "300 events"),
        ({"content": b"{}\n" * 301, "headers": NDJSON}, "300 events"),
    ],
)
def test_too_much_is_refused_with_the_limit(server: Collector, client: httpx.Client, sent: dict[str, Any], limit: str) -> None:
    answer = client.post("/signups", **sent)
    assert answer.status_code == 413 and limit in answer.json()["detail"]
    assert lines(server) == []


def test_an_event_beyond_a_limit_hurts_no_other(client: httpx.Client) -> None:
    deep: Any = {}
    for _ in range(10):
        deep = {"deeper": deep}
    answer = client.post("/signups", json=[{"x": 1}, {"x": "x" * 20_000}, deep, {"id": "i" * 256}, {"x": 2}])
    assert counts(answer) == (2, 0, 3, 0)
    reasons = [error["reason"] for error in answer.json()["errors"]]
    assert "20,000 bytes" in reasons[0] and "10 levels" in reasons[1] and "255 characters" in reasons[2]


RUBBISH: list[dict[str, Any]] = [
    {"content": b"\x00" * 1000},
    {"content": b"{" * 50_000},
    {"content": b'{"a":' * 10_000},
    {"content": b"[" * 50_000, "headers": NDJSON},
    {"content": b'{"id":"\\ud800"}'},
    {"content": b'{"id":"\xed\xa0\x80"}'},
    {"content": b'{"id":"\\u0000"}'},
    {"content": b'{"id":NaN}'},
    {"content": b'{"id":' + b"9" * 5000 + b"}"},
    {"content": b"\xff\xfe{\x00}\x00"},
    {"content": gzip.compress(b"{}")[:-6], "headers": {"content-encoding": "gzip"}},
    {"content": b"{}", "headers": {"content-encoding": "gzip"}},
    {"content": b"{}", "headers": {"content-encoding": "zstd"}},
    {"content": b"{}", "headers": {"content-encoding": "br"}},
    {"content": b"<x/>", "headers": {"content-type": "application/xml"}},
    {"content": b"{}", "headers": {"content-type": "\xff\xfe".encode("latin-1")}},
    {"content": b"{}", "headers": {"content-type": "application/cloudevents+json"}},
    {"data": {"a": "b"}},
    {"files": {"file": b"{}"}},
]


@pytest.mark.parametrize("sent", RUBBISH, ids=range(len(RUBBISH)))
def test_rubbish_is_the_senders_mistake_and_nothing_of_it_is_kept(server: Collector, client: httpx.Client, sent: dict[str, Any]) -> None:
    answer = client.post("/signups", **sent)
    assert answer.status_code in (400, 413, 415) and answer.json()["detail"]
    assert lines(server) == []


@pytest.mark.parametrize(
    "path", ["/%00", "/%ff", "/a%2Fb", "/" + "x" * 3000, "/signups/", "//signups", "/signups/more", "/%F0%9F%98%80", "/..%2f..%2fetc"]
)
def test_odd_addresses_are_nowhere(client: httpx.Client, path: str) -> None:
    assert client.post(path, json={}).status_code == 404


def test_a_sender_that_breaks_off_leaves_nothing_behind(server: Collector, client: httpx.Client) -> None:
    for said in (b"Content-Length: 1000\r\n\r\n" + b'{"id":"cut"}', b"Transfer-Encoding: chunked\r\n\r\n10\r\n{"):
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(b"POST /v1/collect/app/signups HTTP/1.1\r\nHost: 127.0.0.1\r\n" + said)
    assert counts(client.post("/signups", json={})) == (1, 0, 0, 0)
    assert len(lines(server)) == 1 and server.service.collecting._room.held == 0


def test_other_methods_are_not_allowed(client: httpx.Client) -> None:
    answer = client.get("/signups")
    assert answer.status_code == 405 and "POST" in answer.headers["allow"]


def test_a_stream_that_was_declared_a_moment_ago_is_known(tmp_path: Path) -> None:
    with collecting(tmp_path, project="sources: {app: {connector: collector, pulls: [signups]}}", guarded=False) as server:
        address = f"{server.url}/v1/collect/app/visits"
        assert httpx.post(address, json={}).status_code == 404
        (tmp_path / "muxly.yaml").write_text("sources: {app: {connector: collector, pulls: [signups, visits]}}")
        until(lambda: httpx.post(address, json={}).status_code == 202, "the stream")
        assert server.events("app", "visits") == [{}]
