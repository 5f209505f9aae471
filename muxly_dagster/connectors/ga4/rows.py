"""An answer's rows as Arrow, with numbers that keep every digit, and what the answer says of its own quality."""

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

import pyarrow as pa

from muxly_dagster.connector import Unreadable
from muxly_dagster.connectors.ga4.reports import DATE, Report
from muxly_dagster.records import to_json

INTEGER = 1
"""MetricType.TYPE_INTEGER; every other type (float, currency, seconds ...) may have a fraction."""

_EXACT_DIGITS = 17  # what Google prints is a 64-bit float, which 17 digits name exactly
_INT64 = range(-(2**63), 2**63)


@dataclass(frozen=True, slots=True)
class Page:
    """The rows of one answer: what could be read, and what could not. `rows` counts both, `row_count` all pages together."""

    table: pa.Table
    unreadable: tuple[Unreadable, ...]
    rows: int
    row_count: int
    flags: dict[str, Any] = field(default_factory=dict)


def read_page(answer: Any, report: Report) -> Page:
    """Read a RunReportResponse or RunRealtimeReportResponse."""
    raw = type(answer).pb(answer)  # the wrapped messages cost ten times as much for each value
    rows = raw.rows
    kinds = [header.type_ for header in raw.metric_headers]
    columns: dict[str, list[Any]] = {}
    bad: dict[int, str] = {}
    for at, name in enumerate(report.dimensions):
        texts = [row.dimension_values[at].value for row in rows]
        columns[name] = _read(texts, _date, name, bad) if name == DATE and not report.realtime else texts
    for at, name in enumerate(report.metrics):
        parse = _integer if rows and kinds[at] == INTEGER else _number
        columns[name] = _read([row.metric_values[at].value for row in rows], parse, name, bad)
    kept = [number for number in range(len(rows)) if number not in bad]
    arrays = [_array([columns[name][number] for number in kept] if bad else columns[name]) for name in report.columns]
    unreadable = tuple(Unreadable(_as_text(rows[number], report), reason) for number, reason in bad.items())
    return Page(pa.table(arrays, names=list(report.columns)), unreadable, len(rows), raw.row_count, flags(answer, report))


def metric_type(kind: int) -> pa.DataType:
    """The lake's type for a MetricType."""
    return pa.int64() if kind == INTEGER else pa.float64()


def flags(answer: Any, report: Report) -> dict[str, Any]:
    """What an answer says about its quality (ResponseMetaData); empty where all is well.

    sampled: how many events were looked at, and of how many. thresholded: rows about few users may be left out. other_row: rare values
    were thrown together as "(other)". truncated: not all was given, and why. restricted: metrics this account may not see.
    """
    if report.realtime:
        missing = answer.row_count > len(answer.rows)
        return {"truncated": [f"{len(answer.rows)} of {answer.row_count} rows"]} if missing else {}
    said = answer.metadata
    found: dict[str, Any] = {}
    if said.sampling_metadatas:
        found["sampled"] = {
            "read": sum(sample.samples_read_count for sample in said.sampling_metadatas),
            "of": sum(sample.sampling_space_size for sample in said.sampling_metadatas),
        }
    if said.subject_to_thresholding:
        found["thresholded"] = True
    if said.data_loss_from_other_row:
        found["other_row"] = True
    if said.data_truncation_reasons:
        found["truncated"] = [why.data_truncation_message or why.data_truncation_type.name for why in said.data_truncation_reasons]
    if restricted := [metric.metric_name for metric in said.schema_restriction_response.active_metric_restrictions]:
        found["restricted"] = restricted
    return found


def _read(texts: Sequence[str], parse: Callable[[str], Any], name: str, bad: dict[int, str]) -> list[Any]:
    """The texts as values. A text that is none leaves its row's number and the reason in `bad`."""
    known: dict[str, Any] = {}  # a report says the same few dates and numbers again and again
    values: list[Any] = []
    for number, text in enumerate(texts):
        if text not in known:
            try:
                known[text] = parse(text)
            except (ValueError, InvalidOperation):
                bad[number] = f"{name} is {text[:100]!r}, which is no {parse.__name__.strip('_')}"
                values.append(None)
                continue
        values.append(known[text])
    return values


def _date(text: str) -> dt.date:
    if len(text) != len("20260131"):
        raise ValueError(text)
    return dt.date(int(text[:4]), int(text[4:6]), int(text[6:]))


def _integer(text: str) -> int | None:
    return int(text) if text else None


def _number(text: str) -> float | Decimal | None:
    if not text:
        return None
    exact = Decimal(text)
    if not exact.is_finite():
        raise ValueError(text)
    return float(text) if len(exact.as_tuple().digits) <= _EXACT_DIGITS else exact


def _array(values: list[Any]) -> pa.Array:
    """Values in the narrowest type that holds all of them exactly."""
    kinds = set(map(type, values)) - {type(None)}
    if kinds == {int} and not all(value is None or value in _INT64 for value in values):
        values, kinds = [None if value is None else Decimal(value) for value in values], {Decimal}
    if kinds == {float, Decimal}:
        values, kinds = [Decimal(repr(value)) if isinstance(value, float) else value for value in values], {Decimal}
    try:
        return pa.array(values)
    except pa.ArrowInvalid:  # more digits than a decimal holds
        return pa.array([None if value is None else str(value) for value in values], pa.string())


def _as_text(row: Any, report: Report) -> str:
    values = [value.value for value in (*row.dimension_values, *row.metric_values)]
    return to_json(dict(zip(report.columns, values, strict=True))).decode()
