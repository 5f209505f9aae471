"""Signed webhooks: what the vendors' own code signs is taken, and nothing else."""

import base64
import hashlib
import hmac
import json
from typing import Any

import pytest
from hubspot.utils.signature import Signature as HubspotClient
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from slack_sdk.signature import SignatureVerifier

from muxly_dagster.errors import ConfigurationError
from muxly_dagster.signature import (
    Hmac,
    HubspotV3,
    Signature,
    SignatureRefused,
    Slack,
    StandardWebhooks,
    carries_several,
    check_secret,
    sign,
    verify,
)

NOW = 1_780_000_000.0
STAMP = str(int(NOW))
SECRET = "a-secret-0f-the-sender"
URL = "https://hooks.example.com/in/crm?source=a"
BODY = '{"event":"created","name":"Zoë"}'.encode()

_parse: TypeAdapter[Signature] = TypeAdapter(Signature)


def signature(kind: str, **settings: Any) -> Signature:
    return _parse.validate_python({"kind": kind, **settings})


def mac(message: bytes, secret: str = SECRET, algorithm: str = "sha256") -> bytes:
    return hmac.digest(secret.encode(), message, algorithm)


def standard(body: bytes = BODY, stamp: str = STAMP, key: bytes = b"k" * 24, prefix: str = "webhook-") -> dict[str, str]:
    signed = base64.b64encode(hmac.digest(key, f"msg_1.{stamp}.".encode() + body, "sha256")).decode()
    return {f"{prefix}id": "msg_1", f"{prefix}timestamp": stamp, f"{prefix}signature": f"v1a,AAAA v1,{signed}"}


STANDARD_SECRET = "whsec_" + base64.b64encode(b"k" * 24).decode()

GENUINE: dict[str, tuple[Signature, str, dict[str, str]]] = {
    "standard webhooks": (signature("standard_webhooks"), STANDARD_SECRET, standard()),
    "svix": (signature("standard_webhooks", prefix="svix-"), STANDARD_SECRET, standard(prefix="svix-")),
    "stripe": (
        signature("stripe"),
        SECRET,
        {"Stripe-Signature": f"t={STAMP},v1={mac(STAMP.encode() + b'.' + BODY).hex()},v0=00"},
    ),
    "slack": (
        signature("slack"),
        SECRET,
        {
            "X-Slack-Request-Timestamp": STAMP,
            "X-Slack-Signature": SignatureVerifier(SECRET).generate_signature(timestamp=STAMP, body=BODY) or "",
        },
    ),
    "hubspot": (
        signature("hubspot"),
        SECRET,
        {
            "X-HubSpot-Request-Timestamp": f"{STAMP}123",
            "X-HubSpot-Signature-v3": HubspotClient.get_signature(SECRET, BODY.decode(), "v3", URL, "POST", f"{STAMP}123"),
        },
    ),
    "github": (signature("github"), SECRET, {"X-Hub-Signature-256": "sha256=" + mac(BODY).hex()}),
    "shopify": (signature("shopify"), SECRET, {"X-Shopify-Hmac-Sha256": base64.b64encode(mac(BODY)).decode()}),
    "any other": (
        signature(
            "hmac", header="X-Sig", algorithm="sha512", prefix="v9 ", signed="{method} {url} {timestamp}\n{body}", timestamp_header="X-At"
        ),
        SECRET,
        {"X-At": STAMP, "X-Sig": "v9 " + mac(f"POST {URL} {STAMP}\n".encode() + BODY, algorithm="sha512").hex().upper()},
    ),
}
TIMED = ["standard webhooks", "svix", "stripe", "slack", "hubspot", "any other"]


@pytest.fixture(params=GENUINE)
def genuine(request: pytest.FixtureRequest) -> tuple[Signature, str, dict[str, str]]:
    return GENUINE[request.param]


def test_a_genuine_request_is_taken_whatever_the_case_of_its_headers(genuine: tuple[Signature, str, dict[str, str]]) -> None:
    scheme, secret, headers = genuine
    verify(scheme, [secret], "POST", URL, headers, BODY, NOW)
    verify(scheme, [secret], "post", URL, {name.upper(): value for name, value in headers.items()}, BODY, NOW)


def test_one_of_several_secrets_is_enough(genuine: tuple[Signature, str, dict[str, str]]) -> None:
    scheme, secret, headers = genuine
    other = "whsec_" + base64.b64encode(b"another key").decode()
    verify(scheme, [other, secret], "POST", URL, headers, BODY, NOW)
    verify(scheme, [secret, other], "POST", URL, headers, BODY, NOW)
    with pytest.raises(SignatureRefused, match="not made with this secret"):
        verify(scheme, [other], "POST", URL, headers, BODY, NOW)


def test_another_body_is_refused(genuine: tuple[Signature, str, dict[str, str]]) -> None:
    scheme, secret, headers = genuine
    with pytest.raises(SignatureRefused, match="not made with this secret for this request"):
        verify(scheme, [secret], "POST", URL, headers, BODY + b" ", NOW)


def test_a_missing_header_is_named(genuine: tuple[Signature, str, dict[str, str]]) -> None:
    scheme, secret, headers = genuine
    for name in headers:
        rest = {other: value for other, value in headers.items() if other != name}
        with pytest.raises(SignatureRefused, match=f"(?i){name} is missing"):
            verify(scheme, [secret], "POST", URL, rest, BODY, NOW)


def test_no_refusal_tells_the_secret_or_the_right_signature(genuine: tuple[Signature, str, dict[str, str]]) -> None:
    scheme, secret, headers = genuine
    with pytest.raises(SignatureRefused) as refused:
        verify(scheme, [secret], "POST", URL, headers, b"forged", NOW)
    told = f"{refused.value} {refused.value.do} {refused.value.__cause__}"
    assert secret not in told
    assert not [value for value in headers.values() if value in told]


@pytest.mark.parametrize("name", TIMED)
@pytest.mark.parametrize(("seconds", "word"), [(301, "old"), (-301, "in the future")])
def test_a_repetition_and_a_request_from_the_future_are_refused(name: str, seconds: int, word: str) -> None:
    scheme, secret, headers = GENUINE[name]
    with pytest.raises(SignatureRefused, match=word):
        verify(scheme, [secret], "POST", URL, headers, BODY, NOW + seconds)
    verify(scheme, [secret], "POST", URL, headers, BODY, NOW + seconds * 0.99)


@pytest.mark.parametrize("name", TIMED)
@pytest.mark.parametrize("stamp", ["soon", "-1", "1e9", "١٧٨٠٠٠٠٠٠٠", "9" * 40, "nan", "0x10"])
def test_a_time_that_is_none_is_refused(name: str, stamp: str) -> None:
    scheme, secret, headers = GENUINE[name]
    changed = {n: stamp if "time" in n.lower() or n == "X-At" else v.replace(f"t={STAMP}", f"t={stamp}") for n, v in headers.items()}
    with pytest.raises(SignatureRefused, match="time of the request cannot be read"):
        verify(scheme, [secret], "POST", URL, changed, BODY, NOW)


@pytest.mark.parametrize("name", ["hubspot", "any other"])
def test_another_method_or_address_is_refused_where_it_is_signed(name: str) -> None:
    scheme, secret, headers = GENUINE[name]
    for method, url in (("PUT", URL), ("POST", URL + "&admin=1")):
        with pytest.raises(SignatureRefused):
            verify(scheme, [secret], method, url, headers, BODY, NOW)


def test_hubspot_signs_the_address_with_some_characters_decoded() -> None:
    stamp = f"{STAMP}000"
    signed = HubspotClient.get_signature(SECRET, "{}", "v3", "https://h.example/in?to=a@b.c/d:e&x=%C3%A9", "POST", stamp)
    headers = {"X-HubSpot-Signature-V3": signed, "X-HubSpot-Request-Timestamp": stamp}
    verify(HubspotV3(), [SECRET], "POST", "https://h.example/in?to=a%40b.c%2Fd%3ae&x=%C3%A9", headers, b"{}", NOW)


def test_what_slack_sent_is_what_slacks_own_code_takes() -> None:
    _, secret, headers = GENUINE["slack"]
    frozen: Any = type("Clock", (), {"now": staticmethod(lambda: NOW)})()
    assert SignatureVerifier(secret, clock=frozen).is_valid_request(BODY, headers)


def test_of_many_signatures_only_the_first_are_looked_at() -> None:
    good = base64.b64encode(hmac.digest(b"k" * 24, f"msg_1.{STAMP}.".encode() + BODY, "sha256")).decode()
    headers = standard() | {"webhook-signature": "v1,AAAA " * 30 + f"v1,{good}"}
    with pytest.raises(SignatureRefused):
        verify(StandardWebhooks(), [STANDARD_SECRET], "POST", URL, headers, BODY, NOW)


@pytest.mark.parametrize("secrets", [[], [""], [SECRET, ""]])
def test_an_empty_secret_is_a_mistake_of_ours_and_takes_nothing(secrets: list[str]) -> None:
    forged = {"X-Hub-Signature-256": "sha256=" + mac(BODY, "").hex()}
    with pytest.raises(ConfigurationError, match="no secret"):
        verify(signature("github"), secrets, "POST", URL, forged, BODY, NOW)


def test_a_standard_secret_that_is_no_base64_is_told_without_showing_it() -> None:
    with pytest.raises(ConfigurationError, match="not base64") as told:
        verify(StandardWebhooks(), ["whsec_!!not!!"], "POST", URL, standard(), BODY, NOW)
    assert "not!!" not in str(told.value)


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"signed": "{body}{secret}"}, "secret"),
        ({"signed": "{timestamp}", "timestamp_header": "X-At"}, "no {body}"),
        ({"signed": "{body}", "timestamp_header": "X-At"}, "go together"),
        ({"signed": "{timestamp}{body}"}, "go together"),
        ({"algorithm": "md5"}, "sha1"),
        ({"tolerance": 0}, "greater than 0"),
    ],
)
def test_a_scheme_that_protects_from_nothing_cannot_be_declared(settings: dict[str, Any], word: str) -> None:
    with pytest.raises(ValidationError, match=word):
        signature("hmac", header="X-Sig", **settings)


def test_placeholders_in_what_was_sent_are_not_filled_in() -> None:
    body = b"{timestamp}{url}"
    verify(Hmac(header="X-Sig", signed="{url}|{body}"), [SECRET], "POST", URL, {"X-Sig": mac(f"{URL}|".encode() + body).hex()}, body, NOW)


@given(st.dictionaries(st.sampled_from(["X-Slack-Signature", "X-Slack-Request-Timestamp"]), st.text() | st.just(STAMP)), st.binary())
def test_whatever_comes_is_refused_and_nothing_breaks(headers: dict[str, str], body: bytes) -> None:
    with pytest.raises(SignatureRefused):
        verify(Slack(), [SECRET], "POST", URL, headers, body, NOW)


def test_a_scheme_is_data() -> None:
    declared = json.loads('{"kind": "hmac", "header": "X-Sig", "encoding": "base64", "algorithm": "sha1"}')
    scheme = _parse.validate_python(declared)
    signed = base64.b64encode(hmac.new(SECRET.encode(), BODY, hashlib.sha1).digest()).decode()
    verify(scheme, [SECRET], "POST", URL, {"x-sig": signed}, BODY, NOW)


# ---- the signing side ------------------------------------------------------------------------------------------------------

SCHEMES = {name: scheme for name, (scheme, _, _) in GENUINE.items()}
TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)


def secret_for(scheme: Signature, key: bytes) -> str:
    return "whsec_" + base64.b64encode(key).decode() if isinstance(scheme, StandardWebhooks) else key.hex()


@pytest.mark.parametrize("name", SCHEMES)
@given(body=st.binary(max_size=200), key=st.binary(min_size=1, max_size=40), path=TEXTS, now=st.floats(1e9, 4e9), late=st.floats(-290, 290))
def test_what_is_signed_is_taken_and_nothing_else(name: str, body: bytes, key: bytes, path: str, now: float, late: float) -> None:
    scheme, url = SCHEMES[name], "https://hooks.example/" + path
    secret, other = secret_for(scheme, key), secret_for(scheme, key + b"x")
    headers = sign(scheme, [secret], "put", url, body, now, identity="crm.deals:1:2")
    verify(scheme, [secret], "PUT", url, headers, body, now + late)
    verify(scheme, [other, secret], "PUT", url, headers, body, now + late)
    for refused in ((body + b" ", secret), (body, other)):
        with pytest.raises(SignatureRefused):
            verify(scheme, [refused[1]], "PUT", url, headers, refused[0], now)


@pytest.mark.parametrize("name", SCHEMES)
def test_with_two_secrets_both_sign_where_there_is_room(name: str) -> None:
    scheme = SCHEMES[name]
    old, new = secret_for(scheme, b"old key"), secret_for(scheme, b"new key")
    headers = sign(scheme, [old, new], "POST", URL, BODY, NOW, identity="1")
    verify(scheme, [old], "POST", URL, headers, BODY, NOW)
    if carries_several(scheme):
        verify(scheme, [new], "POST", URL, headers, BODY, NOW)
    else:
        with pytest.raises(SignatureRefused):
            verify(scheme, [new], "POST", URL, headers, BODY, NOW)


@pytest.mark.parametrize("name", ["standard webhooks", "slack", "github", "shopify", "any other"])
def test_signing_makes_what_the_vendors_make(name: str) -> None:
    scheme, secret, headers = GENUINE[name]
    made = sign(scheme, [secret], "POST", URL, BODY, NOW, identity="msg_1")
    given_ = {n.lower(): v.removeprefix("v1a,AAAA ") for n, v in headers.items()}
    assert {n.lower(): v.lower() if n == "X-Sig" else v for n, v in made.items()} == {
        n: v.lower() if n == "x-sig" else v for n, v in given_.items()
    }


@pytest.mark.parametrize("secrets", [[], [""]])
def test_nothing_is_signed_without_a_secret(secrets: list[str]) -> None:
    with pytest.raises(ConfigurationError, match="no secret"):
        sign(Slack(), secrets, "POST", URL, BODY, NOW)


def test_a_secret_that_cannot_be_one_is_told_without_showing_it() -> None:
    check_secret(StandardWebhooks(), "whsec_" + base64.b64encode(b"k" * 23).decode().rstrip("="))
    with pytest.raises(ConfigurationError, match="not base64") as caught:
        check_secret(StandardWebhooks(), "whsec_hunter2!")
    assert "hunter2" not in str(caught.value)
