"""The grants of OAuth 2.0 that come by a token without a person: client credentials, and a refresh token that a person gave before."""

import logging
import threading
from collections.abc import Mapping

from muxly_dagster.errors import ConfigurationError, MuxlyError, SignInError
from muxly_dagster.http.token_endpoint import Refused, Token, TokenEndpoint

_log = logging.getLogger("muxly.http")


class ClientCredentials:
    """The client signs in as itself (RFC 6749, 4.4). `fields` come with every request, such as `scope` and `audience`."""

    def __init__(self, endpoint: TokenEndpoint, fields: Mapping[str, str]) -> None:
        self._endpoint, self._fields = endpoint, {"grant_type": "client_credentials", **fields}
        if not endpoint.client_secret and "grant_type" not in fields and "client_assertion" not in fields:
            raise ConfigurationError(
                "`auth` gives the client nothing to sign in with",
                do="add client_secret, or the refresh_token of a user who signed in with this client",
            )

    def ask(self) -> Token:
        """See token_source.Grant."""
        try:
            return self._endpoint.ask(self._fields)
        except Refused as refused:
            raise refusal(refused, self._endpoint, self._fields.get("scope", "")) from None

    def secrets(self) -> tuple[str, ...]:
        """See token_source.Grant."""
        return (self._endpoint.client_secret,)

    def __repr__(self) -> str:
        return f"client_credentials at {self._endpoint!r}"


class Rotation:
    """A refresh token that was configured, and the newest one that the server gave in place of it. Hold `lock` to ask with it."""

    def __init__(self, refresh_token: str) -> None:
        self.configured = self.newest = refresh_token
        self.lock = threading.Lock()


class RefreshToken:
    """The client acts for the user whose refresh token it has (RFC 6749, 6).

    Where the server gives a new refresh token with every access token, the newest is used from then on, by all who share the rotation.
    """

    def __init__(self, endpoint: TokenEndpoint, rotation: Rotation, fields: Mapping[str, str]) -> None:
        self._endpoint, self._fields = endpoint, {"grant_type": "refresh_token", **fields}
        self._rotation = rotation

    def ask(self) -> Token:
        """See token_source.Grant."""
        rotation = self._rotation
        with rotation.lock:
            try:
                token = self._endpoint.ask({**self._fields, "refresh_token": rotation.newest})
            except Refused as refused:
                raise self._explained(refused) from None
            if token.refresh is not None and token.refresh != rotation.newest:
                if rotation.newest == rotation.configured:
                    # Nothing stores it yet, so whoever runs Muxly must hear of it before the process ends.
                    _log.warning(
                        "%s gave a new refresh token in place of the one in `auth`; it is kept in this process only and has to be stored. "
                        "If the server accepts each refresh token once, the next process must sign in again: let the provider give this "
                        "client refresh tokens that stay valid",
                        self._endpoint,
                    )
                rotation.newest = token.refresh
            return token

    def secrets(self) -> tuple[str, ...]:
        """See token_source.Grant."""
        return (self._endpoint.client_secret, self._rotation.configured, self._rotation.newest)

    def _explained(self, refused: Refused) -> MuxlyError:
        if refused.error == "invalid_grant":
            do = "let the user sign in again and put the new refresh token into `auth`; it must come from the same client"
            return SignInError(f"the refresh token is no longer valid: sign in again ({refused})", do=do, where=refused.where)
        return refusal(refused, self._endpoint, self._fields.get("scope", ""))

    def __repr__(self) -> str:
        return f"refresh_token at {self._endpoint!r}"


def refusal(refused: Refused, endpoint: TokenEndpoint, scope: str) -> MuxlyError:
    """The error for a token endpoint that gave no token (RFC 6749, 5.2)."""
    where = refused.where
    match refused.error:
        case "invalid_client":
            do = f"check client_id and client_secret; they were sent in the {_PLACE[endpoint.client_auth]} (`client_auth`)"
            return SignInError(f"the server does not accept this client ({refused})", do=do, where=where)
        case "unauthorized_client":
            do = "allow this way to sign in (grant) on the provider's page for the client"
            return SignInError(f"this client may not ask for tokens this way ({refused})", do=do, where=where)
        case "unsupported_grant_type":
            do = "add the refresh_token of a user where the provider has no tokens for clients alone, or set grant_type in token_params"
            return SignInError(f"the server knows no such way to ask for a token ({refused})", do=do, where=where)
        case "invalid_scope":
            asked = f"the scope {scope!r}" if scope else "a request without a scope"
            do = "correct `scopes` in `auth`, or allow them on the provider's page for the client"
            return SignInError(f"the server refuses {asked} ({refused})", do=do, where=where)
        case "invalid_request":
            do = "check token_params and `client_auth`: the server finds a field missing, unknown or twice"
            return SignInError(f"the server does not understand the token request ({refused})", do=do, where=where)
        case _:
            return SignInError(f"the server gave no token ({refused})", do="check token_url, client_id and client_secret", where=where)


_PLACE = {"body": "body of the request", "basic": "Authorization header"}
