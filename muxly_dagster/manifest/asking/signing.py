"""How a manifest's connector signs in: the `auth` field of its sources, and what the HTTP client gets of it."""

import hashlib
from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field, SecretStr

from muxly_dagster import auth
from muxly_dagster.errors import ConfigurationError
from muxly_dagster.http import sign_in
from muxly_dagster.manifest.language.expressions import ABSENT, Context, render
from muxly_dagster.manifest.schema import ApiKeyKind, Manifest, OAuth2Kind, ServiceAccountKind

_MODELS: dict[str, type[Any]] = {
    "none": auth.NoAuth,
    "bearer": auth.Bearer,
    "api_key": auth.ApiKey,
    "basic": auth.Basic,
    "oauth2": auth.OAuth2,
    "service_account": auth.ServiceAccount,
    "custom": auth.CustomAuth,
}

K = TypeVar("K")


def auth_field(manifest: Manifest) -> tuple[Any, Any]:
    """The field's type and default, for pydantic: the kinds that the API takes, told apart by `kind`."""
    kinds = list(dict.fromkeys(kind.kind for kind in manifest.auth.values())) or ["none"]
    models = [_MODELS[kind] for kind in kinds]
    annotation: Any = models[0] if len(models) == 1 else Annotated[reduce(or_, models), Field(discriminator="kind")]
    default: Any = auth.NoAuth() if "none" in kinds else ...
    return annotation, Field(default, description=f"How to sign in: {' or '.join(kinds)}.")


def signed_in(manifest: Manifest, given: auth.Auth, context: Context) -> auth.Auth | auth.TokenSource:
    """The source's credentials with what the manifest says of their kind: where a key goes, where tokens are asked for.

    Raises ConfigurationError where the address of the token server cannot be made.
    """
    match given:
        case auth.ApiKey() if key := _kind(manifest, ApiKeyKind):
            place = {name: getattr(key, name) for name in ("into", "name", "prefix") if name not in given.model_fields_set}
            return given.model_copy(update=place)
        case auth.OAuth2() if kind := _kind(manifest, OAuth2Kind):
            return sign_in(
                given.model_copy(update={"scopes": [kind.scopes.get(scope, scope) for scope in given.scopes]}),
                token_url=given.token_url or _address(manifest, kind.token_url, context),
                scopes=[kind.scopes.get(scope, scope) for scope in kind.default_scopes],
                token_params=kind.token_params,
                client_auth=kind.client_auth,
                scope_separator=kind.scope_separator,
                hosts=None if given.token_url else manifest.hosts,  # whoever sets up the source may name a place of his own
            )
        case auth.ServiceAccount() if account := _kind(manifest, ServiceAccountKind):
            return sign_in(given, scopes=account.scopes)
    return sign_in(given)


def _kind(manifest: Manifest, type_: type[K]) -> K | None:
    return next((kind for kind in manifest.auth.values() if isinstance(kind, type_)), None)


def _address(manifest: Manifest, template: str, context: Context) -> str:
    url = render(template, context, into_path=True)
    if url is ABSENT:
        raise ConfigurationError(f"{manifest.id} does not know where tokens are given out", do=f"set what token_url names: {template}")
    return str(url)


def account_name(manifest: Manifest, address: str, given: BaseModel, secrets: Sequence[str]) -> str:
    """A text that stands for the account that is signed in, the same in every process, which tells nobody the credentials."""
    said = [f"{name}={_plain(value)}" for name, value in sorted(given)]
    digest = hashlib.sha256("\0".join([*said, *secrets]).encode()).hexdigest()
    return f"{manifest.id} {address} {digest}"


def _plain(value: Any) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)
