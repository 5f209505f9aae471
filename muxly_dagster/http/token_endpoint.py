"""A token endpoint of an OAuth 2.0 authorization server (RFC 6749, 3.2): one request, its answer as a value, and its refusals in words."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Literal
from urllib.parse import quote_plus, urlencode, urlsplit

from muxly_dagster.auth import Basic, NoAuth
from muxly_dagster.errors import ConfigurationError, SourceError
from muxly_dagster.http.client import Http
from muxly_dagster.http.hosts import Reach
from muxly_dagster.http.messages import Request, Response
from muxly_dagster.http.outcomes import Verdict
from muxly_dagster.http.redaction import Redaction
from muxly_dagster.http.retries import PASSING, Retries
from muxly_dagster.http.wire import Timeouts

_PATIENCE = Retries(attempts=2, base=0.5, budget_seconds=10)
"""The request that needs the token tries again by its own rules; this only meets a connection that was cut."""

_TIMEOUTS = Timeouts(connect=10, read=20, total=30)
_PASSING_ERRORS = frozenset({"temporarily_unavailable", "server_error"})
_FOREIGN_TYPES = frozenset({"mac", "dpop", "pop"})
_SECRET_FIELD = re.compile(r"secret|password|passwd|token|assertion|key|code", re.I)
_LONGEST = 300


@dataclass(frozen=True, slots=True)
class Token:
    """An access token. `lasts` is its life in seconds from now, where the server said; `refresh` a refresh token that came with it."""

    text: str
    lasts: float | None
    refresh: str | None

    def __repr__(self) -> str:
        return f"Token(lasts={self.lasts})"


class Refused(Exception):
    """The server gave no token: its error code (RFC 6749, 5.2), what it says without secrets, where, and its own time of day (RFC 9110)."""

    def __init__(self, error: str, said: str, where: str, date: str) -> None:
        super().__init__(error)
        self.error, self.said, self.where, self.date = error, said, where, date

    def __str__(self) -> str:
        return f"{self.error}: {self.said}" if self.error and self.said else self.error or self.said or "no reason given"

    @property
    def epoch(self) -> float | None:
        """The server's clock in seconds since 1970."""
        try:
            return parsedate_to_datetime(self.date).timestamp()
        except (TypeError, ValueError, IndexError):
            return None


@dataclass(frozen=True, repr=False)
class TokenEndpoint:
    """Where tokens are asked for, and the client that asks. `hosts` are the places it may be at; None: anywhere."""

    url: str
    client_id: str = ""
    client_secret: str = ""
    client_auth: Literal["body", "basic"] = "body"
    hosts: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        try:
            refusal = Reach(None, self.hosts).refusal(urlsplit(self.url))
        except ValueError:
            refusal = "which cannot be read"
        if refusal:
            raise ConfigurationError(f"the token URL is {Redaction()(self.url)!r}, {refusal}", do="write token_url as https://HOST/PATH")

    def __repr__(self) -> str:
        return Redaction()(self.url)

    def ask(self, fields: Mapping[str, str], secrets: Sequence[str] = ()) -> Token:
        """Ask for a token with these form fields; `secrets` are those among them that are known by no name.

        Raises Refused, RetryLater, and SourceError for an answer that is none of a token endpoint.
        """
        form = dict(fields)
        basic = bool(self.client_secret) and self.client_auth == "basic"
        if self.client_id and not basic:
            form = {"client_id": self.client_id, **form}
            if self.client_secret:
                form = {"client_secret": self.client_secret, **form}
        # Id and secret are form-encoded before they become a user name and password (RFC 6749, 2.3.1).
        pair = Basic.model_validate({"username": quote_plus(self.client_id), "password": quote_plus(self.client_secret)})
        hidden = [self.client_secret, *secrets, *(value for name, value in form.items() if _SECRET_FIELD.search(name))]
        request = Request(
            "POST",
            self.url,
            headers={"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"},
            content=urlencode(form).encode(),
            # A second request gets another token, and where the first answer was lost there is no other way to any.
            idempotent=True,
        )
        auth = pair if basic else NoAuth()
        with Http(auth=auth, secrets=hidden, judge=_judge, retries=_PATIENCE, timeouts=_TIMEOUTS, concurrency=1) as http:
            response = http.request(request)
        return _token(response)


def _judge(response: Response) -> Verdict | None:
    """Refusals are read by the caller, but for those that pass."""
    if response.status in PASSING:
        return None
    return "retry" if _said(response)[0] in _PASSING_ERRORS else "skip"


def _token(response: Response) -> Token:
    error, said = _said(response)
    if error or not 200 <= response.status < 300:
        text = response.redaction(said or f"{response.reason} {response.excerpt(120)}")
        known = response.redaction(error)
        raise Refused(
            known, text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…", response.where, response.headers.get("date", "")
        )
    value = _document(response)
    token = value.get("access_token") if isinstance(value, dict) else None
    if not isinstance(token, str) or not token:
        do = "check token_url: it must be the address that gives tokens out, not the one a user signs in at"
        raise SourceError("answered without an access token", do=do, where=response.where)
    if str(value.get("token_type") or "").lower() in _FOREIGN_TYPES:
        do = "let the provider give bearer tokens to this client"
        raise SourceError(
            f"gave a token of type {value['token_type']}, which takes a signature Muxly cannot make", do=do, where=response.where
        )
    refresh = value.get("refresh_token")
    return Token(token, _seconds(value.get("expires_in")), refresh if isinstance(refresh, str) and refresh else None)


def _said(response: Response) -> tuple[str, str]:
    """The error code and its description, as RFC 6749 (5.2) or the usual other forms have them; empty where there is none."""
    try:
        value: Any = json.loads(response.content)
    except (ValueError, RecursionError):
        return "", ""
    if not isinstance(value, dict):
        return "", ""
    error = value.get("error")
    inner = error if isinstance(error, dict) else {}
    code = inner.get("code") or inner.get("status") or inner.get("type") or "" if inner else error or ""
    said = value.get("error_description") or inner.get("message") or value.get("message") or ""
    return str(code) if not value.get("access_token") else "", str(said)


def _document(response: Response) -> Any:
    """The answer's JSON. Raises SourceError without a word of what stands there instead: it may be a token in another form."""
    try:
        return json.loads(response.content)
    except (ValueError, RecursionError):
        do = "check token_url: it must be the address that gives tokens out, as JSON (RFC 6749, 5.1)"
        kind = response.headers.get("content-type", "").partition(";")[0].strip()
        what = f"answered {kind or 'something else'} instead of JSON with a token"
        raise SourceError(what, do=do, where=response.where) from None


def _seconds(value: Any) -> float | None:
    """`expires_in` (RFC 6749, 5.1); several servers send it as text."""
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        return None
    return max(0.0, seconds) if seconds < 1e12 else None
