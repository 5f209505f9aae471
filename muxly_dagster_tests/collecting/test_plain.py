"""Plain JSON: one object, an array, NDJSON; events stay the bytes that came, and what is none is told."""

import json
from typing import Any
from unittest import mock

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muxly_dagster.collecting import Gathered, TooLarge, UnknownType, Unreadable, plain
from muxly_dagster.collecting.plain import read

JSON, NDJSON = "application/json", "application/x-ndjson"
EXACT = b'{"id":"a","big":123456789012345678901234567890,"float":1.10,"tiny":1e-400,"huge":1e999,"zero":-0}'


def rejected(gathered: Gathered) -> list[tuple[int, str]]:
    return [(each.index, each.reason) for each in gathered.rejected]


@pytest.mark.parametrize("kind", ["", JSON, "application/json; charset=utf-8", "text/plain", "application/vnd.acme+json", "TEXT/JSON"])
def test_one_object_is_kept_as_it_came(kind: str) -> None:
    found = read(EXACT, kind, "signups")
    assert (found.lines, found.ids, list(found.indexes), found.rejected) == ([EXACT], ["a"], [0], [])


def test_the_events_of_an_array_are_its_bytes_each_on_one_line() -> None:
    body = b'\xef\xbb\xbf [\n  {"id": "a",\r\n "x": [1,\n2]}, {"id": 7}, {"id": null}, {}, ' + EXACT + b" ]\n"
    found = read(body, JSON, "signups")
    assert found.lines == [b'{"id": "a",   "x": [1, 2]}', b'{"id": 7}', b'{"id": null}', b"{}", EXACT]
    assert (found.ids, list(found.indexes)) == (["a", "7", "", "", "a"], [0, 1, 2, 3, 4])


@pytest.mark.parametrize("kind", ["application/x-ndjson", "application/jsonl; charset=utf-8", "", "application/x-www-form-urlencoded"])
def test_lines_are_events_and_empty_ones_are_none(kind: str) -> None:
    found = read(b'\n{"id":"a"}\r\n\r\n  {"id":"b"} \n \n{"x":"c"}', kind, "signups")
    assert (found.lines, found.ids) == ([b'{"id":"a"}', b'{"id":"b"}', b'{"x":"c"}'], ["a", "b", ""])
    assert not found.rejected


def test_an_item_that_is_no_event_hurts_no_other() -> None:
    body = b'[{"id":"a"},5,"x",null,[{}],{"id":1.5},{"id":{}},{"id":true},{"x":"\xff"},{"id":"b"}]'
    found = read(body, JSON, "signups")
    assert (found.ids, list(found.indexes)) == (["a", "b"], [0, 9])
    odd = "its id is neither text nor a whole number"
    assert rejected(found) == [(n, "is no JSON object") for n in (1, 2, 3, 4)] + [(n, odd) for n in (5, 6, 7)] + [(8, "is not UTF-8")]
    lines = read(b'{"id":"a"}\n{"id":\n[]\n{"x":"\xc3"}\n{"id":"b"}', NDJSON, "signups")
    assert (lines.ids, list(lines.indexes), [at for at, _ in rejected(lines)]) == (["a", "b"], [0, 4], [1, 2, 3])


@pytest.mark.parametrize(
    "item",
    [
        b'{"x":NaN}',
        b'{"x":Infinity}',
        b'{"x":"\x00"}',
        b'{"x":"\n"}',
        b'{"x":"\\ud800"}',
        b'{"x":"\xed\xa0\x80"}',
        b'{"x":01}',
        b'{"x":1.}',
        b'{"x":"\\q"}',
        b"{'x':1}",
        b'{"x":1,}',
        b'{"x":tru}',
        b'{"x":1}}',
        b'{"x"',
        b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b"<event/>",
        b"\x00\x01\x02",
    ],
)
def test_what_is_no_json_is_rejected_wherever_it_stands(item: bytes) -> None:
    alone = read(item, JSON, "signups")
    assert not alone.lines and [at for at, _ in rejected(alone)] == [0]
    if b"\n" not in item:
        among = read(b'{"id":"a"}\n' + item + b'\n{"id":"b"}', NDJSON, "signups")
        assert (among.ids, [at for at, _ in rejected(among)]) == (["a", "b"], [1])
    try:
        array = read(b'[{"id":"a"},' + item + b"]", JSON, "signups")
    except Unreadable:
        return  # where an array ends cannot be said then
    assert (array.ids, [at for at, _ in rejected(array)]) == (["a"], [1])


def test_the_last_of_two_ids_counts_as_for_every_reader() -> None:
    body = b'{"id":"a","id":"b","x":{"id":"c"}}'
    assert read(body, JSON, "signups").ids == ["b"] == [json.loads(body)["id"]]


def test_another_field_may_hold_the_id_or_none() -> None:
    body = b'[{"id":"a","eventId":"e"},{"\\u0065ventId":9}]'
    assert read(body, JSON, "signups", "eventId").ids == ["e", "9"]
    assert read(body, JSON, "signups", "").ids == ["", ""]
    assert read(b'[{"odd name.x":"q"}]', JSON, "signups", "odd name.x").ids == ["q"]
    assert read(b'{"id":[]}', JSON, "signups", "").lines == [b'{"id":[]}']


@pytest.mark.parametrize("body", [b"", b" \r\n\t", b"\xef\xbb\xbf", b"[", b'[{"id":1},', b"[1,2", b'[{"id":1}]]', b"[" * 100_000])
def test_a_body_of_which_nothing_can_be_made_is_unreadable(body: bytes) -> None:
    with pytest.raises(Unreadable):
        read(body, JSON, "signups")


def test_several_documents_are_told_how_to_be_sent() -> None:
    [(at, reason)] = rejected(read(b'{"id":1}\n{"id":2}', JSON, "signups"))
    assert at == 0 and "application/x-ndjson" in reason


@pytest.mark.parametrize("kind", ["application/xml", "multipart/form-data; boundary=x", "text/csv", "application/x-protobuf", "nonsense"])
def test_other_kinds_of_content_are_told_from_json(kind: str) -> None:
    with pytest.raises(UnknownType, match="application/x-ndjson"):
        read(b"{}", kind, "signups")


@pytest.mark.parametrize(
    ("body", "kind"),
    [(b"[" + b"{}," * 10 + b"{}]", JSON), (b"{}\n" * 11, NDJSON), (b"[" + b"1," * 2000 + b"{}]", JSON), (b"\n" * 50 + b"{}", NDJSON)],
)
def test_more_items_than_are_allowed_are_too_large(body: bytes, kind: str) -> None:
    if kind == NDJSON and body.count(b"{}") == 1:
        assert len(read(body, kind, "signups", items=10).lines) == 1
        return
    with pytest.raises(TooLarge):
        read(body, kind, "signups", items=10)


def test_no_events_are_no_mistake() -> None:
    assert read(b"[]", JSON, "signups") == Gathered("signups", indexes=range(0))


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
events = st.lists(st.dictionaries(st.text(), values, max_size=4), min_size=1, max_size=5)


@given(events, st.booleans(), st.sampled_from([None, 2]))
def test_events_are_read_back_as_they_were_sent(sent: list[dict[str, Any]], ascii_only: bool, indent: int | None) -> None:
    for each in sent:
        each["id"] = "an id"
    texts = [json.dumps(each, ensure_ascii=ascii_only, indent=indent).encode() for each in sent]
    found = read(b"[" + b",".join(texts) + b"]", JSON, "signups")
    assert [json.loads(line) for line in found.lines] == sent
    assert not any(b"\n" in line for line in found.lines) and set(found.ids) == {"an id"}
    if indent is None:
        assert found.lines == texts
        assert read(b"\n".join(texts), NDJSON, "signups").lines == texts


@given(st.binary(max_size=60) | st.text('[]{}",:0123456789.eE+-\\u \nnultrefas', max_size=60).map(str.encode))
def test_rubbish_is_told_and_what_is_taken_is_json(body: bytes) -> None:
    for kind in (JSON, NDJSON, ""):
        try:
            found = read(body, kind, "signups")
        except Unreadable:
            continue
        assert len(found.lines) == len(found.ids) == len(found.indexes)
        for line in found.lines:
            assert isinstance(json.loads(line), dict) and b"\n" not in line
            if b"e" not in line.lower():  # a number beyond all floats is text for one reader and a mistake for the other
                orjson.loads(line)


# ---- arrays that are made lines, and lines that are kept as they are -----------------------------------------------------

_ODD = [
    b'{"id":"a"}',
    b'{"id":"b","x":"},{"}',
    b'{"id":"},{\\"id\\":","x":"}, {"}',
    b'{"id":"}]","x":"[{"}',
    b'{"id":1,"x":[{"id":2},{"id":3}]}',
    b'{"id":4,"x":[{"y":5}, {"y":6}],"id":7}',
    b'{"id":"c","x":{"id":{"id":[[],{}]}}}',
    b'{"id":"d","x":"\\\\"}',
    b'{"id":"e\\n","x":"\\""}',
    b'{"id":"\\ud83d\\ude00"}',
    '{"id":"é☃\u2028"}'.encode(),
    b'{"id": "f", "x": {"id": 8}}',
    b'{"other":9}',
    b'{"id":"g" }',
    b'{ "id":"h"}',
    b"{}",
]
_BAD = [
    b'{"id":1.5}',
    b'{"id":"\xff"}',
    b'{"id":"x","x":"}\n{"}',
    b'{"id":"y","x":[{"id":1}\n{"id":2}]}',
    b'{"id":"z","x":[{}{}]}',
    b'{"id":"z","x":"\\ud800"}',
    b'{"id":"r",\r"x":1}',
    b'{"id":"n"\n}',
    b'{"id":' + b"9" * 5000 + b"}",
    b'{"id":"deep","x":' + b'{"id":' * 3000 + b"1" + b"}" * 3001,
    b'[{"id":"i"},{"id":"j"}]',
    b'{"id":"k"',
    b'"id":"l"}',
    b"5",
    b"",
]
_BREAKS = [b",", b", ", b"\n", b"", b" ", b"\r\n", b" ,", b",\n", b",,", b"\n\n", b"\n,", b"},{", b",{"]


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Events as they may come: mostly good and all parted alike, sometimes not, sometimes cut."""
    items = draw(st.lists(st.sampled_from(_ODD), min_size=1, max_size=6))
    usual = draw(st.sampled_from(_BREAKS[:3]))
    breaks = [usual] * (len(items) - 1)
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        items[draw(st.integers(0, len(items) - 1))] = draw(st.sampled_from(_ODD + _BAD))
    if breaks and draw(st.booleans()):
        breaks[draw(st.integers(0, len(breaks) - 1))] = draw(st.sampled_from(_BREAKS))
    inner = items[0] + b"".join(between + item for between, item in zip(breaks, items[1:], strict=True))
    usually = (b"", b"") if usual == b"\n" else (b"[", b"]")
    begin, end = draw(st.sampled_from([usually] * 4 + [(b"[ ", b"]"), (b"[", b" ]"), (b"[", b",]"), (b"[", b"]]"), (b"\n[", b"\n]\n")]))
    body: bytes = begin + inner + end
    return body[: draw(st.integers(0, len(body)))] if draw(st.integers(0, 9)) == 0 else body


def told(body: bytes, kind: str, id_field: str, items: int) -> tuple[Any, ...]:
    """All that is read from a body, or why nothing is."""
    try:
        found = read(body, kind, "signups", id_field, items)
    except ValueError as error:
        return type(error), str(error)
    assert len(found.lines) == len(found.ids) == len(found.indexes) and found.lines.text == b"\n".join(found.lines)
    return list(found.lines), found.ids, list(found.indexes), rejected(found)


def told_thoroughly(body: bytes, kind: str, id_field: str, items: int) -> tuple[Any, ...]:
    with mock.patch.object(plain, "_by_line", return_value=None):
        return told(body, kind, id_field, items)


@pytest.mark.parametrize(
    "body",
    [
        b'[{"id":"a"},{"id":"b"}{"id":"c"}]',
        b'[{"id":"a"},{"id":"b"} {"id":"c"}]',
        b'[{"id":"a"} {"id":"b"}]',
        b'[{"id":"a","x":1\n},{"id":"b"}]',
        b'[{"id":"a",\r"x":1},{"id":"b"}]',
        b'[ {"id":"a"}]',
        b'[ {"id":"a"}, {"id":"b"}]',
        b'[{"id":"a"},{"id":"b"} ]',
        b'[{"id":"a"},{"id":"b"},]',
        b'[{"id":"a"},,{"id":"b"}]',
        b'[{"id":"a"},{"id":"b"},5]',
        b'[{"id":"a"},{"id":"b"},{"id":"c"},{"id":"d"}]',
        b'[{"id":"a","x":"},{\\"id"},{"id":"b","x":"},{"}]',
        b'[{"id":"a","x":[{"id":1},{"id":2}]}]',
        b'[{"id":"a","x":[{"id":1},{"id":2}]}{"id":"c"}]',
        b'[{"id":"a"},{"id":"\xff"}]',
        b'[{"id":"a"},{"id":"b"}',
        b"[{},{},{},{}]",
        b"[{}]",
        b'{"id":"a"}{"id":"b"}\n\n{"id":"c"}',
        b'{"id":"a"}{"id":"b"}\n{"id":"c"}',
        b'{"id":"a"\r}\n{"id":"b"}',
        b'{"id":"a"}\r\n{"id":"b"}',
        b'{"id":"a"} \n{"id":"b"}',
        b'{"id":"a",\n"x":1}{"id":"b"}',
        b'{"id":"a"}\n{"id":"b"}\n{"id":"c"}\n{"id":"d"}',
        b'{"id":"a"}\n{"id":"b"}\n5',
    ],
)
def test_what_only_looks_like_events_in_a_row_is_no_more_than_it_is(body: bytes) -> None:
    for kind in (JSON, NDJSON, ""):
        assert told(body, kind, "id", 3) == told_thoroughly(body, kind, "id", 3)


@given(bodies(), st.sampled_from([JSON, NDJSON, ""]), st.sampled_from(["id", "x", ""]), st.sampled_from([3, 100]))
def test_the_quick_way_reads_what_the_thorough_one_does(body: bytes, kind: str, id_field: str, items: int) -> None:
    assert told(body, kind, id_field, items) == told_thoroughly(body, kind, id_field, items)


@given(st.lists(st.sampled_from(_ODD), min_size=1, max_size=6), st.sampled_from([b",", b", ", b" ,"]))
def test_events_full_of_brackets_are_told_apart(items: list[bytes], comma: bytes) -> None:
    for body, kind in ((b"[" + comma.join(items) + b"]", JSON), (b"\n".join(items), NDJSON)):
        found = read(body, kind, "signups")
        assert found.lines == items and not found.rejected
        assert found.ids == [str(json.loads(item).get("id", "")) for item in items]


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'[{"id":"a"},{"id":"b"}]', JSON),
        (b'[{"id": "a"}, {"id": "b"}]', JSON),
        (b'[{"id":"a","x":[{"n":1},{"n":2}]},{"id":"b","x":"},{"}]', JSON),
        (b'[{"id":"a"}]', JSON),
        (b'{"id":"a"}\n{"id":"b"}\n', NDJSON),
    ],
)
def test_ordinary_bodies_are_read_once(body: bytes, kind: str) -> None:
    with mock.patch.object(plain, "_check_text", side_effect=plain._check_text) as looked:
        read(body, kind, "signups")
    assert looked.call_count == 1
