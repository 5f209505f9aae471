"""Credentials for Google's own libraries: whose they are, when their tokens are asked for, and what is said of wrong ones."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from google.auth.transport.requests import AuthorizedSession, Request

from muxly_dagster.auth import Bearer, OAuth2, ServiceAccount
from muxly_dagster.errors import ConfigurationError, SignInError
from muxly_dagster.google import SourceCredentials, google_credentials
from muxly_dagster_tests.peers.bigquery import REFRESH_TOKEN, BigQuery

SCOPES = ["https://www.googleapis.com/auth/bigquery"]


@pytest.fixture
def google() -> Iterator[BigQuery]:
    with BigQuery() as found:
        yield found


def _signed_in(credentials: Any, google: BigQuery) -> bool:
    headers: dict[str, str] = {}
    credentials.before_request(Request(), "GET", google.url, headers)
    return google.may(headers["authorization"])


def test_a_service_account_signs_in_with_its_key_or_the_keys_file(google: BigQuery, tmp_path: Path) -> None:
    file = tmp_path / "key.json"
    file.write_text(google.key())
    for auth in (ServiceAccount(key=google.key()), ServiceAccount(key_file=str(file))):
        made = google_credentials(auth, SCOPES)
        assert _signed_in(made, google)
        assert (made.project_id, made.scopes) == ("lab", SCOPES)


def test_a_service_account_acts_for_a_user_and_with_scopes_of_its_own(google: BigQuery) -> None:
    made = google_credentials(ServiceAccount(key=google.key(), subject="ada@example.com", scopes=["more"]), SCOPES)
    assert (made._subject, made.scopes) == ("ada@example.com", ["more"])


def test_the_machine_has_an_identity(google: BigQuery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "key.json"
    file.write_text(google.key())
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    assert _signed_in(google_credentials(ServiceAccount(), SCOPES), google)


def test_a_machine_without_identity_says_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    with pytest.raises(SignInError, match="no identity") as told:
        google_credentials(ServiceAccount(), SCOPES)
    assert "GOOGLE_APPLICATION_CREDENTIALS" in told.value.do


@pytest.mark.parametrize(
    ("key", "what"),
    [
        ("not json", "not JSON"),
        ("[]", "not a service account's key"),
        ('{"installed": {"client_id": "1"}}', "not a service account's key"),
        ('{"type": "authorized_user", "refresh_token": "hunter2"}', "authorized_user"),
        ('{"type": "service_account", "client_email": "a@b", "token_uri": "https://x"}', "private_key"),
    ],
)
def test_a_wrong_key_says_what_is_wrong_and_shows_nothing_of_it(key: str, what: str, tmp_path: Path) -> None:
    file = tmp_path / "key.json"
    file.write_text(key)
    for auth in (ServiceAccount(key=key), ServiceAccount(key_file=str(file))):
        with pytest.raises(ConfigurationError, match=what) as told:
            google_credentials(auth, SCOPES)
        assert told.value.problems[0].do and "hunter2" not in str(told.value)


def test_a_broken_private_key_is_not_shown(google: BigQuery) -> None:
    broken = json.dumps(json.loads(google.key()) | {"private_key": "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n"})
    with pytest.raises(ConfigurationError, match="cannot be read") as told:
        google_credentials(ServiceAccount(key=broken), SCOPES)
    assert "hunter2" not in f"{told.value} {told.value.__cause__}" and told.value.__suppress_context__


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.json"):
        google_credentials(ServiceAccount(key_file=str(tmp_path / "none.json")), SCOPES)


def test_a_subject_needs_a_key() -> None:
    with pytest.raises(ConfigurationError, match="subject"):
        google_credentials(ServiceAccount(subject="ada@example.com"), SCOPES)


def test_other_kinds_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="bearer"):
        google_credentials(Bearer(token="t"), SCOPES)


def _user(google: BigQuery, token: str = REFRESH_TOKEN) -> OAuth2:
    return OAuth2(client_id="client", client_secret="secret", refresh_token=token, token_url=f"{google.url}/token")


def test_a_user_signs_in_by_a_refresh_token(google: BigQuery) -> None:
    assert _signed_in(google_credentials(_user(google), SCOPES), google)


def test_a_token_that_google_refuses_is_replaced(google: BigQuery) -> None:
    session = AuthorizedSession(google_credentials(_user(google), SCOPES))
    google.put("shop.orders", pa.table({"id": [1]}))
    address = f"{google.url}/bigquery/v2/projects/lab/datasets"
    assert session.get(address).status_code == 200
    google.tokens.clear()
    assert session.get(address).status_code == 200
    assert [exchange.status for exchange in google.exchanges] == [200, 401, 200]
    session.close()


def test_a_refresh_token_that_was_withdrawn_asks_for_a_new_sign_in(google: BigQuery) -> None:
    with pytest.raises(SignInError) as told:
        _signed_in(google_credentials(_user(google, "1//withdrawn"), SCOPES), google)
    assert told.value.do and "1//withdrawn" not in str(told.value)


def test_a_source_that_has_no_other_token_ends_it() -> None:
    class Fixed:
        def headers(self) -> Mapping[str, str]:
            return {"Authorization": "Bearer one"}

        def refused(self, headers: Mapping[str, str]) -> bool:
            return headers != {"Authorization": "Bearer one"}

        def secrets(self) -> tuple[str, ...]:
            return ("one",)

    made, headers = SourceCredentials(Fixed()), dict[str, str]()
    made.before_request(None, "GET", "https://example.com", headers)
    assert headers == {"authorization": "Bearer one"}
    with pytest.raises(SignInError, match="refuses"):
        made.refresh(None)
