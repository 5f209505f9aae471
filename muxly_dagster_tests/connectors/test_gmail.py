"""Gmail keeps a connector's promises, hears what happens in the mailbox, and sends."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from muxly_dagster.errors import ConfigurationError, SignInError
from muxly_dagster.testing.connectors import ConnectorContract, Pulled
from muxly_dagster_tests.http.server import Asked
from muxly_dagster_tests.peers.gmail import Gmail


@pytest.fixture
def mailbox() -> Iterator[Gmail]:
    with Gmail() as account:
        yield account


class TestGmail(ConnectorContract):
    expires = True

    @pytest.fixture
    def provider(self, mailbox: Gmail) -> Gmail:
        return mailbox


def pulled(account: Gmail, folder: Path, stream: str = "messages") -> Pulled:
    account.pull = {"stream": stream}
    return Pulled(account, folder, f"mail.{stream}")


def test_messages_come_with_headers_text_and_times(mailbox: Gmail, tmp_path: Path) -> None:
    mailbox.put(1, 2, 3, text="blue")
    place = pulled(mailbox, tmp_path)
    place.run()
    row = place.rows()[2]
    assert row["internalDate"].isoformat() == "2023-11-14T22:13:20.002000+00:00"
    assert (row["historyId"], row["sizeEstimate"]) == ("1002", 500)
    assert json.loads(row["payload"])["headers"] == [{"name": "Subject", "value": "0000000000000002"}]
    lists = [asked for asked in mailbox.asked if asked.path.endswith("/messages")]
    assert dict(lists[0].query) == {"includeSpamTrash": "true", "maxResults": "500"}


def test_the_second_pull_asks_only_for_what_happened(mailbox: Gmail, tmp_path: Path) -> None:
    mailbox.put(1, 2, 3, text="blue")
    place = pulled(mailbox, tmp_path)
    place.run()
    before = len(mailbox.asked)
    mailbox.put(2, text="red")
    mailbox.delete(3)
    place.run()
    assert place.texts() == {1: "blue", 2: "red"}
    paths = [asked.path.removeprefix("/gmail/v1/users/me") for asked in mailbox.asked[before:]]
    assert paths[0] == "/history"
    assert "/messages" not in paths


def test_what_arrives_while_the_first_pull_runs_comes_with_the_next(mailbox: Gmail, tmp_path: Path) -> None:
    mailbox.put(1, 2, 3, text="blue")
    answer = mailbox.answer

    def meanwhile(asked: Asked) -> bytes:
        reply = answer(asked)
        if asked.path.endswith("/messages") and len(mailbox.messages) == 3:
            mailbox.put(4, text="late")
        return reply

    mailbox.answer = meanwhile  # type: ignore[method-assign]
    place = pulled(mailbox, tmp_path)
    place.run()
    place.run()
    assert place.texts() == {1: "blue", 2: "blue", 3: "blue", 4: "late"}


def test_less_of_a_message_can_be_read(mailbox: Gmail) -> None:
    mailbox.put(1)
    connector = mailbox.connector(format="metadata")
    list(connector.pull(connector.Pull(stream="messages"), None, None))
    assert dict(mailbox.asked[-1].query) == {"format": "metadata"}


@pytest.mark.parametrize(("stream", "number"), [("threads", 3), ("labels", 1), ("drafts", 1)])
def test_the_other_streams_are_read_whole(mailbox: Gmail, stream: str, number: int) -> None:
    mailbox.put(1, 2, 3)
    connector = mailbox.connector()
    batches = list(connector.pull(connector.Pull(stream=stream), None, None))
    assert sum(len(batch.rows) for batch in batches) == number
    if stream == "labels":
        assert batches[0].rows["messagesTotal"].to_pylist() == [3]


def test_an_access_token_is_asked_for_with_the_refresh_token_whenever_it_is_needed(tmp_path: Path) -> None:
    with Gmail(refreshing=True) as account:
        account.put(1, 2, 3, text="blue")
        account.fail_once(401)
        place = pulled(account, tmp_path)
        place.run()
        assert set(place.texts()) == {1, 2, 3}
        assert [asked.path for asked in account.asked].count("/token") == 2
        with pytest.raises(SignInError, match="refresh token"):
            place.run(account.connector(wrong=True))


def test_the_account_is_known_by_its_address(mailbox: Gmail) -> None:
    assert mailbox.connector().metadata().account == "me@shop.example"


# ---- actions ---------------------------------------------------------------------------------------------------------


def test_a_message_is_sent(mailbox: Gmail) -> None:
    attachment = {"name": "a.txt", "content": "aGk=", "media_type": "text/plain"}
    inputs = {"to": "ann@shop.example", "subject": "Grüße", "text": "Hello", "thread_id": "t1", "attachments": [attachment]}
    assert mailbox.connector().act("send", inputs)["threadId"] == "t1"
    (message,) = mailbox.sent
    assert (message["To"], message["Subject"]) == ("ann@shop.example", "Grüße")
    assert [part.get_filename() for part in message.iter_attachments()] == ["a.txt"]


def test_a_header_cannot_be_smuggled_in(mailbox: Gmail) -> None:
    with pytest.raises(ConfigurationError, match="line break"):
        mailbox.connector().act("send", {"to": "ann@shop.example\r\nBcc: eve@shop.example"})
    assert mailbox.sent == []


def test_labels_and_attachments(mailbox: Gmail) -> None:
    mailbox.put(1, text="blue")
    connector = mailbox.connector()
    assert connector.act("label", {"id": f"{1:016x}", "add": ["STARRED"], "remove": ["INBOX"]})["labelIds"] == ["Label_blue", "STARRED"]
    assert connector.act("attachment", {"message_id": "1", "id": "2"}) == "AP8-"
    send = next(action for action in connector.actions() if action.name == "send")
    assert send.inputs["required"] == ["to"]
