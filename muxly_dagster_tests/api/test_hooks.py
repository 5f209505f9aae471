"""Webhooks: what proves where it comes from is kept once and starts its job once, and nothing else does anything."""

import base64
import hashlib
import hmac
import json
import time
import urllib.parse
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from muxly_dagster.errors import ConfigurationError, RetryLater
from muxly_dagster.intake import Call
from muxly_dagster.state import START
from muxly_dagster_tests.api.called import Recorder, called, post
from muxly_dagster_tests.api.callers import NEXT_SECRET, SECRET, SENDERS, WRONG_SECRET, Sender, project
from muxly_dagster_tests.api.shop import Shop

PROJECT = project()
ADDRESS = "/v1/hooks/{job}"


@pytest.fixture(scope="module")
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, recorder: Recorder) -> Iterator[Shop]:
    with called(tmp_path_factory.mktemp("called"), recorder, PROJECT) as shop:
        yield shop


@pytest.fixture(params=SENDERS)
def sender(request: pytest.FixtureRequest) -> Sender:
    return SENDERS[request.param]


def send(
    shop: Shop, sender: Sender, id: str, *, secret: str = SECRET, ago: int = 0, body: bytes | None = None, sent: bytes | None = None
) -> Any:
    """A call signed so long ago; `sent` is what is sent in place of what was signed."""
    body = sender.body(id) if body is None else body
    headers = sender.headers(secret, body, int(time.time()) - ago, id)
    path = ADDRESS.format(job=sender.job) + ("?from=crm" if sender.job == "hubspot" else "")
    return post(shop, path, body if sent is None else sent, headers)


def calls(shop: Shop, job: str) -> list[Call]:
    return list(shop.service.state.calls.after(job, 0, 1000))


def settled(shop: Shop) -> None:
    """Wait until everything was submitted that is to be."""
    shop.service.starting._threads.shutdown(wait=True)  # closing leaves what is not begun to the sensor
    shop.service.starting.close()
    del shop.service.__dict__["starting"]


def test_a_signed_call_is_kept_and_starts_its_job(shop: Shop, sender: Sender, recorder: Recorder) -> None:
    answer = send(shop, sender, "evt_1")
    assert answer.status_code == (200 if sender.job == "slack" else 202)
    (call,) = [each for each in calls(shop, sender.job) if "evt_1" in each.delivery_id or sender.job == "hubspot"]
    assert call.body == sender.body("evt_1")
    settled(shop)
    (start,) = shop.service.state.starts.open(sender.job)
    assert [(job, run, tags) for job, run, tags in recorder.asked if job == sender.job] == [(sender.job, start.id, {START: start.id})]
    if sender.job != "slack":
        delivery = call.delivery_id
        assert answer.json() == {"id": call.id, "delivery_id": delivery, "known": False, "start": start.id}


def test_no_secret_and_no_signature_is_kept(shop: Shop, sender: Sender) -> None:
    send(shop, sender, "evt_kept")
    for call in calls(shop, sender.job):
        kept = json.dumps(dict(call.headers))
        assert SECRET not in kept
        assert "signature" not in kept and "hmac" not in kept and "authorization" not in kept and "x-signed" not in kept
    assert SECRET not in repr(shop.service.runtime.assembly.jobs[sender.job])


UNPROVEN = [
    (name, wrong)
    for name, sender in SENDERS.items()
    for wrong in ("secret", "unsigned", "body", "old", "future")
    if sender.timed or wrong in ("secret", "unsigned") or (wrong == "body" and name in ("github", "shopify"))
]


@pytest.mark.parametrize(("name", "wrong"), UNPROVEN)
def test_what_proves_nothing_is_refused_without_a_reason_and_leaves_nothing(
    shop: Shop, name: str, wrong: str, caplog: pytest.LogCaptureFixture
) -> None:
    sender = SENDERS[name]
    before = len(calls(shop, sender.job))
    match wrong:
        case "secret":
            answer = send(shop, sender, "evt_2", secret=WRONG_SECRET)
        case "body":
            answer = send(
                shop, sender, "evt_2", sent=sender.body("evt_2").replace(b"1", b"7").replace(b"evt_2", b"evt_3"), body=sender.body("evt_2")
            )
        case "unsigned":
            answer = post(shop, ADDRESS.format(job=sender.job), sender.body("evt_2"))
        case _:
            answer = send(shop, sender, "evt_2", ago=301 if wrong == "old" else -400)
    assert answer.status_code == 401
    said = answer.json()
    assert (said["title"], said["detail"]) == ("Not proven", "the call does not prove where it comes from")
    assert "errors" not in said and SECRET not in answer.text
    assert len(calls(shop, sender.job)) == before
    assert f"webhook of {sender.job}" in caplog.text
    assert SECRET not in caplog.text and WRONG_SECRET not in caplog.text
    schemes = {"bearer": 'Bearer realm="muxly"', "gitlab": 'Bearer realm="muxly"', "basic": 'Basic realm="muxly"'}
    assert answer.headers.get("www-authenticate", "") == schemes.get(name, "")


def test_both_secrets_of_a_rotation_are_taken(shop: Shop, sender: Sender) -> None:
    assert send(shop, sender, "evt_4", secret=NEXT_SECRET).status_code in (200, 202)
    assert send(shop, sender, "evt_5", secret=SECRET).status_code in (200, 202)


def test_a_repetition_is_known_whenever_it_was_signed(shop: Shop, sender: Sender, recorder: Recorder) -> None:
    send(shop, sender, "evt_6", ago=20)
    settled(shop)
    before, asked = len(calls(shop, sender.job)), len(recorder.asked)
    again = send(shop, sender, "evt_6", secret=NEXT_SECRET)
    assert again.status_code == 200
    if sender.job != "slack":
        assert again.json()["known"] is True and again.json()["start"] == ""
    assert len(calls(shop, sender.job)) == before
    settled(shop)
    assert len(recorder.asked) == asked


def test_an_attempt_of_hubspot_is_the_same_delivery_and_another_event_is_another(shop: Shop) -> None:
    sender = SENDERS["hubspot"]
    event = {"eventId": 100, "subscriptionId": 1, "occurredAt": 5, "attemptNumber": 0, "propertyValue": "a"}
    known = [
        send(shop, sender, "", body=json.dumps(body).encode()).json()["known"]
        for body in ([event], [{**event, "attemptNumber": 3}], [{**event, "propertyValue": "b"}], [event, {**event, "eventId": 101}])
    ]
    assert known == [False, True, False, False]


def test_a_call_without_an_id_is_known_by_what_was_signed(tmp_path: Path) -> None:
    text = """
sources: {hooks: {connector: webhook, pulls: [a]}}
jobs:
  signed: {select: [hooks], webhook: {scheme: {header: X-Signed}, secret: the-secret-in-use}}
  told: {select: [hooks], webhook: {scheme: bearer, secret: the-secret-in-use}}
"""
    with called(tmp_path, Recorder(), text) as shop:

        def signed(body: bytes) -> Any:
            headers = {"x-signed": hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()}
            return post(shop, "/v1/hooks/signed", body, headers).json()["known"]

        assert [signed(body) for body in (b"a", b"a", b"b", b"")] == [False, True, False, False]
        told = [post(shop, "/v1/hooks/told", b"{}", {"authorization": f"bearer {SECRET}"}).json() for _ in range(2)]
        assert [each["known"] for each in told] == [False, False], "nothing says that it is a repetition"


def test_githubs_documented_example(tmp_path: Path) -> None:
    """https://docs.github.com/webhooks/using-webhooks/validating-webhook-deliveries"""
    hook = '{scheme: github, secret: "It\'s a Secret to Everybody"}'
    text = f"sources: {{hooks: {{connector: webhook, pulls: [a]}}}}\njobs: {{a: {{select: [hooks], webhook: {hook}}}}}\n"
    with called(tmp_path, Recorder(), text) as shop:
        signed = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
        headers = {"x-hub-signature-256": signed, "x-github-delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958"}
        assert post(shop, "/v1/hooks/a", b"Hello, World!", headers).status_code == 202
        assert post(shop, "/v1/hooks/a", b"Hello, World?", headers).status_code == 401


@pytest.mark.parametrize("scheme", ["bearer", "basic", "{kind: bearer, header: X-Token}"])
def test_a_secret_may_have_more_than_ascii(tmp_path: Path, scheme: str) -> None:
    hook = f"{{scheme: {scheme}, secret: schlüssel-ключ}}"
    text = f"sources: {{hooks: {{connector: webhook, pulls: [a]}}}}\njobs: {{a: {{select: [hooks], webhook: {hook}}}}}\n"
    with called(tmp_path, Recorder(), text) as shop:
        for secret, status in (("schlüssel-ключ", 202), ("schlüssel", 401)):
            sent = {
                "bearer": {b"authorization": b"Bearer " + secret.encode()},
                "basic": {b"authorization": b"Basic " + base64.b64encode(f"muxly:{secret}".encode())},
            }.get(scheme, {b"x-token": secret.encode()})
            assert post(shop, ADDRESS.format(job="a"), b"{}", sent).status_code == status  # type: ignore[arg-type]


def test_slack_hears_its_challenge_once_it_has_proven_itself(shop: Shop) -> None:
    slack = SENDERS["slack"]
    body = json.dumps({"type": "url_verification", "challenge": "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P"}).encode()
    before = len(calls(shop, "slack"))
    answer = send(shop, slack, "", body=body)
    assert (answer.status_code, answer.json()) == (200, {"challenge": "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P"})
    assert send(shop, slack, "", body=body, secret=WRONG_SECRET).status_code == 401
    assert len(calls(shop, "slack")) == before
    command = urllib.parse.urlencode({"command": "/deals", "text": "new"}).encode()
    answer = send(shop, slack, "", body=command)
    assert (answer.status_code, answer.content) == (200, b""), "whoever typed the command would see anything else"


def test_hubspot_signs_the_address_that_it_calls(tmp_path: Path) -> None:
    """Where no public address is set, it is the request's own."""
    sender = SENDERS["hubspot"]
    with called(tmp_path, Recorder(), PROJECT, MUXLY_PUBLIC_URL="") as shop:
        assert send(shop, sender, "evt_1").status_code == 401
        body, at = sender.body("evt_1"), str(int(time.time()) * 1000)
        url = "http://muxly.example/v1/hooks/hubspot?a=%2F"
        signed = hmac.new(SECRET.encode(), b"POST" + url.replace("%2F", "/").encode() + body + at.encode(), hashlib.sha256)
        headers = {"x-hubspot-request-timestamp": at, "x-hubspot-signature-v3": base64.b64encode(signed.digest()).decode()}
        assert post(shop, "/v1/hooks/hubspot?a=%2F", body, headers).status_code == 202


@pytest.mark.parametrize("job", ["unheard", "closed", "plain", "Über", "a" * 300])
def test_what_has_no_webhook_is_not_found_and_nothing_is_told_of_others(shop: Shop, job: str) -> None:
    answer = post(shop, ADDRESS.format(job=job), b"{}", {"x-hub-signature-256": "sha256=00"})
    assert answer.status_code == (422 if len(job) > 255 else 404)
    assert not [name for name in SENDERS if name in answer.text]


def test_a_body_that_is_too_large_is_not_read(shop: Shop) -> None:
    github = SENDERS["github"]
    assert send(shop, github, "large", body=b"x" * 2000).status_code == 202
    assert send(shop, github, "larger", body=b"x" * 2001).status_code == 413
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 1
            assert read < 100
            yield b"x" * 500

    answer = post(shop, "/v1/hooks/github", endless())
    assert answer.status_code == 413


def test_calls_of_a_burst_start_one_run_and_those_behind_its_beginning_another(tmp_path: Path) -> None:
    github, recorder = SENDERS["github"], Recorder()
    with called(tmp_path, recorder, PROJECT) as shop:
        starts = [send(shop, github, f"burst-{number}").json()["start"] for number in range(5)]
        assert len(list(filter(None, starts))) == 1 and starts[0]
        settled(shop)
        assert [run for _, run, _ in recorder.asked] == [starts[0]]
        state = shop.service.state
        with state.lock("job.github"):  # as the run holds it
            assert state.starts.begin(starts[0], starts[0])
            behind = send(shop, github, "behind").json()["start"]
            assert behind
            settled(shop)
            assert len(recorder.asked) == 1, "the run is under way: the sensor starts the next one when it has ended"
        assert [call.delivery_id for call in state.calls.of_start(starts[0])] == [f"burst-{number}" for number in range(5)]
        assert [start.id for start in state.starts.open("github")] == [behind]


@pytest.mark.parametrize("trouble", [RetryLater("Dagster is down"), ConfigurationError("no such job"), RuntimeError("a bug")])
def test_what_dagster_does_not_take_is_left_to_the_sensor(tmp_path: Path, trouble: Exception) -> None:
    recorder = Recorder(troubles=[trouble])
    with called(tmp_path, recorder, PROJECT) as shop:
        answer = send(shop, SENDERS["github"], "evt_1")
        assert answer.status_code == 202
        settled(shop)
        assert recorder.asked == []
        (start,) = shop.service.state.starts.due(shop.service.state.starts.open("github")[0].due_at)
        assert start.id == answer.json()["start"]


def test_the_answer_does_not_wait_for_dagster(tmp_path: Path) -> None:
    recorder = Recorder()
    recorder.may_answer.clear()
    with called(tmp_path, recorder, PROJECT) as shop:
        assert send(shop, SENDERS["github"], "evt_1").status_code == 202
        assert recorder.asked == []
        recorder.may_answer.set()
        settled(shop)
        assert len(recorder.asked) == 1


def test_a_paused_job_keeps_its_calls_for_later(tmp_path: Path) -> None:
    recorder = Recorder()
    with called(tmp_path, recorder, PROJECT) as shop:
        state = shop.service.state
        state.jobs.pause("github", paused=True)
        assert send(shop, SENDERS["github"], "evt_1").status_code == 202
        settled(shop)
        (start,) = state.starts.open("github")
        assert (recorder.asked, state.starts.due(start.due_at)) == ([], [])
        state.jobs.pause("github", paused=False)
        assert state.starts.due(start.due_at) == [start]


def test_the_same_call_at_two_processes_of_the_api_starts_one_run(tmp_path: Path) -> None:
    one, two = Recorder(), Recorder()
    github = SENDERS["github"]
    with called(tmp_path, one, PROJECT) as first, called(tmp_path, two, PROJECT) as second:
        assert [send(api, github, "evt_1").json()["known"] for api in (first, second, first)] == [False, True, True]
        assert send(second, github, "evt_2").json()["start"] == ""
        settled(first)
        settled(second)
        assert (len(one.asked), len(two.asked)) == (1, 0)
