"""Pages into tables: the shape is learnt, nothing is rounded, what cannot be read is set aside with its reason."""

import datetime as dt
import json
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from muxly_dagster.decoding import PageDecoder, Unread, declared_field, parse_path
from muxly_dagster.errors import SourceError
from muxly_dagster.records import TIMESTAMP, is_json


def page(*records: Any, **beside: Any) -> bytes:
    return json.dumps({"r": list(records), **beside}).encode()


def read(*pages: bytes, **options: Any) -> tuple[pa.Table, list[Unread]]:
    decoder = PageDecoder(**{"records": "$.r", **options})
    for each in pages:
        decoder.decode(each)
    table, unread = decoder.flush()
    assert decoder.buffered_rows == 0
    return table, unread


def values(table: pa.Table, column: str) -> list[Any]:
    found: list[Any] = table[column].to_pylist()
    return found


# ---- shapes ----------------------------------------------------------------------------------------------------------


def test_plain_records_become_typed_columns() -> None:
    table, unread = read(page({"id": "1", "n": 5, "ok": True, "x": 1.5}, {"id": "2", "n": None, "ok": False}))
    assert table.schema == pa.schema([("id", pa.string()), ("n", pa.int64()), ("ok", pa.bool_()), ("x", pa.float64())])
    assert table.to_pylist() == [{"id": "1", "n": 5, "ok": True, "x": 1.5}, {"id": "2", "n": None, "ok": False, "x": None}]
    assert unread == []


def test_the_same_rows_come_out_however_pages_are_cut_and_flushed() -> None:
    records = [{"id": str(i), "n": i, "p": {"a": f"a{i}", "b": [i]}, "late": i if i > 700 else None} for i in range(1000)]
    whole, _ = read(page(*records), flatten=["p"])
    decoder = PageDecoder("$.r", flatten=["p"])
    parts = []
    for start in range(0, 1000, 100):
        decoder.decode(page(*records[start : start + 100]))
        if start % 300 == 0:
            parts.append(decoder.flush()[0])
    parts.append(decoder.flush()[0])
    assert [row for part in parts for row in part.select(["id", "n", "a", "b"]).to_pylist()] == whole.select(
        ["id", "n", "a", "b"]
    ).to_pylist()
    assert sum(sum(v is not None for v in values(p, "late")) for p in parts if "late" in p.column_names) == 299


def test_nested_values_keep_their_exact_json_text() -> None:
    first = b'{"r":[{"id":1,"tags":[ 1.0,  2 ]},{"id":2,"tags":{"a":12345678901234567890123}}]}'
    table, _ = read(first, b'{"r":[{"id":3,"tags":[1.10]}]}')
    assert is_json(table.schema.field("tags"))
    assert values(table, "tags") == ["[ 1.0,  2 ]", '{"a":12345678901234567890123}', "[1.10]"]


def test_a_column_that_held_nested_values_keeps_every_value_as_json() -> None:
    table, _ = read(page({"a": {"b": 1}}), page({"a": "text"}), page({"a": 5}), page({"a": None}))
    assert is_json(table.schema.field("a"))
    assert values(table, "a") == ['{"b": 1}', '"text"', "5", None]


def test_a_column_that_is_json_in_the_lake_stays_so_for_plain_values() -> None:
    known = pa.schema([pa.field("a", pa.string(), metadata={b"muxly": b"json"})])
    table, _ = read(page({"a": "text"}), page({"a": "more"}), known=known)
    assert is_json(table.schema.field("a"))
    assert values(table, "a") == ['"text"', '"more"']


def test_a_column_that_was_always_null_is_left_out_until_it_has_a_type() -> None:
    decoder = PageDecoder("$.r")
    decoder.decode(page({"id": 1, "later": None}))
    decoder.decode(page({"id": 2, "later": None}))
    assert decoder.flush()[0].column_names == ["id"]
    decoder.decode(page({"id": 3, "later": "now"}))
    assert decoder.flush()[0].to_pylist() == [{"id": 3, "later": "now"}]


def test_new_fields_and_types_in_mid_pull_widen_the_table() -> None:
    table, _ = read(page({"a": 1}), page({"a": 2, "b": "new"}), page({"a": "three"}), page({"a": True}))
    assert table.to_pylist() == [{"a": "1", "b": None}, {"a": "2", "b": "new"}, {"a": "three", "b": None}, {"a": "true", "b": None}]


def test_flattened_fields_lose_to_top_level_names() -> None:
    records = [{"id": "1", "p": {"id": "x", "name": "Ada"}}, {"id": "2", "p": None}, {"id": "3"}, {"id": "4", "p": {"name": "Bob"}}]
    table, _ = read(page(*records), page(*records), flatten=["p"])
    assert table.column_names == ["id", "p_id", "name"]
    assert values(table, "p_id") == ["x", None, None, None] * 2
    assert values(table, "name") == ["Ada", None, None, "Bob"] * 2


def test_a_flattened_field_that_is_no_object_becomes_a_column() -> None:
    table, _ = read(page({"id": 1, "p": {"a": 1}}), page({"id": 2, "p": "odd"}), page({"id": 3, "p": {"a": 3}}), flatten=["p"])
    assert table.to_pylist() == [{"id": 1, "a": 1, "p": None}, {"id": 2, "a": None, "p": "odd"}, {"id": 3, "a": 3, "p": None}]


def test_a_field_cannot_pass_for_one_of_muxly_s_own_columns() -> None:
    table, _ = read(page({"id": 1, "_muxly_seq": 7}))
    assert table.to_pylist() == [{"id": 1, "muxly_seq": 7}]


def test_of_a_key_that_stands_twice_the_last_value_counts() -> None:
    twice = b'{"r":[{"id":1,"a":"x","a":"y"}]}'
    table, _ = read(twice, twice)
    assert values(table, "a") == ["y", "y"]


def test_any_text_can_be_a_field_s_name() -> None:
    names = ["class", "a b", "ä", "f0", "x.y", "", "$ref"]
    table, _ = read(page(dict.fromkeys(names, 1)), page(dict.fromkeys(names, 2)))
    assert table.column_names == names
    assert all(values(table, name) == [1, 2] for name in names)


def test_strings_are_never_guessed_to_be_dates_or_numbers() -> None:
    table, _ = read(page({"a": "2024-01-01T00:00:00Z", "b": "12"}))
    assert table.schema.types == [pa.string(), pa.string()]


# ---- envelopes and paths ---------------------------------------------------------------------------------------------


def test_values_beside_the_records_come_with_each_page() -> None:
    decoder = PageDecoder("$.r", envelope=["$.paging.next.after", "$.total"])
    assert decoder.decode(page({"a": 1}, paging={"next": {"after": "c1"}}, total=7)).envelope == ("c1", 7)
    assert decoder.decode(page({"a": 2}, paging={"next": {"after": 5}}, total=7)).envelope == (5, 7)
    assert decoder.decode(page({"a": 2}, paging=None)).envelope == (None, None)
    assert decoder.decode(page({"a": 2}, paging=[])).envelope == (None, None)
    assert decoder.decode(page()).records == 0


@pytest.mark.parametrize(
    ("path", "document"),
    [
        ("$", [{"id": 1}, {"id": 2}]),
        ("$[*]", [{"id": 1}, {"id": 2}]),
        ("$.a.b", {"a": {"b": [{"id": 1}, {"id": 2}]}}),
        ("$['a b'][*]", {"a b": [{"id": 1}, {"id": 2}]}),
        ("$.h[*].m[*].x", {"h": [{"m": [{"x": {"id": 1}}]}, {"m": [{"x": {"id": 2}}]}]}),
        ("$..rows", {"deep": {"rows": [{"id": 1}, {"id": 2}]}}),
    ],
)
def test_records_are_found_by_any_json_path(path: str, document: Any) -> None:
    body = json.dumps(document).encode()
    table, _ = read(body, body, records=path)
    assert values(table, "id") == [1, 2, 1, 2]


def test_one_object_in_place_of_a_list_is_one_record() -> None:
    assert read(b'{"id":1}', records="$")[0].to_pylist() == [{"id": 1}]
    assert read(b'{"r":{"id":1}}')[0].to_pylist() == [{"id": 1}]


def test_a_value_beside_may_be_found_within_the_records() -> None:
    decoder = PageDecoder("$.r", envelope=["$.r[-1].id", "$.more"])
    for _ in range(2):
        assert decoder.decode(page({"id": "a"}, {"id": "b"}, more=True)).envelope == ("b", True)
    assert len(decoder.flush()[0]) == 4


def test_numbers_found_the_general_way_stay_exact() -> None:
    table, _ = read(b'{"h":[{"x":{"a":1.10,"b":123456789012345678901234567890,"c":[0.12345678901234567890]}}]}', records="$.h[*].x")
    assert table.to_pylist() == [{"a": 1.1, "b": Decimal(123456789012345678901234567890), "c": "[0.12345678901234567890]"}]


def test_a_path_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="is no JSONPath"):
        parse_path("$.[")


def test_a_missing_list_is_an_error_unless_the_api_leaves_empty_lists_out() -> None:
    with pytest.raises(SourceError, match=r"no records at \$\.r"):
        read(b'{"error":"nope"}')
    decoder = PageDecoder("$.r", optional=True, envelope=["$.next"])
    assert decoder.decode(b'{"next":"x"}').envelope == ("x",)
    decoder.decode(page({"a": 1}))
    assert decoder.decode(b'{"next":"y"}') == decoder.decode(b'{"r":null,"next":"y"}')


# ---- exact numbers ---------------------------------------------------------------------------------------------------


def test_integers_beyond_64_bits_become_decimals_and_beyond_38_digits_text() -> None:
    table, _ = read(page({"a": 1}), page({"a": 10**30}))
    assert table.schema.field("a").type == pa.decimal128(38, 0)
    assert values(table, "a") == [1, 10**30]
    assert values(read(page({"a": 1}), page({"a": 10**40}))[0], "a") == ["1", "1" + "0" * 40]


@pytest.mark.parametrize(
    "text", ["0.1234567890123456789", "1e400", "9007199254740993.0", "123456789.123456789012", "1.23456789012345678e-320"]
)
def test_a_fraction_that_a_double_cannot_hold_widens_to_text(text: str) -> None:
    body = b'{"r":[{"a":1.5},{"a":' + text.encode() + b"}]}"
    table, _ = read(body, body)
    assert values(table, "a") == ["1.5", text] * 2


def test_large_integers_among_fractions_widen_to_text() -> None:
    table, _ = read(page({"a": 1.5}), page({"a": 2}), page({"a": 9007199254740993}))
    assert values(table, "a") == ["1.5", "2", "9007199254740993"]


def test_small_integers_among_fractions_are_fractions() -> None:
    table, _ = read(page({"a": 1}), page({"a": 2.5}))
    assert values(table, "a") == [1.0, 2.5]


def test_values_are_read_into_the_lake_s_types_where_they_fit() -> None:
    known = pa.schema([("a", pa.float64()), ("b", pa.string()), ("c", TIMESTAMP), ("d", pa.int64()), ("e", pa.decimal128(38, 0))])
    table, _ = read(page({"a": 1, "b": 2, "c": "2024-01-01T00:00:00Z", "d": 3, "e": 4}), known=known)
    assert table.schema.types == known.types
    table, _ = read(page({"a": 2**60 + 1, "b": True, "c": "soon", "d": "x", "e": 1.5}), known=known)
    assert table.to_pylist() == [{"a": str(2**60 + 1), "b": "true", "c": "soon", "d": "x", "e": "1.5"}]


# ---- declared types --------------------------------------------------------------------------------------------------


def declared(type_: str, *found: Any, **options: Any) -> tuple[list[Any], list[str]]:
    table, unread = read(page(*({"id": 0, "v": v} for v in found)), types={"v": type_}, **options)
    return values(table, "v"), [u.reason for u in unread]


NEW_YEAR = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)


def test_declared_times_come_in_many_forms() -> None:
    texts = ["2024-01-01T00:00:00Z", "2024-01-01T01:00:00+01:00", "2024-01-01", "2024-01-01 00:00:00", "2024-01-01T00:00:00.000000123Z", ""]
    assert declared("timestamp", *texts, None) == ([NEW_YEAR] * 5 + [None, None], [])
    assert declared("epoch_ms", 1704067200000, "1704067200000") == ([NEW_YEAR, NEW_YEAR], [])
    assert declared("epoch_s", 1704067200, 1704067200.5)[0] == [NEW_YEAR, NEW_YEAR + dt.timedelta(seconds=0.5)]
    assert declared("date", "2024-01-01", "2024-01-01T00:00:00Z")[0] == [dt.date(2024, 1, 1)] * 2


def test_declared_numbers_may_come_as_text() -> None:
    assert declared("integer", "5", 6, "7.0", "") == ([5, 6, 7, None], [])
    assert declared("number", "1.5", 2, 0.10000000000000001) == ([1.5, 2.0, 0.1], [])
    assert declared("boolean", "true", False, "FALSE") == ([True, False, False], [])
    assert declared("string", 5, 1.10, True, "x", {"a": 1})[0] == ["5", "1.1", "true", "x", '{"a": 1}']


def test_declared_decimals_are_exact_and_grow() -> None:
    body = b'{"r":[{"v":1.10},{"v":"2.123456789012"},{"v":1e3},{"v":123456789012345678901}]}'
    table, unread = read(body, types={"v": "decimal"})
    assert unread == []
    assert values(table, "v") == [Decimal("1.10"), Decimal("2.123456789012"), 1000, 123456789012345678901]
    assert read(page({"v": "1.5"}), types={"v": "decimal(10,2)"})[0].schema.field("v").type == pa.decimal128(10, 2)


@pytest.mark.parametrize(
    ("type_", "bad"),
    [
        ("integer", "x"),
        ("integer", 1.5),
        ("integer", 10**30),
        ("number", "NaN"),
        ("number", "0.1234567890123456789"),
        ("boolean", "maybe"),
        ("timestamp", "yesterday"),
        ("timestamp", 5),
        ("date", "2024-01-01T05:00:00Z"),
        ("epoch_ms", 10**18),
        ("epoch_s", "soon"),
        ("decimal", "1e60"),
        ("decimal(5,2)", "1.234"),
        ("decimal(5,2)", 12345),
        ("integer", {"a": 1}),
    ],
)
def test_a_value_that_does_not_fit_its_declared_type_sets_this_record_aside(type_: str, bad: Any) -> None:
    good = {"timestamp": "2024-01-01", "date": "2024-01-01", "boolean": True}.get(type_, 1)
    table, unread = read(page({"id": 1, "v": good}, {"id": 2, "v": bad}, {"id": 3}), types={"v": type_})
    assert values(table, "id") == [1, 3]
    assert len(unread) == 1
    assert json.loads(unread[0].text) == {"id": 2, "v": bad}
    assert unread[0].reason.startswith("v: ")
    assert f"is no {type_}" in unread[0].reason


def test_the_text_of_a_bad_record_is_exactly_what_came_even_from_a_later_page() -> None:
    good, bad = b'{"r":[{"id": 1,  "v": "5"}]}', b'{"r":[{"id": 2,  "v": "5"},{"id": 3,  "v": "x"}]}'
    table, unread = read(good, good, good, bad, types={"v": "integer"})
    assert values(table, "id") == [1, 1, 1, 2]
    assert unread[0].text == '{"id": 3,  "v": "x"}'


def test_a_declared_column_without_values_is_there_and_typed() -> None:
    table, _ = read(page({"id": 1, "v": None}), types={"v": "timestamp"})
    assert table.schema.field("v").type == TIMESTAMP


def test_an_unknown_type_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'datetime' is no type; there are string, integer"):
        declared_field("x", "datetime")


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b'{"id":2,"v":NaN}', "NaN"),
        (b'{"id":2,"v":-Infinity}', "infinite"),
        (b'{"id":2,"v":"\xff"}', "no UTF-8"),
        (b'{"id":2,"v":[{"w":"\xff"}]}', "no UTF-8"),
        (b'{"id":2,"v":"\\ud800"}', "surrogate"),
        (b'{"id":2,"v":["\\ud800"]}', "surrogate"),
        (b'{"id":2,"v":01}', "no valid JSON"),
        (b'{"id":2,"v":}', "no valid JSON"),
        (b'{"id":2,"v":"a\x01b"}', "no valid JSON"),
        (b'{"id":2,"v":' + b"[" * 5000 + b"]" * 5000 + b"}", "no valid JSON"),
        (b"5", "no object"),
        (b'"text"', "no object"),
        (b"null", "no object"),
        (b"[1,2]", "no object"),
    ],
)
def test_a_record_that_cannot_be_read_is_set_aside_and_the_others_go_on(bad: bytes, reason: str) -> None:
    first = page({"id": 0, "v": "x", "n": {"a": 1}})
    body = b'{"next":"c","r":[{"id":1,"v":"x"},' + bad + b',{"id":3,"v":"\xc3\xa4 \xef\xbf\xbd"}]}'
    decoder = PageDecoder("$.r", envelope=["$.next"])
    decoder.decode(first)
    assert decoder.decode(body).envelope == ("c",)
    decoder.decode(first)
    table, unread = decoder.flush()
    assert values(table, "id") == [0, 1, 3, 0]
    assert values(table, "v")[2] == "ä \N{REPLACEMENT CHARACTER}"
    assert len(unread) == 1
    assert reason in unread[0].reason
    assert unread[0].text == bad.decode("utf-8", "replace")


@pytest.mark.parametrize(
    ("body", "begins"),
    [
        (b"<!doctype html><title>Log in</title>", "<!doctype html>"),
        (b"", "the body is empty"),
        (b'{"r":[{"a":1},{"a":', "begins with"),
        (b'{"r":[{"a":1}]', "begins with"),
        (b'{"r":[{"a":1}],"next":tru', "begins with"),
        (b"\xff\xfe\x00", "begins with"),
    ],
)
def test_a_page_that_is_no_json_says_what_came(body: bytes, begins: str) -> None:
    with pytest.raises(SourceError) as caught:
        read(page({"a": 1}), body)
    assert "no JSON" in caught.value.what
    assert begins in caught.value.what
    assert caught.value.do


def test_a_record_without_any_value_is_not_lost_in_silence() -> None:
    table, unread = read(page({}, {"a": None}))
    assert len(table) == 0
    assert [u.text for u in unread] == ["{}", '{"a": null}']


def test_a_huge_field_is_read_and_a_huge_bad_record_is_cut_for_quarantine() -> None:
    huge = "ä" * 2_500_000
    table, _ = read(page({"id": 1, "v": huge}))
    assert values(table, "v") == [huge]
    _, unread = read(page({"id": 1, "v": 5}, {"id": 2, "v": huge}), types={"v": "integer"})
    assert len(unread[0].text.encode()) <= 64 * 1024 + 4


def test_a_large_page_comes_out_in_pieces_of_bounded_size() -> None:
    records = [{"id": i, "text": "x" * 1000, "n": {"a": i}} for i in range(20_000)]
    records[15_000]["n"] = "odd"
    body = page(*records)
    decoder = PageDecoder("$.r", envelope=["$.next"])
    decoder.decode(body)
    sizes, ids = [], []
    while decoder.buffered_rows:
        table, unread = decoder.flush(4 * 2**20)
        assert unread == []
        sizes.append(table.nbytes)
        ids += values(table, "id")
    assert ids == list(range(20_000))
    assert len(sizes) >= 4
    assert max(sizes) < 6 * 2**20
