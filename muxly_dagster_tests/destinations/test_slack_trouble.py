"""What goes wrong between here and Slack, and who must act: nothing is lost, and what is posted is confirmed."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from muxly_dagster.destinations.slack import Slack
from muxly_dagster.destinations.slack.posting import Pace
from muxly_dagster.errors import ConfigurationError, GoneError, RetryLater, SignInError
from muxly_dagster.testing import delivery
from muxly_dagster_tests.http.server import Server, answer
from muxly_dagster_tests.http.test_transport import https_server
from muxly_dagster_tests.peers.certificate import Certificate
from muxly_dagster_tests.peers.slack import HOOK, TOKEN, SlackWorkspace, hook, slack


@pytest.fixture
def workspace() -> Iterator[SlackWorkspace]:
    with SlackWorkspace() as workspace:
        yield workspace


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


def test_a_scope_that_the_app_lacks_is_no_records_fault(workspace: SlackWorkspace) -> None:
    workspace.say("chat.postMessage", "missing_scope", needed="chat:write", times=9)
    with pytest.raises(ConfigurationError, match="it needs chat:write") as caught:
        slack(workspace, channel_by="to").deliver(delivery([{"id": 1, "name": "a", "to": "C0SALES00"}]))
    assert "give the app the scope" in str(caught.value)


def test_channels_are_listed_once_however_many_names_nobody_knows(workspace: SlackWorkspace) -> None:
    rows = [{"id": n, "name": f"n{n}", "to": f"#nowhere-{n}" if n % 2 else "#sales"} for n in range(20)]
    receipt = slack(workspace, channel_by="to").deliver(delivery(rows))
    assert (receipt.accepted, len(receipt.refused)) == (10, 10)
    assert len(workspace.asked("conversations.list")) == 1


def test_channels_that_cannot_be_read_yet_do_not_hold_those_that_were(workspace: SlackWorkspace) -> None:
    """Slack lets an app read some fifty channels a minute: with more of them, a delivery that had to read all first would never begin."""
    for n in range(6):
        workspace.add(f"C0MANY00{n}", f"many-{n}")
    rows = [{"id": n, "name": f"n{n}", "to": f"C0MANY00{n}"} for n in range(6)]
    target, left, rounds = slack(workspace, channel_by="to"), delivery(rows), 0
    while True:
        before = len(workspace.asked("conversations.history"))
        workspace.allowed = {"conversations.history": before + 2}
        receipt = target.deliver(left)
        rounds += 1
        if receipt.upto is None:
            break
        assert receipt.retry is not None and receipt.retry.after == 3600
        assert receipt.accepted == 2
        left = delivery([row for row in rows if row["id"] >= receipt.upto], after=receipt.upto)
    assert rounds == 3
    assert [channel.texts for channel in workspace.channels.values() if channel.name.startswith("many")] == [[f"n{n}"] for n in range(6)]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("way", ["token", "hook"])
def test_a_redirect_is_no_answer_and_gets_no_token(status: int, way: str) -> None:
    with Server(lambda asked: answer(200, "ok")) as elsewhere, Server(lambda asked: answer(status, Location=f"{elsewhere.url}/x")) as moved:
        fields = {"token": TOKEN, "channel": "C0SALES00", "base_url": moved.url} if way == "token" else {"webhook_url": moved.url + HOOK}
        with pytest.raises(RetryLater, match=f"HTTP {status}"):
            Slack.model_validate({"pace": 0, "text": "x", **fields}).deliver(delivery([{"id": 1}]))
        assert elsewhere.asked == []


def test_an_address_of_a_file_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "auth.test").write_text('{"ok": true}')
    target = Slack.model_validate({"token": TOKEN, "channel": "C0SALES00", "base_url": tmp_path.as_uri(), "text": "x"})
    assert (target.check().status, "cannot be read" in target.check().what) == ("failed", True)


@pytest.mark.parametrize(("said", "after"), [("inf", 86_400), ("1e300", 86_400), ("nan", None), ("-5", 0), ("soon", None)])
def test_a_wait_of_any_shape_is_one_that_the_road_can_count_with(workspace: SlackWorkspace, said: str, after: float | None) -> None:
    workspace.fail("chat.postMessage", 429, times=9, Retry_After=said)
    with pytest.raises(RetryLater) as caught:
        slack(workspace).deliver(delivery([{"id": 1, "name": "a"}]))
    assert caught.value.after == after


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


@pytest.mark.parametrize("way", ["token", "hook"])
def test_a_certificate_nobody_vouches_for_is_for_a_person_to_look_at(workspace: SlackWorkspace, tmp_path: Path, way: str) -> None:
    with https_server(*Certificate.made(tmp_path, "127.0.0.1").files) as url:
        target = slack(workspace, base_url=url) if way == "token" else hook(workspace, webhook_url=url + HOOK)
        with pytest.raises(ConfigurationError, match="certificate is not trusted"):
            target.deliver(delivery([{"id": 1, "name": "a"}]))
        assert target.check().status == "failed"
