"""A manifest is a connector: its inputs are fields, its credentials go where it says, its rules judge answers."""

import base64
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pydantic import SecretStr, ValidationError

from muxly_dagster.connector import Connector, Unreadable
from muxly_dagster.errors import ConfigurationError, MuxlyError, RetryLater, SignInError, SourceError
from muxly_dagster.manifest.connector import load_manifest
from muxly_dagster.records import TIMESTAMP
from muxly_dagster_tests.http.server import Asked, Server, answer, json_answer
from muxly_dagster_tests.manifest.conftest import Make, ids, pull

ONE = json_answer({"results": [{"id": 1}]})


def ask(make: Make, fields: dict[str, Any], stream: dict[str, Any] | None = None, **top: Any) -> Asked:
    """The one request of a pull."""
    with Server(lambda _: ONE) as server:
        assert ids(pull(make(server.url, stream or {}, fields, **top))) == [1]
        return server.asked[0]


def test_a_bearer_token_goes_into_the_header(make: Make) -> None:
    asked = ask(make, {"auth": {"kind": "bearer", "token": "t0ken"}}, auth=["bearer"])
    assert asked.headers["authorization"] == "Bearer t0ken"


def test_an_api_key_goes_where_the_manifest_says(make: Make) -> None:
    kind = {"user": {"kind": "api_key", "into": "query", "name": "apikey"}}
    assert dict(ask(make, {"auth": {"key": "k3y"}}, auth=kind).query) == {"apikey": "k3y"}
    kind = {"user": {"kind": "api_key", "name": "Authorization", "prefix": "Token "}}
    assert ask(make, {"auth": {"kind": "api_key", "key": "k3y"}}, auth=kind).headers["authorization"] == "Token k3y"


def test_basic_credentials_are_sent_as_such(make: Make) -> None:
    asked = ask(make, {"auth": {"kind": "basic", "username": "u", "password": "p"}}, auth=["basic", "none"])
    assert asked.headers["authorization"] == "Basic " + base64.b64encode(b"u:p").decode()


def test_without_a_kind_nothing_is_sent(make: Make) -> None:
    assert "authorization" not in ask(make, {}, auth=["none", "bearer"]).headers


def test_credentials_the_api_does_not_take_are_refused(make: Make) -> None:
    with pytest.raises(ValidationError, match="bearer"):
        make("http://127.0.0.1:1", {}, {"auth": {"kind": "basic", "username": "u"}}, auth=["bearer", "none"])
    with pytest.raises(ValidationError, match="auth"):
        make("http://127.0.0.1:1", {}, {}, auth=["bearer"])


def test_inputs_are_typed_fields_and_fill_the_request(make: Make) -> None:
    config = {
        "account": {"type": "string", "required": True},
        "limit": {"type": "integer", "default": 50},
        "tags": {"type": "list", "default": ["a", "b"]},
        "search": {"type": "string"},
        "key": {"type": "string", "secret": True},
        "since": {"type": "duration", "default": "3d"},
    }
    stream = {
        "request": {
            "path": "/accounts/${config.account}/things",
            "query": {"limit": "${config.limit}", "tags": "${config.tags|text}", "q": "${config.search}", "version": "v-${api_version}"},
            "headers": {"X-Key": "${config.key}"},
        }
    }
    asked = ask(make, {"account": "a/b", "key": "s3cret"}, stream, config=config, api_version="2")
    assert asked.path == "/accounts/a%2Fb/things"
    assert dict(asked.query) == {"limit": "50", "tags": "a,b", "version": "v-2"}
    assert asked.headers["x-key"] == "s3cret"
    connector = make("http://127.0.0.1:1", stream, {"account": "x", "key": "s3cret"}, config=config, api_version="2")
    assert "s3cret" not in repr(connector)
    assert isinstance(vars(connector)["key"], SecretStr)
    for wrong in ({}, {"account": "x", "limit": "many"}, {"account": "x", "since": "soon"}, {"account": "x", "unknown": 1}):
        with pytest.raises(ValidationError):
            make("http://127.0.0.1:1", stream, wrong, config=config, api_version="2")


def test_a_source_can_point_the_manifest_elsewhere(make: Make) -> None:
    with Server(lambda _: ONE) as server:
        connector = make("https://api.shop.example/v1", {}, {"base_url": f"{server.url}/v2"}, hosts=["api.shop.example"])
        assert ids(pull(connector)) == [1]
        assert server.asked[0].path == "/v2/things"
        asking = make("${config.base_url}", {}, {"base_url": server.url})
        assert ids(pull(asking)) == [1]
    with pytest.raises(ValidationError, match="base_url"):
        make("${config.base_url}", {})


def test_a_base_url_filled_in_from_the_source_stays_within_the_hosts(make: Make) -> None:
    config = {"account": {"type": "string"}}
    for account in ("other", "evil.example/", "evil.example#"):
        connector = make("https://${config.account}.shop.example", {}, {"account": account}, hosts=["acme.shop.example"], config=config)
        with pytest.raises(ConfigurationError, match="not among `hosts`"):
            pull(connector)
    with pytest.raises(ConfigurationError, match="does not know its address"):
        pull(make("https://${config.account}.shop.example", {}, {}, hosts=["acme.shop.example"], config=config))


def test_a_value_in_a_path_cannot_lead_to_another_host(make: Make) -> None:
    stream = {"request": {"path": "${config.part}"}}
    asked = ask(make, {"part": "https://evil.example/x"}, stream, config={"part": {"type": "string"}})
    assert asked.target == "/https%3A%2F%2Fevil.example%2Fx"


def test_a_stream_is_described_without_asking_anybody(make: Make) -> None:
    connector = make("http://127.0.0.1:1", {"types": {"at": "timestamp", "n": "integer"}, "sync": {"kind": "cursor", "field": "at"}})
    stream = connector.stream(connector.Pull(stream="things"))
    assert (stream.name, stream.key, stream.sync) == ("things", ("id",), "cursor")
    assert stream.schema == pa.schema([("at", TIMESTAMP), ("n", pa.int64())])
    assert connector.streams() == [stream]
    with pytest.raises(ConfigurationError, match="did you mean `things`"):
        connector.stream(connector.Pull(stream="thing"))


def test_an_address_of_a_manifest_that_did_not_change_is_read_once(make: Make, tmp_path: Path) -> None:
    connector = make("http://127.0.0.1:1", {})
    assert load_manifest(tmp_path / "shop.yaml") is type(connector)
    assert issubclass(type(connector), Connector)
    assert (connector.id, connector.title) == ("shop", "Shop")


# ---- errors ----------------------------------------------------------------------------------------------------------


def test_a_retry_rule_waits_as_the_answer_says_and_goes_on(make: Make) -> None:
    def reply(asked: Asked) -> bytes:
        return json_answer({"code": "busy"}, 400, X_Wait="0") if asked.number < 3 else ONE

    rules = [{"status": 400, "when": "body.code == 'busy'", "do": "retry", "wait": "header:X-Wait"}]
    with Server(reply) as server:
        assert ids(pull(make(server.url, {}, errors=rules))) == [1]
        assert len(server.asked) == 3


def test_an_error_in_a_good_answer_is_seen(make: Make) -> None:
    with Server(lambda _: json_answer({"error": {"type": "gone"}})) as server:
        with pytest.raises(SourceError):
            pull(make(server.url, {}, errors=[{"when": "$.error", "do": "fail"}]))
        with pytest.raises(SignInError):
            pull(make(server.url, {}, errors=[{"when": "body.error.type == 'gone'", "do": "refresh_auth"}]))


def test_a_skipped_answer_leaves_a_trace_that_keeps_a_full_pull_from_deleting(make: Make) -> None:
    with Server(lambda _: json_answer({"error": "not in your plan"}, 402)) as server:
        batches = pull(make(server.url, {}, errors=[{"status": [402], "do": "skip"}]))
    assert ids(batches) == []
    (unreadable,) = batches[0].unreadable
    assert isinstance(unreadable, Unreadable)
    assert "not in your plan" in unreadable.text
    assert "402" in unreadable.reason


@pytest.mark.parametrize(("status", "error"), [(401, SignInError), (403, SignInError), (404, SourceError)])
def test_refusals_say_which_stream_they_met(make: Make, status: int, error: type[Exception]) -> None:
    with Server(lambda _: json_answer({"message": "no"}, status)) as server, pytest.raises(error, match="shop things"):
        pull(make(server.url, {}, {"auth": {"token": "t0psecret"}}, auth=["bearer"]))


@pytest.mark.parametrize(
    ("cause", "error", "do"),
    [
        ("quota", RetryLater, "renews the quota"),
        ("rate_limit", RetryLater, "`limits`"),
        ("auth", SignInError, "check `auth`"),
        ("permission", SignInError, "permission (scope)"),
        ("missing", SourceError, "was it deleted"),
    ],
)
def test_what_a_trouble_is_called_decides_what_people_are_told(make: Make, cause: str, error: type[MuxlyError], do: str) -> None:
    rule = {"when": "body.error == 'it'", "do": "fail", "as": cause}
    with Server(lambda _: json_answer({"error": "it"}, 400)) as server, pytest.raises(error) as caught:
        pull(make(server.url, {}, errors=[rule]))
    assert do in caught.value.do


def test_a_bad_record_is_in_the_batch_s_quarantine(make: Make) -> None:
    with Server(lambda _: answer(200, b'{"results":[{"id":1},{"id":NaN}]}', Content_Type="application/json")) as server:
        batches = pull(make(server.url, {}))
    assert ids(batches) == [1]
    assert [u.text for b in batches for u in b.unreadable] == ['{"id":NaN}']


def test_a_page_of_bad_records_only_is_no_silence_either(make: Make) -> None:
    with Server(lambda _: answer(200, b'{"results":[{"id":NaN}]}', Content_Type="application/json")) as server:
        batches = pull(make(server.url, {}))
    assert [u.text for b in batches for u in b.unreadable] == ['{"id":NaN}']


# ---- trying it -------------------------------------------------------------------------------------------------------


def test_the_check_request_is_sent_and_its_answer_told(make: Make) -> None:
    with Server(lambda a: json_answer({"ok": True}) if a.path == "/me" else json_answer({}, 401)) as server:
        good = make(server.url, {}, check={"path": "/me"}).test_connection()
        bad = make(server.url, {}).test_connection()
    assert (good.status, good.tried) == ("ok", "GET /me")
    assert (bad.status, bad.tried) == ("failed", "GET /things")
    assert bad.do


def test_a_server_that_is_not_there_fails_the_check_without_raising(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: Any) -> Any:
        raise RetryLater("nobody answers", do="try again later")

    monkeypatch.setattr("muxly_dagster.http.Http.request", gone)  # the real one would wait out its retries
    assert make("http://127.0.0.1:1", {}).test_connection().status == "failed"
