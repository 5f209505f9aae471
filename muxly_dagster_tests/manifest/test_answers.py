"""Kinds of answers: what becomes a record, what is set aside alone, and what is refused before it can do harm."""

import contextlib
import gzip
import io
import tracemalloc
import zipfile
import zlib
from decimal import Decimal
from typing import Any

import pytest

from muxly_dagster.decoding import PageDecoder, Unread
from muxly_dagster.errors import ConfigurationError, SourceError
from muxly_dagster.manifest.answers.pages import page_reader
from muxly_dagster.manifest.schema import BinaryResponse, CsvResponse, JsonLinesResponse, JsonResponse, ResponseSpec, XmlResponse

MIB = 2**20
LINES = JsonLinesResponse(kind="jsonl")
XML = XmlResponse(kind="xml")


def csv(**more: Any) -> CsvResponse:
    return CsvResponse(kind="csv", **more)


def read(spec: ResponseSpec, content: bytes, records: str = "$", **more: Any) -> tuple[list[dict[str, Any]], list[Unread], tuple[Any, ...]]:
    """Records, what could not be read, and the values beside the records."""
    reader = page_reader(spec, records)
    decoder = PageDecoder(records, **more)
    page = decoder.decode(reader(content) if reader else content)
    table, unread = decoder.flush()
    return table.to_pylist(), unread, page.envelope


def rows(spec: ResponseSpec, content: bytes, records: str = "$", **more: Any) -> list[dict[str, Any]]:
    found, unread, _ = read(spec, content, records, **more)
    assert unread == []
    return found


def zipped(**files: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name.replace("_", "."), content)
    return made.getvalue()


def test_plain_json_takes_no_detour() -> None:
    assert page_reader(JsonResponse(), "$.results") is None
    assert page_reader(BinaryResponse(kind="binary"), "$") is None


# ---- JSON Lines --------------------------------------------------------------------------------------------------------


def test_every_line_is_a_record_with_its_numbers_as_they_stand() -> None:
    content = b'\xef\xbb\xbf{"id": 1, "x": 1.10000000000000000001}\r\n\n{"id": 2, "x": 2}\n  \n'
    assert rows(LINES, content, types={"x": "decimal(38,20)"}) == [
        {"id": 1, "x": Decimal("1.10000000000000000001")},
        {"id": 2, "x": Decimal("2.00000000000000000000")},
    ]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b'{"id": 9', "no valid JSON"),
        (b'{"id": "9}', "no valid JSON"),
        (b'{"id": 9}]', "no valid JSON"),
        (b'{"id": 9},{"id": 10}', "no valid JSON"),
        (b'{"id": 9, "t": "\xff"}', "no UTF-8"),
        (b'{"id": NaN}', "NaN"),
        (b"[9]", "no object"),
        (b"<html>", "no valid JSON"),
    ],
)
def test_a_bad_line_spoils_no_other(line: bytes, why: str) -> None:
    found, unread, _ = read(LINES, b'{"id": 1}\n' + line + b'\n{"id": 2}\n')
    assert [row["id"] for row in found] == [1, 2]
    assert [bad.text for bad in unread] == [line.decode("utf-8", "replace")]
    assert why in unread[0].reason


def test_a_bad_line_among_bytes_that_are_no_text_is_found_too() -> None:
    found, unread, _ = read(LINES, b'{"id": 1, "t": "\xff"}\n{"id": 2\n{"id": 3}')
    assert ([row["id"] for row in found], len(unread)) == ([3], 2)


def test_no_lines_are_no_records() -> None:
    assert rows(LINES, b"\n") == []


def test_there_is_no_path_to_records_in_lines() -> None:
    with pytest.raises(ConfigurationError, match=r"records of a jsonl answer are `\$`"):
        page_reader(LINES, "$.results")


# ---- CSV --------------------------------------------------------------------------------------------------------------


def test_values_are_texts_until_types_say_otherwise() -> None:
    content = b'id,price,on\r\n007,1.50,2025-01-02\r\n8,"2,5",\r\n'
    assert rows(csv(), content) == [{"id": "007", "price": "1.50", "on": "2025-01-02"}, {"id": "8", "price": "2,5", "on": None}]
    typed = rows(csv(), b"id,price\n007,1.50\n", types={"id": "integer", "price": "decimal(10,2)"})
    assert typed == [{"id": 7, "price": Decimal("1.50")}]


def test_an_empty_field_is_null_and_a_quoted_one_is_a_text() -> None:
    assert rows(csv(), b'a,b\n,""\n1,\n') == [{"a": None, "b": ""}, {"a": "1", "b": None}]
    assert rows(csv(empty="text"), b"a,b\n1,\n") == [{"a": "1", "b": ""}]


def test_quotes_hold_delimiters_line_breaks_and_quotes() -> None:
    assert rows(csv(), b'"a",b\n"x\r\n,y","say ""hi"""\n') == [{"a": "x\r\n,y", "b": 'say "hi"'}]
    assert rows(csv(quote=""), b'a,b\n5",6"\n') == [{"a": '5"', "b": '6"'}]
    assert rows(csv(delimiter="\t", quote="'"), b"a\tb\n'x\ty'\tz\n") == [{"a": "x\ty", "b": "z"}]


@pytest.mark.parametrize(
    ("content", "more", "expected"),
    [
        (b'Report of May\nby "us\ncol\n1\n', {"skip": 2}, [{"col": "1"}]),
        (b"1;x\n2;y", {"columns": ["id", "t"], "delimiter": ";"}, [{"id": "1", "t": "x"}, {"id": "2", "t": "y"}]),
        (b"a,b\r1,2\r3,4", {}, [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]),
        (b" a ,a,,a_2\n1,2,3,4\n", {}, [{"a": "1", "a_2": "2", "column_3": "3", "a_2_2": "4"}]),
        (b'"two\nlines",b\n1,2\n', {}, [{"two\nlines": "1", "b": "2"}]),
        ("a,b\n1,é\n".encode("utf-16"), {"encoding": "utf-16"}, [{"a": "1", "b": "é"}]),
        (b"\xef\xbb\xbfa,b\n1,\xc3\xa9\n", {}, [{"a": "1", "b": "é"}]),
        (b"a,b\n1,\xe9\n", {"encoding": "latin-1"}, [{"a": "1", "b": "é"}]),
        (b"a,b\n", {}, []),
    ],
)
def test_headers_line_ends_and_encodings(content: bytes, more: dict[str, Any], expected: list[dict[str, Any]]) -> None:
    assert rows(csv(**more), content) == expected


def test_a_row_that_does_not_fit_is_set_aside_alone() -> None:
    found, unread, _ = read(csv(), b'a,b\n1,2\n3\n4,"x\ny",z\n5,\xff\n6,7\n8,9,\xff\n')
    assert [row["a"] for row in found] == ["1", "6"]
    said = {bad.text: bad.reason for bad in unread}
    assert said.pop("5,�") == "it holds bytes that are no text in the answer's encoding"
    assert said["3"] == "the row has 1 field, not 2"
    assert said['4,"x\ny",z'] == "the row has 3 fields, not 2"
    assert said["8,9,�"] == "the row has 3 fields, not 2"
    assert len(said) == 3


def test_bytes_that_mean_nothing_in_an_encoding_spoil_their_row_alone() -> None:
    found, unread, _ = read(csv(encoding="cp1252"), b"a,b\n1,\xe9\n2,\x81\n")
    assert found == [{"a": "1", "b": "é"}]
    assert len(unread) == 1


@pytest.mark.parametrize("content", [b'a,b\n1,"x\n2,y\n3,z\n', b'a,b\n1,2\n"3,z\n4,z\n'])
def test_a_quote_that_is_never_closed_is_an_error_and_swallows_nothing(content: bytes) -> None:
    with pytest.raises(SourceError, match="a quote is opened and never closed"):
        read(csv(), content)


def test_a_csv_without_its_header_is_an_error() -> None:
    with pytest.raises(SourceError, match="empty where a header line"):
        read(csv(), b"\n\n")
    with pytest.raises(SourceError, match="cannot be decoded as utf-16"):
        read(csv(encoding="utf-16"), b"\xff\xfea\0b")


@pytest.mark.parametrize(
    ("header", "what"),
    [
        (b"," * 20_000, "20,001 columns"),
        (b"a," * 500_000, "500,001 columns"),
        (b"a" * 2 * MIB, "larger than"),
        ((b"a" * 200 + b",") * 8_000, "longer than"),
    ],
)
def test_a_header_that_no_table_can_have_is_refused_at_once(header: bytes, what: str) -> None:
    with pytest.raises(SourceError, match=what):
        read(csv(), header + b"\n1\n")


def test_very_many_columns_of_one_name_are_told_apart() -> None:
    found = rows(csv(), b",".join([b"a"] * 5_000) + b"\n" + b",".join([b"1"] * 5_000) + b"\n")
    assert len(found[0]) == 5_000
    assert list(found[0])[:3] == ["a", "a_2", "a_3"]


def test_a_name_that_was_made_and_one_that_was_said_are_told_apart() -> None:
    assert rows(csv(), b"a,a,a_2,,column_4\n1,2,3,4,5\n") == [{"a": "1", "a_2": "2", "a_2_2": "3", "column_4": "4", "column_4_2": "5"}]


# ---- XML --------------------------------------------------------------------------------------------------------------

FEED = b"""<?xml version="1.0" encoding="ISO-8859-1"?>
<a:feed xmlns:a="urn:a" xml:lang="de">
  <total>007</total>
  <!-- a comment -->
  <a:entry id="1"><name> J\xf6rg &lt;3 </name><tag>x</tag><tag>y</tag><price cur="EUR">1.50</price><none/></a:entry>
  <a:entry id="2"><name><![CDATA[<b>]]></name><tag>z</tag><mixed>one <b>two</b> three</mixed></a:entry>
</a:feed>"""


def test_elements_are_values_and_texts_stay_as_they_are() -> None:
    found, unread, beside = read(XmlResponse(kind="xml", lists=["tag"]), FEED, "$.feed.entry", envelope=["$.feed.total"])
    assert (unread, beside) == ([], ("007",))
    assert found == [
        {
            "@id": "1",
            "name": " Jörg <3 ",
            "tag": '["x","y"]',
            "price": '{"@cur":"EUR","#text":"1.50"}',
            "mixed": None,
        },
        {"@id": "2", "name": "<b>", "tag": '["z"]', "price": None, "mixed": '{"b":"two","#text":"one  three"}'},
    ]


def test_a_single_element_is_a_list_where_it_is_said_by_name_or_by_path() -> None:
    content = b"<r><e><t>1</t><u><t>2</t></u></e></r>"
    assert rows(XML, content, "$.r.e") == [{"t": "1", "u": '{"t":"2"}'}]
    assert rows(XmlResponse(kind="xml", lists=["t"]), content, "$.r.e") == [{"t": '["1"]', "u": '{"t":["2"]}'}]
    assert rows(XmlResponse(kind="xml", lists=["r.e.u.t"]), content, "$.r.e") == [{"t": "1", "u": '{"t":["2"]}'}]


def test_a_list_without_elements_may_be_said_to_be_left_out() -> None:
    with pytest.raises(SourceError, match="no records at"):
        read(XML, b"<feed/>", "$.feed.entry")
    assert rows(XML, b"<feed/>", "$.feed.entry", optional=True) == []


LAUGHS = b'<?xml version="1.0"?><!DOCTYPE z [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]><z>&b;</z>'
FILE_READER = b'<?xml version="1.0"?><!DOCTYPE z [<!ENTITY x SYSTEM "file:///etc/passwd">]><z>&x;</z>'
OUTSIDE = b'<!DOCTYPE z SYSTEM "http://127.0.0.1:1/evil.dtd"><z/>'


@pytest.mark.parametrize("content", [LAUGHS, FILE_READER, OUTSIDE])
def test_a_document_that_declares_entities_is_refused(content: bytes) -> None:
    with pytest.raises(SourceError, match="declares a document type or entities"):
        read(XML, content, "$.z")


@pytest.mark.parametrize(
    ("content", "what"),
    [(b'{"a": 1}', "no XML"), (b"", "it is empty"), (b"<a><b></a>", "no XML"), (b"<a>" * 200 + b"</a>" * 200, "100 deep")],
)
def test_what_is_no_xml_is_said(content: bytes, what: str) -> None:
    with pytest.raises(SourceError, match=what):
        read(XML, content, "$.a")


def test_long_names_deep_in_each_other_take_no_more_memory_than_their_text() -> None:
    """The path to the innermost alone has 90 names."""
    name = b"a" * MIB
    content = b"".join(b"<%s>" % (b"%s%d" % (name, depth)) for depth in range(30))
    tracemalloc.start()
    with pytest.raises(SourceError, match="no XML"):
        read(XML, content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 250 * MIB


# ---- compressed ---------------------------------------------------------------------------------------------------------


def test_compressed_answers_are_read_like_others() -> None:
    json = b'{"results": [{"id": 1}], "total": 1}'
    for compression in ("gzip", "auto"):
        found, _, beside = read(JsonResponse(compression=compression), gzip.compress(json), "$.results", envelope=["$.total"])
        assert (found, beside) == ([{"id": 1}], (1,))
    assert rows(JsonResponse(compression="auto"), json, "$.results") == [{"id": 1}]
    assert rows(JsonResponse(compression="auto"), zipped(a_json=json), "$.results") == [{"id": 1}]
    parts = gzip.compress(b'{"id": 1}\n') + gzip.compress(b'{"id": 2}\n') + b"\0\0"
    assert rows(JsonLinesResponse(kind="jsonl", compression="gzip"), parts) == [{"id": 1}, {"id": 2}]


def test_the_files_of_a_zip_are_read_as_one_answer() -> None:
    content = zipped(a_csv=b"id,x\n1,2\n", b_csv=b"x,id\n3,4\n", readme_txt=b"no,csv,at all")
    spec = csv(compression="zip", members="*.csv")
    assert rows(spec, content) == [{"id": "1", "x": "2"}, {"id": "4", "x": "3"}]
    pages = zipped(a_json=b'{"d": {"r": []}, "n": 5}', b_json=b'{"d": {"r": [{"id": 1}, {"id": 2}]}}', c_json=b'{"d": {"r": [{"id": 3}]}}')
    found, _, beside = read(JsonResponse(compression="zip"), pages, "$.d.r", envelope=["$.n"])
    assert ([row["id"] for row in found], beside) == ([1, 2, 3], (5,))
    assert rows(JsonResponse(compression="zip"), zipped(a_json=b'[{"id": 1}]', b_json=b'{"id": 2}')) == [{"id": 1}, {"id": 2}]
    feeds = zipped(a_xml=b"<f><e><id>1</id></e></f>", b_xml=b"<f><e><id>2</id></e></f>")
    assert rows(XmlResponse(kind="xml", compression="zip"), feeds, "$.f.e") == [{"id": "1"}, {"id": "2"}]


@pytest.mark.parametrize(
    ("spec", "content", "what"),
    [
        (JsonResponse(compression="gzip"), b"[]", "cannot be unpacked as gzip"),
        (JsonResponse(compression="gzip"), gzip.compress(b"[]" * 999)[:-9], "cut short"),
        (JsonResponse(compression="gzip"), b"", "cut short"),
        (JsonResponse(compression="zip"), b"[]", "cannot be unpacked as zip"),
        (JsonResponse(compression="zip"), zipped(), "the zip holds no file"),
        (JsonResponse(compression="zip", members="*.csv"), zipped(a_json=b"[]"), r"no file that matches '\*.csv': it holds a.json"),
        (JsonResponse(compression="zip"), zipped(a_json=b"[]", b_json=b"<html>"), "is no JSON"),
        (csv(compression="zip"), zipped(a_csv=b"a\n1\n").replace(zlib.crc32(b"a\n1\n").to_bytes(4, "little"), b"0000"), "Bad CRC"),
    ],
    ids=range(8),
)
def test_what_cannot_be_unpacked_is_said(spec: ResponseSpec, content: bytes, what: str) -> None:
    with pytest.raises(SourceError, match=what):
        read(spec, content)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_that_is_damaged_anywhere_is_an_error_of_the_source(method: int) -> None:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as archive:
        archive.writestr("a.csv", b"id,text\n" + b"1,x\n" * 50)
    content = made.getvalue()
    for at in range(len(content)):
        for wrong in (0x00, 0xFF):
            damaged = content[:at] + bytes([wrong]) + content[at + 1 :]
            with contextlib.suppress(SourceError):
                read(csv(compression="zip"), damaged)


def test_a_way_to_compress_that_cannot_be_bounded_is_refused() -> None:
    """A few bytes of bzip2 are many megabytes, and zipfile unpacks them at once."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("a.csv", b"id\n")
    with pytest.raises(SourceError, match=r"a\.csv in the zip is compressed by method 12") as caught:
        read(csv(compression="zip"), made.getvalue())
    assert "deflate" in caught.value.do


def test_names_in_a_zip_are_shown_short_and_cannot_play_with_the_terminal() -> None:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("\x1b[2J../../etc/passwd" + "x" * 5_000, b"")
    with pytest.raises(SourceError, match="it holds") as caught:
        read(csv(compression="zip", members="*.csv"), made.getvalue())
    assert "\x1b" not in str(caught.value) and "passwd" in str(caught.value) and len(str(caught.value)) < 500


def test_a_zip_of_very_many_files_is_refused_before_they_are_listed() -> None:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("a", b"")
    content = made.getvalue()
    entry = content[content.index(b"PK\x01\x02") : content.index(b"PK\x05\x06")]
    with pytest.raises(SourceError, match="more than 100,000 files"):
        read(csv(compression="zip"), content.replace(entry, entry * 100_001))


def test_an_encrypted_zip_is_refused() -> None:
    content = bytearray(zipped(a_csv=b"a\n1\n"))
    for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(mark) + flags] |= 1
    with pytest.raises(SourceError, match=r"a\.csv in the zip is encrypted"):
        read(csv(compression="zip"), bytes(content))


def bomb(kind: str) -> bytes:
    zeros = b"\0" * (300 * MIB)
    return gzip.compress(zeros, 1) if kind == "gzip" else zipped(a_csv=zeros)


@pytest.mark.parametrize("kind", ["gzip", "zip"])
def test_a_bomb_ends_before_it_takes_up_memory(kind: Any) -> None:
    reader = page_reader(csv(compression=kind), "$", 8 * MIB)
    content = bomb(kind)
    assert reader is not None
    tracemalloc.start()
    try:
        with pytest.raises(SourceError, match="unpacks to more bytes than are allowed"):
            reader(content)
        assert tracemalloc.get_traced_memory()[1] < 40 * MIB
    finally:
        tracemalloc.stop()


def test_many_small_files_in_a_zip_are_counted_together() -> None:
    reader = page_reader(csv(compression="zip"), "$", MIB)
    assert reader is not None
    with pytest.raises(SourceError, match="unpacks to more bytes"):
        reader(zipped(**{f"f{i}_csv": b"0" * (MIB // 4) for i in range(8)}))


def test_rows_that_would_fill_the_memory_as_json_are_refused() -> None:
    content = ",".join(f"a_column_with_quite_a_long_name_{i}" for i in range(50)).encode() + b"\n" + (b"1," * 49 + b"1\n") * 500
    reader = page_reader(csv(), "$", len(content))
    assert reader is not None
    with pytest.raises(SourceError, match="take up more memory"):
        reader(content)
