"""What a mail shows where nobody has written a template: its records as a table, in HTML and in plain text; and as a CSV file."""

import datetime as dt
import decimal
import html
import io
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from muxly_dagster import records
from muxly_dagster.destination import Delivery
from muxly_dagster.messages import Letter, Template, shorten

_LONGEST_CELL = 500
_LONGEST_PLAIN_CELL = 40
_DELETED = "deleted"
_FORMULA = r"^[=+\-@\t\r\n\x{FF1D}\x{FF0B}\x{FF0D}\x{FF20}]"
"""What a spreadsheet may take for a formula, wide forms too (https://owasp.org/www-community/attacks/CSV_Injection)."""

_FONT = "font-family:-apple-system,'Segoe UI',Helvetica,Arial,sans-serif;font-size:14px;color:#1f2328"
_CELL = "border:1px solid #d0d7de;padding:6px 10px;text-align:left;vertical-align:top"
_NUMBER = _CELL.replace("text-align:left", "text-align:right")
_HEAD = f"{_CELL};background:#f6f8fa;font-weight:600"


def headline(letter: Letter) -> str:
    """One line about some records: `crm.deals: 3 records`, `crm.deals 1001`."""
    newest, count = letter.records[-1], len(letter.records)
    if count > 1:
        return f"{newest['stream']}: {count} records"
    return f"{newest['stream']} {newest['key']}" + (f" {_DELETED}" if newest["op"] == "delete" else "")


def markup(letter: Letter, columns: Sequence[str]) -> str:
    """The records as a table in HTML: a row for each, or a row for each column of a single one. Styles are inline, as mail wants them."""
    names, rows = _rows(letter, columns)
    if len(rows) == 1:
        body = "".join(
            f'<tr><th style="{_HEAD}">{_marked(name)}</th>{_cell(value)}</tr>' for name, value in zip(names, rows[0], strict=True)
        )
    else:
        head = "".join(f'<th style="{_HEAD}">{_marked(name)}</th>' for name in names)
        body = f"<tr>{head}</tr>" + "\n".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return (
        f'<div style="{_FONT}"><p style="margin:0 0 12px">{_marked(headline(letter))}</p>\n'
        f'<table style="border-collapse:collapse;{_FONT}">{body}</table></div>\n'
    )


def plain(letter: Letter, columns: Sequence[str]) -> str:
    """The records as a table in plain text."""
    names, rows = _rows(letter, columns)
    if len(rows) == 1:
        lines = [f"{name}: {shorten(_line(value), _LONGEST_CELL)}" for name, value in zip(names, rows[0], strict=True)]
        return "\n".join([headline(letter), "", *lines, ""])
    cells = [[shorten(_line(name), _LONGEST_PLAIN_CELL) for name in names]]
    cells += [[shorten(_line(value), _LONGEST_PLAIN_CELL) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    numeric = [all(value is None or _is_number(value) for value in column) for column in zip(*rows, strict=True)]

    def line(row: Sequence[str]) -> str:
        return "  ".join(
            cell.rjust(width) if number else cell.ljust(width) for cell, width, number in zip(row, widths, numeric, strict=True)
        ).rstrip()

    return "\n".join([headline(letter), "", line(cells[0]), line(["-" * width for width in widths]), *map(line, cells[1:]), ""])


def csv(delivery: Delivery, letter: Letter, columns: Sequence[str]) -> bytes:
    """The records as a CSV file (RFC 4180) in UTF-8, with the mark that spreadsheets know it by.

    A text that begins like a formula gets an apostrophe before it. Bytes are in base64, nested values in JSON, nothing is nothing and an
    empty text is `""`.
    """
    rows = delivery.rows.filter(pc.is_in(delivery.rows[records.SEQ], pa.array(letter.seqs, pa.int64())))
    schema = records.data_schema(rows.schema)
    names = list(columns) or schema.names
    shown = {_harmless(pa.array([name]))[0].as_py(): _harmless(_as_text(rows[name], schema.field(name))) for name in names}
    if "delete" in rows[records.OP].to_pylist():
        shown = {records.OP: rows[records.OP]} | shown
    out = io.BytesIO(b"\xef\xbb\xbf")
    out.seek(0, io.SEEK_END)
    pyarrow.csv.write_csv(pa.table(shown), out, pyarrow.csv.WriteOptions(quoting_style="needed"))
    return out.getvalue()


def _as_text(column: pa.ChunkedArray, field: pa.Field) -> pa.ChunkedArray:
    return records.cast(column, field.with_type(pa.string())) if pa.types.is_binary(field.type) else column


def _harmless(column: Any) -> Any:
    if not pa.types.is_string(column.type):
        return column  # a negative number is no formula
    return pc.if_else(pc.match_substring_regex(column, _FORMULA), pc.binary_join_element_wise("'", column, ""), column)


# ---- cells ------------------------------------------------------------------------------------------------------------


def _rows(letter: Letter, columns: Sequence[str]) -> tuple[list[str], list[list[Any]]]:
    """The names of the columns to show, and the values of each record. What is null everywhere is left out unless it was asked for."""
    data = [record["data"] for record in letter.records]
    names = list(columns) or [name for name in data[-1] if any(row[name] is not None for row in data)]
    rows = [[row[name] for name in names] for row in data]
    gone = [record["op"] == "delete" for record in letter.records]
    if len(rows) > 1 and any(gone):
        names, rows = ["", *names], [[_DELETED if each else "", *row] for each, row in zip(gone, rows, strict=True)]
    return names, rows


def _text(value: Any) -> str:
    """A value as templates show it."""
    shown: str = Template("{{ value }}").fill({"value": value})
    return shown


def _line(value: Any) -> str:
    return " ".join(_text(value).split())


def _marked(value: Any) -> str:
    return html.escape(shorten(_text(value), _LONGEST_CELL))


def _cell(value: Any) -> str:
    return f'<td style="{_NUMBER if _is_number(value) else _CELL}">{_marked(value)}</td>'


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | decimal.Decimal | dt.timedelta) and not isinstance(value, bool)
