"""What `webhook:` of a job may say: how its callers prove who they are."""

import difflib
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetJsonSchemaHandler, SecretStr, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from muxly_dagster.errors import ConfigurationError
from muxly_dagster.measures import Size
from muxly_dagster.signature import Github, Hmac, HubspotV3, Shopify, Slack, StandardWebhooks, Stripe, check_secret


class _Plain(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Bearer(_Plain):
    """The secret itself in a header: a bearer token (RFC 6750), or as it is in a header such as `X-Gitlab-Token`."""

    kind: Literal["bearer"] = "bearer"
    header: str = Field("Authorization", min_length=1, description="The header with the secret; in `Authorization`, behind `Bearer`.")


class Basic(_Plain):
    """The secret as the password of HTTP's basic authentication (RFC 7617)."""

    kind: Literal["basic"] = "basic"
    user: str = Field("", description="The only user name that is let in; any, where it is empty.")


Signed = StandardWebhooks | Stripe | Slack | HubspotV3 | Github | Shopify | Hmac
Kind = Signed | Bearer | Basic
KINDS: dict[str, type[BaseModel]] = {str(kind.model_fields["kind"].default): kind for kind in get_args(Kind)}


def _by_name(value: Any) -> Any:
    """`github` as `{kind: github}`; a map that names no kind is an HMAC's settings."""
    if isinstance(value, dict):
        value = {"kind": "hmac", **value}
        kind = value["kind"]
    else:
        kind = value
        value = {"kind": value}
    if isinstance(kind, BaseModel):
        return kind
    if not isinstance(kind, str) or kind not in KINDS:
        near = difflib.get_close_matches(str(kind), KINDS, n=1)
        known = f"did you mean {near[0]}?" if near else f"there are {', '.join(KINDS)}"
        raise PydanticCustomError("scheme", "is not a scheme that webhooks are signed by; {known}", {"known": known})
    if kind == "hmac" and set(value) == {"kind"}:
        raise PydanticCustomError("scheme", "hmac needs to know the header: write `{kind: hmac, header: X-Signature}`")
    return value


def _some(value: Any) -> Any:
    """One secret as a list of one, none of them empty."""
    secrets = value if isinstance(value, list | tuple) else [value]
    if not secrets or any(secret is None or not _text(secret).strip() for secret in secrets):
        raise PydanticCustomError("secret", "is empty: with no secret, anybody could start the job")
    return secrets


def _text(secret: Any) -> str:
    return secret.get_secret_value() if isinstance(secret, SecretStr) else str(secret)


class _OrShort:
    """Lets a JSON Schema say that there is a shorter form."""

    def __init__(self, short: JsonSchemaValue) -> None:
        self._short = short

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [self._short, handler(core)]}


Scheme = Annotated[
    Annotated[Kind, Field(discriminator="kind")], BeforeValidator(_by_name), _OrShort({"enum": [name for name in KINDS if name != "hmac"]})
]
Secrets = Annotated[tuple[SecretStr, ...], BeforeValidator(_some), _OrShort({"type": "string", "format": "password"})]


class WebhookSpec(_Plain):
    """A job's webhook: `POST /v1/hooks/JOB` starts it, for whoever knows the secret."""

    model_config = ConfigDict(hide_input_in_errors=True)

    scheme: Scheme = Field(description="How callers prove who they are: the name of a scheme, or a map with its settings.")
    secret: Secrets = Field(description="What the caller signs with, or a list while one takes the place of another.")
    id_header: str = Field("", description="The header with the caller's own id of a call, where it is not the scheme's usual one.")
    max_size: Size = Field("5MB", description="The largest body that is taken.")

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if isinstance(self.scheme, Signed):
            for secret in self.secrets:
                try:
                    check_secret(self.scheme, secret)
                except ConfigurationError as error:
                    raise PydanticCustomError(
                        "secret", "has a secret that cannot be used: {why}", {"why": error.problems[0].what}
                    ) from None
        return self

    @property
    def secrets(self) -> tuple[str, ...]:
        """The secrets as they are."""
        return tuple(secret.get_secret_value() for secret in self.secret)
