"""Credentials as data: how a source or destination signs in, said in a few fields under `auth:`.

What runs out (an access token) comes from a token source, which is asked whenever a request is made: `http.tokens` makes one of the
kinds that need it.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretStr, field_serializer

from muxly_dagster.errors import ConfigurationError
from muxly_dagster.project_paths import InProject

MASK = "**********"
"""What is shown in place of a secret, as pydantic does."""

MakeSource = Callable[[Mapping[str, Any]], "TokenSource"]
"""Makes a token source from the `settings` of a CustomAuth; asks nobody anything yet. Raises ConfigurationError."""


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

    @field_serializer("username")
    def _masked(self, username: str) -> str:
        return username if self.password.get_secret_value() else MASK

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """Like what is serialized: without a key."""
        yield "username", self._masked(self.username)


class OAuth2(_Auth):
    """A client of an OAuth 2.0 authorization server (RFC 6749). With a refresh token it acts for the user who gave it, else for itself."""

    kind: Literal["oauth2"] = "oauth2"
    client_id: str = Field(description="The client's id, from the provider's page for apps.")
    client_secret: SecretStr = Field(SecretStr(""), description="The client's secret; empty for a public client.")
    refresh_token: SecretStr | None = Field(None, description="A user's refresh token; without it, the client signs in as itself.")
    token_url: str = Field("", description="Where tokens are asked for; the connector's own unless told otherwise.")
    scopes: list[str] = Field([], description="What is asked for; the connector's own choice unless told otherwise.")
    token_params: dict[str, str] = Field({}, description="More fields of the token request, such as `audience`.", repr=False)
    client_auth: Literal["body", "basic"] | None = Field(
        None, description="Where client id and secret go: in the body of the token request, or as basic authentication."
    )

    @field_serializer("token_params")
    def _masked(self, fields: dict[str, str]) -> dict[str, str]:
        # A password or an assertion may be among them.
        return dict.fromkeys(fields, MASK)


class ServiceAccount(_Auth):
    """A service account of Google Cloud. Without `key` and `key_file`, the machine's own identity (application default credentials)."""

    kind: Literal["service_account"] = "service_account"
    key: SecretStr | None = Field(None, description="The key as JSON text, such as ${GOOGLE_KEY}.")
    key_file: Annotated[str, InProject()] = Field("", description="The path of the key's JSON file.")
    subject: str = Field("", description="The user to act for, where the account may (domain-wide delegation).")
    scopes: list[str] = Field([], description="What is asked for; the connector's own choice unless told otherwise.")


class CustomAuth(_Auth):
    """A way to sign in that a plugin brings."""

    kind: Literal["custom"] = "custom"
    use: str = Field(description="The plugin's way to sign in, by its name.")
    settings: dict[str, Any] = Field({}, description="What it wants to know.", repr=False)

    _make: MakeSource | None = PrivateAttr(None)

    def bind(self, make: MakeSource) -> None:
        """Learn from the project's plugins what makes the token source. Done once, when the project is assembled."""
        self._make = make

    def source(self) -> "TokenSource":
        """The token source. Raises ConfigurationError where no enabled plugin brings it, or it cannot use the settings."""
        if self._make is None:
            raise ConfigurationError(
                f"no enabled plugin brings a way to sign in named {self.use!r}", do="enable the plugin, or correct `use`"
            )
        return self._make(self.settings)

    @field_serializer("settings")
    def _masked(self, settings: dict[str, Any]) -> dict[str, str]:
        # Which of them are secrets only the plugin knows; what is shown of a source must hold none.
        return dict.fromkeys(settings, MASK)


@runtime_checkable
class TokenSource(Protocol):
    """Gives credentials at the moment they are needed. Used from several threads."""

    def headers(self) -> Mapping[str, str]:
        """Headers that sign a request in, valid now. Raises SignInError, RetryLater, ConfigurationError."""

    def refused(self, headers: Mapping[str, str]) -> bool:
        """The provider refused these headers: forget them. Whether asking again may give others."""

    def secrets(self) -> tuple[str, ...]:
        """The texts that nobody may see, the newest token among them."""


Auth = Annotated[NoAuth | Bearer | ApiKey | Basic | OAuth2 | ServiceAccount | CustomAuth, Field(discriminator="kind")]
