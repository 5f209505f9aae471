"""Whoever calls a webhook: whether it is who it should be, what it names its call, and what it wants to be answered first."""

import base64
import binascii
import hashlib
import hmac
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from muxly_dagster.project.webhooks import Basic, Bearer, WebhookSpec
from muxly_dagster.signature import Github, Hmac, HubspotV3, Shopify, SignatureRefused, Slack, StandardWebhooks, Stripe, verify

_PRINTABLE = re.compile(r"[!-~]{1,200}")
_SIGNS_IN = frozenset({"authorization", "proxy-authorization", "cookie", "x-hub-signature", "x-hubspot-signature"})
_SIGNATURES = frozenset({"x-hub-signature-256", "x-shopify-hmac-sha256", "x-slack-signature", "stripe-signature", "x-hubspot-signature-v3"})


@dataclass(frozen=True, slots=True)
class Request:
    """A call as it came. `url` is the address as the caller knows it, `headers` have lower-case names, `now` is seconds since 1970."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes
    now: float


def prove(webhook: WebhookSpec, request: Request) -> None:
    """Return if the caller knows one of the secrets. Raises SignatureRefused, whose text is for the log and not for the caller."""
    match webhook.scheme:
        case Bearer(header=header):
            given = _in_utf8(request.headers.get(header.lower(), "").strip())
            if header.lower() == "authorization":
                scheme, _, token = given.partition(" ")
                given = token.strip() if scheme.lower() == "bearer" else ""
            _must_be_one_of(webhook, given, header)
        case Basic(user=wanted):
            user, password = _basic(request.headers.get("authorization", ""))
            known = not wanted or hmac.compare_digest(user.encode(), wanted.encode())
            _must_be_one_of(webhook, password if known else "", "Authorization")
        case scheme:
            verify(scheme, webhook.secrets, request.method, request.url, request.headers, request.body, request.now)


def delivery_id(webhook: WebhookSpec, request: Request) -> str:
    """What tells this call from every other and is the same in its repetitions: the sender's own id of it where it gives one.

    Where none is signed along or sent, a hash of what was signed; a call that signs nothing is a new one unless it has an Idempotency-Key.
    """
    given = request.headers.get(webhook.id_header.lower(), "") if webhook.id_header else ""
    text = given or _own_id(webhook, request)
    return text if _PRINTABLE.fullmatch(text) else f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def challenge(webhook: WebhookSpec, body: bytes) -> str | None:
    """What Slack wants to hear when it is told of the address (https://docs.slack.dev/reference/events/url_verification); else None."""
    if not isinstance(webhook.scheme, Slack):
        return None
    said = _json(body)
    asked = said.get("challenge") if isinstance(said, dict) and said.get("type") == "url_verification" else None
    return asked if isinstance(asked, str) else None


def kept_headers(webhook: WebhookSpec, headers: Mapping[str, str]) -> dict[str, str]:
    """The headers without those that sign in or prove anything."""
    proofs = set(_SIGNS_IN | _SIGNATURES)
    match webhook.scheme:
        case Bearer(header=header) | Hmac(header=header):
            proofs.add(header.lower())
        case StandardWebhooks(prefix=prefix):
            proofs.add(f"{prefix}signature".lower())
    return {name: value for name, value in headers.items() if name not in proofs}


def _own_id(webhook: WebhookSpec, request: Request) -> str:
    headers, body = request.headers, request.body
    match webhook.scheme:
        case StandardWebhooks(prefix=prefix):
            return headers[f"{prefix}id".lower()].strip()
        case Github():
            return headers.get("x-github-delivery", "") or _hash(body)
        case Shopify():
            return headers.get("x-shopify-webhook-id", "") or headers.get("x-shopify-event-id", "") or _hash(body)
        case Stripe():
            return _field(body, "id") or _hash(headers["stripe-signature"].partition(",")[0].encode(), body)
        case Slack():
            return _field(body, "event_id") or _hash(headers["x-slack-request-timestamp"].encode(), body)
        case HubspotV3():
            return _hubspot_id(body) or _hash(headers["x-hubspot-request-timestamp"].encode(), request.url.encode(), body)
        case Hmac() as scheme:
            parts = {"timestamp": headers.get(scheme.timestamp_header.lower(), ""), "method": request.method, "url": request.url}
            return _hash(*(text.encode() for name, text in parts.items() if f"{{{name}}}" in scheme.signed), body)
        case Bearer() | Basic():
            return headers.get("idempotency-key", "") or str(uuid.uuid4())


def _hubspot_id(body: bytes) -> str:
    """HubSpot sends lists of events and numbers its attempts in them; `eventId` may not be unique, so all of an event counts."""
    events = _json(body)
    if not isinstance(events, list) or not events or not all(isinstance(event, dict) and "eventId" in event for event in events):
        return ""
    same = [{name: value for name, value in event.items() if name != "attemptNumber"} for event in events]
    return _hash(*sorted(orjson.dumps(event, option=orjson.OPT_SORT_KEYS) for event in same))


def _field(body: bytes, name: str) -> str:
    said = _json(body)
    value = said.get(name) if isinstance(said, dict) else None
    return value if isinstance(value, str) else ""


def _json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except ValueError:
        return None


def _hash(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return f"sha256:{digest.hexdigest()}"


def _must_be_one_of(webhook: WebhookSpec, given: str, header: str) -> None:
    # All are compared, each in constant time: how long it takes says nothing.
    if sum(hmac.compare_digest(given.encode(), secret.encode()) for secret in webhook.secrets) == 0:
        raise SignatureRefused(f"the webhook was refused: {header} does not hold the secret")


def _in_utf8(value: str) -> str:
    """A header's value, which HTTP reads byte by byte (RFC 9110, 5.5), as whoever sends more than ASCII means it most often."""
    try:
        return value.encode("latin-1").decode()
    except UnicodeError:
        return value


def _basic(value: str) -> tuple[str, str]:
    scheme, _, coded = value.partition(" ")
    if scheme.lower() != "basic":
        return "", ""
    try:
        user, _, password = base64.b64decode(coded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return "", ""
    return user, password
