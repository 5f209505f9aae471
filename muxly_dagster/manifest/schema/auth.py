"""How an API lets somebody sign in: what a manifest says of it. A source gives the credentials themselves (muxly_dagster.auth)."""

from typing import Annotated, Literal

from pydantic import Field

from muxly_dagster.manifest.schema.base import Model


class NoAuthKind(Model):
    """The API asks for nothing."""

    kind: Literal["none"] = "none"


class BearerKind(Model):
    """The API takes a token in the Authorization header."""

    kind: Literal["bearer"]


class ApiKeyKind(Model):
    """The API takes a key, here."""

    kind: Literal["api_key"]
    into: Literal["header", "query"] = Field("header", description="Where the key goes.")
    name: str = Field("X-API-Key", description="The header's or the parameter's name.")
    prefix: str = Field("", description="Text before the key.")


class BasicKind(Model):
    """The API takes a user name and password."""

    kind: Literal["basic"]


class OAuth2Kind(Model):
    """The API takes access tokens of an OAuth 2.0 server (RFC 6749). The addresses may hold expressions of `config`."""

    kind: Literal["oauth2"]
    token_url: str = Field(description="Where tokens are given out.")
    authorize_url: str = Field("", description="Where a user is sent to agree.")
    revoke_url: str = Field("", description="Where a token is given back.")
    authorize_params: dict[str, str] = Field({}, description="More parameters of the authorize address.")
    token_params: dict[str, str] = Field({}, description="More fields of the token request.")
    scopes: dict[str, str] = Field({}, description="The API's scopes by a short name.")
    default_scopes: list[str] = Field([], description="Short names of the scopes that are asked for.")
    scope_separator: str = " "
    client_auth: Literal["body", "basic"] = Field("body", description="Where client id and secret go in the token request.")
    grants: list[Literal["authorization_code", "client_credentials"]] = Field(
        ["authorization_code"], description="How a token is come by: a user agrees, or the client signs in as itself."
    )
    pkce: bool = Field(True, description="The server takes a code challenge (RFC 7636).")


class ServiceAccountKind(Model):
    """The API takes tokens of Google's service accounts."""

    kind: Literal["service_account"]
    scopes: list[str] = Field(min_length=1, description="The scopes that are asked for.")


class CustomKind(Model):
    """A plugin knows how to sign in."""

    kind: Literal["custom"]


AuthKind = Annotated[
    NoAuthKind | BearerKind | ApiKeyKind | BasicKind | OAuth2Kind | ServiceAccountKind | CustomKind, Field(discriminator="kind")
]
