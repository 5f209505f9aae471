"""Whatever an API sends, every record comes out as it came or is set aside."""

import json
from decimal import Decimal
from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from muxly_dagster.decoding import PageDecoder
from muxly_dagster.errors import SourceError
from muxly_dagster.records import is_json
from muxly_dagster_tests.test_decoding import page

_scalars = (
    st.none()
    | st.booleans()
    | st.integers(min_value=-(10**45), max_value=10**45)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
)
_json = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("xyz"), inner, max_size=3), max_leaves=4
)
_records = st.lists(st.fixed_dictionaries({"id": st.integers(0, 2**53)}, optional=dict.fromkeys("abcd", _json)), min_size=1, max_size=8)


def _same(column: pa.Field, read_value: Any, given_value: Any) -> bool:
    """Whether the lake holds just what came, whatever type the column ended up with."""
    if given_value is None or read_value is None:
        return given_value is None and read_value is None
    if is_json(column):
        return repr(json.loads(read_value)) == repr(given_value)
    if isinstance(read_value, str) and not isinstance(given_value, str):
        return repr(json.loads(read_value)) == repr(given_value)
    if isinstance(given_value, bool) or isinstance(read_value, bool):
        return read_value is given_value
    if isinstance(given_value, int | float) and isinstance(read_value, int | float | Decimal):
        return Decimal(repr(given_value)) == Decimal(repr(read_value) if isinstance(read_value, float) else read_value)
    return type(read_value) is type(given_value) and bool(read_value == given_value)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(_records, min_size=1, max_size=4), st.booleans())
def test_every_record_comes_out_exactly_as_it_came(pages: list[list[dict[str, Any]]], flush_each: bool) -> None:
    decoder = PageDecoder("$.r")
    found: list[tuple[pa.Field, Any]] = []
    tables = []
    for records in pages:
        decoder.decode(page(*records))
        if flush_each:
            tables.append(decoder.flush())
    tables.append(decoder.flush())
    assert all(unread == [] for _, unread in tables)
    rows = [(table.schema, row) for table, _ in tables for row in table.to_pylist()]
    given_rows = [record for records in pages for record in records]
    assert len(rows) == len(given_rows)
    for (schema, row), record in zip(rows, given_rows, strict=True):
        assert set(row) >= {k for k, v in record.items() if v is not None}
        found += [(schema.field(k), (v, record.get(k))) for k, v in row.items()]
    for column, (read_value, given_value) in found:
        assert _same(column, read_value, given_value), (column, read_value, given_value)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(_records, st.integers(0, 10_000), st.binary(min_size=1, max_size=3))
def test_a_damaged_page_gives_an_error_or_accounts_for_every_other_record(records: list[dict[str, Any]], at: int, damage: bytes) -> None:
    body = page(*records, next="c")
    start = at % len(body)
    damaged = body[:start] + damage + body[start + 1 :]
    decoder = PageDecoder("$.r", envelope=["$.next"])
    try:
        decoder.decode(damaged)
    except SourceError as error:
        assert error.what
        return
    table, unread = decoder.flush()
    try:
        valid = json.loads(damaged)["r"]
    except (ValueError, KeyError, TypeError):
        assert len(table) + len(unread) >= 1 or damaged.count(b"{") <= 2
    else:
        assert len(table) + len(unread) == len(valid if isinstance(valid, list) else [valid])
