"""A manifest's connector signs in as its API wants it, and says of its account what there is to know."""

import logging
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl

import pytest

from muxly_dagster.errors import ConfigurationError, SignInError
from muxly_dagster.manifest.asking.signing import account_name
from muxly_dagster_tests.http.server import Asked, Server, json_answer
from muxly_dagster_tests.manifest.conftest import Make, ids, pull

ONE = json_answer({"results": [{"id": 1}]})
CLIENT = {"kind": "oauth2", "client_id": "us", "client_secret": "cl1ent-secret", "refresh_token": "r3fresh-token"}


class Issuer:
    """Gives out tokens `at-1`, `at-2` ...; the API takes the newest only."""

    def __init__(self) -> None:
        self.grants: list[dict[str, str]] = []
        self.valid = "nothing yet"

    def __call__(self, asked: Asked) -> bytes:
        if asked.path == "/token":
            self.grants.append(dict(parse_qsl(asked.body.decode())))
            self.valid = f"at-{len(self.grants)}"
            return json_answer({"access_token": self.valid, "token_type": "Bearer", "expires_in": 3600})
        if asked.headers.get("authorization") != f"Bearer {self.valid}":
            return json_answer({"error": "expired"}, 401)
        return json_answer({"results": [{"id": 1}], "me": {"mail": "me@shop.example"}})


@pytest.fixture
def issuer() -> Iterator[tuple[Issuer, str]]:
    issuer = Issuer()
    with Server(issuer) as server:
        yield issuer, server.url


def oauth2(url: str, **more: Any) -> dict[str, Any]:
    return {"user": {"kind": "oauth2", "token_url": f"{url}/token", **more}}


def test_a_token_is_asked_for_and_renewed_when_it_is_refused(make: Make, issuer: tuple[Issuer, str]) -> None:
    server, url = issuer
    connector = make(
        url, {}, {"auth": {**CLIENT, "refresh_token": f"r3fresh-of-{url}"}}, auth=oauth2(url, token_params={"audience": "shop"})
    )
    assert ids(pull(connector)) == [1]
    server.valid = "revoked"
    assert ids(pull(connector)) == [1]
    assert [grant["grant_type"] for grant in server.grants] == ["refresh_token", "refresh_token"]
    assert server.grants[0] | {"audience": "shop", "client_id": "us", "client_secret": "cl1ent-secret"} == server.grants[0]


def test_scopes_are_named_in_short_and_sent_in_full(make: Make, issuer: tuple[Issuer, str]) -> None:
    server, url = issuer
    kind = oauth2(url, scopes={"read": "https://shop.example/read", "write": "https://shop.example/write"}, default_scopes=["read"])
    client = {key: value for key, value in CLIENT.items() if key != "refresh_token"}
    pull(make(url, {}, {"auth": {**client, "client_id": f"a{url}"}}, auth=kind))
    pull(make(url, {}, {"auth": {**client, "client_id": f"b{url}", "scopes": ["write", "other"]}}, auth=kind))
    assert [grant["scope"] for grant in server.grants] == ["https://shop.example/read", "https://shop.example/write other"]


def test_the_token_s_address_may_be_filled_in_but_stays_within_the_hosts(make: Make, issuer: tuple[Issuer, str]) -> None:
    server, url = issuer
    config = {"tenant": {"type": "string"}}
    kind = {"user": {"kind": "oauth2", "token_url": "https://${config.tenant}.shop.example/token"}}
    for tenant in ("evil.example/", "evil.example#", "other"):
        connector = make(url, {}, {"auth": CLIENT, "tenant": tenant}, auth=kind, config=config)
        with pytest.raises(ConfigurationError):
            pull(connector)
    with pytest.raises(ConfigurationError, match="where tokens are given out"):
        pull(make(url, {}, {"auth": CLIENT}, auth=kind, config=config))
    own = {**CLIENT, "token_url": f"{url}/token", "client_id": f"own{url}"}  # the source's word for it
    assert ids(pull(make(url, {}, {"auth": own, "tenant": "other"}, auth=kind, config=config))) == [1]
    assert len(server.grants) == 1


def test_a_way_to_sign_in_that_no_plugin_brings_is_told(make: Make) -> None:
    connector = make("http://127.0.0.1:1", {}, {"auth": {"kind": "custom", "use": "smoke_signals"}}, auth=["custom"])
    with pytest.raises(ConfigurationError, match="smoke_signals"):
        pull(connector)


def test_an_account_s_name_is_the_same_everywhere_and_tells_no_secret(make: Make) -> None:
    def name(secret: str, url: str = "https://a.example") -> str:
        connector = make("http://127.0.0.1:1", {}, {"auth": {**CLIENT, "client_secret": secret}}, auth=oauth2("http://127.0.0.1:1"))
        return account_name(connector.manifest, url, vars(connector)["auth"], ["k3y"])  # type: ignore[attr-defined]

    assert name("one-secret") == name("one-secret")
    assert len({name("one-secret"), name("another-secret"), name("one-secret", "https://b.example")}) == 3
    assert not any(secret in name("one-secret") for secret in ("one-secret", "r3fresh-token", "k3y"))


# ---- the account


def test_the_account_and_the_api_s_version_are_told(make: Make, issuer: tuple[Issuer, str]) -> None:
    _, url = issuer
    version = {"version": "2026-09", "sunset": "2999-03-31"}
    top = {"check": {"path": "/me", "account": "$.me.mail"}, "api_version": version, "limits": [{"requests": 100, "window": 10}]}
    connector = make(url, {}, {"auth": {**CLIENT, "client_id": f"me{url}"}}, auth=oauth2(url), **top)
    found = connector.metadata()
    assert (found.account, found.api_version, str(found.sunset)) == ("me@shop.example", "2026-09", "2999-03-31")
    assert found.limits == ("100 requests per 10 s",)
    wrong = make(url, {}, {"auth": {"kind": "bearer", "token": "wr0ng"}}, auth=["bearer"], **top)
    with pytest.raises(SignInError):
        wrong.metadata()


@pytest.mark.parametrize(("sunset", "said"), [("2020-01-01", "ended on 2020-01-01"), ("2999-01-01", "")])
def test_a_version_that_has_ended_is_warned_of_at_every_pull(make: Make, caplog: pytest.LogCaptureFixture, sunset: str, said: str) -> None:
    with Server(lambda _: ONE) as server, caplog.at_level(logging.WARNING, "muxly.manifest"):
        pull(make(server.url, {}, api_version={"version": "1", "sunset": sunset}))
    assert (said in caplog.text) if said else not caplog.text


def test_actions_are_told_with_their_inputs_and_done(make: Make) -> None:
    actions = {"rename": {"request": {"method": "PUT", "path": "/things/${input.id}", "json": {"name": "${input.name}"}}}}
    actions["rename"]["input"] = {"id": {"type": "string", "required": True}, "name": {"type": "string"}}
    with Server(lambda asked: json_answer({"path": asked.path, "body": asked.body.decode()})) as server:
        connector = make(server.url, {}, actions=actions)
        (action,) = connector.actions()
        assert (action.name, action.inputs["required"]) == ("rename", ["id"])
        assert connector.act("rename", {"id": "a/b", "name": "x"}) == {"path": "/things/a%2Fb", "body": '{"name":"x"}'}
        with pytest.raises(ConfigurationError, match="no action 'renam'; did you mean `rename`"):
            connector.act("renam", {})
