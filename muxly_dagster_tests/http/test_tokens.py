"""Access tokens: asked for when needed, shared, renewed when refused, and explained when there are none."""

import logging
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pydantic import SecretStr

from muxly_dagster.auth import Bearer, CustomAuth, NoAuth, OAuth2, TokenSource
from muxly_dagster.errors import ConfigurationError, MuxlyError, RetryLater, SignInError, SourceError
from muxly_dagster.http import Http, Request, Response, Retries, Verdict, sign_in
from muxly_dagster_tests.http.server import Server, answer, json_answer
from muxly_dagster_tests.peers.oauth import AuthorizationServer

QUICK = Retries(attempts=2, base=0.001, cap=0.001)


def as_itself(server: AuthorizationServer, **more: Any) -> OAuth2:
    return OAuth2(client_id=server.client_id, client_secret=SecretStr(server.client_secret), token_url=server.token_url, **more)


def for_a_user(server: AuthorizationServer, **more: Any) -> OAuth2:
    return as_itself(server, refresh_token=SecretStr(server.refresh_token), **more)


def test_kinds_that_do_not_run_out_come_back_as_they_are() -> None:
    for auth in (NoAuth(), Bearer(token=SecretStr("x"))):
        assert sign_in(auth) is auth


def test_a_token_is_asked_for_by_the_first_request_and_used_by_all() -> None:
    with AuthorizationServer() as server, Http(server.url, auth=sign_in(as_itself(server), scopes=["read"])) as http:
        assert server.forms == []
        assert [http.get(f"/{n}").status for n in range(3)] == [200] * 3
    assert [(form["grant_type"], form["scope"]) for form in server.forms] == [("client_credentials", "read")]


@pytest.mark.parametrize("where", ["body", "basic"])
def test_a_client_shows_its_secret_where_the_server_looks_for_it(where: str) -> None:
    with AuthorizationServer(client_auth=(where,)) as server:
        source = sign_in(as_itself(server, client_auth=where), client_auth="body" if where == "basic" else "basic")
        assert source.headers()["Authorization"] == f"Bearer {server.given[0]}"
    assert ("client_secret" in server.forms[0]) == (where == "body")


def test_what_a_source_says_wins_and_the_connector_fills_the_rest() -> None:
    with AuthorizationServer(scopes=("a", "b")) as server:
        auth = as_itself(server, scopes=["a", "b"], token_params={"audience": "mine"})
        sign_in(auth, token_url="https://elsewhere.example.com/", scopes=["c"], token_params={"audience": "x", "more": "y"}).headers()
    assert server.forms[0]["scope"] == "a b"
    assert (server.forms[0]["audience"], server.forms[0]["more"]) == ("mine", "y")


def test_many_threads_ask_once() -> None:
    with AuthorizationServer(slowly=0.1) as server, ThreadPoolExecutor(8) as threads:
        source, start = sign_in(for_a_user(server)), threading.Barrier(8)
        seen = list(threads.map(lambda _: (start.wait(), source.headers())[1]["Authorization"], range(8)))
    assert len(server.forms) == 1
    assert len(set(seen)) == 1


def test_many_threads_fail_together_each_with_an_error_of_its_own() -> None:
    with AuthorizationServer(slowly=0.1) as server, ThreadPoolExecutor(8) as threads:
        source, start = sign_in(as_itself(server).model_copy(update={"client_id": "nobody"})), threading.Barrier(8)

        def ask(_: int) -> MuxlyError:
            start.wait()
            with pytest.raises(SignInError) as caught:
                source.headers()
            return caught.value

        errors = list(threads.map(ask, range(8)))
    assert len(server.forms) == 1
    assert len({id(error) for error in errors}) == 8
    assert len({str(error) for error in errors}) == 1


def test_sources_of_the_same_credentials_share_a_token() -> None:
    with AuthorizationServer() as server:
        for _ in range(3):
            with Http(server.url, auth=sign_in(as_itself(server))) as http:
                http.get("/")
        sign_in(as_itself(server, scopes=["write"])).headers()
    assert len(server.forms) == 2


@pytest.mark.parametrize("life", [0, "0", -5])
def test_a_token_at_its_end_is_used_once_and_not_again(life: float | str) -> None:
    with AuthorizationServer(expires_in=life) as server, Http(server.url, auth=sign_in(as_itself(server))) as http:
        http.get("/")
        before = len(server.forms)
        http.get("/")
    assert len(server.forms) > before


def test_a_token_without_a_life_is_good_until_it_is_refused() -> None:
    with AuthorizationServer(expires_in=None) as server, Http(server.url, auth=sign_in(as_itself(server))) as http:
        http.get("/")
        http.get("/")
        assert len(server.forms) == 1
        server.forget_tokens()
        assert http.get("/").status == 200
    assert len(server.forms) == 2


def test_a_refused_request_is_sent_once_more_even_a_post() -> None:
    with AuthorizationServer() as server, Http(server.url, auth=sign_in(for_a_user(server))) as http:
        http.get("/")
        server.forget_tokens()
        assert http.request(Request("POST", "/things", json={"a": 1})).json() == {"method": "POST", "body": '{"a":1}'}
    assert [asked.method for asked in server.api_requests] == ["GET", "POST", "POST"]


def test_a_token_that_is_never_accepted_ends_in_one_more_attempt() -> None:
    with (
        AuthorizationServer() as server,
        Server(lambda asked: answer(401, "no")) as other,
        Http(other.url, auth=sign_in(as_itself(server))) as http,
        pytest.raises(SignInError, match="refused"),
    ):
        http.get("/")
    assert (len(other.asked), len(server.forms)) == (2, 2)


def test_many_requests_that_are_refused_ask_for_one_new_token() -> None:
    with AuthorizationServer(slowly=0.05) as server, Http(server.url, auth=sign_in(as_itself(server))) as http:
        http.get("/")
        server.forget_tokens()
        assert {response.status for response in http.each([Request("GET", f"/{n}") for n in range(12)], 12)} == {200}
    assert len(server.forms) == 2


def test_the_apis_own_word_renews_a_token_and_a_missing_permission_does_not() -> None:
    def judge(response: Response) -> Verdict | None:
        return "sign_in" if b"token_expired" in response.content else None

    answers = [json_answer({"error": "token_expired"}), json_answer({"ok": True}), answer(403, "scope missing")]
    with (
        AuthorizationServer() as server,
        Server(lambda asked: answers[asked.number - 1]) as api,
        Http(api.url, auth=sign_in(as_itself(server)), judge=judge) as http,
    ):
        assert http.get("/").json() == {"ok": True}
        with pytest.raises(SignInError, match="do not allow"):
            http.get("/")
    assert (len(api.asked), len(server.forms)) == (3, 2)


def test_a_header_of_the_requests_own_is_not_the_sources_fault() -> None:
    with AuthorizationServer() as server, Http(server.url, auth=sign_in(as_itself(server))) as http:
        with pytest.raises(SignInError):
            http.request(Request("GET", "/", headers={"authorization": "Bearer mine"}))
        http.get("/")
    assert server.api_requests[0].headers["authorization"] == "Bearer mine"
    assert len(server.forms) == 1


def test_tokens_are_not_shown_to_another_host() -> None:
    with AuthorizationServer() as server, Server(lambda asked: json_answer({})) as other:
        there = other.url.replace("127.0.0.1", "localhost")
        with (
            Server(lambda asked: answer(302, Location=f"{there}/file")) as api,
            Http(api.url, auth=sign_in(as_itself(server)), hosts=["localhost"]) as http,
        ):
            http.get("/")
    assert "authorization" in api.asked[0].headers
    assert "authorization" not in other.asked[0].headers


def test_a_new_refresh_token_is_used_from_then_on_by_everybody_and_told(caplog: pytest.LogCaptureFixture) -> None:
    with AuthorizationServer(rotating=True, expires_in=0) as server:
        auth = for_a_user(server)
        sign_in(auth).headers()
        sign_in(auth).headers()
        sign_in(auth).headers()
    assert len({form["refresh_token"] for form in server.forms}) == 3
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(told) == 1
    assert "has to be stored" in told[0]
    assert not any(secret in told[0] for secret in server.secrets)


def test_sources_that_differ_follow_one_refresh_token_together() -> None:
    """The second use of a refresh token that was replaced looks like theft, and ends the sign-in for good (RFC 9700, 4.14)."""
    with AuthorizationServer(rotating=True) as server:
        auth = for_a_user(server)
        one, two = sign_in(auth), sign_in(auth, header="X-Token", prefix="")
        one.headers()
        assert two.headers()["X-Token"] in server.given
        one.refused(one.headers())
        one.headers()
    assert len({form["refresh_token"] for form in server.forms}) == len(server.forms) == 3


def test_a_token_server_that_is_down_for_a_moment_is_asked_again() -> None:
    with AuthorizationServer(trouble=[503, 503, 503]) as server, Http(server.url, auth=sign_in(as_itself(server)), retries=QUICK) as http:
        assert http.get("/").status == 200
    assert len(server.forms) == 4


def test_a_token_server_that_stays_down_is_a_passing_trouble() -> None:
    with (
        AuthorizationServer(trouble=[503] * 20) as server,
        Http(server.url, auth=sign_in(as_itself(server)), retries=QUICK) as http,
        pytest.raises(RetryLater, match="gave up"),
    ):
        http.get("/")
    assert server.api_requests == []


REFUSALS = {
    "refresh": ("refresh token is no longer valid: sign in again", "sign in again"),
    "client": ("does not accept this client", "client_secret"),
    "scope": ("refuses the scope 'read admin'", "scopes"),
    "grant": ("no such way to ask", "grant_type"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_refusal_says_what_the_server_said_and_no_secret(case: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with AuthorizationServer() as server:
        auth = {
            "refresh": as_itself(server, refresh_token=SecretStr("refresh-old-and-gone")),
            "client": as_itself(server).model_copy(update={"client_id": "nobody"}),
            "scope": as_itself(server, scopes=["read", "admin"]),
            "grant": as_itself(server, token_params={"grant_type": "magic"}),
        }[case]
        with Http(server.url, auth=sign_in(auth)) as http, pytest.raises(SignInError, match=REFUSALS[case][0]) as caught:
            http.get("/")
    assert REFUSALS[case][1] in str(caught.value)
    assert server.token_url in str(caught.value)
    seen = "".join(traceback.format_exception(caught.value)) + "".join(record.getMessage() for record in caplog.records)
    for secret in (*server.secrets, "refresh-old-and-gone"):
        assert secret not in seen


def test_an_access_token_that_the_api_repeats_stays_hidden() -> None:
    with AuthorizationServer() as server, Server(lambda asked: answer(404, f"no {asked.headers['authorization'][7:]} here")) as api:
        with Http(api.url, auth=sign_in(as_itself(server))) as http, pytest.raises(SourceError) as caught:
            http.get("/")
        assert server.given[0] not in "".join(traceback.format_exception(caught.value))
        assert "no *** here" in str(caught.value)
        assert not any(secret in repr(sign_in(as_itself(server))) for secret in server.secrets)


@pytest.mark.parametrize(
    ("reply", "what"),
    [
        (answer(200, "<html>sign in</html>", Content_Type="text/html"), "text/html instead of JSON"),
        (json_answer({"ok": True}), "without an access token"),
        (json_answer({"access_token": "x", "token_type": "DPoP"}), "type DPoP"),
    ],
)
def test_an_answer_that_is_no_token_is_told_as_what_it_is(reply: bytes, what: str) -> None:
    with Server(lambda asked: reply) as server:
        source = sign_in(OAuth2(client_id="a", client_secret=SecretStr("bcdef"), token_url=f"{server.url}/oauth"))
        with pytest.raises(SourceError, match=what):
            source.headers()


@pytest.mark.parametrize("body", ["access_token=tok-4711&token_type=bearer", "<access_token>tok-4711</access_token>", "'tok-4711'"])
def test_a_token_in_a_form_that_cannot_be_read_is_not_shown(body: str) -> None:
    with Server(lambda asked: answer(200, body)) as server:
        source = sign_in(OAuth2(client_id="me", client_secret=SecretStr("s3cr3t"), token_url=f"{server.url}/token"))
        with pytest.raises(SourceError, match="something else instead of JSON") as caught:
            source.headers()
    assert "4711" not in "".join(traceback.format_exception(caught.value))
    assert caught.value.do


def test_an_error_that_comes_as_a_success_is_an_error_still() -> None:
    with Server(lambda asked: json_answer({"error": "bad_verification_code", "error_description": "it has expired"})) as server:
        source = sign_in(OAuth2(client_id="a", client_secret=SecretStr("bcdef"), token_url=f"{server.url}/oauth"))
        with pytest.raises(SignInError, match="it has expired"):
            source.headers()


def test_what_cannot_work_is_refused_before_anybody_is_asked() -> None:
    for auth, told in (
        (OAuth2(client_id="a", client_secret=SecretStr("b")), "token_url"),
        (OAuth2(client_id="a", token_url="https://x.example.com/token"), "client_secret"),
        (OAuth2(client_id="a", client_secret=SecretStr("b"), token_url="ftp://x.example.com/"), "https://"),
    ):
        with pytest.raises(ConfigurationError, match=told):
            sign_in(auth)
    elsewhere = OAuth2(client_id="a", client_secret=SecretStr("b"), token_url="https://x.example.com/token")
    with pytest.raises(ConfigurationError, match=r"x\.example\.com"):
        sign_in(elsewhere, hosts=["*.example.org"])
    with pytest.raises(ConfigurationError, match="cannot be used here"):
        Http("https://x.example.com", auth=elsewhere)


class Counting:
    """A plugin's own way to sign in: a header that is another one for each request."""

    def __init__(self) -> None:
        self.count = 0

    def headers(self) -> dict[str, str]:
        self.count += 1
        return {"X-Signature": f"signature-{self.count}"}

    def refused(self, headers: object) -> bool:
        return False

    def secrets(self) -> tuple[str, ...]:
        return (f"signature-{self.count}",)


def test_a_plugin_brings_its_own_way_to_sign_in() -> None:
    auth = CustomAuth(use="signed")
    with pytest.raises(ConfigurationError, match="'signed'"):
        sign_in(auth)
    source: TokenSource = sign_in(auth, custom=lambda asked: Counting())
    with (
        Server(lambda asked: answer(401, asked.headers["x-signature"])) as server,
        Http(server.url, auth=source) as http,
        pytest.raises(SignInError) as caught,
    ):
        http.get("/")
    assert len(server.asked) == 1
    assert server.asked[0].headers["x-signature"] not in str(caught.value)
