"""Access tokens of Google's service accounts: by their key (RFC 7523), or as the identity that this machine has."""

import datetime as dt
import json
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from muxly_dagster.auth import ServiceAccount
from muxly_dagster.errors import ConfigurationError, MuxlyError, RetryLater, SignInError
from muxly_dagster.http.client import Http
from muxly_dagster.http.grants import refusal
from muxly_dagster.http.messages import Request
from muxly_dagster.http.retries import Retries
from muxly_dagster.http.token_endpoint import Refused, Token, TokenEndpoint
from muxly_dagster.http.wire import Timeouts

_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_LIFE = 3600
"""Seconds for which an assertion is signed: the most that Google takes
(https://developers.google.com/identity/protocols/oauth2/service-account)."""

_SKEW = 60.0
"""Seconds by which two clocks may differ before it is worth telling."""

_ABOUT_TIME = re.compile(r"\b(iat|exp|timeframe|clock)\b", re.I)
_GET_KEY = "make a key in the Google Cloud console: IAM & Admin, Service Accounts, Keys, JSON"


def account_key(auth: ServiceAccount) -> dict[str, Any] | None:
    """The key of a service account as its JSON object; None for the machine's own identity. Raises ConfigurationError."""
    if auth.key is not None:
        text, where = auth.key.get_secret_value(), "auth.key"
    elif auth.key_file:
        where = auth.key_file
        try:
            text = Path(auth.key_file).expanduser().read_text("utf-8")
        except FileNotFoundError:
            raise ConfigurationError(
                "the key file is not there", do="correct key_file, or give the key's text as `key`", where=where
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            what = error.strerror if isinstance(error, OSError) else "it is no text"
            raise ConfigurationError(f"the key file cannot be read: {what}", do="check key_file and its permissions", where=where) from None
    else:
        return None
    try:
        key = json.loads(text)
    except ValueError:
        raise ConfigurationError(
            "the service account's key is not JSON", do=f"give the whole file as it came; {_GET_KEY}", where=where
        ) from None
    missing = [
        name for name in ("client_email", "private_key", "token_uri") if not (isinstance(key, dict) and isinstance(key.get(name), str))
    ]
    if not isinstance(key, dict) or key.get("type") != "service_account" or missing:
        kind = key.get("type", "") if isinstance(key, dict) else ""
        what = f"it is of type {kind!r}" if kind not in ("", "service_account") else f"it lacks {', '.join(missing) or 'its type'}"
        if isinstance(key, dict) and ("installed" in key or "web" in key):
            what = "it is an OAuth client's, which `auth` of kind oauth2 takes"
        raise ConfigurationError(f"this is not a service account's key: {what}", do=_GET_KEY, where=where)
    return key


class AccountAssertion:
    """A service account shows that it has its key, and acts for `subject` where it may (domain-wide delegation)."""

    def __init__(self, key: Mapping[str, Any], subject: str, scope: str, where: str) -> None:
        # Imported here: google-auth and its cryptography take a while, and only these connectors need them.
        from google.auth import crypt

        self._endpoint = TokenEndpoint(key["token_uri"])
        self._key, self._subject, self._scope = key, subject, scope
        try:
            self._signer: Any = crypt.RSASigner.from_service_account_info(key)  # type: ignore[no-untyped-call]
        except (ValueError, TypeError):
            raise ConfigurationError("the private key in the service account's key cannot be read", do=_GET_KEY, where=where) from None

    def ask(self) -> Token:
        """See token_source.Grant."""
        from google.auth import jwt

        now = int(time.time())
        claims = {"iss": self._key["client_email"], "aud": self._endpoint.url, "scope": self._scope, "iat": now, "exp": now + _LIFE}
        if self._subject:
            claims["sub"] = self._subject
        assertion: bytes = jwt.encode(self._signer, claims)  # type: ignore[no-untyped-call]
        try:
            return self._endpoint.ask({"grant_type": _GRANT, "assertion": assertion.decode()})
        except Refused as refused:
            raise self._explained(refused) from None

    def secrets(self) -> tuple[str, ...]:
        """See token_source.Grant."""
        return (self._key["private_key"],)

    def _explained(self, refused: Refused) -> MuxlyError:
        server = refused.epoch
        off = None if server is None else time.time() - server
        if refused.error == "invalid_grant" and ((off is not None and abs(off) > _SKEW) or _ABOUT_TIME.search(refused.said)):
            by = f" by {abs(off):,.0f} s" if off is not None and abs(off) > _SKEW else ""
            return SignInError(f"the clock of this machine is wrong{by} ({refused})", do="let it follow a time server", where=refused.where)
        if refused.error == "unauthorized_client" and self._subject:
            client = self._key.get("client_id", "")
            do = f"allow the account's client id {client} these scopes in the Admin console (domain-wide delegation): {self._scope}"
            return SignInError(f"the service account may not act for {self._subject} ({refused})", do=do, where=refused.where)
        if refused.error == "invalid_grant":
            do = f"see whether the account {self._key['client_email']} and this key still exist, and the user to act for"
            return SignInError(f"the service account's key was refused ({refused})", do=do, where=refused.where)
        return refusal(refused, self._endpoint, self._scope)

    def __repr__(self) -> str:
        return f"service account {self._key['client_email']}"


class MachineIdentity:
    """Application default credentials: what GOOGLE_APPLICATION_CREDENTIALS names, gcloud's log-in, or the machine's own account."""

    def __init__(self, scopes: Sequence[str]) -> None:
        self._scopes = tuple(scopes)
        self._found: Any = None

    def ask(self) -> Token:
        """See token_source.Grant."""
        import google.auth
        from google.auth import exceptions

        carry: Any = _carry
        try:
            if self._found is None:
                self._found, _ = google.auth.default(scopes=self._scopes, request=carry)
            self._found.refresh(carry)
        except exceptions.DefaultCredentialsError:
            do = f"set key or key_file in `auth`, or GOOGLE_APPLICATION_CREDENTIALS; {_GET_KEY}"
            raise SignInError("this machine has no identity at Google", do=do) from None
        except exceptions.TransportError:
            raise RetryLater("Google cannot be asked for a token now", do="check the network and try again") from None
        except exceptions.GoogleAuthError as error:
            if getattr(error, "retryable", False):
                raise RetryLater("Google gives no token now", do="try again later") from None
            said = str(error.args[0]) if error.args else type(error).__name__
            raise SignInError(
                f"Google refuses this machine's identity ({said[:200]})", do="run `gcloud auth application-default login`"
            ) from None
        expiry = self._found.expiry
        lasts = None if expiry is None else max(0.0, (expiry.replace(tzinfo=dt.UTC) - dt.datetime.now(dt.UTC)).total_seconds())
        return Token(str(self._found.token), lasts, None)

    def secrets(self) -> tuple[str, ...]:
        """See token_source.Grant."""
        return ()

    def __repr__(self) -> str:
        return "this machine's identity at Google"


class _Carried(NamedTuple):
    status: int
    headers: Mapping[str, str]
    data: bytes


def _carry(url: str, method: str = "GET", body: Any = None, headers: Any = None, timeout: float | None = None, **_: Any) -> _Carried:
    """A request of google-auth's (`google.auth.transport.Request`), which repeats and judges by rules of its own."""
    from google.auth import exceptions

    content = body.encode() if isinstance(body, str) else body
    patience = Timeouts(connect=min(timeout or 10, 10), read=timeout or 20, total=timeout or 30)
    with Http(judge=lambda response: "skip", retries=Retries(attempts=1), timeouts=patience, concurrency=1) as http:
        try:
            answer = http.request(Request(method, url, headers=headers, content=content))
        except MuxlyError as error:
            raise exceptions.TransportError("no answer") from error  # type: ignore[no-untyped-call]
    return _Carried(answer.status, answer.headers, answer.content)
