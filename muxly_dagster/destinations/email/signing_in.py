"""Signing in to a mail server (RFC 4954): with a password (PLAIN, LOGIN) or an access token (XOAUTH2)."""

import base64
import smtplib
from dataclasses import dataclass, field
from typing import Literal

from muxly_dagster.auth import Bearer, TokenSource
from muxly_dagster.errors import ConfigurationError, SourceError
from muxly_dagster.http import Redaction

Security = Literal["starttls", "tls", "none"]


@dataclass(frozen=True, slots=True)
class Server:
    """Where mails go and how to sign in there: with `password` where there is a `username`, or with tokens (XOAUTH2). Seconds."""

    host: str
    port: int
    security: Security
    timeout: float
    ca_file: str = ""
    username: str = ""
    password: str = field(default="", repr=False)
    tokens: TokenSource | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """Host and port, for people."""
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class GivenToken:
    """A token that was configured, and is the only one there is."""

    auth: Bearer

    def headers(self) -> dict[str, str]:
        """The header with it."""
        return {"Authorization": f"Bearer {self.auth.token.get_secret_value()}"}

    def refused(self, headers: object) -> bool:
        """There is no other."""
        return False

    def secrets(self) -> tuple[str, ...]:
        """The token."""
        return (self.auth.token.get_secret_value(),)


def secrets(server: Server) -> list[str]:
    """The texts that nobody may see, in the forms in which they go over the line."""
    if not server.password:
        return []
    return [server.password, _packed(server.password), _packed(_plain(server))]


def sign_in(client: smtplib.SMTP, server: Server, redaction: Redaction) -> tuple[int, bytes]:
    """Sign in, and give the server's answer. `redaction` learns what is shown to it.

    Raises ConfigurationError where the server has no way that is known here, and what a token source raises.
    """
    offered = client.esmtp_features.get("auth", "").upper().split()
    wanted = ("XOAUTH2",) if server.tokens is not None else ("PLAIN", "LOGIN")
    mechanism = next((each for each in wanted if each in offered), None)
    if mechanism is None:
        raise ConfigurationError(
            f"the server offers no way to sign in that is known here ({' or '.join(wanted)}); it offers {' '.join(offered) or 'none'}",
            do="correct `security` and `port`: many servers offer it only over TLS",
            where=server.name,
        )
    return _by_password(client, server, mechanism) if server.tokens is None else _by_token(client, server, server.tokens, redaction)


def _by_password(client: smtplib.SMTP, server: Server, mechanism: str) -> tuple[int, bytes]:
    """PLAIN (RFC 4616), or LOGIN where it is all there is. Texts are UTF-8, which smtplib's own log-in does not know."""
    if mechanism == "PLAIN":
        return client.docmd("AUTH", f"PLAIN {_packed(_plain(server))}")
    code, said = client.docmd("AUTH", f"LOGIN {_packed(server.username)}")
    return client.docmd(_packed(server.password)) if code == 334 else (code, said)


def _by_token(client: smtplib.SMTP, server: Server, source: TokenSource, redaction: Redaction) -> tuple[int, bytes]:
    """XOAUTH2 (https://developers.google.com/workspace/gmail/imap/xoauth2-protocol), once more with a new token where one is refused."""
    code, said = -1, b""
    for last in (False, True):
        try:
            headers = source.headers()
        except SourceError as error:
            raise ConfigurationError(f"there is no access token to be had: {error.what}", do=error.do or "correct `auth`") from None
        token = next((value for name, value in headers.items() if name.lower() == "authorization"), "").rpartition(" ")[2]
        packed = _packed(f"user={server.username}\x01auth=Bearer {token}\x01\x01")
        redaction.learn([token, packed, *source.secrets()])
        code, said = client.docmd("AUTH", f"XOAUTH2 {packed}")
        if code == 334:  # why not, in JSON; an empty answer brings the refusal itself
            code, said = client.docmd("")
        if code < 500 or last or not source.refused(headers):
            break
    return code, said


def _plain(server: Server) -> str:
    return f"\0{server.username}\0{server.password}"


def _packed(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
