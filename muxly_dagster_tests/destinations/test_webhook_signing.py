"""Signed requests: what we send is taken by the code that vendors publish for their receivers, and a retry is signed anew."""

import base64
import hashlib
import hmac
import time
from collections.abc import Iterator
from typing import Any

import pytest
import standardwebhooks
from hubspot.utils.signature import Signature as HubspotClient
from slack_sdk.signature import SignatureVerifier

from muxly_dagster.destinations import webhook as sender
from muxly_dagster.destinations.webhook import Webhook
from muxly_dagster.errors import RetryLater
from muxly_dagster.signature import Hmac, verify
from muxly_dagster.testing import delivery
from muxly_dagster_tests.http.server import Asked, Server, answer

SECRET = "a-secret-0f-the-receiver"
WHSEC = "whsec_" + base64.b64encode(b"k" * 24).decode()
NEW_WHSEC = "whsec_" + base64.b64encode(b"n" * 32).decode()
QUICK = {"attempts": 3, "base": 0.001, "cap": 0.001}


@pytest.fixture
def receiver() -> Iterator[Server]:
    with Server(lambda asked: answer()) as server:
        yield server


def send(server: Server, kind: str, *secrets: str, scheme: dict[str, Any] | None = None, **fields: Any) -> Asked:
    """One record, signed; what came."""
    signature = {"kind": kind, **(scheme or {})}
    hook = Webhook(**{"url": f"{server.url}/in", "allow_private": True, "signature": signature, "secrets": secrets, **fields})
    hook.deliver(delivery([{"id": 7, "name": "Zoë"}], after=41))
    return server.asked[-1]


def test_standard_webhooks_are_taken_by_the_standards_own_library(receiver: Server) -> None:
    asked = send(receiver, "standard_webhooks", WHSEC)
    assert standardwebhooks.Webhook(WHSEC).verify(asked.body, asked.headers)["id"] == "crm.deals:0b8e1f9c:42"
    assert asked.headers["webhook-id"] == "crm.deals:0b8e1f9c:42"
    with pytest.raises(standardwebhooks.webhooks.WebhookVerificationError):
        standardwebhooks.Webhook(WHSEC).verify(asked.body + b" ", asked.headers)


def test_while_secrets_change_receivers_with_either_take_what_comes(receiver: Server) -> None:
    asked = send(receiver, "standard_webhooks", WHSEC, NEW_WHSEC)
    assert len(asked.headers["webhook-signature"].split(" ")) == 2
    for secret in (WHSEC, NEW_WHSEC):
        standardwebhooks.Webhook(secret).verify(asked.body, asked.headers)


def test_svix_headers_begin_otherwise(receiver: Server) -> None:
    asked = send(receiver, "standard_webhooks", WHSEC, scheme={"prefix": "svix-"})
    as_standard = {name.replace("svix-", "webhook-"): value for name, value in asked.headers.items() if name.startswith("svix-")}
    standardwebhooks.Webhook(WHSEC).verify(asked.body, as_standard)


def test_a_batch_and_a_deletion_are_signed_too(receiver: Server) -> None:
    asked = send(receiver, "standard_webhooks", WHSEC, batch=10)
    standardwebhooks.Webhook(WHSEC).verify(asked.body, asked.headers)
    hook = Webhook(
        url=receiver.url,
        allow_private=True,
        path="/deals/{{ id }}",
        deletes="delete",
        signature={"kind": "standard_webhooks"},
        secrets=[WHSEC],
    )
    hook.deliver(delivery([{"id": 1}], ops=["delete"]))
    asked = receiver.asked[-1]
    assert (asked.method, asked.body) == ("DELETE", b"")
    standardwebhooks.Webhook(WHSEC).verify(asked.body, asked.headers, json_parse=False)


def test_slack_signatures_are_taken_by_slacks_own_code(receiver: Server) -> None:
    asked = send(receiver, "slack", SECRET)
    assert SignatureVerifier(SECRET).is_valid_request(asked.body, asked.headers)
    assert not SignatureVerifier("another").is_valid_request(asked.body, asked.headers)


def stripe_construct_event(payload: bytes, header: str, secret: str, tolerance: int = 300) -> bool:
    """What Stripe's documentation tells receivers to do by hand (https://docs.stripe.com/webhooks#verify-manually)."""
    pairs = [part.split("=", 1) for part in header.split(",")]
    stamp = int(next(value for name, value in pairs if name == "t"))
    expected = hmac.new(secret.encode(), f"{stamp}.".encode() + payload, hashlib.sha256).hexdigest()
    found = any(hmac.compare_digest(expected, value) for name, value in pairs if name == "v1")
    return found and abs(time.time() - stamp) < tolerance


def test_stripe_signatures_are_taken_as_stripe_tells_receivers_to(receiver: Server) -> None:
    asked = send(receiver, "stripe", SECRET, "the-one-before")
    for secret in (SECRET, "the-one-before"):
        assert stripe_construct_event(asked.body, asked.headers["stripe-signature"], secret)
    assert not stripe_construct_event(asked.body, asked.headers["stripe-signature"], "another")


def test_github_and_shopify_signatures_are_over_the_body(receiver: Server) -> None:
    asked = send(receiver, "github", SECRET)
    assert asked.headers["x-hub-signature-256"] == "sha256=" + hmac.new(SECRET.encode(), asked.body, hashlib.sha256).hexdigest()
    asked = send(receiver, "shopify", SECRET)
    digest = hmac.new(SECRET.encode(), asked.body, hashlib.sha256).digest()
    assert asked.headers["x-shopify-hmac-sha256"] == base64.b64encode(digest).decode()


def test_hubspots_signature_is_what_hubspots_own_client_makes(receiver: Server) -> None:
    asked = send(receiver, "hubspot", SECRET, auth={"kind": "api_key", "key": "k3y", "name": "key", "into": "query"})
    url, stamp = receiver.url + asked.target, asked.headers["x-hubspot-request-timestamp"]
    assert asked.query == [("key", "k3y")]
    assert HubspotClient.is_valid(
        signature=asked.headers["x-hubspot-signature-v3"],
        client_secret=SECRET,
        request_body=asked.body.decode(),
        http_uri=url,
        timestamp=stamp,
        signature_version="v3",
    )


def test_any_other_hmac_is_described_in_the_project(receiver: Server) -> None:
    described = {"header": "X-Sig", "algorithm": "sha512", "signed": "{method} {url} {timestamp}\n{body}", "timestamp_header": "X-At"}
    asked = send(receiver, "hmac", SECRET, scheme=described)
    verify(Hmac(**described), [SECRET], "POST", receiver.url + "/in", asked.headers, asked.body, time.time())


def test_a_retry_is_signed_at_its_own_time_and_has_the_same_id(monkeypatch: pytest.MonkeyPatch) -> None:
    # The clock of the signer goes on by a day with each attempt: longer than any receiver's tolerance.
    days = iter(range(1, 100))
    monkeypatch.setattr(sender, "_now", lambda: 1_780_000_000.0 + next(days) * 86_400)
    statuses = iter([503, 500, 200])
    with Server(lambda asked: answer(next(statuses))) as server:
        send(server, "standard_webhooks", WHSEC, retries=QUICK)
    stamps = [int(asked.headers["webhook-timestamp"]) for asked in server.asked]
    assert [stamp - 1_780_000_000 for stamp in stamps] == [86_400, 2 * 86_400, 3 * 86_400]
    assert {asked.headers["webhook-id"] for asked in server.asked} == {"crm.deals:0b8e1f9c:42"}
    assert len({asked.headers["webhook-signature"] for asked in server.asked}) == 3
    for asked in server.asked:
        message = f"{asked.headers['webhook-id']}.{asked.headers['webhook-timestamp']}.".encode() + asked.body
        digest = base64.b64encode(hmac.digest(b"k" * 24, message, "sha256")).decode()
        assert asked.headers["webhook-signature"] == f"v1,{digest}"


def test_a_signature_and_a_sign_in_go_together(receiver: Server) -> None:
    asked = send(receiver, "github", SECRET, auth={"kind": "bearer", "token": "t0ken"}, headers={"X-Team": "sales"})
    assert (asked.headers["authorization"], asked.headers["x-team"]) == ("Bearer t0ken", "sales")
    assert asked.headers["x-hub-signature-256"].startswith("sha256=")


def test_a_secret_is_told_by_nobody(caplog: pytest.LogCaptureFixture) -> None:
    with Server(lambda asked: answer(503, f"your secret is {SECRET}")) as server:
        hook = Webhook(url=server.url, allow_private=True, signature={"kind": "github"}, secrets=[SECRET], retries=QUICK)
        with caplog.at_level("DEBUG"), pytest.raises(RetryLater) as caught:
            hook.deliver(delivery([{"id": 1}]))
        check = hook.check()
    assert SECRET not in f"{caught.value} {caught.value!r} {hook!r} {hook.model_dump()} {hook.model_dump_json()} {check} {caplog.text}"


def test_checking_finds_a_secret_that_cannot_be_one(receiver: Server) -> None:
    hook = Webhook(url=receiver.url, allow_private=True, signature={"kind": "standard_webhooks"}, secrets=["not base64!"])
    result = hook.check()
    assert (result.status, receiver.asked) == ("failed", [])
    assert "not base64" in result.what and result.do
    assert "not base64!" not in f"{result}"
