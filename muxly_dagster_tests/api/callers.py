"""The services that call webhooks, as their own code or documentation signs, and a project that they call."""

import base64
import datetime as dt
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import stripe
from hubspot.utils.signature import Signature as HubspotClient
from slack_sdk.signature import SignatureVerifier
from standardwebhooks import Webhook

from muxly_dagster_tests.api.called import PUBLIC

SECRET, NEXT_SECRET, WRONG_SECRET = "the-secret-in-use", "the-secret-to-come", "a-secret-of-somebody-else"


def whsec(secret: str) -> str:
    return "whsec_" + base64.b64encode(secret.encode()).decode()


@dataclass(frozen=True)
class Sender:
    """Signs a body for a job with a secret at a time (seconds since 1970) and under an id of its own; `repeats`: a repetition carries it.

    `body` makes a body of an id, for senders whose id stands in it.
    """

    job: str
    headers: Callable[[str, bytes, int, str], Mapping[str, str]]
    timed: bool = True
    body: Callable[[str], bytes] = lambda id: b'{"n": 1}'
    secret: Callable[[str], str] = str


def _standard(secret: str, body: bytes, at: int, id: str) -> Mapping[str, str]:
    signed = Webhook(whsec(secret)).sign(id, dt.datetime.fromtimestamp(at, dt.UTC), body.decode())
    return {"webhook-id": id, "webhook-timestamp": str(at), "webhook-signature": signed}


def _stripe(secret: str, body: bytes, at: int, id: str) -> Mapping[str, str]:
    signed = stripe.WebhookSignature._compute_signature(f"{at}.{body.decode()}", secret)
    return {"stripe-signature": f"t={at},v1={signed}"}


def _slack(secret: str, body: bytes, at: int, id: str) -> Mapping[str, str]:
    signed = SignatureVerifier(secret).generate_signature(timestamp=str(at), body=body)
    return {"x-slack-request-timestamp": str(at), "x-slack-signature": str(signed)}


def _hubspot(secret: str, body: bytes, at: int, id: str) -> Mapping[str, str]:
    url = f"{PUBLIC}/v1/hooks/hubspot?from=crm"
    signed = HubspotClient.get_signature(secret, body.decode(), "v3", url, "POST", str(at * 1000))
    return {"x-hubspot-request-timestamp": str(at * 1000), "x-hubspot-signature-v3": signed}


def _github(secret: str, body: bytes, at: int, id: str) -> Mapping[str, str]:
    signed = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return {"x-github-delivery": id, "x-github-event": "push", "x-hub-signature-256": f"sha256={signed}"}


def _shopify(secret: str, body: bytes, at: int, id: str) -> Mapping[str, str]:
    signed = base64.b64encode(hmac.new(secret.encode(), body, hashlib.sha256).digest()).decode()
    return {"x-shopify-webhook-id": id, "x-shopify-topic": "orders/create", "x-shopify-hmac-sha256": signed}


def _own(secret: str, body: bytes, at: int, id: str) -> Mapping[str, str]:
    signed = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha512).hexdigest()
    return {"x-at": str(at), "x-signed": signed, "x-id": id}


def _bearer(secret: str, body: bytes, at: int, id: str) -> Mapping[str, str]:
    return {"authorization": f"Bearer {secret}", "idempotency-key": id}


def _gitlab(secret: str, body: bytes, at: int, id: str) -> Mapping[str, str]:
    return {"x-gitlab-token": secret, "x-gitlab-event-uuid": id}


def _basic(secret: str, body: bytes, at: int, id: str) -> Mapping[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"muxly:{secret}".encode()).decode(), "idempotency-key": id}


def _event(id: str) -> bytes:
    return json.dumps([{"eventId": id, "subscriptionId": 7, "attemptNumber": 0, "objectId": 12}]).encode()


SENDERS: dict[str, Sender] = {
    "standard": Sender("standard", _standard, secret=whsec),
    "stripe": Sender("stripe", _stripe, body=lambda id: json.dumps({"id": id, "object": "event"}).encode()),
    "slack": Sender("slack", _slack, body=lambda id: json.dumps({"type": "event_callback", "event_id": id}).encode()),
    "hubspot": Sender("hubspot", _hubspot, body=_event),
    "github": Sender("github", _github, timed=False),
    "shopify": Sender("shopify", _shopify, timed=False),
    "own": Sender("own", _own),
    "bearer": Sender("bearer", _bearer, timed=False),
    "gitlab": Sender("gitlab", _gitlab, timed=False),
    "basic": Sender("basic", _basic, timed=False),
}

_SCHEMES = {
    "standard": "standard_webhooks",
    "own": '{kind: hmac, header: X-Signed, algorithm: sha512, signed: "{timestamp}.{body}", timestamp_header: X-At}',
    "gitlab": "{kind: bearer, header: X-Gitlab-Token}",
    "basic": "{kind: basic, user: muxly}",
}
_ID_HEADERS = {"own": "X-Id", "gitlab": "X-Gitlab-Event-UUID"}


def project() -> str:
    """A job for every sender, which pulls its calls."""
    lines = ["sources:", "  hooks:", "    connector: webhook", "    pulls:"]
    lines += [f"      {name}: {{}}" for name in SENDERS]
    lines += ["jobs:"]
    for name, sender in SENDERS.items():
        secrets = f'["{sender.secret(SECRET)}", "{sender.secret(NEXT_SECRET)}"]'
        extra = f", id_header: {_ID_HEADERS[name]}" if name in _ID_HEADERS else ""
        hook = f"{{scheme: {_SCHEMES.get(name, name)}, secret: {secrets}, max_size: 2kB{extra}}}"
        lines.append(f"  {name}: {{select: [hooks.{name}], webhook: {hook}}}")
    lines.append("  closed: {select: [hooks.github], enabled: false, webhook: {scheme: github, secret: nobody-calls}}")
    lines.append("  plain: {select: [hooks.github]}")
    return "\n".join(lines) + "\n"
