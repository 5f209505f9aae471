"""Service accounts sign in with their key, act for users where they may, and say what is wrong with a key or a clock."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from pydantic import SecretStr

from muxly_dagster.auth import ServiceAccount
from muxly_dagster.errors import ConfigurationError, SignInError
from muxly_dagster.http import Http, sign_in
from muxly_dagster_tests.peers.oauth import AuthorizationServer

ACCOUNT = "robot@project.example.com"
PAIR = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PRIVATE = PAIR.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
PUBLIC = {ACCOUNT: PAIR.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()}


def key(server: AuthorizationServer, **changed: Any) -> dict[str, Any]:
    own = {"type": "service_account", "client_email": ACCOUNT, "client_id": "1234", "private_key": PRIVATE, "private_key_id": "k1"}
    return own | {"token_uri": server.token_url} | changed


def account(server: AuthorizationServer, **more: Any) -> ServiceAccount:
    return ServiceAccount(key=SecretStr(json.dumps(key(server))), **more)


def test_a_key_signs_in_and_the_token_is_used_for_all_requests() -> None:
    with AuthorizationServer(public_keys=PUBLIC) as server, Http(server.url, auth=sign_in(account(server), scopes=["read"])) as http:
        assert [http.get("/").status, http.get("/").status] == [200, 200]
    assert [form["scope"] for form in server.forms] == ["read"]


def test_a_key_may_be_a_file_and_its_account_act_for_a_user(tmp_path: Path) -> None:
    with AuthorizationServer(public_keys=PUBLIC, delegated=("ann@example.com",)) as server:
        (tmp_path / "key.json").write_text(json.dumps(key(server)))
        for_ann = ServiceAccount(key_file=str(tmp_path / "key.json"), subject="ann@example.com", scopes=["read", "write"])
        with Http(server.url, auth=sign_in(for_ann, scopes=["other"])) as http:
            assert http.get("/").status == 200
        assert server.forms[0]["scope"] == "read write"
        with pytest.raises(SignInError, match=r"may not act for bob@example\.com") as caught:
            sign_in(for_ann.model_copy(update={"subject": "bob@example.com"})).headers()
    assert "domain-wide delegation" in str(caught.value)
    assert "1234" in str(caught.value)


def test_a_clock_that_is_off_is_named_as_the_reason() -> None:
    with AuthorizationServer(public_keys=PUBLIC, clock_ahead=4 * 3600) as server, pytest.raises(SignInError, match="clock of this machine"):
        sign_in(account(server), scopes=["read"]).headers()


def test_an_account_that_is_gone_is_told_by_its_name() -> None:
    with AuthorizationServer() as server, pytest.raises(SignInError, match="account not found") as caught:
        sign_in(account(server), scopes=["read"]).headers()
    assert ACCOUNT in str(caught.value)


WRONG: dict[str, tuple[Callable[[dict[str, Any]], str], str]] = {
    "no json": (lambda key: "nothing", "not JSON"),
    "a list": (lambda key: "[]", "not a service account's key"),
    "a user's": (lambda key: json.dumps(key | {"type": "authorized_user"}), "'authorized_user'"),
    "an app's": (lambda key: json.dumps({"installed": {"client_id": "x"}}), "it is an OAuth client's, which .auth. of kind oauth2 takes"),
    "cut": (lambda key: json.dumps({n: v for n, v in key.items() if n != "private_key"}), "lacks private_key"),
    "broken": (lambda key: json.dumps(key | {"private_key": PRIVATE[:300]}), "cannot be read"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_key_is_told_with_its_place_and_never_shown(case: str, tmp_path: Path) -> None:
    make, told = WRONG[case]
    with AuthorizationServer() as server:
        path = tmp_path / "key.json"
        path.write_text(make(key(server)))
        with pytest.raises(ConfigurationError, match=told) as caught:
            sign_in(ServiceAccount(key_file=str(path)), scopes=["read"])
    assert str(path) in str(caught.value)
    assert PRIVATE[50:100] not in str(caught.value)


def test_a_key_file_that_is_not_there_and_other_gaps_are_told() -> None:
    for auth, told in (
        (ServiceAccount(key_file="/nowhere/key.json", scopes=["read"]), "not there"),
        (ServiceAccount(subject="ann@example.com", scopes=["read"]), "cannot act for a user"),
        (ServiceAccount(), "what to ask for"),
    ):
        with pytest.raises(ConfigurationError, match=told):
            sign_in(auth)


def test_without_a_key_the_machines_own_identity_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with AuthorizationServer(public_keys=PUBLIC, scopes=("read", "machine")) as server:
        (tmp_path / "adc.json").write_text(json.dumps(key(server, project_id="p")))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "adc.json"))
        with Http(server.url, auth=sign_in(ServiceAccount(), scopes=["machine"])) as http:
            assert [http.get("/").status, http.get("/").status] == [200, 200]
    assert [form["scope"] for form in server.forms] == ["machine"]


def test_a_machine_without_an_identity_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    with pytest.raises(SignInError, match="no identity at Google"):
        sign_in(ServiceAccount(), scopes=["nothing"]).headers()
