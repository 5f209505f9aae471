"""What the client makes of each kind of answer, over both transports."""

import gzip
import json
import socket
import threading
import zlib

import pytest

from muxly_dagster.errors import ConfigurationError, RetryLater, SignInError, SourceError
from muxly_dagster.http import Http, Request, Response, Retries, Timeouts, Verdict
from muxly_dagster_tests.http.server import Asked, Server, answer, json_answer

pytestmark = pytest.mark.usefixtures("over")

QUICK = Retries(attempts=3, base=0.001, cap=0.002, budget_seconds=5)


def test_a_page_comes_back_with_status_headers_and_json() -> None:
    def reply(asked: Asked) -> bytes:
        return json_answer({"asked": asked.query, "accept": asked.headers["accept"]}, X_Page="7")

    with Server(reply) as server, Http(f"{server.url}/v1/") as http:
        response = http.get("/contacts", {"limit": 100, "archived": False, "property": ["a b", "ü&="], "after": None})
    assert response.status == 200
    assert response.headers["x-page"] == response.headers["X-PAGE"] == "7"
    assert response.json()["asked"] == [["limit", "100"], ["archived", "false"], ["property", "a b"], ["property", "ü&="]]
    assert response.url.startswith(f"{server.url}/v1/contacts?limit=100")


def test_a_body_and_own_headers_are_sent() -> None:
    with Server(lambda asked: json_answer({})) as server, Http(server.url, headers={"X-Team": "a", "accept": "text/csv"}) as http:
        http.request(Request("POST", "/things?x=1", json={"a": [1, None]}, headers={"x-team": "b"}))
        http.request(Request("PUT", "/things", content=b"\x00\xff"))
    first, second = server.asked
    assert (first.method, first.target, json.loads(first.body)) == ("POST", "/things?x=1", {"a": [1, None]})
    assert first.headers["content-type"] == "application/json"
    assert (first.headers["x-team"], first.headers["accept"]) == ("b", "text/csv")
    assert (second.method, second.body) == ("PUT", b"\x00\xff")


def test_connections_are_used_again() -> None:
    with Server(lambda asked: json_answer({})) as server, Http(server.url) as http:
        for _ in range(20):
            http.get("/")
    assert server.connections == 1


def test_html_in_place_of_json_says_what_came() -> None:
    page = "<!doctype html>\n<title>Please   log in</title>" + "<p>" * 1000
    with Server(lambda asked: answer(200, page, Content_Type="text/html; charset=utf-8")) as server, Http(server.url) as http:
        response = http.get("/contacts")
        with pytest.raises(SourceError, match="text/html instead of JSON: <!doctype html> <title>Please log in</title>") as caught:
            response.json()
    assert caught.value.where == f"GET {server.url}/contacts"
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("body", "says"),
    [(b'{"a": [1, 2', "cannot be read"), (b"", "empty body"), (b"[" * 200_000, "cannot be read"), (b'{"a": "\xff"}', "cannot be read")],
)
def test_json_that_is_none_is_an_error_of_the_source(body: bytes, says: str) -> None:
    with Server(lambda asked: answer(200, body, Content_Type="application/json")) as server, Http(server.url) as http:
        response = http.get("/")
    with pytest.raises(SourceError, match=says):
        response.json()


def test_nan_and_huge_numbers_and_a_byte_order_mark_are_read() -> None:
    body = b'\xef\xbb\xbf{"a": NaN, "b": 1000000000000000000000000000001}'
    with Server(lambda asked: answer(200, body)) as server, Http(server.url) as http:
        value = http.get("/").json()
    assert value["a"] != value["a"]
    assert value["b"] == 10**30 + 1


def test_half_a_body_is_fetched_again() -> None:
    whole = json_answer({"rows": list(range(50))})

    def reply(asked: Asked) -> bytes | list[bytes]:
        return [whole[:-30], Server.cut] if asked.number == 1 else whole

    with Server(reply) as server, Http(server.url, retries=QUICK) as http:
        assert http.get("/").json() == {"rows": list(range(50))}
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    "half",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 400\r\n\r\n" + gzip.compress(b"x" * 5000, mtime=0)[:20],
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"",
    ],
    ids=["length", "chunk", "gzip", "headers", "nothing"],
)
def test_answers_that_always_break_off_end_in_retry_later(half: bytes) -> None:
    with Server(lambda asked: [half, Server.cut]) as server, Http(server.url, retries=QUICK) as http, pytest.raises(RetryLater) as caught:
        http.get("/page")
    assert "gave up after 3 attempts" in str(caught.value)
    assert caught.value.where == f"GET {server.url}/page"
    assert len(server.asked) == 3


def test_something_that_is_not_http_is_an_error_of_the_source() -> None:
    with (
        Server(lambda asked: [b"SSH-2.0-OpenSSH_9.6\r\n\r\n", Server.cut]) as server,
        Http(server.url, retries=QUICK) as http,
        pytest.raises(SourceError, match="not HTTP") as caught,
    ):
        http.get("/")
    assert "base_url" in caught.value.do


def test_401_asks_to_check_the_credentials() -> None:
    with (
        Server(lambda asked: json_answer({"message": "token expired"}, 401)) as server,
        Http(server.url, retries=QUICK) as http,
        pytest.raises(SignInError, match=r"refused \(401 Unauthorized\).*token expired") as caught,
    ):
        http.get("/")
    assert "auth" in caught.value.do
    assert len(server.asked) == 1


def test_403_asks_for_a_permission() -> None:
    with (
        Server(lambda asked: answer(403)) as server,
        Http(server.url, retries=QUICK) as http,
        pytest.raises(SignInError, match="403 Forbidden") as caught,
    ):
        http.get("/")
    assert "permission" in caught.value.do
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [400, 404, 409, 410, 422, 501])
def test_other_refusals_are_final_and_quote_the_answer_in_short(status: int) -> None:
    with (
        Server(lambda asked: json_answer({"error": "no such thing " * 500}, status)) as server,
        Http(server.url, retries=QUICK) as http,
        pytest.raises(SourceError, match=f"{status} .*no such thing") as caught,
    ):
        http.get("/things", {"page": 2})
    assert caught.value.where == f"GET {server.url}/things?page=2"
    assert len(str(caught.value)) < 600
    assert len(server.asked) == 1


def test_nobody_listening_ends_in_retry_later() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with (
        Http(f"http://127.0.0.1:{port}", retries=QUICK) as http,
        pytest.raises(RetryLater, match=r"no connection.*gave up after 3") as caught,
    ):
        http.get("/")
    assert "base_url" in caught.value.do


def test_silence_ends_in_retry_later() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # the kernel accepts, nobody answers
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        timeouts = Timeouts(connect=5, read=0.05, total=5)
        with Http(url, timeouts=timeouts, retries=QUICK) as http, pytest.raises(RetryLater, match="no answer in time"):
            http.get("/")


def test_a_trickle_is_ended_by_the_total_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        done = threading.Event()

        def trickle() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
                while not done.wait(0.02):
                    try:
                        connection.sendall(b"x")
                    except OSError:
                        return

        thread = threading.Thread(target=trickle)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            with (
                Http(url, timeouts=Timeouts(read=5, total=0.2), retries=Retries(attempts=1)) as http,
                pytest.raises(RetryLater, match="no answer in time"),
            ):
                http.get("/")
        finally:
            done.set()
            thread.join()


def test_a_page_of_200_mb_is_refused_by_its_announced_size() -> None:
    announced = b"HTTP/1.1 200 OK\r\nContent-Length: 200000000\r\n\r\n" + b"x" * 100_000
    with (
        Server(lambda asked: [announced, Server.cut]) as server,
        Http(server.url, max_body=50_000, retries=QUICK) as http,
        pytest.raises(SourceError, match="larger than the 50,000 bytes allowed"),
    ):
        http.get("/")
    assert len(server.asked) == 1


def test_a_body_without_an_announced_size_is_cut_off_at_the_limit() -> None:
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    page = [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", *[chunk] * 3200, b"0\r\n\r\n"]  # 200 MB
    with (
        Server(lambda asked: page) as server,
        Http(server.url, max_body=1_000_000, retries=QUICK) as http,
        pytest.raises(SourceError, match="larger than"),
    ):
        http.get("/")
    assert len(server.asked) == 1


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_compressed_bomb_is_measured_by_what_it_becomes(coding: str) -> None:
    packer = zlib.compressobj(9, wbits=31 if coding == "gzip" else 15)
    bomb = b"".join(packer.compress(b"\0" * 1_000_000) for _ in range(100)) + packer.flush()  # 100 MB in 100 KB
    page = answer(200, bomb, Content_Encoding=coding)
    with Server(lambda asked: page) as server, Http(server.url, max_body=1_000_000, retries=QUICK) as http:
        with pytest.raises(SourceError, match="larger than"):
            http.get("/")
        assert len(server.asked) == 1


def test_compressed_pages_are_unpacked() -> None:
    page = answer(200, gzip.compress(b'{"a": 1}'), Content_Encoding="gzip")
    with Server(lambda asked: page) as server, Http(server.url) as http:
        assert http.get("/").json() == {"a": 1}
    assert "gzip" in server.asked[0].headers["accept-encoding"]


def test_a_header_that_is_not_ascii_does_not_spoil_the_answer() -> None:
    page = b"HTTP/1.1 200 OK\r\nX-Name: J\xf6rg\r\nX-Next: 2\r\nContent-Length: 2\r\n\r\n{}"
    with Server(lambda asked: page) as server, Http(server.url) as http:
        response = http.get("/")
    assert response.headers["x-next"] == "2"


def test_head_and_empty_answers_have_no_body() -> None:
    def reply(asked: Asked) -> bytes:
        return b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n" if asked.method == "HEAD" else b"HTTP/1.1 204 X\r\n\r\n"

    with Server(reply) as server, Http(server.url) as http:
        assert http.request(Request("HEAD", "/")).content == b""
        assert http.request(Request("DELETE", "/")).content == b""


@pytest.mark.parametrize("url", ["https://", "ftp://example.com/", "http://127.0.0.1:99999/", "no-scheme"])
def test_a_base_url_that_cannot_work_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigurationError):
        Http(url).get("/")


def test_a_judge_overrules_what_a_status_means() -> None:
    meanings: dict[bytes, Verdict] = {b"slow down": "retry", b"bad token": "sign_in", b"no": "fail", b"gone": "skip"}

    def judge(response: Response) -> Verdict | None:
        return meanings.get(response.content)

    words = iter(["slow down", "fine", "gone", "no", "bad token"])
    statuses = iter([200, 200, 404, 200, 400])
    with Server(lambda asked: answer(next(statuses), next(words))) as server, Http(server.url, judge=judge, retries=QUICK) as http:
        assert http.request(Request("POST", "/")).content == b"fine"
        assert http.get("/").status == 404
        with pytest.raises(SourceError, match="no"):
            http.get("/")
        with pytest.raises(SignInError, match="bad token"):
            http.get("/")
    assert len(server.asked) == 5


def test_an_expected_status_is_an_answer_unless_a_judge_has_a_word_for_it() -> None:
    request = Request("GET", "/gone", expected=frozenset({404}))
    with Server(lambda _: json_answer({}, 404)) as server:
        with Http(server.url) as http:
            assert http.request(request).status == 404
            with pytest.raises(SourceError, match="404"):
                http.get("/gone")
        with Http(server.url, judge=lambda _: "fail") as http, pytest.raises(SourceError, match="404"):
            http.request(request)
