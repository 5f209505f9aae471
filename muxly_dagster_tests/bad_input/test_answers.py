"""An API that does not answer as it should: the run says so, keeps what it has, and the next one completes it."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from muxly_dagster.errors import MuxlyError, RetryLater, SignInError, SourceError
from muxly_dagster_tests.bad_input.shop import PULL, TARGET, TOKEN, Api, Shop, Trouble, things
from muxly_dagster_tests.http.server import Asked, Server, answer, json_answer

HTML = b"<!DOCTYPE html><html><body>Please <a href='/login'>sign in</a></body></html>"


def echoing(status: int, **headers: str) -> Trouble:
    """An answer that repeats the credentials it was sent, as careless services do."""
    return lambda asked: json_answer({"error": "no", "you_sent": asked.headers["authorization"]}, status, **headers)


def in_circles(asked: Asked) -> bytes:
    """The page names itself as the next one."""
    return json_answer({"results": [{"id": "t0004", "amount": 4}], "next": 1})


@dataclass(frozen=True)
class Case:
    """What the second page answers, and the error that must come of it."""

    trouble: Trouble
    error: type[MuxlyError]
    what: str
    do: str


CASES = {
    "HTML": Case(lambda _: answer(200, HTML, Content_Type="text/html"), SourceError, "is no JSON", "see what the address answers"),
    "half a JSON": Case(lambda _: answer(200, b'{"results": [{"id": "t0004", "am'), SourceError, "is no JSON", "usually comes whole"),
    "nothing": Case(lambda _: answer(200, b""), SourceError, "the body is empty", "see what the address answers"),
    "a cut line": Case(lambda _: [b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{", Server.cut], RetryLater, "broke off", "try again"),
    "JSON of another form": Case(lambda _: json_answer({"items": []}), SourceError, r"no records at \$\.results", "check the stream's"),
    "401": Case(echoing(401), SignInError, "credentials were refused", "check `auth`"),
    "403": Case(echoing(403), SignInError, "do not allow this", "give this token or key the permission"),
    "404": Case(echoing(404), SourceError, "nothing at this address", "check base_url and path"),
    "429 for ever": Case(echoing(429), RetryLater, "rate limit is used up.*gave up after 6 attempts", "lower this source's `limits`"),
    "429 for hours": Case(echoing(429, Retry_After="9999"), RetryLater, "asked to wait 9999 s", "lower this source's `limits`"),
    "500 for ever": Case(echoing(500), RetryLater, "cannot answer now.*gave up after 6 attempts", "try again later"),
    "a cursor for ever": Case(in_circles, SourceError, "a second time: its paging goes in circles", "check the stream's `paging`"),
    "300 MB announced": Case(
        lambda _: [b"HTTP/1.1 200 OK\r\nContent-Length: 314572800\r\n\r\n", *[bytes(2**20)] * 300],
        SourceError,
        r"larger than the 268,435,456 bytes allowed \(314572800 bytes announced\)",
        "ask for smaller pages",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_an_answer_that_cannot_be_used_costs_nothing_but_time(shop: Shop, api: Api, name: str) -> None:
    case = CASES[name]
    api.troubles[1] = case.trouble
    error = shop.fails(case.error)
    assert matches(case.what, error.what)
    assert case.do in error.do
    assert "/things" in error.where
    api.troubles.clear()
    assert shop.is_complete()


@pytest.mark.parametrize("name", CASES)
def test_a_first_answer_that_cannot_be_used_leaves_no_half_made_table(shop: Shop, api: Api, name: str) -> None:
    api.troubles[0] = CASES[name].trouble if name != "a cursor for ever" else lambda _: json_answer({"results": [], "next": 0})
    error = shop.fails(CASES[name].error)
    assert CASES[name].do in error.do
    nothing_yet = shop.fails(MuxlyError, TARGET)
    assert "muxly run shop.things" in nothing_yet.do
    api.troubles.clear()
    assert shop.is_complete()


def test_what_came_before_the_trouble_is_kept_and_may_go_on(shop: Shop, api: Api) -> None:
    api.pages = [things(*range(5_000)), things(*range(5_000, 5_004))]
    api.troubles[1] = echoing(500)
    shop.fails(RetryLater)
    assert shop.run(TARGET).accepted == 5_000
    api.troubles.clear()
    assert shop.run(PULL).changed == 4
    assert shop.is_complete()


def test_500_then_fine_is_not_worth_a_word(shop: Shop, api: Api) -> None:
    failures = iter([500, 503, 502])
    api.troubles[1] = lambda _: answer(status) if (status := next(failures, 0)) else None
    pulled, delivered = shop.sync()
    assert (pulled.read, delivered.accepted) == (12, 12)
    assert shop.is_complete()


def test_a_service_that_is_down_says_so(shop: Shop, server: Server, api: Api) -> None:
    shop.sync()
    shop.write("shop.yaml", (shop.folder / "shop.yaml").read_text().replace(str(server.port), str(free_port())))
    error = shop.fails(RetryLater)
    assert "no connection could be made" in error.what
    assert "check base_url" in error.do


def test_nothing_is_deleted_because_a_later_page_failed(open_shop: Callable[..., Shop], api: Api) -> None:
    shop = open_shop(warehouse={"mode": "mirror"})
    shop.sync()
    api.troubles[1] = echoing(500)
    shop.fails(RetryLater)
    assert shop.run(TARGET).read == 0
    assert shop.rows() == api.ids
    api.troubles.clear()
    api.pages.pop()
    assert shop.run(PULL).metadata["deletes"] == 4
    shop.run(TARGET)
    assert shop.rows() == api.ids


def test_the_command_that_fails_shows_no_traceback_and_no_secret(shop: Shop, api: Api) -> None:
    """The real command against an API that sends the credentials back with its refusal."""
    api.troubles[0] = echoing(401)
    command = [sys.executable, "-m", "muxly_dagster", "--project", str(shop.folder), "run", "shop+"]
    child = subprocess.run(command, env=dict(os.environ) | shop.environ, capture_output=True, text=True, timeout=120)
    assert child.returncode == 1, child.stderr
    assert "the credentials were refused" in child.stderr
    assert "check `auth`" in child.stderr
    assert "Traceback" not in child.stdout + child.stderr
    assert TOKEN not in child.stdout + child.stderr


def matches(pattern: str, text: str) -> bool:
    """Whether the text says it somewhere."""
    return re.search(pattern, text, re.DOTALL) is not None


def free_port() -> int:
    """A port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
