"""An OAuth 2.0 authorization server (RFC 6749) and an API that takes its tokens, over real HTTP on one loopback port.

It checks clients, grants and scopes as a strict server does, and remembers what it was asked.
"""

import base64
import threading
import time
import uuid
from dataclasses import dataclass, field
from email.utils import formatdate
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, unquote_plus

from muxly_dagster_tests.http.server import Asked, Server, answer, json_answer

GOOGLE = "https://oauth2.googleapis.com/token"
"""The audience that google-auth names whatever the token endpoint is."""

JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"


class Refusal(Exception):
    """An error answer of the token endpoint (RFC 6749, 5.2)."""

    def __init__(self, error: str, said: str = "", status: int = 400) -> None:
        super().__init__(error)
        self.error, self.said, self.status = error, said, status


@dataclass
class AuthorizationServer:
    """`POST /token` gives tokens, everything below `/api` wants one. `expires_in` is the life of a token in seconds, None: unsaid.

    `rotating` gives a new refresh token each time and forgets the old one; `trouble` are statuses to answer first; `clock_ahead` is
    how many seconds this server's clock is ahead of ours; `public_keys` are those of service accounts, by their e-mail address.
    """

    client_id: str = field(default_factory=lambda: f"client-{uuid.uuid4().hex[:12]}")
    client_secret: str = field(default_factory=lambda: f"s3cr3t/+&%-{uuid.uuid4().hex}")
    client_auth: tuple[str, ...] = ("body", "basic")
    scopes: tuple[str, ...] = ("read", "write")
    expires_in: float | str | None = 3600
    rotating: bool = False
    extra: dict[str, Any] = field(default_factory=dict)
    trouble: list[int] = field(default_factory=list)
    clock_ahead: float = 0.0
    public_keys: dict[str, str] = field(default_factory=dict)
    delegated: tuple[str, ...] = ()
    slowly: float = 0.0

    def __post_init__(self) -> None:
        self.forms: list[dict[str, str]] = []
        self.token_requests: list[Asked] = []
        self.api_requests: list[Asked] = []
        self.refresh_tokens = {f"refresh-{uuid.uuid4().hex}"}
        self.given: list[str] = []
        self._valid: set[str] = set()
        self._lock = threading.Lock()
        self._server = Server(self._reply)

    @property
    def url(self) -> str:
        """The API's base URL."""
        return f"{self._server.url}/api"

    @property
    def token_url(self) -> str:
        """The token endpoint."""
        return f"{self._server.url}/token"

    @property
    def refresh_token(self) -> str:
        """One that is valid now."""
        return next(iter(self.refresh_tokens))

    @property
    def secrets(self) -> set[str]:
        """Everything that no log or message may show."""
        packed = base64.b64encode(f"{self.client_id}:{self.client_secret}".encode()).decode()
        return {self.client_secret, packed, *self.refresh_tokens, *self.given}

    def forget_tokens(self) -> None:
        """Access tokens given so far are refused from now on."""
        with self._lock:
            self._valid.clear()

    def _reply(self, asked: Asked) -> bytes:
        if asked.path != "/token":
            return self._api(asked)
        form = dict(parse_qsl(asked.body.decode(), keep_blank_values=True))
        with self._lock:
            self.forms.append(form)
            self.token_requests.append(asked)
            if self.trouble:
                return answer(self.trouble.pop(0), "<html>not now</html>")
        time.sleep(self.slowly)
        with self._lock:
            date = formatdate(time.time() + self.clock_ahead, usegmt=True)
            try:
                return json_answer(self._give(asked, form), Date=date, Cache_Control="no-store")
            except Refusal as refusal:
                value = {"error": refusal.error, **({"error_description": refusal.said} if refusal.said else {})}
                return json_answer(value, refusal.status, Date=date)

    def _api(self, asked: Asked) -> bytes:
        with self._lock:
            self.api_requests.append(asked)
            if asked.headers.get("authorization", "").removeprefix("Bearer ") not in self._valid:
                return json_answer({"message": f"{asked.headers.get('authorization')} is not valid"}, 401)
        return json_answer({"method": asked.method, "body": asked.body.decode()})

    def _give(self, asked: Asked, form: dict[str, str]) -> dict[str, Any]:
        grant = form.get("grant_type", "")
        if grant == JWT_BEARER:
            self._check_assertion(form)
        else:
            self._check_client(asked, form)
        if refused := set(form.get("scope", "").split()) - set(self.scopes):
            raise Refusal("invalid_scope", f"unknown: {' '.join(sorted(refused))}")
        value: dict[str, Any] = {"access_token": f"access-{uuid.uuid4().hex}", "token_type": "bearer"}
        if grant == "refresh_token":
            old = form.get("refresh_token", "")
            if old not in self.refresh_tokens:
                raise Refusal("invalid_grant", f"the token {old} was revoked")
            if self.rotating:
                value["refresh_token"] = f"refresh-{uuid.uuid4().hex}"
                self.refresh_tokens = {value["refresh_token"]}
        elif grant not in ("client_credentials", JWT_BEARER):
            raise Refusal("unsupported_grant_type")
        if self.expires_in is not None:
            value["expires_in"] = self.expires_in
        self._valid.add(value["access_token"])
        self.given.append(value["access_token"])
        return value | self.extra

    def _check_client(self, asked: Asked, form: dict[str, str]) -> None:
        header = asked.headers.get("authorization", "")
        if header and "client_secret" in form:
            raise Refusal("invalid_request", "more than one way to authenticate")
        if header:
            way, pair = "basic", base64.b64decode(header.removeprefix("Basic ")).decode().split(":", 1)
            client, secret = unquote_plus(pair[0]), unquote_plus(pair[1])
        else:
            way, client, secret = "body", form.get("client_id", ""), form.get("client_secret", "")
        if way not in self.client_auth or (client, secret) != (self.client_id, self.client_secret):
            raise Refusal("invalid_client", f"no client {client!r} with the secret {secret!r}", 401)

    def _check_assertion(self, form: dict[str, str]) -> None:
        from google.auth import jwt

        claims = jwt.decode(form["assertion"], verify=False)
        key = self.public_keys.get(claims["iss"])
        if key is None:
            raise Refusal("invalid_grant", "Invalid grant: account not found")
        claims = jwt.decode(form["assertion"], certs=key, audience=[self.token_url, GOOGLE])
        now = time.time() + self.clock_ahead
        if not claims["iat"] - 300 <= now <= claims["exp"]:
            raise Refusal("invalid_grant", "Invalid JWT: check your iat and exp values in the JWT claim")
        if "sub" in claims and claims["sub"] not in self.delegated:
            raise Refusal("unauthorized_client", "not authorized for any of the scopes requested", 401)
        form["scope"] = claims["scope"]

    def __enter__(self) -> Self:
        self._server.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.__exit__(kind, error, trace)
