"""Slack's own client brings messages to a workspace of our own, each once, and every record is answered for."""

import html
import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from muxly_dagster.destinations.slack import Slack
from muxly_dagster.destinations.slack.posting import Pace
from muxly_dagster.errors import ConfigurationError, GoneError, RetryLater, SignInError
from muxly_dagster.testing import EVERY_TYPE, DestinationContract, delivery
from muxly_dagster_tests.peers.slack import HOOK, TOKEN, SlackWorkspace


@pytest.fixture
def workspace() -> Iterator[SlackWorkspace]:
    with SlackWorkspace() as workspace:
        yield workspace


def slack(workspace: SlackWorkspace, **fields: Any) -> Slack:
    """A destination that posts to #sales by a token, at once."""
    given: dict[str, Any] = {"token": TOKEN, "base_url": workspace.base_url, "pace": 0, "text": "{{ name }}"}
    given |= {} if "channel_by" in fields else {"channel": "C0SALES00"}
    return Slack.model_validate(given | fields)


def hook(workspace: SlackWorkspace, **fields: Any) -> Slack:
    """A destination that posts by the webhook."""
    return Slack.model_validate({"webhook_url": workspace.hook_url, "pace": 0, "text": "{{ name }}"} | fields)


def shown(message: Mapping[str, Any]) -> dict[str, Any]:
    """The record that a message of the contract says, as JSON."""
    found: dict[str, Any] = json.loads(html.unescape(message["text"]))
    return found


class TestByToken(DestinationContract):
    keeps = "changes"
    secrets = (TOKEN,)
    longest_text = 30_000  # of the 40,000 characters that a message may have, some are the record's other columns
    columns = tuple(name for name in EVERY_TYPE if name not in ("a_decimal", "some_bytes", "a_date", "a_time"))

    @pytest.fixture
    def destination(self, workspace: SlackWorkspace) -> Slack:
        self.workspace = workspace
        return slack(workspace, text="{{ record.data }}")

    def stored(self, destination: Slack) -> list[dict[str, Any]]:
        return [shown(message) for message in self.workspace.sales.messages.values()]

    def away(self) -> Slack:
        return Slack(token=TOKEN, channel="C0SALES00", text="{{ id }}", base_url="http://127.0.0.1:1/api/")

    def wrong(self) -> Slack | None:
        return slack(self.workspace, token="xoxb-wr0ngbott0ken", text="{{ record.data }}")

    def interrupted(self) -> Slack:
        workspace = self.workspace
        workspace.held = lambda: workspace.cut("chat.postMessage", after=True) if len(workspace.sales.messages) == 3 else None
        return slack(workspace, text="{{ record.data }}")


class TestUpdating(TestByToken):
    """One message for each key: what is there is the newest version."""

    keeps = "rows"

    @pytest.fixture
    def destination(self, workspace: SlackWorkspace) -> Slack:
        self.workspace = workspace
        return slack(workspace, text="{{ record.data }}", update_by="key")

    def interrupted(self) -> Slack:
        super().interrupted()
        return slack(self.workspace, text="{{ record.data }}", update_by="key")


class TestByWebhook(TestByToken):
    """A webhook cannot be asked what its channel holds: a repetition is posted again, with the same id in its metadata."""

    secrets = (HOOK,)

    @pytest.fixture
    def destination(self, workspace: SlackWorkspace) -> Slack:
        self.workspace = workspace
        return hook(workspace, text="{{ record.data }}")

    def stored(self, destination: Slack) -> list[dict[str, Any]]:
        by_id = {m["metadata"]["event_payload"]["id"]: m for m in self.workspace.hooked.messages.values()}
        return [shown(message) for message in by_id.values()]

    def away(self) -> Slack:
        return Slack(webhook_url=f"http://127.0.0.1:1{HOOK}", text="{{ id }}")

    def wrong(self) -> None:
        """Whether an address is the right one is only seen by posting."""

    def interrupted(self) -> Slack:
        workspace = self.workspace
        workspace.held = lambda: workspace.cut("hook", after=True) if len(workspace.hooked.messages) == 3 else None
        return hook(workspace, text="{{ record.data }}")


# ---- what is sent


def test_a_message_is_posted_with_the_record_it_is_made_of(workspace: SlackWorkspace) -> None:
    receipt = slack(workspace, text="*{{ name }}* is {{ amount | number(2) }}").deliver(
        delivery([{"id": 7, "name": "Ada", "amount": 1234.5}])
    )
    (message,) = workspace.sales.messages.values()
    assert message["text"] == "*Ada* is 1,234.50"
    assert message["metadata"]["event_type"] == "muxly_message"
    assert message["metadata"]["event_payload"]["id"] == "crm.deals:0b8e1f9c:1"
    assert not message["unfurl_links"]
    link = f"https://x.slack.com/archives/C0SALES00/p{message['ts'].replace('.', '')}"
    assert receipt.detail == {"messages": 1, "channels": ["C0SALES00"], "last": message["ts"], "permalink": link}


def test_what_a_record_says_is_neither_mention_nor_link(workspace: SlackWorkspace) -> None:
    slack(workspace, text="<https://crm.example|open> {{ name }}").deliver(delivery([{"id": 1, "name": "<!channel> <http://x|y> R&D"}]))
    assert workspace.sales.texts == ["<https://crm.example|open> &lt;!channel&gt; &lt;http://x|y&gt; R&amp;D"]


def test_blocks_are_filled_in_and_text_stands_beside_them(workspace: SlackWorkspace) -> None:
    blocks = [
        {"type": "header", "text": {"type": "plain_text", "text": "{{ name }}"}},
        {"type": "section", "fields": [{"type": "mrkdwn", "text": "*Owner*\n{{ owner }}"}]},
        {"type": "actions", "elements": [{"type": "button", "text": {"type": "plain_text", "text": "Open"}, "url": "{{ link }}"}]},
    ]
    record = {"id": 1, "name": "R&D", "owner": "<@U1>", "link": "https://crm.example/?a=1&b=2"}
    slack(workspace, blocks=blocks, text="").deliver(delivery([record]))
    (message,) = workspace.sales.messages.values()
    header, section, actions = message["blocks"]
    assert header["text"]["text"] == "R&D", "plain text knows no escapes"
    assert section["fields"][0]["text"] == "*Owner*\n&lt;@U1&gt;"
    assert actions["elements"][0]["url"] == "https://crm.example/?a=1&b=2"
    assert message["text"] == "R&D\n*Owner*\n&lt;@U1&gt;\nOpen"


def test_what_is_too_long_is_shortened_with_a_mark_and_not_within_an_escape(workspace: SlackWorkspace) -> None:
    blocks = [
        {"type": "section", "text": {"type": "mrkdwn", "text": "{{ name }}"}},
        {"type": "header", "text": {"type": "plain_text", "text": "{{ name }}"}},
        {"type": "section", "fields": [{"type": "plain_text", "text": "{{ name }}"}]},
    ]
    receipt = slack(workspace, text="{{ name * 20 }}", blocks=blocks).deliver(delivery([{"id": 1, "name": "&" * 3_000}]))
    assert (receipt.accepted, receipt.refused) == (1, ())
    (message,) = workspace.sales.messages.values()
    assert len(message["text"]) <= 40_000
    assert message["text"].endswith("&amp;…")
    assert [len(html.unescape(t["text"])) for t in (message["blocks"][0]["text"], message["blocks"][1]["text"])] == [600, 150]
    assert len(message["blocks"][2]["fields"][0]["text"]) == 2_000


def test_a_message_that_slack_would_not_take_is_a_refused_record(workspace: SlackWorkspace) -> None:
    blocks = [{"type": "section", "text": {"type": "mrkdwn", "text": "{{ name }}"}}]
    receipt = slack(workspace, blocks=blocks, text="x").deliver(
        delivery([{"id": 1, "name": "a"}, {"id": 2, "name": ""}, {"id": 3, "name": "c"}])
    )
    assert receipt.accepted == 2
    ((seq, reason),) = [(refusal.seq, refusal.reason) for refusal in receipt.refused]
    assert seq == 2
    assert "invalid_blocks: must be more than 0" in reason
    assert "/blocks/0/text/text" in reason
    many = slack(workspace, text="{{ id }}", blocks=[{"type": "divider"}] * 51).deliver(delivery([{"id": 9}], after=3))
    assert [r.reason for r in many.refused] == ["the message has 51 blocks, and Slack takes 50"]
    empty = slack(workspace).deliver(delivery([{"id": 1, "name": " "}], after=4))
    assert "the message is empty" in empty.refused[0].reason


def test_a_template_that_fails_on_a_record_refuses_that_record(workspace: SlackWorkspace) -> None:
    receipt = slack(workspace, text="{{ 1 // id }}").deliver(delivery([{"id": 1}, {"id": 0}]))
    assert [r.seq for r in receipt.refused] == [2]
    assert "ZeroDivisionError" in receipt.refused[0].reason
    assert workspace.sales.texts == ["1"]


@pytest.mark.parametrize("fields", [{"text": "{{ nmae }}"}, {"channel_by": "nmae"}, {"update_by": "nmae"}, {"group": {"by": ["nmae"]}}])
def test_a_column_that_is_not_there_is_named_before_anything_is_sent(workspace: SlackWorkspace, fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="did you mean name"):
        slack(workspace, **fields).deliver(delivery([{"id": 1, "name": "Ada"}]))
    assert workspace.asked("chat.postMessage") == []


def test_rules_have_templates_of_their_own(workspace: SlackWorkspace) -> None:

    stretch = replace(
        delivery([{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]), rules=("big", "small"), templates={"big": {"text": "BIG {{ name }}"}}
    )
    target = slack(workspace)
    assert [message.text for message in target.render(stretch)] == ["BIG a", "b"]
    target.deliver(stretch)
    assert workspace.sales.texts == ["BIG a", "b"]
    wrong = replace(stretch, templates={"big": {"text": "{{ nmae }}"}})
    with pytest.raises(ConfigurationError, match="`text` of rule big"):
        target.deliver(wrong)


def test_what_would_be_sent_is_shown_as_people_read_it(workspace: SlackWorkspace) -> None:
    stretch = delivery([{"id": 1, "name": "R&D <x>", "to": "C1"}])
    assert [(m.seqs, m.text) for m in slack(workspace).render(stretch)] == [((1,), "R&D <x>")]
    (failing,) = slack(workspace, channel_by="to", text="{{ 1 // 0 }}").render(stretch)
    assert failing.text.startswith("C1: (refused: ")
    assert workspace.asked("chat.postMessage") == []


# ---- deletes, groups, channels


def test_a_deleted_record_sends_nothing_unless_it_is_to(workspace: SlackWorkspace) -> None:
    stretch = delivery([{"id": 1, "name": "a"}, {"id": 1, "name": "a"}], ops=["upsert", "delete"])
    assert slack(workspace, text="{{ op }}").deliver(stretch).accepted == 2
    assert workspace.sales.texts == ["upsert"]
    assert hook(workspace, text="{{ op }} {{ name }}", deletes=True).deliver(stretch).accepted == 2
    assert workspace.hooked.texts == ["upsert a", "delete a"]


def test_a_group_is_one_message_and_the_newest_record_speaks_for_it(workspace: SlackWorkspace) -> None:
    rows = [{"id": n, "owner": "ab"[n % 2], "name": f"n{n}"} for n in range(5)]
    text = "{{ owner }} has {{ count }}:{% for r in records %} {{ r.name }}{% endfor %}"
    receipt = slack(workspace, text=text, group={"by": ["owner"]}).deliver(delivery(rows))
    assert receipt.accepted == 5
    assert workspace.sales.texts == ["b has 2: n1 n3", "a has 3: n0 n2 n4"]


def test_records_name_their_channels_and_are_refused_where_there_is_none(workspace: SlackWorkspace) -> None:
    ops = workspace.add("C0OPS0000", "ops")
    workspace.add("C0OLD0000", "old", is_archived=True)
    rows = [{"id": n, "name": f"n{n}", "to": to} for n, to in enumerate(["#sales", "C0OPS0000", "nowhere", "C0OLD0000", None, "U0ADA0000"])]
    receipt = slack(workspace, channel_by="to").deliver(delivery(rows))
    assert workspace.sales.texts == ["n0"]
    assert ops.texts == ["n1"]
    assert workspace.channels["D0ADA0000"].texts == ["n5"]
    assert receipt.accepted == 3
    reasons = {refusal.seq: refusal.reason for refusal in receipt.refused}
    assert "channel_not_found" in reasons[3]
    assert "is_archived" in reasons[4]
    assert reasons[5] == "the record names no channel: to is empty"


@pytest.mark.parametrize("trouble", ["channel_not_found", "is_archived", "not_in_channel"])
def test_a_fixed_channel_that_does_not_take_messages_is_for_a_person_to_correct(workspace: SlackWorkspace, trouble: str) -> None:
    if trouble == "channel_not_found":
        target = slack(workspace, channel="#nowhere")
    else:
        workspace.sales.is_archived = trouble == "is_archived"
        workspace.sales.is_member = trouble != "not_in_channel"
        target = slack(workspace)
    with pytest.raises(ConfigurationError, match=trouble):
        target.deliver(delivery([{"id": 1, "name": "a"}]))
    check = target.check()
    assert (check.status, trouble in check.what) == ("failed", True)


def test_a_channel_by_name_is_found_on_any_page(workspace: SlackWorkspace) -> None:
    for n in range(5):
        workspace.add(f"C0MORE00{n}", f"more-{n}")
    workspace.page = 2
    target = slack(workspace, channel="#more-4")
    assert target.deliver(delivery([{"id": 1, "name": "a"}])).accepted == 1
    assert target.deliver(delivery([{"id": 1, "name": "a"}])).accepted == 1
    assert workspace.channels["C0MORE004"].texts == ["a"]


# ---- threads and updates


def test_messages_of_one_key_stand_in_one_thread_across_restarts(workspace: SlackWorkspace) -> None:
    first = delivery([{"id": 1, "name": "a"}, {"id": 2, "name": "x"}, {"id": 1, "name": "b"}])
    slack(workspace, thread_by="key").deliver(first)
    slack(workspace, thread_by="key").deliver(delivery([{"id": 1, "name": "c"}, {"id": 3, "name": "z"}], after=3))
    messages = list(workspace.sales.messages.values())
    assert [m["text"] for m in messages] == ["a", "x", "b", "c", "z"]
    root, other, *answers, third = messages
    assert [m["thread_ts"] for m in answers] == [root["ts"], root["ts"]]
    assert "thread_ts" not in other
    assert "thread_ts" not in third


def test_a_record_replaces_the_message_of_the_one_before_across_restarts(workspace: SlackWorkspace) -> None:
    target = slack(workspace, update_by="key", text="{{ name }} {{ op }}", deletes=True)
    receipt = target.deliver(delivery([{"id": 1, "name": "a"}, {"id": 2, "name": "x"}, {"id": 1, "name": "b"}]))
    assert (receipt.accepted, receipt.detail["messages"], receipt.detail["updated"]) == (3, 2, 0)
    again = slack(workspace, update_by="key", text="{{ name }} {{ op }}", deletes=True)
    receipt = again.deliver(delivery([{"id": 1, "name": "b"}, {"id": 2, "name": "y"}], ops=["delete", "upsert"], after=3))
    assert (receipt.detail["messages"], receipt.detail["updated"]) == (0, 2)
    assert sorted(workspace.sales.texts) == ["b delete", "y upsert"]


def test_an_older_state_never_replaces_a_newer_one(workspace: SlackWorkspace) -> None:
    stretch = delivery([{"id": 1, "name": "old"}, {"id": 2, "name": "x"}, {"id": 1, "name": "new"}])
    slack(workspace, update_by="key").deliver(stretch)
    receipt = slack(workspace, update_by="key").deliver(stretch)
    assert (receipt.accepted, receipt.detail["already_there"]) == (3, 3)
    assert sorted(workspace.sales.texts) == ["new", "x"]
    assert workspace.asked("chat.update") == []


@pytest.mark.parametrize("setting", ["thread_by", "update_by"])
def test_a_key_begins_anew_where_somebody_deleted_its_message(workspace: SlackWorkspace, setting: str) -> None:
    slack(workspace, **{setting: "key"}).deliver(delivery([{"id": 1, "name": "a"}]))
    target = slack(workspace, **{setting: "key"})
    target.deliver(delivery([{"id": 2, "name": "x"}], after=1))
    workspace.sales.messages.clear()
    assert target.deliver(delivery([{"id": 1, "name": "b"}], after=2)).accepted == 1
    assert workspace.sales.texts == ["b"]


def test_blocks_that_a_newer_state_has_not_are_taken_away(workspace: SlackWorkspace) -> None:
    slack(workspace, update_by="key", blocks=[{"type": "divider"}]).deliver(delivery([{"id": 1, "name": "a"}]))
    slack(workspace, update_by="key").deliver(delivery([{"id": 1, "name": "b"}], after=1))
    (message,) = workspace.sales.messages.values()
    assert (message["text"], message["blocks"]) == ("b", [])


def test_what_cannot_be_found_again_is_not_posted_as_if_it_were_new(workspace: SlackWorkspace) -> None:
    workspace.scopes = workspace.scopes - {"channels:history"}
    with pytest.raises(ConfigurationError, match="needs channels:history"):
        slack(workspace, thread_by="key").deliver(delivery([{"id": 1, "name": "a"}]))
    assert slack(workspace, thread_by="key").check().status == "failed"
    workspace.scopes = workspace.scopes | {"channels:history", "chat:write.public"}
    workspace.add("C0ELSE000", "elsewhere", is_member=False)
    rows = [{"id": 1, "name": "a", "to": "C0ELSE000"}, {"id": 2, "name": "b", "to": "C0SALES00"}]
    receipt = slack(workspace, thread_by="key", channel_by="to").deliver(delivery(rows))
    assert [(r.seq, "not_in_channel" in r.reason) for r in receipt.refused] == [(1, True)]
    assert workspace.sales.texts == ["b"]


# ---- once


def test_a_message_whose_answer_was_lost_is_not_posted_again(workspace: SlackWorkspace) -> None:
    workspace.cut("chat.postMessage", after=True)
    target = slack(workspace)
    stretch = delivery([{"id": 1, "name": "a"}, {"id": 2, "name": "b"}])
    with pytest.raises(RetryLater, match="no whole answer"):
        target.deliver(stretch)
    receipt = target.deliver(stretch)
    assert (receipt.accepted, receipt.detail["already_there"]) == (2, 1)
    assert workspace.sales.texts == ["a", "b"]


def test_an_answer_in_a_thread_is_not_posted_again(workspace: SlackWorkspace) -> None:
    stretch = delivery([{"id": 1, "name": "a"}, {"id": 1, "name": "b"}, {"id": 1, "name": "c"}])
    slack(workspace, thread_by="key").deliver(stretch)
    workspace.page = 1
    receipt = slack(workspace, thread_by="key").deliver(stretch)
    assert (receipt.accepted, receipt.detail["already_there"]) == (3, 3)
    assert workspace.sales.texts == ["a", "b", "c"]


def test_a_group_that_has_grown_sends_what_is_new(workspace: SlackWorkspace) -> None:
    fields: dict[str, Any] = {"group": {"by": ["owner"]}, "text": "{{ owner }}:{% for r in records %} {{ r.id }}{% endfor %}"}
    rows = [{"id": n, "owner": "ab"[n % 2]} for n in range(7)]
    slack(workspace, **fields).deliver(delivery(rows[:4]))
    receipt = slack(workspace, **fields).deliver(delivery(rows))
    assert (receipt.accepted, receipt.detail["already_there"]) == (7, 4)
    assert workspace.sales.texts == ["a: 0 2", "b: 1 3", "b: 5", "a: 4 6"]


def test_a_group_that_is_cut_into_smaller_stretches_is_recognised(workspace: SlackWorkspace) -> None:
    fields: dict[str, Any] = {"group": {}, "text": "{% for r in records %} {{ r.id }}{% endfor %}"}
    rows = [{"id": n} for n in range(6)]
    slack(workspace, **fields).deliver(delivery(rows))
    again = slack(workspace, **fields)
    assert again.deliver(delivery(rows[:2])).detail["already_there"] == 2
    assert again.deliver(delivery(rows[2:], after=2)).detail["already_there"] == 4
    assert workspace.sales.texts == [" 0 1 2 3 4 5"]


def test_a_message_of_other_records_is_no_proof_of_these(workspace: SlackWorkspace) -> None:
    fields: dict[str, Any] = {"group": {}, "text": "{% for r in records %} {{ r.id }}{% endfor %}"}
    whole = delivery([{"id": n} for n in range(4)])

    slack(workspace, **fields).deliver(replace(whole, rows=whole.rows.take([0, 3])))
    slack(workspace, **fields).deliver(whole)  # a rule was changed: now those in between belong here too
    assert workspace.sales.texts == [" 0 3", " 0 1 2 3"]


def test_another_apps_message_is_no_proof(workspace: SlackWorkspace) -> None:
    slack(workspace).deliver(delivery([{"id": 1, "name": "a"}]))
    ((ts, message),) = workspace.sales.messages.items()
    workspace.sales.messages[ts] = {**message, "bot_id": "B0STRANGE", "text": "forged"}
    slack(workspace).deliver(delivery([{"id": 1, "name": "a"}]))
    assert workspace.sales.texts == ["forged", "a"]


@pytest.mark.parametrize(
    "metadata", [None, {}, {"event_type": "muxly_message"}, {"event_type": "muxly_message", "event_payload": {"target": 1, "first": "x"}}]
)
def test_metadata_of_any_shape_does_no_harm(workspace: SlackWorkspace, metadata: Any) -> None:
    workspace.somebody_posts(workspace.sales, "hi", bot_id="B19LU7CSY", metadata=metadata)
    assert slack(workspace).deliver(delivery([{"id": 1, "name": "a"}])).accepted == 1


def test_messages_are_looked_for_behind_many_others(workspace: SlackWorkspace) -> None:
    workspace.page = 3
    slack(workspace).deliver(delivery([{"id": 1, "name": "a"}]))
    for n in range(20):
        workspace.somebody_posts(workspace.sales, f"chat {n}")
    slack(workspace).deliver(delivery([{"id": 1, "name": "a"}]))
    assert workspace.sales.texts.count("a") == 1


def test_the_channel_is_read_once_and_not_for_every_delivery(workspace: SlackWorkspace) -> None:
    target = slack(workspace)
    for n in range(4):
        target.deliver(delivery([{"id": n, "name": "a"}], after=n))
    assert len(workspace.asked("conversations.history")) == 1
    target.deliver(delivery([{"id": 9, "name": "a"}], after=9))  # something else delivered what lies between
    assert len(workspace.asked("conversations.history")) == 2


def test_without_the_scope_to_read_it_posts_and_says_so(workspace: SlackWorkspace) -> None:
    workspace.scopes = frozenset({"chat:write"})
    receipt = slack(workspace).deliver(delivery([{"id": 1, "name": "a"}]))
    assert receipt.accepted == 1
    assert "needs channels:history" in receipt.detail["not_looked_through"]["C0SALES00"]
    check = slack(workspace).check()
    assert (check.status, "could not be looked up" in check.what) == ("ok", True)
    workspace.scopes = frozenset({"chat:write", "channels:read"})
    assert "are not recognised" in slack(workspace).check().what


# ---- trouble


def test_messages_go_on_after_a_short_wait_and_a_long_one_is_left_to_the_next_run(workspace: SlackWorkspace) -> None:
    workspace.fail("chat.postMessage", 429, times=2, Retry_After="0")
    assert slack(workspace).deliver(delivery([{"id": 1, "name": "a"}])).accepted == 1
    workspace.fail("chat.postMessage", 429, Retry_After="3600")
    with pytest.raises(RetryLater) as caught:
        slack(workspace).deliver(delivery([{"id": 2, "name": "b"}], after=1))
    assert caught.value.after == 3600
    workspace.fail("conversations.history", 429, times=2, Retry_After="0")
    assert slack(workspace).deliver(delivery([{"id": 2, "name": "b"}], after=1)).accepted == 1
    assert workspace.sales.texts == ["a", "b"]


@pytest.mark.parametrize("status", [500, 502, 503])
def test_a_passing_trouble_confirms_what_is_posted(workspace: SlackWorkspace, status: int) -> None:
    target = slack(workspace)
    target.deliver(delivery([{"id": 0, "name": "z"}]))
    workspace.held = lambda: workspace.fail("chat.postMessage", status) if len(workspace.sales.messages) == 3 else None
    receipt = target.deliver(delivery([{"id": n, "name": f"n{n}"} for n in range(4)], after=1))
    assert (receipt.accepted, receipt.upto) == (2, 3)
    assert isinstance(receipt.retry, RetryLater)
    workspace.held = None
    assert target.deliver(delivery([{"id": n, "name": f"n{n}"} for n in (2, 3)], after=3)).accepted == 2
    assert workspace.sales.texts == ["z", "n0", "n1", "n2", "n3"]


def test_what_a_group_sent_ahead_is_answered_for_and_not_sent_again(workspace: SlackWorkspace) -> None:
    fields: dict[str, Any] = {"group": {"by": ["owner"]}, "text": "{{ owner }}"}
    rows = [{"id": n, "owner": owner} for n, owner in enumerate("abba")]
    workspace.held = lambda: workspace.fail("hook", 500)
    target = hook(workspace, **fields)
    receipt = target.deliver(delivery(rows))
    assert (receipt.accepted, receipt.upto, sorted(receipt.ahead)) == (0, 0, [2, 3])
    assert isinstance(receipt.retry, RetryLater)
    workspace.held = None
    assert target.deliver(delivery(rows)).accepted == 4
    assert workspace.hooked.texts == ["b", "a"]


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("invalid_auth", SignInError),
        ("token_revoked", SignInError),
        ("account_inactive", SignInError),
        ("internal_error", RetryLater),
        ("missing_scope", ConfigurationError),
        ("something_new", ConfigurationError),
    ],
)
def test_slacks_codes_say_who_must_act(workspace: SlackWorkspace, code: str, error: type[Exception]) -> None:
    workspace.say("chat.postMessage", code, needed="chat:write" if code == "missing_scope" else "")
    with pytest.raises(error, match=code) as caught:
        slack(workspace).deliver(delivery([{"id": 1, "name": "a"}]))
    assert TOKEN not in f"{caught.value} {caught.value!r} {caught.value.__cause__}"


@pytest.mark.parametrize("code", ["msg_too_long", "invalid_blocks", "no_text", "invalid_arguments"])
def test_slacks_codes_about_a_message_refuse_its_records(workspace: SlackWorkspace, code: str) -> None:
    workspace.say("chat.postMessage", code)
    receipt = slack(workspace).deliver(delivery([{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]))
    assert (receipt.accepted, [r.seq for r in receipt.refused]) == (1, [1])
    assert code in receipt.refused[0].reason


def test_a_person_who_must_act_does_not_undo_what_is_posted(workspace: SlackWorkspace) -> None:
    workspace.held = lambda: workspace.say("chat.postMessage", "token_revoked")
    receipt = slack(workspace).deliver(delivery([{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]))
    assert (receipt.accepted, receipt.upto, receipt.retry) == (1, 1, None)


@pytest.mark.parametrize("garbage", [b"SSH-2.0-OpenSSH_9.6\r\n", b"", b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>"])
@pytest.mark.parametrize("way", ["token", "hook"])
def test_garbage_for_an_answer_confirms_nothing(workspace: SlackWorkspace, garbage: bytes, way: str) -> None:
    workspace.cut("chat.postMessage" if way == "token" else "hook", after=False, text=garbage)
    with pytest.raises(RetryLater):
        (slack if way == "token" else hook)(workspace).deliver(delivery([{"id": 1, "name": "a"}]))
    assert workspace.sales.texts == workspace.hooked.texts == []


def test_channels_are_posted_to_side_by_side(workspace: SlackWorkspace) -> None:
    workspace.add("C0OPS0000", "ops")
    together = threading.Barrier(2, timeout=30)
    workspace.held = lambda: together.wait() and None
    rows = [{"id": n, "name": f"n{n}", "to": to} for n, to in enumerate(["C0SALES00", "C0SALES00", "C0OPS0000", "C0OPS0000"])]
    assert slack(workspace, channel_by="to").deliver(delivery(rows)).accepted == 4
    assert workspace.sales.texts == ["n0", "n1"]


def test_a_channel_gets_a_message_a_second() -> None:
    now = [100.0]
    pace = Pace(clock=lambda: now[0])
    assert [pace.turn("sales", 1.0), pace.turn("ops", 1.0), pace.turn("sales", 1.0), pace.turn("sales", 1.0)] == [0, 0, 1, 2]
    now[0] += 10
    assert [pace.turn("sales", 1.0), pace.turn("sales", 1.0)] == [0, 1]


def test_a_long_delivery_is_answered_for_in_parts(workspace: SlackWorkspace) -> None:
    target, rows = hook(workspace, concurrency=1), [{"id": n, "name": f"n{n}"} for n in range(130)]
    receipt = target.deliver(delivery(rows))
    assert (receipt.accepted, receipt.upto, receipt.retry) == (100, 100, None)
    receipt = target.deliver(delivery(rows[100:], after=100))
    assert (receipt.accepted, receipt.upto) == (30, None)
    assert workspace.hooked.texts == [f"n{n}" for n in range(130)]


# ---- the webhook


@pytest.mark.parametrize(
    ("code", "status", "error"),
    [
        ("no_service", 404, GoneError),
        ("channel_is_archived", 410, ConfigurationError),
        ("action_prohibited", 403, ConfigurationError),
        ("invalid_token", 403, SignInError),
        ("rollup_error", 500, RetryLater),
    ],
)
def test_a_webhooks_answers_say_who_must_act(workspace: SlackWorkspace, code: str, status: int, error: type[Exception]) -> None:
    workspace.say("hook", code, status=status)
    with pytest.raises(error, match=code):
        hook(workspace).deliver(delivery([{"id": 1, "name": "a"}]))


def test_a_webhook_refuses_a_record_and_takes_the_rest(workspace: SlackWorkspace) -> None:
    workspace.say("hook", "invalid_payload")
    receipt = hook(workspace).deliver(delivery([{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]))
    assert (receipt.accepted, [r.seq for r in receipt.refused]) == (1, [1])


def test_a_webhook_goes_on_after_a_short_wait(workspace: SlackWorkspace) -> None:
    workspace.fail("hook", 429, times=2, Retry_After="0")
    assert hook(workspace).deliver(delivery([{"id": 1, "name": "a"}])).accepted == 1


# ---- checking, secrets, declarations


def test_checking_signs_in_and_looks_the_channel_up(workspace: SlackWorkspace) -> None:
    check = slack(workspace, channel="#sales").check()
    assert (check.status, check.tried) == ("ok", "auth.test, conversations.info, conversations.history")
    assert check.what.startswith("signed in as grace at Subarachnoid Workspace; #sales is there")
    assert "each record names its channel" in slack(workspace, channel_by="to").check().what
    assert slack(workspace, token="xoxb-wrong").check().status == "failed"
    workspace.scopes = frozenset({"channels:read"})
    assert "chat:write" in slack(workspace).check().what
    assert workspace.asked("chat.postMessage") == []


def test_checking_a_webhook_says_what_it_cannot_know(workspace: SlackWorkspace) -> None:
    workspace.hook_works = False
    check = hook(workspace).check()
    assert (check.status, "only seen by posting" in check.what) == ("ok", True)


def test_secrets_are_shown_to_nobody(workspace: SlackWorkspace, caplog: pytest.LogCaptureFixture) -> None:
    texts = []
    with caplog.at_level("DEBUG"):
        for target in (slack(workspace), hook(workspace)):
            for method in ("chat.postMessage", "hook"):
                workspace.cut(method, after=False)
            with pytest.raises(RetryLater) as caught:
                target.deliver(delivery([{"id": 1, "name": "a"}]))
            receipt = target.deliver(delivery([{"id": 1, "name": "a"}]))
            texts += [str(caught.value), repr(caught.value), repr(target), target.public_name("x"), str(receipt), target.model_dump_json()]
            texts += [str(target.check())]
            workspace.faults.clear()
    for secret in (TOKEN, "s3crethookp4th"):
        assert secret not in " ".join([*texts, caplog.text])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "either `token` or `webhook_url`"),
        ({"token": "x", "webhook_url": "https://hooks.slack.com/x"}, "either `token` or `webhook_url`"),
        ({"token": "x"}, "either `channel` or `channel_by`"),
        ({"token": "x", "channel": "a", "channel_by": "b"}, "either `channel` or `channel_by`"),
        ({"webhook_url": "https://hooks.slack.com/hunter2", "channel": "a"}, "posts to its own channel"),
        ({"webhook_url": "hunter2"}, "must start with https"),
        ({"token": "x", "channel": "a", "thread_by": "a", "update_by": "b"}, "either `thread_by` or `update_by`"),
        ({"token": "x", "channel": "a", "thread_by": "key", "group": {}}, "many keys"),
        ({"token": "x", "channel": "a", "blocks": {"type": "section"}}, "list of blocks"),
        ({"token": "x", "channel": "a", "text": "{{ name"}, "is no template"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said) as caught:
        Slack.model_validate({"text": "x", **fields})
    assert "hunter2" not in str(caught.value)


# ---- killed

KILLED = """
import sys
from muxly_dagster.destinations.slack import Slack
from muxly_dagster.testing import delivery

fields = {"update_by": sys.argv[3]} if sys.argv[3] else {}
target = Slack(token=sys.argv[2], base_url=sys.argv[1], channel="C0SALES00", pace=0, text="{{ name }}", **fields)
target.deliver(delivery([{"id": n, "name": f"n{n}"} for n in range(4)]))
"""


@pytest.mark.parametrize("update_by", ["", "key"])
def test_a_process_that_is_killed_after_posting_and_before_the_receipt_posts_nothing_twice(
    workspace: SlackWorkspace, update_by: str
) -> None:
    posted, ended = threading.Event(), threading.Event()

    def hold() -> None:
        if len(workspace.sales.messages) == 2:
            posted.set()
            ended.wait(60)

    workspace.held = hold
    process = subprocess.Popen([sys.executable, "-c", KILLED, workspace.base_url, TOKEN, update_by], start_new_session=True)
    try:
        assert posted.wait(60)
    finally:
        process.kill()
        process.wait()
        ended.set()
    assert workspace.sales.texts == ["n0", "n1"]
    workspace.held = None
    fields = {"update_by": update_by} if update_by else {}
    receipt = slack(workspace, **fields).deliver(delivery([{"id": n, "name": f"n{n}"} for n in range(4)]))
    assert (receipt.accepted, receipt.detail["already_there"]) == (4, 2)
    assert workspace.sales.texts == ["n0", "n1", "n2", "n3"]
