"""No secret in any log, message, exception chain or repr."""

import logging
import traceback
from collections.abc import Callable

import pytest
from pydantic import SecretStr

from muxly_dagster.auth import ApiKey, Auth, Basic, Bearer
from muxly_dagster.errors import ConfigurationError, MuxlyError
from muxly_dagster.http import Http, Redaction, Request, Retries, Timeouts
from muxly_dagster_tests.http.server import Asked, Server, answer

SECRET = "S3cr3t/with+odd=chars"
OTHER = "an-other-secret-value"
UNNAMED = "known-by-its-parameter"
QUICK = Retries(attempts=2, base=0.001, cap=0.001)

AUTHS: list[Auth] = [
    Bearer(token=SecretStr(SECRET)),
    ApiKey(key=SecretStr(SECRET)),
    ApiKey(key=SecretStr(SECRET), into="query", name="weird"),
    Basic(username="me", password=SecretStr(SECRET)),
    Basic(username=SECRET),
]


def echo(status: int, start: str = "") -> Callable[[Asked], bytes]:
    """Repeats everything that was sent, as a careless API might."""
    return lambda asked: answer(status, start + f'{{"you sent": "{asked.target} {asked.headers} {asked.body.decode()}"}}')


@pytest.mark.usefixtures("over")
@pytest.mark.parametrize("auth", AUTHS, ids=["bearer", "header", "query", "basic", "basic user"])
@pytest.mark.parametrize("trouble", ["401", "404", "429", "500", "302", "html", "cut", "nobody"])
def test_no_trouble_tells_a_secret(auth: Auth, trouble: str, caplog: pytest.LogCaptureFixture) -> None:
    def reply(asked: Asked) -> bytes | list[bytes]:
        if trouble == "cut":
            return [Server.cut]
        if trouble == "302":
            return answer(302, Location=f"http://elsewhere.example.com/?q={OTHER}&api_key={SECRET}")
        return echo(200, "<html>")(asked) if trouble == "html" else echo(int(trouble))(asked)

    caplog.set_level(logging.DEBUG)
    with Server(reply) as server:
        base = "http://127.0.0.1:1" if trouble == "nobody" else server.url
        with Http(base, auth=auth, secrets=[OTHER], retries=QUICK, headers={"X-Other": OTHER}) as http:
            texts = [repr(http)]
            with pytest.raises(MuxlyError) as caught:
                response = http.get(f"/a/{OTHER}", {"api_key": UNNAMED, "q": OTHER})
                texts += [repr(response), repr(response.request)]
                response.json()
            texts += [str(caught.value), repr(caught.value), "".join(traceback.format_exception(caught.value))]
    texts += [f"{record.getMessage()} {record.exc_text}" for record in caplog.records]
    seen = "\n".join(texts)
    for secret in (SECRET, "S3cr3t%2Fwith%2Bodd%3Dchars", OTHER, UNNAMED, "bWU6UzNjcjN0"):
        assert secret not in seen
    assert "***" in seen


def test_a_secret_cut_in_two_by_the_excerpt_stays_hidden() -> None:
    secret = "k" * 3000
    redaction = Redaction([secret])
    for start in range(0, 13_000, 499):
        text = redaction.excerpt(b"." * start + (secret + " ").encode() * 5, 100_000)
        assert "kk" not in text


def test_what_looks_like_a_secret_is_hidden_though_nobody_named_it() -> None:
    hide = Redaction()
    assert (
        hide("GET https://me:pw@x.com/a?api_key=1&page=2&access_token=abc#f")
        == "GET https://***@x.com/a?api_key=***&page=2&access_token=***#f"
    )
    assert hide("Authorization: Bearer abc.def") == "Authorization: ***"
    assert hide('{"access_token": "abc", "code": "RATE_LIMIT"}') == '{"access_token": "***", "code": "RATE_LIMIT"}'
    assert hide("sent Bearer eyJhbGci0i.x.y") == "sent Bearer ***"
    assert hide("/contacts?pageToken=abc&limit=1") == "/contacts?pageToken=abc&limit=1"
    assert hide("bearer authentication is required") == "bearer authentication is required"


def test_a_very_short_secret_does_not_eat_the_message() -> None:
    assert Redaction(["a"])("a bad day, pin=a") == "*** bad day, pin=***"
    assert Redaction([""])("fine") == "fine"


@pytest.mark.parametrize("auth", [Bearer(token=SecretStr("abc123\n")), ApiKey(key=SecretStr("abc123\n"))], ids=["bearer", "key"])
def test_a_token_with_a_line_break_is_a_configuration_error_that_does_not_show_it(auth: Auth) -> None:
    with pytest.raises(ConfigurationError, match="line break") as caught:
        Http("http://127.0.0.1:1", auth=auth)
    assert "abc123" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.usefixtures("over")
def test_a_header_that_cannot_be_sent_is_a_configuration_error() -> None:
    with Http("http://127.0.0.1:1", timeouts=Timeouts(connect=1)) as http:
        for headers in ({"X-A": "a\r\nX-B: b"}, {"bad name": "a"}):
            with pytest.raises(ConfigurationError):
                http.request(Request("GET", "/", headers=headers))
