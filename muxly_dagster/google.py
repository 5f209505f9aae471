"""Google's own credentials objects, made of what a source says under `auth:`. For connectors that use Google's client libraries."""

from collections.abc import MutableMapping, Sequence
from typing import Any

import google.auth
from google.auth import credentials
from google.auth.exceptions import DefaultCredentialsError
from google.oauth2 import service_account

from muxly_dagster.auth import Auth, OAuth2, ServiceAccount, TokenSource
from muxly_dagster.errors import ConfigurationError, SignInError
from muxly_dagster.http import sign_in
from muxly_dagster.http.service_accounts import account_key

TOKEN_URL = "https://oauth2.googleapis.com/token"
"""Where Google gives out access tokens (its OpenID discovery document, `token_endpoint`)."""


def google_credentials(auth: Auth, scopes: Sequence[str]) -> Any:
    """A `google.auth.credentials.Credentials` for a service account, the machine's own identity, or a user by OAuth.

    A user's access token is asked for at the moment it is needed. Raises ConfigurationError, with what to do, for a key file that is not
    there or is no key, SignInError where the machine has no identity.
    """
    match auth:
        case ServiceAccount():
            return _service_account(auth, auth.scopes or scopes)
        case OAuth2():
            return SourceCredentials(sign_in(auth, token_url=TOKEN_URL, scopes=scopes))
        case _:
            raise ConfigurationError(
                f"`auth` of kind {auth.kind} is nothing Google's libraries sign in with", do="use service_account or oauth2"
            )


class SourceCredentials(credentials.Credentials):
    """Google's credentials on top of a token source, which is asked for every request and knows itself when a token runs out."""

    def __init__(self, source: TokenSource) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._source = source
        self._given: dict[str, str] = {}

    def before_request(self, request: Any, method: str, url: str, headers: MutableMapping[str, str]) -> None:
        """Sign a request in. Raises what the source raises."""
        self._given = dict(self._source.headers())
        headers.update({name.lower(): value for name, value in self._given.items()})  # gRPC takes no capitals

    def refresh(self, request: Any) -> None:
        """Google's transports call it after a 401: the source forgets what it gave. Raises SignInError where asking again cannot help."""
        if not self._source.refused(self._given):
            raise SignInError("Google refuses the access token", do="sign in again, and replace the source's `auth`")


def _service_account(auth: ServiceAccount, scopes: Sequence[str]) -> Any:
    key = account_key(auth)
    if key is None:
        return _own_identity(auth, scopes)
    make: Any = service_account.Credentials.from_service_account_info
    try:
        return make(key, scopes=list(scopes), subject=auth.subject or None)
    except (ValueError, TypeError):
        # Without its cause, which may quote the key.
        raise ConfigurationError(
            "the private key in the service account's key cannot be read", do="give the key's file as Google gave it", where=auth.key_file
        ) from None


def _own_identity(auth: ServiceAccount, scopes: Sequence[str]) -> Any:
    if auth.subject:
        raise ConfigurationError("`subject` needs a service account's key", do="add `key` or `key_file`")
    try:
        found, _ = google.auth.default(scopes=list(scopes))
    except DefaultCredentialsError as error:
        raise SignInError(
            f"this machine has no identity at Google: {str(error).splitlines()[0]}",
            do="set GOOGLE_APPLICATION_CREDENTIALS, run `gcloud auth application-default login`, or give the source's `auth` a `key_file`",
        ) from None
    return found
