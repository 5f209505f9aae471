"""Signed webhooks: how a sender signs its requests, as data; whether a request was signed that way, and signing one.

Each scheme is described once, by a `_Form`: `verify` reads what `sign` writes.
"""

import base64
import binascii
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class _Form:
    """How a scheme looks on the wire: `signed` is what is signed, `prefix` stands before each signature in `header`.

    With a `separator` the header may hold several signatures, one for each secret that is in use. An `id_header` or `timestamp_header` of
    which the name is empty is not sent; a `stamp_prefix` puts the time into the signature's own header instead. `whsec`: secrets are
    base64, perhaps behind `whsec_`.
    """

    header: str
    signed: str = "{body}"
    prefix: str = ""
    encoding: Literal["hex", "base64"] = "hex"
    algorithm: Literal["sha1", "sha256", "sha512"] = "sha256"
    separator: str = ""
    id_header: str = ""
    timestamp_header: str = ""
    stamp_prefix: str = ""
    milliseconds: bool = False
    whsec: bool = False


_GITHUB = _Form("X-Hub-Signature-256", prefix="sha256=")
_SHOPIFY = _Form("X-Shopify-Hmac-Sha256", encoding="base64")
_SLACK = _Form("X-Slack-Signature", "v0:{timestamp}:{body}", prefix="v0=", timestamp_header="X-Slack-Request-Timestamp")
_STRIPE = _Form("Stripe-Signature", "{timestamp}.{body}", prefix="v1=", separator=",", stamp_prefix="t=")
_HUBSPOT = _Form(
    "X-HubSpot-Signature-v3",
    "{method}{url}{body}{timestamp}",
    encoding="base64",
    timestamp_header="X-HubSpot-Request-Timestamp",
    milliseconds=True,
)


def _form(signature: Signature) -> _Form:
    match signature:
        case StandardWebhooks(prefix=prefix):
            return _Form(
                f"{prefix}signature",
                "{id}.{timestamp}.{body}",
                prefix="v1,",
                encoding="base64",
                separator=" ",
                id_header=f"{prefix}id",
                timestamp_header=f"{prefix}timestamp",
                whsec=True,
            )
        case Hmac():
            return _Form(
                signature.header,
                signature.signed,
                signature.prefix,
                signature.encoding,
                signature.algorithm,
                timestamp_header=signature.timestamp_header,
            )
        case Stripe():
            return _STRIPE
        case Slack():
            return _SLACK
        case HubspotV3():
            return _HUBSPOT
        case Github():
            return _GITHUB
        case Shopify():
            return _SHOPIFY


def carries_several(signature: Signature) -> bool:
    """Whether a request can hold a signature for each of several secrets, for the time in which one replaces the other."""
    return bool(_form(signature).separator)


def check_secret(signature: Signature, secret: str) -> None:
    """Raises ConfigurationError for a secret that cannot be used. Never shows it."""
    _key(_form(signature), secret)


def sign(
    signature: Signature, secrets: Sequence[str], method: str, url: str, body: bytes, now: float, *, identity: str = ""
) -> dict[str, str]:
    """The headers that prove to a receiver who knows one of the secrets where a request comes from.

    `now` is the time of this attempt in seconds since 1970: a repetition is signed anew. `identity` is the message's id, the same in
    every repetition. Where a scheme has room for one signature only, it is made with the first secret. What a scheme does not sign (the
    method and the address, mostly) is not looked at. Raises ConfigurationError where there is no usable secret.
    """
    _require(secrets)
    form = _form(signature)
    stamp = str(int(now * 1000) if form.milliseconds else int(now))
    if isinstance(signature, HubspotV3):
        url = _hubspot_url(url)
    values = {"method": method.upper().encode(), "url": url.encode(), "body": body, "timestamp": stamp.encode(), "id": identity.encode()}
    message = _filled(form.signed, values)
    used = secrets if form.separator else secrets[:1]
    written = [form.prefix + _written(form, hmac.digest(_key(form, secret), message, form.algorithm)) for secret in used]
    headers = {form.header: form.separator.join([form.stamp_prefix + stamp, *written] if form.stamp_prefix else written)}
    if form.timestamp_header:
        headers[form.timestamp_header] = stamp
    if form.id_header:
        headers[form.id_header] = identity
    return headers


def verify(
    signature: Signature, secrets: Sequence[str], method: str, url: str, headers: Mapping[str, str], body: bytes, now: float
) -> None:
    """Return if the request was signed with one of the secrets, and not too long ago.

    `url` is the whole address as the sender knows it (behind a proxy: the public one), `body` the bytes as they came, `now` seconds since
    1970. Several secrets are for the time in which one replaces the other.

    Raises SignatureRefused, and ConfigurationError where there is no usable secret.
    """
    _require(secrets)
    form = _form(signature)
    fields = {name.lower(): value for name, value in headers.items()}
    identity = _header(fields, form.id_header) if form.id_header else ""
    text = _header(fields, form.header)
    signatures, stamp = _read(form, text)
    if form.timestamp_header or form.stamp_prefix:
        tolerance = signature.tolerance if isinstance(signature, _Timed) else 0.0
        stamp = _timely(_header(fields, form.timestamp_header) if form.timestamp_header else stamp, now, tolerance)
    if not form.separator and not text.startswith(form.prefix):
        raise _refused(f"{form.header} does not begin with {form.prefix}")
    urls = dict.fromkeys((_hubspot_url(url), url)) if isinstance(signature, HubspotV3) else (url,)
    values = {"method": method.upper().encode(), "body": body, "timestamp": stamp.encode(), "id": identity.encode()}
    messages = [_filled(form.signed, {**values, "url": each.encode()}) for each in urls]
    _must_match(form, signatures, [_key(form, secret) for secret in secrets], messages)


# ---- what they are made of ------------------------------------------------------------------------------------------------


def _require(secrets: Sequence[str]) -> None:
    if not secrets or not all(secrets):
        raise ConfigurationError("a signed webhook has no secret", do="set it: with an empty one, anybody could sign")


def _read(form: _Form, text: str) -> tuple[list[str], str]:
    """The signatures in a header as they are written, and the time where it stands beside them."""
    if not form.separator:
        return [text.removeprefix(form.prefix)], ""
    parts = [part.strip() for part in text.split(form.separator)]
    stamps = [part.removeprefix(form.stamp_prefix) for part in parts if form.stamp_prefix and part.startswith(form.stamp_prefix)]
    return [part.removeprefix(form.prefix) for part in parts if part.startswith(form.prefix)], next(iter(stamps), "")


def _key(form: _Form, secret: str) -> bytes:
    if not form.whsec:
        return secret.encode()
    coded = secret.removeprefix("whsec_").rstrip("=")
    key = _base64(coded + "=" * (-len(coded) % 4))  # some senders leave the padding out
    if not key:
        raise ConfigurationError("the secret of a Standard Webhooks sender is not base64", do="copy it whole, with its `whsec_`")
    return key


def _written(form: _Form, digest: bytes) -> str:
    return digest.hex() if form.encoding == "hex" else base64.b64encode(digest).decode()


def _hubspot_url(url: str) -> str:
    """HubSpot signs the address with some of its characters decoded."""
    return _HUBSPOT_DECODED.sub(lambda found: chr(int(found[1], 16)), url)


def _must_match(form: _Form, given: Sequence[str], keys: Sequence[bytes], messages: Sequence[bytes]) -> None:
    decode = _hex if form.encoding == "hex" else _base64
    signatures = [decode(text) for text in given[:_MOST_SIGNATURES]]
    if not any(signatures):
        raise _refused(f"{form.header} holds no signature that can be read")
    expected = [hmac.digest(key, message, form.algorithm) for key in keys for message in messages]
    # Every pair is compared, each in constant time: neither the answer nor how long it takes says how near a guess was.
    if not sum(hmac.compare_digest(a, b) for a in signatures for b in expected):
        raise _refused(
            f"{form.header} was not made with this secret for this request", "check the secret, and that no proxy changes address or body"
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
