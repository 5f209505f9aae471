"""Rows of text (CSV, RFC 4180) as JSON records: every value text or null, rows that do not fit set aside with what they said."""

import csv
import io
from collections.abc import Iterator

import orjson
import pyarrow as pa
from pyarrow import csv as arrow_csv

from muxly_dagster.decoding import salvage, spoiled_record
from muxly_dagster.errors import SourceError
from muxly_dagster.manifest.schema import CsvResponse

_ROWS = 10_000
_HEADER = 2**20  # bytes
_MOST_COLUMNS = 10_000
_CORRECT_HEADER = "correct `response`: delimiter, quote, skip"


def csv_records(content: bytes, spec: CsvResponse) -> Iterator[bytes]:
    """The rows as JSON objects, in texts of many with commas between. Raises SourceError for what has no header or cannot be decoded."""
    text, mark = _as_utf8(content, spec.encoding)
    names, start = _header(text, spec)
    if start >= len(text) or not text[start:].strip():
        return
    lost: list[tuple[str, str]] = []

    def misfit(row: arrow_csv.InvalidRow) -> str:
        counts = f"{row.actual_columns} field{'s' * (row.actual_columns != 1)}, not {row.expected_columns}"
        lost.append((_shown(str(row.text or ""), mark), f"the row has {counts}"))
        return "skip"

    try:
        table = arrow_csv.read_csv(
            pa.py_buffer(memoryview(text)[start:]),
            arrow_csv.ReadOptions(use_threads=False, column_names=[str(i) for i in range(len(names))], block_size=_block(len(text))),
            arrow_csv.ParseOptions(
                delimiter=spec.delimiter,
                quote_char=spec.quote or False,
                double_quote=True,
                newlines_in_values=True,
                invalid_row_handler=misfit,
            ),
            arrow_csv.ConvertOptions(
                column_types={str(i): pa.string() for i in range(len(names))},
                null_values=[""] if spec.empty == "null" else [],
                strings_can_be_null=spec.empty == "null",
                quoted_strings_can_be_null=False,
            ),
        )
    except pa.ArrowInvalid as error:
        raise SourceError(f"the answer is no CSV ({error})", do="look at what the address answers, and correct `response`") from None
    if spec.quote and text.count(spec.quote.encode(), start) % 2:
        last = [value.as_py() or "" for column in table.columns for value in column[-1:]]
        if any("\n" in value for value in [*last, *(shown for shown, _ in lost[-1:])]):
            raise SourceError(
                "the answer is no CSV: a quote is opened and never closed",
                do="if quotes have no meaning in it, say `quote: ''`; an answer cut short usually comes whole at the next try",
            )
    for batch in table.to_batches(max_chunksize=_ROWS):
        yield _texts(batch, names, mark)
    if lost:
        yield b",".join(spoiled_record(shown, reason) for shown, reason in lost)


def _as_utf8(content: bytes, encoding: str) -> tuple[bytes, str]:
    """The content in UTF-8, with a mark in place of every byte that means nothing, so that only its row is lost; no mark: there is none."""
    if encoding.lower().replace("_", "-") not in ("utf-8", "utf8", "utf-8-sig"):
        try:
            text = content.decode(encoding, "surrogateescape")
        except (UnicodeDecodeError, LookupError) as error:
            raise SourceError(f"the answer cannot be decoded as {encoding}: {error}", do="correct `response.encoding`") from None
        content = text.encode("utf-8", "surrogatepass")  # which is no UTF-8 where a byte meant nothing
    content = content.removeprefix(b"\xef\xbb\xbf")
    try:
        content.isascii() or content.decode()
    except UnicodeDecodeError:
        content, mark = salvage.mark_invalid_utf8(content)
        return content, mark.decode()
    return content, ""


def _header(text: bytes, spec: CsvResponse) -> tuple[list[str], int]:
    """The columns' names, each once, and where the rows begin."""
    start = 0
    for _ in range(spec.skip):
        start = _next_line(text, start)
    if spec.columns:
        return list(spec.columns), start
    head = io.StringIO(text[start : start + _HEADER].decode("utf-8", "replace"), newline="")
    quote = spec.quote or None
    lines = csv.reader(head, delimiter=spec.delimiter, quotechar=quote, quoting=csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE)
    try:
        found = next((line for line in lines if line), [])
    except csv.Error as error:
        raise SourceError(f"the answer's header cannot be read ({error})", do=_CORRECT_HEADER) from None
    if not found:
        raise SourceError(
            "the answer is empty where a header line with the columns' names should be",
            do="if the service sends no header, name the columns in `response.columns`",
        )
    if len(found) > _MOST_COLUMNS:
        raise SourceError(f"the answer's header has {len(found):,} columns, where {_MOST_COLUMNS:,} can be read", do=_CORRECT_HEADER)
    begin = start
    for _ in range(lines.line_num):
        start = _next_line(text, start)
    if start - begin > _HEADER:
        raise SourceError(f"the answer's header is longer than {_HEADER:,} bytes", do=_CORRECT_HEADER)
    return _told_apart(found), start


def _next_line(text: bytes, start: int) -> int:
    """Where the line after this one begins: behind a line feed, a carriage return, or both."""
    ends = [at for at in (text.find(b"\n", start), text.find(b"\r", start)) if at >= 0]
    if not ends:
        return len(text)
    end = min(ends)
    return end + (2 if text[end : end + 2] == b"\r\n" else 1)


def _told_apart(names: list[str]) -> list[str]:
    """Names without spaces around them; a column without one is `column_3`, a second one of a name `name_2`."""
    found: dict[str, None] = {}
    times: dict[str, int] = {}
    for number, name in enumerate((each.strip() for each in names), 1):
        made = base = name or f"column_{number}"
        while made in found:
            times[base] = times.get(base, 1) + 1
            made = f"{base}_{times[base]}"
        found[made] = None
    return list(found)


def _block(size: int) -> int:
    return min(max(size + 1, 1024), 2**31 - 1)  # one block: a row may be as long as the whole


def _texts(batch: pa.RecordBatch, names: list[str], mark: str) -> bytes:
    rows = zip(*(column.to_pylist() for column in batch.columns), strict=True)
    if not mark:
        return orjson.dumps([dict(zip(names, row, strict=True)) for row in rows])[1:-1]
    return b",".join(_one(row, names, mark) for row in rows)


def _one(row: tuple[str | None, ...], names: list[str], mark: str) -> bytes:
    if not any(value and mark in value for value in row):
        return orjson.dumps(dict(zip(names, row, strict=True)))
    shown = _shown(",".join(value or "" for value in row), mark)
    return spoiled_record(shown, "it holds bytes that are no text in the answer's encoding")


def _shown(text: str, mark: str) -> str:
    return text.replace(mark, "\N{REPLACEMENT CHARACTER}") if mark else text
