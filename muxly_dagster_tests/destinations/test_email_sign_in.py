"""Mail servers that are somebody else, do not encrypt or refuse a sign-in: nothing goes where it should not, and no secret is shown."""

import base64
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from muxly_dagster.destinations.email import Email
from muxly_dagster.errors import ConfigurationError, RetryLater, SignInError
from muxly_dagster.testing import delivery
from muxly_dagster_tests.destinations.mailing import PASSWORD, ROWS
from muxly_dagster_tests.destinations.mailing import email_to_each as email
from muxly_dagster_tests.peers.certificate import Certificate
from muxly_dagster_tests.peers.mail import MailServer
from muxly_dagster_tests.peers.oauth import AuthorizationServer


@pytest.fixture
def server(relay: MailServer) -> MailServer:
    return relay


# ---- encryption -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_mails_go_encrypted(certificate: Certificate, security: Any) -> None:
    with MailServer(certificate, security=security) as server:
        target = email(server, security=security, ca_file=str(certificate.cert))
        assert target.check().what == "encrypted; no mail was sent"
        assert server.taken == server.came == []
        assert target.deliver(delivery(ROWS)).accepted == 4
        assert {taken.encrypted for taken in server.taken} == {True}


@pytest.mark.parametrize("security", ["starttls", "tls"])
@pytest.mark.parametrize(
    ("names", "days", "known", "said"),
    [
        (["mail.elsewhere.example"], 1, True, "mismatch"),
        (["127.0.0.1"], -1, True, "expired"),
        (["127.0.0.1"], 1, False, "self-signed|self signed"),
    ],
    ids=["other name", "expired", "unknown"],
)
def test_a_server_that_cannot_prove_who_it_is_gets_nothing(
    tmp_path: Path, security: Any, names: list[str], days: int, known: bool, said: str
) -> None:
    shown = Certificate.made(tmp_path, *names, days=days)
    with MailServer(shown, security=security, users={"muxly": PASSWORD}) as server:
        target = email(server, security=security, ca_file=str(shown.cert) if known else "", username="muxly", password=PASSWORD)
        with pytest.raises(ConfigurationError, match=f"certificate is not accepted: .*({said})"):
            target.deliver(delivery(ROWS))
        assert target.check().status == "failed"
        assert server.signed_in == server.taken == []


def test_without_starttls_nothing_is_sent_unless_that_is_wanted(server: MailServer) -> None:
    with pytest.raises(ConfigurationError, match="offers no STARTTLS"):
        email(server, security="starttls").deliver(delivery(ROWS))
    assert server.came == []
    assert email(server, security="none").deliver(delivery(ROWS)).accepted == 4


def test_tls_where_there_is_none_is_said_so(server: MailServer, certificate: Certificate) -> None:
    with pytest.raises(ConfigurationError, match="does not speak TLS there"):
        email(server, security="tls").deliver(delivery(ROWS))
    with pytest.raises(ConfigurationError, match="`ca_file` cannot be read"):
        email(server, security="tls", ca_file=str(certificate.cert) + ".missing").deliver(delivery(ROWS))
    with pytest.raises(ConfigurationError, match="`ca_file` cannot be read"):
        email(server, security="tls", ca_file=__file__).deliver(delivery(ROWS))


def test_what_was_said_before_encryption_counts_for_nothing(certificate: Certificate) -> None:
    """Answers that somebody on the line put in before the handshake are not taken for the server's (CVE-2011-0411 and its kin)."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as lines:
            connection.sendall(b"220 hello\r\n")
            lines.readline()
            connection.sendall(b"250-hello\r\n250 STARTTLS\r\n")
            lines.readline()
            connection.sendall(b"220 go ahead\r\n250-injected\r\n250 AUTH PLAIN\r\n")
            context = certificate.context
            try:
                with context.wrap_socket(connection, server_side=True) as encrypted:
                    asked.append(encrypted.recv(1_000))
                    encrypted.sendall(b"250 hello\r\n")
                    asked.append(encrypted.recv(1_000))
            except OSError:
                pass

    asked: list[bytes] = []
    thread = threading.Thread(target=serve)
    thread.start()
    target = Email(
        **{"from": "muxly@acme.example"},  # type: ignore[arg-type]
        host="127.0.0.1",
        port=listener.getsockname()[1],
        ca_file=str(certificate.cert),
        username="muxly",
        password=PASSWORD,
        to=["ada@acme.example"],
    )
    result = target.check()
    thread.join()
    listener.close()
    assert result.status == "failed"
    assert not any(b"AUTH" in said for said in asked)


# ---- signing in -------------------------------------------------------------------------------------------------------


@pytest.fixture
def guarded(certificate: Certificate) -> Iterator[MailServer]:
    with MailServer(certificate, users={"muxly": PASSWORD}) as server:
        yield server


def signing_in(server: MailServer, **fields: Any) -> Email:
    assert server.certificate
    return email(server, **{"security": "starttls", "ca_file": str(server.certificate.cert), "username": "muxly", **fields})


def test_a_wrong_password_is_told_without_it(guarded: MailServer) -> None:
    target = signing_in(guarded, password="wr0ng-password")
    with pytest.raises(SignInError, match="refuses the sign-in of muxly: 535") as caught:
        target.deliver(delivery(ROWS))
    assert "password" in caught.value.do
    result = target.check()
    assert (result.status, result.tried) == ("failed", f"connect to 127.0.0.1:{guarded.port} and sign in as muxly")
    assert "wr0ng" not in f"{caught.value}{result}{target!r}"
    assert (caught.value.__cause__ is None and caught.value.__suppress_context__ is True) or caught.value.__context__ is None


def test_a_password_that_the_server_repeats_is_not_shown(certificate: Certificate) -> None:

    with MailServer(certificate, users={"muxly": PASSWORD}) as server:
        server.echo = True
        result = signing_in(server, password="wr0ng-password").check()
    assert result.status == "failed" and "you said" in result.what
    assert "wr0ng-password" not in result.what
    assert base64.b64encode(b"wr0ng-password").decode() not in result.what


def test_a_sign_in_that_fails_for_now_is_tried_again_from_the_start(certificate: Certificate) -> None:
    with MailServer(certificate, users={"muxly": PASSWORD}) as server:
        server.trouble = ["454 4.7.0 the directory is away"]
        with pytest.raises(RetryLater, match="454 4.7.0 the directory is away"):
            signing_in(server, password=PASSWORD).deliver(delivery(ROWS))
        assert (server.came, server.connections) == ([], 1)
        assert signing_in(server, password=PASSWORD).deliver(delivery(ROWS)).accepted == 4


def test_a_server_without_a_sign_in_that_is_known_is_said_so(certificate: Certificate) -> None:
    with MailServer(certificate, users={"muxly": PASSWORD}) as server, pytest.raises(ConfigurationError, match="XOAUTH2.*it offers"):
        signing_in(server, auth={"kind": "bearer", "token": "t0ken"}).deliver(delivery(ROWS))
    with MailServer(certificate) as server, pytest.raises(ConfigurationError, match="offers no way to sign in"):
        signing_in(server, password=PASSWORD).deliver(delivery(ROWS))


def test_a_server_that_wants_a_sign_in_is_given_one_by_a_person(guarded: MailServer) -> None:
    with pytest.raises(SignInError, match="wants a sign-in: 530") as caught:
        signing_in(guarded, username="").deliver(delivery(ROWS))
    assert caught.value.do == "set `username` and `password`"


def test_plain_is_taken_before_login_and_login_where_it_is_all(guarded: MailServer, certificate: Certificate) -> None:
    assert signing_in(guarded, password=PASSWORD).check().status == "ok"
    with MailServer(certificate, users={"muxly": PASSWORD}, without=("PLAIN",)) as server:
        assert signing_in(server, password=PASSWORD).deliver(delivery(ROWS)).accepted == 4
        assert signing_in(server, password="another-password").check().status == "failed"
        assert (guarded.signed_in, server.signed_in) == (["PLAIN"], ["LOGIN"])


def test_an_access_token_signs_in(certificate: Certificate) -> None:
    with MailServer(certificate, tokens={"t0ken-of-muxly"}) as server:
        target = signing_in(server, auth={"kind": "bearer", "token": "t0ken-of-muxly"})
        assert target.deliver(delivery(ROWS)).accepted == 4
        assert (server.signed_in, server.taken[0].user) == (["XOAUTH2"], "muxly")
        wrong = signing_in(server, auth={"kind": "bearer", "token": "an0ther-token"})
        with pytest.raises(SignInError, match="535") as caught:
            wrong.deliver(delivery(ROWS))
        assert "an0ther" not in f"{caught.value}{wrong!r}{wrong.check()}"


def test_a_token_that_was_withdrawn_is_asked_for_anew(certificate: Certificate) -> None:
    with AuthorizationServer() as authorization, MailServer(certificate, tokens={"none yet"}) as server:
        auth = {
            "kind": "oauth2",
            "client_id": authorization.client_id,
            "client_secret": authorization.client_secret,
            "refresh_token": next(iter(authorization.refresh_tokens)),
            "token_url": authorization.token_url,
        }
        target = signing_in(server, auth=auth)
        with pytest.raises(SignInError, match="535"):
            target.deliver(delivery(ROWS))
        assert len(authorization.given) == 2
        server.tokens.add(authorization.given[-1])
        target.deliver(delivery(ROWS))
        server.tokens = _Newest(authorization)  # type: ignore[assignment]
        assert target.deliver(delivery(ROWS)).accepted == 4


class _Newest:
    """Only what the authorization server gives from now on."""

    def __init__(self, authorization: AuthorizationServer) -> None:
        self._authorization, self._old = authorization, set(authorization.given)

    def __contains__(self, token: str) -> bool:
        return token in self._authorization.given and token not in self._old
