"""Messages find their thread and the one they replace, and none is posted twice, whatever broke off before."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from muxly_dagster.errors import ConfigurationError, RetryLater
from muxly_dagster.testing import delivery
from muxly_dagster_tests.peers.slack import TOKEN, SlackWorkspace, slack


@pytest.fixture
def workspace() -> Iterator[SlackWorkspace]:
    with SlackWorkspace() as workspace:
        yield workspace


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


def test_of_several_messages_of_a_key_the_newest_is_kept_in_mind(workspace: SlackWorkspace) -> None:
    slack(workspace, update_by="key").deliver(delivery([{"id": 1, "name": "a"}]))
    workspace.say("chat.update", "edit_window_closed")
    slack(workspace, update_by="key").deliver(delivery([{"id": 1, "name": "b"}], after=1))
    again = slack(workspace, update_by="key")
    for after, name in ((2, "c"), (3, "d")):
        again.deliver(delivery([{"id": 1, "name": name}], after=after))
    assert workspace.sales.texts == ["a", "d"]


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


def test_a_channel_whose_id_cannot_be_found_takes_no_threads(workspace: SlackWorkspace) -> None:
    workspace.scopes = workspace.scopes - {"groups:read"}
    receipt = slack(workspace, channel="#sales", thread_by="key").deliver(delivery([{"id": 1, "name": "a"}]))
    assert receipt.accepted == 1, "public channels are seen all the same"
    rows = [{"id": 2, "name": "b", "to": "#nowhere"}, {"id": 3, "name": "c", "to": "sales"}]
    receipt = slack(workspace, channel_by="to", thread_by="key").deliver(delivery(rows, after=1))
    assert [(r.seq, "sees no channel of this name" in r.reason) for r in receipt.refused] == [(2, True)]
    with pytest.raises(ConfigurationError, match="sees no channel of this name"):
        slack(workspace, channel="#nowhere", thread_by="key").deliver(delivery(rows, after=3))
    workspace.scopes = workspace.scopes - {"channels:read"}
    with pytest.raises(ConfigurationError, match="needs channels:read"):
        slack(workspace, channel="#sales", thread_by="key").deliver(delivery(rows, after=3))
    assert slack(workspace, channel="#sales").deliver(delivery(rows, after=3)).detail["not_looked_through"].keys() == {"#sales"}
