"""CloudEvents in all three forms, written by the `cloudevents` library and by hand."""

import base64
import datetime as dt
import json
from collections.abc import Mapping
from typing import Any

import pytest
from cloudevents.core.bindings.http import to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from muxly_dagster.collecting import Gathered, UnknownType, Unreadable, cloudevents
from muxly_dagster.collecting.cloudevents import BATCH, STRUCTURED

EVENT = {"specversion": "1.0", "id": "7", "source": "/shop", "type": "order.paid"}


def library(data: Any, **attributes: Any) -> CloudEvent:
    """An event as the library makes it."""
    return CloudEvent({**EVENT, "time": dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC), **attributes}, data)


def sent(message: Any) -> Gathered:
    """What the library sends, read."""
    headers = {name.lower(): value for name, value in message.headers.items()}
    assert cloudevents.speaks(headers.get("content-type", ""), headers)
    body = message.body if isinstance(message.body, bytes) else str(message.body).encode()
    return cloudevents.read(body, headers.get("content-type", ""), headers, "orders")


def structured(event: object) -> Gathered:
    """One event as JSON."""
    return cloudevents.read(json.dumps(event).encode(), STRUCTURED, {}, "orders")


def record(gathered: Gathered) -> Mapping[str, Any]:
    """The one event of a request."""
    assert not gathered.rejected
    (line,) = gathered.lines
    found: Mapping[str, Any] = json.loads(line)
    return found


def reason(gathered: Gathered) -> str:
    """Why the one event of a request was rejected."""
    assert not gathered.lines
    (rejected,) = gathered.rejected
    return rejected.reason


@pytest.mark.parametrize("write", [to_binary_event, to_structured_event])
def test_the_librarys_events_have_their_data_as_fields_and_their_attributes_beside_them(write: Any) -> None:
    gathered = sent(write(library({"total": 9.5, "items": [1, 2]}, subject='Ünïcode, "quoted" 100%', datacontenttype="application/json")))
    assert record(gathered) == {
        "ce_id": "7",
        "ce_source": "/shop",
        "ce_type": "order.paid",
        "ce_time": "2026-01-02T03:04:05Z",
        "ce_subject": 'Ünïcode, "quoted" 100%',
        "ce_datacontenttype": "application/json",
        "total": 9.5,
        "items": [1, 2],
    }
    assert gathered.ids == ["/shop 7"]
    assert list(gathered.indexes) == [0]


@pytest.mark.parametrize("write", [to_binary_event, to_structured_event])
@pytest.mark.parametrize(
    ("data", "content_type", "fields"),
    [
        ("hello", "text/plain", {"data": "hello"}),
        (b"\x00\xff", "application/octet-stream", {"data_base64": "AP8="}),
        ({"a": 1}, "application/vnd.shop+json", {"a": 1}),
    ],
)
def test_data_of_every_kind(write: Any, data: Any, content_type: str, fields: Mapping[str, Any]) -> None:
    found = record(sent(write(library(data, datacontenttype=content_type))))
    assert {name: value for name, value in found.items() if not name.startswith("ce_")} == fields


def test_data_that_is_json_but_no_object_is_a_field_of_its_own() -> None:
    assert record(sent(to_structured_event(library([1, {"a": 2}], datacontenttype="application/json"))))["data"] == [1, {"a": 2}]
    assert record(structured({**EVENT, "data": "text"}))["data"] == "text"
    assert record(structured({**EVENT, "data": {}})).keys() == {"ce_id", "ce_source", "ce_type"}


def test_a_batch_is_read_event_by_event() -> None:
    body = json.dumps([{**EVENT, "id": "1", "data": {"n": 1}}, "no event", {**EVENT, "id": ""}, {**EVENT, "id": "2"}]).encode()
    gathered = cloudevents.read(body, f"{BATCH}; charset=utf-8", {}, "orders")
    assert gathered.ids == ["/shop 1", "/shop 2"]
    assert list(gathered.indexes) == [0, 3]
    assert [(each.index, each.reason) for each in gathered.rejected] == [(1, "an event is a JSON object"), (2, "id is missing")]
    assert cloudevents.read(b"[]", BATCH, {}, "orders").lines == []


def test_base64_that_is_said_to_be_json_is_read_as_json() -> None:
    encoded = base64.b64encode(b'{"n": 1}').decode()
    assert record(structured({**EVENT, "datacontenttype": "application/json", "data_base64": encoded}))["n"] == 1
    assert record(structured({**EVENT, "data_base64": encoded}))["data_base64"] == encoded


def test_numbers_and_line_breaks_survive_as_they_are_written() -> None:
    body = (
        b'{"specversion":"1.0","id":"1","source":"s","type":"t",\n"data": {\r\n"big": 12345678901234567890.123456789, "text": "a\\nb"\n}\n}'
    )
    (line,) = cloudevents.read(body, STRUCTURED, {}, "orders").lines
    assert b"\n" not in line and b"\r" not in line
    assert b"12345678901234567890.123456789" in line
    assert json.loads(line)["text"] == "a\nb"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"specversion": "0.3"}, "specversion"),
        ({"source": None}, "source is missing"),
        ({"type": 5}, "type is missing"),
        ({"time": "yesterday"}, "RFC 3339"),
        ({"Bad-Name": "x"}, "no name of an attribute"),
        ({"extension": {"a": 1}}, "no text, whole number"),
        ({"data": 1, "data_base64": "AA=="}, "not both"),
        ({"data_base64": "%%"}, "no base64"),
        ({"data_base64": 5}, "no base64"),
        ({"data_base64": "e30", "datacontenttype": "application/json"}, "no base64"),
        ({"data_base64": "e3s=", "datacontenttype": "application/json"}, "said to be application/json"),
        ({"data": {"ce_id": "mine"}}, "has a field ce_id"),
    ],
)
def test_what_is_no_event_says_why(change: Mapping[str, Any], why: str) -> None:
    assert why in reason(structured({**EVENT, **change}))


def test_a_field_that_hides_behind_an_escape_takes_no_attributes_place() -> None:
    body = json.dumps(EVENT).encode()[:-1] + b', "data": {"\\u0063e_id": "mine"}}'
    assert "ce_id" in reason(cloudevents.read(body, STRUCTURED, {}, "orders"))


def test_attributes_that_are_null_are_not_set() -> None:
    assert record(structured({**EVENT, "subject": None, "data": None})) == {"ce_id": "7", "ce_source": "/shop", "ce_type": "order.paid"}


def test_binary_data_that_is_no_json_is_rejected_and_a_body_that_is_empty_is_no_data() -> None:
    headers = {f"ce-{name}": value for name, value in EVENT.items()}
    assert "said to be application/json" in reason(cloudevents.read(b'{"a":', "application/json", headers, "orders"))
    assert "no-such" not in record(cloudevents.read(b"", "", headers, "orders"))
    assert reason(cloudevents.read(b"", "", {**headers, "ce-subject": "%ff"}, "orders")).startswith("a header is not UTF-8")


@pytest.mark.parametrize("body", [b"", b"{", b"[1", b"\xff", b'{"a": "\xff"}', b"nul", b"[" * 100_000])
@pytest.mark.parametrize("content_type", [STRUCTURED, BATCH])
def test_a_body_that_is_no_json_is_unreadable(body: bytes, content_type: str) -> None:
    with pytest.raises(Unreadable):
        cloudevents.read(body, content_type, {}, "orders")


def test_a_format_other_than_json_is_named() -> None:
    with pytest.raises(UnknownType, match="avro"):
        cloudevents.read(b"", "application/cloudevents+avro", {}, "orders")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(min_size=1), st.text(min_size=1), st.dictionaries(st.text(max_size=8), json_values, max_size=5))
def test_any_data_comes_out_as_it_went_in(id_: str, source: str, data: dict[str, Any]) -> None:
    try:
        body = json.dumps({**EVENT, "id": id_, "source": source, "data": data}, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return
    gathered = cloudevents.read(body, STRUCTURED, {}, "orders")
    if data.keys() & {"ce_id", "ce_source", "ce_type"}:
        assert gathered.rejected
        return
    assert record(gathered) == {"ce_id": id_, "ce_source": source, "ce_type": "order.paid", **data}
    assert "\n" not in gathered.ids[0]
