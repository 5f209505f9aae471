"""Slack's own client brings messages to a workspace of our own, as they were meant, and every record is answered for."""

import html
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from muxly_dagster.destinations.slack import Slack
from muxly_dagster.errors import ConfigurationError, RetryLater
from muxly_dagster.testing import EVERY_TYPE, DestinationContract, delivery
from muxly_dagster_tests.peers.slack import HOOK, TOKEN, SlackWorkspace, hook, slack


@pytest.fixture
def workspace() -> Iterator[SlackWorkspace]:
    with SlackWorkspace() as workspace:
        yield workspace


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
    assert message["text"] == "R&amp;D\n*Owner*\n&lt;@U1&gt;\nOpen", "in `text`, what was plain is markup again"
    shown = slack(workspace, blocks=blocks, text="").render(delivery([record]))
    assert [message.text for message in shown] == ["R&D\n*Owner*\n<@U1>\nOpen"]


def test_slack_looks_for_no_mentions_in_the_plain_words_of_blocks(workspace: SlackWorkspace) -> None:
    texts = [{"type": "mrkdwn", "text": "{{ name }}"}, {"type": "mrkdwn", "text": "@here", "verbatim": False}]
    blocks = [{"type": "section", "text": {"type": "mrkdwn", "text": "{{ name }}"}}, {"type": "context", "elements": texts}]
    slack(workspace, blocks=blocks).deliver(delivery([{"id": 1, "name": "@here"}]))
    (message,) = workspace.sales.messages.values()
    section, context = message["blocks"]
    assert [text["verbatim"] for text in (section["text"], *context["elements"])] == [True, True, False]


def test_a_markdown_block_shows_values_as_they_are(workspace: SlackWorkspace) -> None:
    block = {"type": "markdown", "text": "**{{ name }}**"}
    slack(workspace, blocks=[block], text="x").deliver(delivery([{"id": 1, "name": "_R&D_ <!channel>"}]))
    (message,) = workspace.sales.messages.values()
    assert message["blocks"][0]["text"] == "**\\_R&amp;D\\_ &lt;!channel&gt;**"


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
    blocks = [{"type": "section", "text": {"type": "mrkdwn", "text": "block {{ name }}"}}]
    assert [message.text for message in slack(workspace, blocks=blocks).render(stretch)] == ["BIG a", "block b"]
    only = replace(stretch, templates={"small": {"blocks": blocks}})
    assert [message.text for message in target.render(only)] == ["a", "block b"]
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
