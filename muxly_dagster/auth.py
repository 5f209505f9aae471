"""Credentials as data: how a source or destination signs in, said in a few fields under `auth:`."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr


class _Auth(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NoAuth(_Auth):
    """Nothing to sign in with."""

    kind: Literal["none"] = "none"


class Bearer(_Auth):
    """A token sent as `Authorization: Bearer ...` (RFC 6750)."""

    kind: Literal["bearer"] = "bearer"
    token: SecretStr = Field(description="The access token.")


class ApiKey(_Auth):
    """A key sent in a header or a query parameter of the API's own choosing."""

    kind: Literal["api_key"] = "api_key"
    key: SecretStr = Field(description="The key.")
    into: Literal["header", "query"] = Field("header", description="Where the key goes.")
    name: str = Field("X-API-Key", description="The header's or the parameter's name.")
    prefix: str = Field("", description="Text before the key, such as `Token `.")


class Basic(_Auth):
    """A user name and password sent as `Authorization: Basic ...` (RFC 7617)."""

    kind: Literal["basic"] = "basic"
    username: str = Field(description="The user name.")
    password: SecretStr = Field(SecretStr(""), description="The password; empty where the user name is the whole key.")


Auth = Annotated[NoAuth | Bearer | ApiKey | Basic, Field(discriminator="kind")]
