"""Apprise itself brings messages to a server, and says of each only whether it was taken."""

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from muxly_dagster.destinations.notify import Notify
from muxly_dagster.errors import ConfigurationError, RetryLater
from muxly_dagster.testing import EVERY_TYPE, DestinationContract, delivery
from muxly_dagster_tests.http.server import Asked, Server, answer

TOKEN = "s3cretpathtoken"


class Inbox:
    """What came to an address of Apprise's kind `json`; it answers 200 unless `answers` has something else."""

    def __init__(self) -> None:
        self.came: list[dict[str, Any]] = []
        self.answers: list[bytes] = []
        self.server = Server(self._reply)

    @property
    def url(self) -> str:
        return f"json://ada:hunter2pass@127.0.0.1:{self.server.port}/{TOKEN}"

    @property
    def texts(self) -> list[str]:
        return [each["message"] for each in self.came]

    def _reply(self, asked: Asked) -> bytes | list[bytes]:
        said = self.answers.pop(0) if self.answers else answer(200)
        if b" 200 " in said[:20]:
            self.came.append(json.loads(asked.body))
        return [said, Server.cut]


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    inbox = Inbox()
    with inbox.server:
        yield inbox


def notify(*inboxes: Inbox, **fields: Any) -> Notify:
    """A destination from fields as they stand in muxly.yaml."""
    given = {"urls": [inbox.url for inbox in inboxes], "schemes": ["json"], "body": "{{ name }}"}
    return Notify.model_validate(given | fields)


class TestNotify(DestinationContract):
    """Messages carry no id of their own: a receiver can tell a repetition where the template says the record's."""

    keeps = "changes"
    columns = tuple(name for name in EVERY_TYPE if name not in ("a_decimal", "some_bytes", "a_date", "a_time"))
    secrets = (TOKEN, "hunter2pass")
    longest_text = 30_000

    @pytest.fixture
    def destination(self, inbox: Inbox) -> Notify:
        self.inbox = inbox
        return notify(inbox, body='{"id": "{{ record.id }}", "data": {{ record.data }}}')

    def stored(self, destination: Notify) -> list[dict[str, Any]]:
        by_id = {message["id"]: message["data"] for message in map(json.loads, self.inbox.texts)}
        return list(by_id.values())

    def away(self) -> None:
        """`check` sends nothing, so that it cannot see whether anybody is there."""

    def interrupted(self) -> Notify:
        self.inbox.answers = [answer(200), answer(200), answer(503)]
        return notify(self.inbox, body='{"id": "{{ record.id }}", "data": {{ record.data }}}')


def test_title_and_body_are_filled_in(inbox: Inbox) -> None:
    receipt = notify(inbox, title="{{ table }}: {{ name }}").deliver(delivery([{"id": 1, "name": "R&D\n<b>"}]))
    (message,) = inbox.came
    assert (message["title"], message["message"]) == ("crm.deals: R&D <b>", "R&D\n<b>")
    assert (receipt.accepted, receipt.detail) == (1, {"messages": 1, "services": ["JSON (1)"]})


@pytest.mark.parametrize(("format_", "shown"), [("text", "*R&D*"), ("markdown", "\\*R\\&D\\*"), ("html", "*R&amp;D*")])
def test_what_a_record_says_does_not_become_markup(inbox: Inbox, format_: str, shown: str) -> None:
    target = notify(inbox, urls=[f"{inbox.url}?format={format_}"], format=format_)
    target.deliver(delivery([{"id": 1, "name": "*R&D*"}]))
    assert inbox.texts == [shown]
    assert [message.text for message in target.render(delivery([{"id": 1, "name": "*R&D*"}]))] == ["*R&D*"]


def test_text_is_no_markup_where_the_service_shows_html(inbox: Inbox) -> None:
    notify(inbox, urls=[f"{inbox.url}?format=html"]).deliver(delivery([{"id": 1, "name": "<b>x</b>"}]))
    assert inbox.texts == ["&lt;b&gt;x&lt;/b&gt;"]


def test_what_is_too_long_is_shortened_with_a_mark(inbox: Inbox) -> None:
    notify(inbox, title="{{ name }}").deliver(delivery([{"id": 1, "name": "x" * 50_000}]))
    (message,) = inbox.came
    assert (len(message["title"]), message["title"][-1]) == (250, "…")
    assert (len(message["message"]), message["message"][-1]) == (32_768, "…")


def test_groups_deletes_and_rules(inbox: Inbox) -> None:
    rows = [{"id": n, "owner": "ab"[n % 2], "name": f"n{n}"} for n in range(4)]
    target = notify(inbox, body="{{ owner }} {{ count }}", group={"by": ["owner"]})
    assert target.deliver(delivery(rows, ops=["upsert", "upsert", "delete", "upsert"])).accepted == 4
    assert inbox.texts == ["a 1", "b 2"]
    stretch = replace(delivery(rows[:2], after=4), rules=("big", "small"), templates={"big": {"body": "BIG {{ name }}"}})
    notify(inbox).deliver(stretch)
    assert inbox.texts[2:] == ["BIG n0", "n1"]


def test_an_empty_message_or_a_failing_template_refuses_its_record(inbox: Inbox) -> None:
    receipt = notify(inbox, body="{{ name }}{{ 1 // id }}").deliver(delivery([{"id": 0, "name": "a"}, {"id": 1, "name": "b"}]))
    assert (receipt.accepted, [r.seq for r in receipt.refused]) == (1, [1])
    receipt = notify(inbox).deliver(delivery([{"id": 1, "name": " "}]))
    assert "the message is empty" in receipt.refused[0].reason


def test_a_column_that_is_not_there_is_named_before_anything_is_sent(inbox: Inbox) -> None:
    with pytest.raises(ConfigurationError, match="did you mean name"):
        notify(inbox, title="{{ nmae }}").deliver(delivery([{"id": 1, "name": "a"}]))
    assert inbox.came == []


def test_a_message_that_one_address_took_is_accepted_and_the_other_is_named(inbox: Inbox) -> None:
    other = Inbox()
    with other.server:
        other.answers = [answer(500)]
        receipt = notify(inbox, other).deliver(delivery([{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]))
    assert receipt.accepted == 2
    assert receipt.detail["not_taken"] == {"JSON (2)": 1}
    assert (inbox.texts, other.texts) == (["a", "b"], ["b"])


@pytest.mark.parametrize("said", [answer(500), answer(403), answer(302, Location="http://127.0.0.1:1/"), b"SSH-2.0\r\n", b""])
def test_a_message_that_nobody_took_is_kept_for_later(inbox: Inbox, said: bytes) -> None:
    inbox.answers = [answer(200), said]
    receipt = notify(inbox).deliver(delivery([{"id": n, "name": f"n{n}"} for n in range(3)]))
    assert (receipt.accepted, receipt.upto) == (1, 1)
    assert isinstance(receipt.retry, RetryLater)
    assert "nobody took the message (JSON (1): " in receipt.retry.what


def test_a_machine_that_is_away_is_tried_again_later() -> None:
    with pytest.raises(RetryLater) as caught:
        Notify(urls=[f"json://127.0.0.1:1/{TOKEN}"], schemes=["json"], body="x").deliver(delivery([{"id": 1}]))
    assert TOKEN not in f"{caught.value} {caught.value!r}"


def test_nothing_that_is_secret_is_logged_and_other_threads_logs_are_left_alone(inbox: Inbox, caplog: pytest.LogCaptureFixture) -> None:
    inbox.answers = [answer(500, f"no {TOKEN}")]
    target = notify(inbox)
    with caplog.at_level(1), pytest.raises(RetryLater) as caught:
        target.deliver(delivery([{"id": 1, "name": "a"}]))
    # Other tests' libraries may have made it quieter.
    with caplog.at_level(1), caplog.at_level(1, logger="urllib3.connectionpool"):
        target.deliver(delivery([{"id": 1, "name": "a"}]))
        logging.getLogger("urllib3.connectionpool").debug("somebody else's words")
    shown = f"{caught.value} {target!r} {target.model_dump_json()} {target.public_name('x')} {target.check()} {caplog.text}"
    for secret in (TOKEN, "hunter2pass"):
        assert secret not in shown
    assert "somebody else's words" in caplog.text
    assert "error=500" in caught.value.what


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("syslog://", "syslog:// is not allowed"),
        ("dbus://", "dbus:// is not allowed"),
        ("rsyslog://example.com", "is not allowed"),
        ("json://example.com/x", "json:// is not allowed"),
        ("http://example.com", "is not allowed"),
        ("file:///etc/passwd", "is not allowed"),
        ("something", "cannot read this address"),
        ("https://example.com/somewhere", "cannot read this address"),
        ("tgram://", "cannot read this address"),
    ],
)
def test_addresses_that_are_unknown_or_local_are_refused(url: str, said: str) -> None:
    target = Notify(urls=[url], body="x")
    assert said in target.check().what
    with pytest.raises(ConfigurationError, match=said) as caught:
        target.deliver(delivery([{"id": 1}]))
    assert caught.value.where == "urls[0]"


@pytest.mark.parametrize(
    "url",
    [
        "tgram://123456789:abcdefg_hijklmnop/12315544/",
        "discord://4174216298/JHMHI8qBe7bk2ZwO5U711o3dV_js",
        "https://discord.com/api/webhooks/4174216298/JHMHI8qBe7bk2ZwO5U711o3dV_js",
        "ntfys://topic@ntfy.example",
        "mailtos://ada:pass@example.com",
    ],
)
def test_services_elsewhere_are_allowed_without_being_listed(url: str) -> None:
    check = Notify(urls=[url], body="x").check()
    assert (check.status, "only seen by sending" in check.what) == ("ok", True)
    limited = Notify(urls=[url], body="x", schemes=["pover"]).check()
    assert limited.status == "failed"


def test_a_long_delivery_is_answered_for_in_parts(inbox: Inbox) -> None:
    rows = [{"id": n, "name": f"n{n}"} for n in range(103)]
    receipt = notify(inbox).deliver(delivery(rows))
    assert (receipt.accepted, receipt.upto, receipt.retry) == (100, 100, None)


@pytest.mark.parametrize("fields", [{"urls": []}, {"body": "{{ x"}, {"format": "rtf"}])
def test_settings_that_make_no_sense_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        Notify.model_validate({"urls": ["tgram://hunter2token/1"], "body": "x", **fields})
    assert "hunter2token" not in str(caught.value)


@pytest.mark.parametrize("url", ["tgram://[s3crettoken]/chat", "tgram://s3cret\u2100token/chat"])
def test_an_address_that_is_none_is_told_and_not_shown(url: str) -> None:
    target = Notify.model_validate({"urls": [url], "body": "{{ name }}"})
    check = target.check()
    shown = f"{check} {target.public_name('crm.deals')}"
    with pytest.raises(ConfigurationError) as caught:
        target.deliver(delivery([{"id": 1, "name": "a"}]))
    assert "s3cret" not in f"{shown} {caught.value} {caught.value!r}"
    assert (check.status, target.public_name("crm.deals")) == ("failed", url.partition(":")[0])
