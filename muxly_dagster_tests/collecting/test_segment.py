"""Segment's calls, one by one and in batches."""

import datetime as dt
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from muxly_dagster.collecting import Unreadable, segment

RECEIVED = dt.datetime(2026, 1, 2, 12, 0, 10, 500_000, tzinfo=dt.UTC)


def read(content: object, call: segment.Call = "batch") -> dict[str, list[dict[str, Any]]]:
    """The events of a request by stream; nothing may be rejected."""
    gathered, rejected = segment.read(json.dumps(content).encode(), call, RECEIVED)
    assert not rejected
    return {each.stream: [json.loads(line) for line in each.lines] for each in gathered}


def test_a_track_call() -> None:
    message = {"userId": "u1", "event": "Paid", "properties": {"total": 9.5}, "messageId": "m1", "timestamp": "2026-01-02T12:00:00Z"}
    (gathered,), rejected = segment.read(json.dumps(message | {"writeKey": "secret"}).encode(), "track", RECEIVED)
    assert (gathered.stream, gathered.ids, list(gathered.indexes), rejected) == ("track", ["m1"], [0], [])
    assert json.loads(gathered.lines[0]) == {
        "messageId": "m1",
        "type": "track",
        "timestamp": "2026-01-02T12:00:00.000Z",
        "originalTimestamp": "2026-01-02T12:00:00Z",
        "receivedAt": "2026-01-02T12:00:10.500Z",
        "userId": "u1",
        "event": "Paid",
        "properties": {"total": 9.5},
    }


@pytest.mark.parametrize(
    ("times", "timestamp"),
    [
        # The sender's clock is an hour slow: it happened ten seconds before it was sent.
        ({"timestamp": "2026-01-02T10:59:50Z", "sentAt": "2026-01-02T11:00:00Z"}, "2026-01-02T12:00:00.500Z"),
        ({"originalTimestamp": "2026-01-02T10:59:50+00:00", "sentAt": "2026-01-02T12:00:00+01:00"}, "2026-01-02T12:00:00.500Z"),
        ({"timestamp": "2026-01-02T10:59:50"}, "2026-01-02T10:59:50.000Z"),
        ({"timestamp": "2026-01-02T10:59:50Z", "sentAt": "soon"}, "2026-01-02T10:59:50.000Z"),
        ({"sentAt": "2026-01-02T11:00:00Z"}, "2026-01-02T12:00:10.500Z"),
        ({"timestamp": "yesterday"}, "2026-01-02T12:00:10.500Z"),
        ({"timestamp": 1_700_000_000}, "2026-01-02T12:00:10.500Z"),
        ({"timestamp": "0001-01-01T00:00:00Z", "sentAt": "9999-12-31T00:00:00Z"}, "2026-01-02T12:00:10.500Z"),
        ({"timestamp": "0001-01-01T00:00:00+14:00"}, "2026-01-02T12:00:10.500Z"),
        ({}, "2026-01-02T12:00:10.500Z"),
    ],
)
def test_timestamps_are_moved_by_what_the_senders_clock_is_wrong(times: dict[str, Any], timestamp: str) -> None:
    assert read(times, "page")["page"][0]["timestamp"] == timestamp


def test_history_is_imported_with_its_own_times() -> None:
    content = {"sentAt": "2026-01-02T11:00:00Z", "batch": [{"type": "track", "timestamp": "2020-01-01T00:00:00Z"}]}
    assert read(content, "import")["track"][0]["timestamp"] == "2020-01-01T00:00:00.000Z"
    assert read(content, "batch")["track"][0]["timestamp"] != "2020-01-01T00:00:00.000Z"


def test_a_batch_goes_to_the_streams_of_its_types_with_what_it_shares() -> None:
    content = {
        "batch": [
            {"type": "identify", "userId": "u", "traits": {"name": "Ann"}, "messageId": "1"},
            {"type": "track", "event": "A", "context": {"ip": "::1", "page": {"path": "/"}}, "messageId": "2"},
            {"type": "track", "event": "B", "messageId": "3", "integrations": {"All": False}},
        ],
        "context": {"ip": "127.0.0.1", "library": {"name": "test"}},
        "integrations": {"All": True},
        "sentAt": "2026-01-02T12:00:10Z",
    }
    found = read(content)
    assert [each["context"] for each in found["track"]] == [
        {"ip": "::1", "library": {"name": "test"}, "page": {"path": "/"}},
        {"ip": "127.0.0.1", "library": {"name": "test"}},
    ]
    assert [each["integrations"] for each in found["track"]] == [{"All": True}, {"All": False}]
    assert found["identify"][0]["traits"] == {"name": "Ann"}
    assert found["identify"][0]["sentAt"] == "2026-01-02T12:00:10Z"
    gathered, _ = segment.read(json.dumps(content).encode(), "batch", RECEIVED)
    assert [(each.ids, list(each.indexes)) for each in gathered] == [(["1"], [0]), (["2", "3"], [1, 2])]


def test_messages_that_are_none_are_rejected_by_themselves() -> None:
    body = json.dumps({"batch": [{"type": "track"}, 5, {"type": "purchase"}, {"event": "typeless"}, {"type": "alias"}]}).encode()
    gathered, rejected = segment.read(body, "batch", RECEIVED)
    assert [(each.stream, list(each.indexes)) for each in gathered] == [("track", [0]), ("alias", [4])]
    assert [each.index for each in rejected] == [1, 2, 3]
    assert "purchase" in rejected[1].reason


def test_a_message_without_an_id_is_known_by_what_it_says_if_it_says_when() -> None:
    timed, timeless = {"event": "A", "timestamp": "2026-01-02T12:00:00Z"}, {"event": "A"}
    ids = [segment.read(json.dumps(each).encode(), "track", RECEIVED)[0][0].ids[0] for each in (timed, timed, timeless)]
    assert ids[0] == ids[1] != ""
    assert ids[2] == ""
    assert "messageId" not in read(timeless, "track")["track"][0]
    assert read({"messageId": 5}, "track")["track"][0]["messageId"] == "5"


def test_numbers_are_kept_as_they_are_written_and_lines_have_no_breaks() -> None:
    body = b'{"event": "A",\n "properties": {\r\n"n": 12345678901234567890.123456789, "text": "a\\nb"}}'
    (gathered,), _ = segment.read(body, "track", RECEIVED)
    assert b"12345678901234567890.123456789" in gathered.lines[0]
    assert b"\n" not in gathered.lines[0] and b"\r" not in gathered.lines[0]
    assert json.loads(gathered.lines[0])["properties"]["text"] == "a\nb"


def test_write_keys_in_a_body_are_found_and_not_kept() -> None:
    content = {"writeKey": "wk", "batch": [{"type": "page", "writeKey": "wk"}]}
    assert segment.write_key(json.dumps(content).encode()) == "wk"
    assert segment.write_key(b"{") == segment.write_key(b'{"writeKey": 5}') == ""
    assert "writeKey" not in read(content)["page"][0]


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"batch": 5}', b"{}", b"\xff", b'{"a": "\xff"}', b'{"batch": ' + b"[" * 50_000])
def test_a_body_that_is_no_batch_is_unreadable(body: bytes) -> None:
    with pytest.raises(Unreadable):
        segment.read(body, "batch", RECEIVED)


@settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.text(max_size=6), st.text() | st.integers() | st.none() | st.lists(st.text(max_size=3), max_size=2), max_size=5))
def test_whatever_else_a_message_says_is_kept(message: dict[str, Any]) -> None:
    try:
        body = json.dumps(message, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return
    (gathered,), _ = segment.read(body, "group", RECEIVED)
    assert json.loads(gathered.lines[0]) == {
        "type": "group",
        **message,
        "timestamp": RECEIVED.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "receivedAt": "2026-01-02T12:00:10.500Z",
    }
