"""Signed webhooks: how a sender signs its requests, as data, and whether a request that came in was signed that way."""

import base64
import binascii
import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from muxly_dagster.errors import ConfigurationError, MuxlyError

_PLACEHOLDER = re.compile(r"\{(\w*)\}")
_KNOWN = frozenset({"timestamp", "body", "method", "url"})
_SECONDS = re.compile(r"[0-9]{1,16}")
_MILLISECONDS_FROM = 100_000_000_000  # a time beyond the year 5138 counts milliseconds
_MOST_SIGNATURES = 20  # a sender that is changing its secret sends two; nobody sends hundreds
_HUBSPOT_DECODED = re.compile("%(3A|2F|3F|40|21|24|27|28|29|2A|2C|3B)", re.IGNORECASE)


class SignatureRefused(MuxlyError):
    """A request that does not prove where it comes from: answer 401 and do nothing. The text is safe to log."""


class _Scheme(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Timed(_Scheme):
    tolerance: float = Field(300, gt=0, description="How far the request's time may be from now, in seconds.")


class StandardWebhooks(_Timed):
    """As the Standard Webhooks specification says (https://www.standardwebhooks.com): `v1` signatures with a shared secret `whsec_...`."""

    kind: Literal["standard_webhooks"] = "standard_webhooks"
    prefix: str = Field("webhook-", description="How its headers begin; Svix sends `svix-`.")


class Stripe(_Timed):
    """As Stripe signs (https://docs.stripe.com/webhooks): `Stripe-Signature: t=...,v1=...`."""

    kind: Literal["stripe"] = "stripe"


class Slack(_Timed):
    """As Slack signs (https://docs.slack.dev/authentication/verifying-requests-from-slack): `X-Slack-Signature: v0=...`."""

    kind: Literal["slack"] = "slack"


class HubspotV3(_Timed):
    """As HubSpot signs in version 3, with the app's client secret (https://developers.hubspot.com/docs/api/webhooks/validating-requests)."""

    kind: Literal["hubspot"] = "hubspot"


class Github(_Scheme):
    """As GitHub signs: `X-Hub-Signature-256: sha256=...` over the body. There is no time in it: a repetition looks like the first."""

    kind: Literal["github"] = "github"


class Shopify(_Scheme):
    """As Shopify signs: `X-Shopify-Hmac-Sha256` over the body. There is no time in it: a repetition looks like the first."""

    kind: Literal["shopify"] = "shopify"


class Hmac(_Timed):
    """Any other HMAC (RFC 2104) in a header, such as `{kind: hmac, header: X-Signature, signed: "{timestamp}.{body}", ...}`."""

    kind: Literal["hmac"] = "hmac"
    header: str = Field(min_length=1, description="The header with the signature.")
    algorithm: Literal["sha1", "sha256", "sha512"] = Field("sha256", description="The hash function.")
    encoding: Literal["hex", "base64"] = Field("hex", description="How the signature is written.")
    prefix: str = Field("", description="Text before the signature, such as `sha256=`.")
    signed: str = Field("{body}", description="What is signed, with {body}, {timestamp}, {method} and {url} in their places.")
    timestamp_header: str = Field("", description="The header with the time of the request, in seconds or milliseconds since 1970.")

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        named = set(_PLACEHOLDER.findall(self.signed))
        if unknown := named - _KNOWN:
            raise ValueError(f"`signed` has {{{min(unknown)}}}; there are {{body}}, {{timestamp}}, {{method}} and {{url}}")
        if "body" not in named:
            raise ValueError("`signed` has no {body}: anybody could change it")
        if ("timestamp" in named) != bool(self.timestamp_header):
            raise ValueError("`timestamp_header` and {timestamp} in `signed` go together: a time that is not signed proves nothing")
        return self


Signature = Annotated[StandardWebhooks | Stripe | Slack | HubspotV3 | Github | Shopify | Hmac, Field(discriminator="kind")]
"""How a sender signs. What `webhook: {signature: ...}` of a manifest and of muxly.yaml may say."""

_GITHUB = Hmac(header="X-Hub-Signature-256", prefix="sha256=")
_SHOPIFY = Hmac(header="X-Shopify-Hmac-Sha256", encoding="base64")
_SLACK = Hmac(header="X-Slack-Signature", prefix="v0=", signed="v0:{timestamp}:{body}", timestamp_header="X-Slack-Request-Timestamp")
_HUBSPOT = Hmac(
    header="X-HubSpot-Signature-v3",
    encoding="base64",
    signed="{method}{url}{body}{timestamp}",
    timestamp_header="X-HubSpot-Request-Timestamp",
)


def verify(
    signature: Signature, secrets: Sequence[str], method: str, url: str, headers: Mapping[str, str], body: bytes, now: float
) -> None:
    """Return if the request was signed with one of the secrets, and not too long ago.

    `url` is the whole address as the sender knows it (behind a proxy: the public one), `body` the bytes as they came, `now` seconds since
    1970. Several secrets are for the time in which one replaces the other.

    Raises SignatureRefused, and ConfigurationError where there is no usable secret.
    """
    if not secrets or not all(secrets):
        raise ConfigurationError("a signed webhook has no secret", do="set it: with an empty one, anybody could sign")
    fields = {name.lower(): value for name, value in headers.items()}
    request = {"method": method.upper().encode(), "url": url.encode(), "body": body}
    match signature:
        case StandardWebhooks():
            _standard_webhooks(signature, secrets, fields, body, now)
        case Stripe():
            _stripe(signature, secrets, fields, body, now)
        case HubspotV3():
            decoded = _HUBSPOT_DECODED.sub(lambda found: chr(int(found[1], 16)), url)
            _hmac(
                _HUBSPOT, secrets, [{**request, "url": u.encode()} for u in dict.fromkeys((decoded, url))], fields, now, signature.tolerance
            )
        case Slack():
            _hmac(_SLACK, secrets, [request], fields, now, signature.tolerance)
        case Github():
            _hmac(_GITHUB, secrets, [request], fields, now, _GITHUB.tolerance)
        case Shopify():
            _hmac(_SHOPIFY, secrets, [request], fields, now, _SHOPIFY.tolerance)
        case Hmac():
            _hmac(signature, secrets, [request], fields, now, signature.tolerance)


# ---- the schemes ------------------------------------------------------------------------------------------------------


def _hmac(
    scheme: Hmac, secrets: Sequence[str], requests: Sequence[Mapping[str, bytes]], fields: Mapping[str, str], now: float, tolerance: float
) -> None:
    """`requests` are the forms in which the same request may have been signed."""
    text = _header(fields, scheme.header)
    stamp = b""
    if scheme.timestamp_header:
        stamp = _timely(_header(fields, scheme.timestamp_header), now, tolerance).encode()
    if not text.startswith(scheme.prefix):
        raise _refused(f"{scheme.header} does not begin with {scheme.prefix}")
    decode = _hex if scheme.encoding == "hex" else _base64
    messages = [_filled(scheme.signed, {**request, "timestamp": stamp}) for request in requests]
    _must_match([text.removeprefix(scheme.prefix)], decode, [s.encode() for s in secrets], messages, scheme.algorithm, scheme.header)


def _stripe(scheme: Stripe, secrets: Sequence[str], fields: Mapping[str, str], body: bytes, now: float) -> None:
    parts = [part.strip().partition("=") for part in _header(fields, "Stripe-Signature").split(",")]
    stamp = _timely(next((value for name, _, value in parts if name == "t"), ""), now, scheme.tolerance)
    signatures = [value for name, _, value in parts if name == "v1"]
    _must_match(signatures, _hex, [s.encode() for s in secrets], [stamp.encode() + b"." + body], "sha256", "Stripe-Signature")


def _standard_webhooks(scheme: StandardWebhooks, secrets: Sequence[str], fields: Mapping[str, str], body: bytes, now: float) -> None:
    identity = _header(fields, f"{scheme.prefix}id")
    stamp = _timely(_header(fields, f"{scheme.prefix}timestamp"), now, scheme.tolerance)
    name = f"{scheme.prefix}signature"
    signatures = [text.removeprefix("v1,") for text in _header(fields, name).split() if text.startswith("v1,")]
    message = f"{identity}.{stamp}.".encode() + body
    _must_match(signatures, _base64, [_standard_key(secret) for secret in secrets], [message], "sha256", name)


def _standard_key(secret: str) -> bytes:
    key = _base64(secret.removeprefix("whsec_"))
    if not key:
        raise ConfigurationError("the secret of a Standard Webhooks sender is not base64", do="copy it whole, with its `whsec_`")
    return key


# ---- what they are made of ------------------------------------------------------------------------------------------------


def _must_match(
    given: Sequence[str],
    decode: Callable[[str], bytes],
    keys: Sequence[bytes],
    messages: Sequence[bytes],
    algorithm: str,
    header: str,
) -> None:
    signatures = [decode(text) for text in given[:_MOST_SIGNATURES]]
    if not any(signatures):
        raise _refused(f"{header} holds no signature that can be read")
    expected = [hmac.digest(key, message, algorithm) for key in keys for message in messages]
    # Every pair is compared, each in constant time: neither the answer nor how long it takes says how near a guess was.
    if not sum(hmac.compare_digest(a, b) for a in signatures for b in expected):
        raise _refused(
            f"{header} was not made with this secret for this request", "check the secret, and that no proxy changes address or body"
        )


def _header(fields: Mapping[str, str], name: str) -> str:
    value = fields.get(name.lower(), "").strip()
    if not value:
        raise _refused(f"the header {name} is missing", "check that the sender signs its requests, and how")
    return value


def _timely(text: str, now: float, tolerance: float) -> str:
    """The time as it was written, if it is near enough to now."""
    if not _SECONDS.fullmatch(text):
        raise _refused("the time of the request cannot be read")
    seconds = int(text) / 1000 if int(text) >= _MILLISECONDS_FROM else int(text)
    if abs(now - seconds) > tolerance:
        early = "in the future" if seconds > now else "old"
        raise _refused(f"the request is {abs(now - seconds):.0f} s {early}, {tolerance:g} are allowed", "check this machine's clock")
    return text


def _filled(template: str, values: Mapping[str, bytes]) -> bytes:
    """The template as bytes with its placeholders filled in; what is filled in is not looked into."""
    parts = _PLACEHOLDER.split(template)  # text and names by turns
    return b"".join(values[part] if number % 2 else part.encode() for number, part in enumerate(parts))


def _hex(text: str) -> bytes:
    try:
        return binascii.unhexlify(text.encode("ascii"))
    except ValueError:
        return b""


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text.encode("ascii"), validate=True)
    except ValueError:
        return b""


def _refused(what: str, do: str = "") -> SignatureRefused:
    return SignatureRefused(f"the webhook was refused: {what}", do=do)
