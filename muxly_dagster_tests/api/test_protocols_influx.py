"""Line protocol by HTTP, as Telegraf's outputs of both versions write it, and what their logs then say."""

import gzip
import socket
from collections.abc import Iterator

import httpx
import pytest

from muxly_dagster_tests.api.collector import Collector, collecting

V2 = "/api/v2/write?org=any&bucket=any&precision=ns"
LINES = "cpu,host=a usage=0.5 1700000000000000001\ncpu,host=b usage=1.5 1700000000000000002\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    """One server for all tests of this file."""
    with collecting(tmp_path_factory.mktemp("influx"), {"MUXLY_COLLECT_ITEMS": "2000"}) as found:
        yield found


@pytest.fixture
def fresh(server: Collector) -> Collector:
    """The same, with nothing in its inbox."""
    server.clear()
    return server


def telegraf(collector: Collector, lines: str | bytes, path: str = V2, key: str = "telemetry", **headers: str) -> httpx.Response:
    """A request as Telegraf's output of version 2 sends it (plugins/outputs/influxdb_v2/http.go)."""
    said = {
        "content-type": "text/plain; charset=utf-8",
        "content-encoding": "gzip",
        "user-agent": "Telegraf/1.30.0 Go/1.22.2",
        "authorization": f"Token {collector.keys.get(key, key)}",
        **headers,
    }
    content = lines.encode() if isinstance(lines, str) else lines
    return httpx.post(collector.url + path, content=gzip.compress(content) if said["content-encoding"] == "gzip" else content, headers=said)


def test_a_batch_is_stored_and_known_when_it_comes_again(fresh: Collector) -> None:
    for _ in range(2):
        answer = telegraf(fresh, LINES)
        assert answer.status_code == 204 and answer.content == b""
    assert [event["tags"]["host"] for event in fresh.events("telemetry", "influx")] == ["a", "b"]


@pytest.mark.parametrize("how", ["password", "user", "token"])
def test_version_one_signs_in_by_basic_authentication(fresh: Collector, how: str) -> None:
    key = fresh.keys["narrow"]
    auth = {"password": ("telegraf", key), "user": (key, ""), "token": None}[how]
    headers = {"authorization": f"Token {key}"} if auth is None else {}
    line = f"v1,how={how} x=1i 1700000000"
    answer = httpx.post(f"{fresh.url}/write?db=telegraf&precision=s&consistency=any", content=line, auth=auth, headers=headers)
    assert answer.status_code == 204
    (event,) = fresh.events("telemetry", "influx")
    assert event["time"] == "2023-11-14T22:13:20.000000000Z"


def test_lines_that_are_none_are_told_by_number_and_the_others_stored(fresh: Collector) -> None:
    answer = telegraf(fresh, "cpu usage=1 3\nbroken\ncpu usage=2 4\ncpu usage=x 5\n")
    assert answer.status_code == 400
    assert answer.json()["code"] == "invalid"
    assert answer.json()["message"].startswith(
        "partial write: 2 of 4 lines were rejected: line 2 there are no fields; line 4 'x' is no value"
    )
    assert [event["fields"]["usage"] for event in fresh.events("telemetry", "influx")] == [1.0, 2.0]


def test_lines_without_a_time_are_measured_when_they_come(fresh: Collector) -> None:
    for _ in range(2):
        assert telegraf(fresh, "now v=1").status_code == 204
    first, second = (event["time_unix_nano"] for event in fresh.events("telemetry", "influx"))
    assert first < second


@pytest.mark.parametrize(
    ("path", "key", "lines", "status", "code", "said"),
    [
        (V2, "mwk_nobody", LINES, 401, "unauthorized", "not known"),
        (V2, "web", LINES, 404, "not found", "add it to muxly.yaml, under `sources: web: pulls:`, as `influx: {}`"),
        (V2 + "&source=web", "telemetry", LINES, 403, "forbidden", "is not for web/influx"),
        ("/api/v2/write?precision=weeks", "telemetry", LINES, 400, "invalid", "precision 'weeks'"),
        (V2, "telemetry", "nothing but rubbish", 400, "invalid", "key=value"),
    ],
)
def test_refusals_have_the_form_that_telegraf_logs(
    fresh: Collector, path: str, key: str, lines: str, status: int, code: str, said: str
) -> None:
    answer = telegraf(fresh, lines, path, key)
    assert answer.status_code == status
    assert answer.json()["code"] == code
    assert said in answer.json()["message"] and answer.json()["error"] == answer.json()["message"]
    assert not fresh.events("telemetry", "influx")


def test_a_batch_that_is_too_large_is_told_so_that_telegraf_halves_it(fresh: Collector) -> None:
    assert telegraf(fresh, "m v=1i\n" * 2001).status_code == 413
    assert telegraf(fresh, bytes(64 << 20)).status_code == 413
    assert telegraf(fresh, "m v=1i 7\n", **{"content-encoding": "br"}).status_code == 415
    broken = httpx.post(fresh.url + V2, content=gzip.compress(LINES.encode())[:-9], headers={**fresh.signed(), "content-encoding": "gzip"})
    assert broken.status_code == 400 and "cut off" in broken.json()["message"]
    assert not fresh.events("telemetry", "influx")


def test_a_sender_that_is_told_to_wait_is_told_for_how_long(fresh: Collector) -> None:
    taken = 0
    while (answer := telegraf(fresh, f"m v=1i {taken}", key="slow")).status_code == 204:  # until two of them come within one second
        taken += 1
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.json()["code"] == "too many requests"
    assert len(fresh.events("telemetry", "influx")) == taken


def test_a_sender_that_stops_half_way_leaves_nothing(fresh: Collector) -> None:
    with socket.create_connection(("127.0.0.1", fresh.port)) as connection:
        head = f"POST {V2} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Token {fresh.keys['telemetry']}\r\nContent-Length: 1000\r\n\r\n"
        connection.sendall(head.encode() + b"cpu usage=1 99\n")
    assert telegraf(fresh, "cpu usage=1 100\n").status_code == 204
    assert [event["time_unix_nano"] for event in fresh.events("telemetry", "influx")] == [100]


def test_without_keys_the_source_is_the_one_that_reads_the_stream(tmp_path_factory: pytest.TempPathFactory) -> None:
    project = "sources:\n  a: {connector: collector, pulls: [influx, track]}\n  b: {connector: collector, pulls: [orders, track]}\n"
    with collecting(tmp_path_factory.mktemp("open"), project=project, guarded=False) as found:
        assert telegraf(found, "m v=1i 1", key="anything").status_code == 204
        assert len(found.events("a", "influx")) == 1
        unclear = httpx.post(f"{found.url}/v1/track", json={"event": "A", "messageId": "1"})
        assert unclear.status_code == 400
        assert "more than one source collects: a, b" in unclear.json()["message"]
        for source, ask in (("a", {"params": {"source": "a"}}), ("b", {"headers": {"X-Muxly-Source": "b"}})):
            assert httpx.post(f"{found.url}/v1/track", json={"event": "A", "messageId": "1"}, **ask).status_code == 200  # type: ignore[arg-type]
            assert len(found.events(source, "track")) == 1
        nobody = httpx.post(f"{found.url}/v1/track?source=c", json={"event": "A"})
        assert nobody.status_code == 404 and "no collector named c" in nobody.json()["message"]
