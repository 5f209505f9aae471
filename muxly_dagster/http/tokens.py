"""Signing in: what `auth:` says made into what the client takes, a source of tokens where credentials run out."""

import hashlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, overload

from muxly_dagster.auth import Auth, CustomAuth, OAuth2, ServiceAccount, TokenSource
from muxly_dagster.errors import ConfigurationError
from muxly_dagster.http.grants import ClientCredentials, RefreshToken, Rotation
from muxly_dagster.http.service_accounts import AccountAssertion, MachineIdentity, account_key
from muxly_dagster.http.token_endpoint import TokenEndpoint
from muxly_dagster.http.token_source import Grant, Tokens

Custom = Callable[[CustomAuth], TokenSource]
"""Makes the token source of a kind that a plugin brings."""

_shared: dict[str, Tokens] = {}
_rotations: dict[str, Rotation] = {}
"""Both kept for the life of the process: a refresh token that was given in place of a configured one is known nowhere else."""

_lock = threading.Lock()


@overload
def sign_in(
    auth: OAuth2 | ServiceAccount | CustomAuth,
    *,
    token_url: str = "",
    scopes: Sequence[str] = (),
    token_params: Mapping[str, str] | None = None,
    client_auth: Literal["body", "basic"] = "body",
    scope_separator: str = " ",
    hosts: Sequence[str] | None = None,
    header: str = "Authorization",
    prefix: str = "Bearer ",
    custom: Custom | None = None,
) -> TokenSource: ...


@overload
def sign_in(
    auth: Auth,
    *,
    token_url: str = "",
    scopes: Sequence[str] = (),
    token_params: Mapping[str, str] | None = None,
    client_auth: Literal["body", "basic"] = "body",
    scope_separator: str = " ",
    hosts: Sequence[str] | None = None,
    header: str = "Authorization",
    prefix: str = "Bearer ",
    custom: Custom | None = None,
) -> Auth | TokenSource: ...


def sign_in(
    auth: Auth,
    *,
    token_url: str = "",
    scopes: Sequence[str] = (),
    token_params: Mapping[str, str] | None = None,
    client_auth: Literal["body", "basic"] = "body",
    scope_separator: str = " ",
    hosts: Sequence[str] | None = None,
    header: str = "Authorization",
    prefix: str = "Bearer ",
    custom: Custom | None = None,
) -> Auth | TokenSource:
    """What `Http` takes as its `auth`: kinds that do not run out as they are, for the others a source of access tokens.

    What the connector says here holds where `auth` says nothing itself; `token_params` are joined. `hosts` are the places the token
    URL may be at (None: anywhere). Tokens are sent in `header`, behind `prefix`. `custom` makes the sources of kinds that plugins
    bring, in place of the project's plugins. The same credentials have the same source in the whole process. Nobody is asked anything yet.
    Raises ConfigurationError.
    """
    match auth:
        case OAuth2():
            url = auth.token_url or token_url
            if not url:
                raise ConfigurationError("`auth` does not say where tokens are asked for", do="set token_url")
            places = None if hosts is None else tuple(hosts)
            endpoint = TokenEndpoint(url, auth.client_id, auth.client_secret.get_secret_value(), auth.client_auth or client_auth, places)
            refresh = auth.refresh_token.get_secret_value() if auth.refresh_token else ""
            # A refreshed token has the scopes that the user agreed to; asking for less is for `auth` alone to say (RFC 6749, 6).
            scope = scope_separator.join(auth.scopes or (() if refresh else scopes))
            fields = {**({"scope": scope} if scope else {}), **(token_params or {}), **auth.token_params}
            grant: Grant = (
                RefreshToken(endpoint, _rotation(url, auth.client_id, refresh), fields) if refresh else ClientCredentials(endpoint, fields)
            )
            return _one(grant, (url, auth.client_id, endpoint.client_secret, endpoint.client_auth, refresh, fields), header, prefix)
        case ServiceAccount():
            wanted = tuple(auth.scopes or scopes)
            if not wanted:
                raise ConfigurationError("a service account needs to know what to ask for", do="set `scopes` in `auth`")
            key = account_key(auth)
            if key is not None:
                grant = AccountAssertion(key, auth.subject, " ".join(wanted), auth.key_file or "auth.key")
            elif auth.subject:
                raise ConfigurationError("a machine's own identity cannot act for a user", do="set key or key_file beside `subject`")
            else:
                grant = MachineIdentity(wanted)
            return _one(grant, (key, auth.subject, wanted), header, prefix)
        case CustomAuth():
            return auth.source() if custom is None else custom(auth)
        case _:
            return auth


def _one(grant: Grant, credentials: Any, header: str, prefix: str) -> Tokens:
    """The source of these credentials, made where there is none yet."""
    name = _hidden(type(grant).__name__, credentials, header, prefix)
    with _lock:
        return _shared.setdefault(name, Tokens(grant, header, prefix))


def _rotation(url: str, client_id: str, refresh_token: str) -> Rotation:
    """The one rotation of this refresh token, whatever else is asked for with it: to use a replaced one can end the user's sign-in."""
    with _lock:
        return _rotations.setdefault(_hidden(url, client_id, refresh_token), Rotation(refresh_token))


def _hidden(*parts: Any) -> str:
    """A name made of secrets that tells none of them."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
