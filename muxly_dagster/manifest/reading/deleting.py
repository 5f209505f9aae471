"""Records that the provider says are gone: marked among the others, named beside them, or in a list of their own."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from muxly_dagster import records
from muxly_dagster.connector import Span
from muxly_dagster.decoding import PageDecoder
from muxly_dagster.manifest.answers import jsontext
from muxly_dagster.manifest.language.expressions import text_of
from muxly_dagster.manifest.schema import MarkedDeletes

UNMARKED = (None, False, 0, "", "false", "0")
"""What marks no record as deleted, where the manifest does not say which value does: flags are written in all of these ways."""


@dataclass(frozen=True, slots=True)
class Parted:
    """A batch's rows without those that are gone: `deletes` and `cleared` as in `connector.Batch`."""

    rows: pa.Table
    deletes: pa.Table | None = None
    cleared: tuple[Span, ...] = ()


def part(rows: pa.Table, marks: MarkedDeletes, key: Sequence[str], known: pa.Schema | None) -> Parted:
    """The rows that are alive, and the keys of those that are gone; of a key that comes more than once, the last one counts."""
    if marks.column not in rows.column_names or not len(rows):
        return Parted(rows)
    marked = _marked(rows[marks.column], marks.equals)
    leaf = _is(rows[marks.column], marks.leaf) if marks.leaf is not None else pa.chunked_array([pa.repeat(False, len(rows))])
    if not pc.any(pc.or_(marked, leaf)).as_py():
        return Parted(_without_empty_mark(rows, marks.column, known))
    if any(name not in rows.column_names for name in key):
        return Parted(rows)  # without a key, none of them can be stored or deleted: all go into quarantine
    if not key:
        return Parted(_without_empty_mark(rows.filter(pc.invert(marked)), marks.column, known))
    keys, gone = records.key_texts(rows, key).to_pylist(), marked.to_pylist()
    cuts = pc.or_(marked, leaf).to_pylist()
    alive, last = _last_words(keys, gone, cuts, marks.below)
    cleared: tuple[Span, ...] = ()
    if marks.below:
        folders = {text for text, is_cut in zip(keys, cuts, strict=True) if is_cut and text is not None}
        after = marks.below[:-1] + chr(ord(marks.below[-1]) + 1)
        cleared = tuple(Span(key[0], f + marks.below, f + after) for f in sorted(folders) if not _lies_below(f, folders, marks.below))
    deletes = rows.take(pa.array(last, pa.int64())).select(list(key))
    return Parted(_without_empty_mark(rows.filter(pa.array(alive, pa.bool_())), marks.column, known), deletes, cleared)


def _marked(column: pa.ChunkedArray, equals: Any) -> pa.ChunkedArray:
    if equals is not None:
        return _is(column, equals)
    if pa.types.is_boolean(column.type):
        return pc.fill_null(column, False)
    unmarked: list[Any] = [value for value in UNMARKED if isinstance(value, str)] if pa.types.is_string(column.type) else []
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_decimal(column.type):
        unmarked = [0]
    said = pc.is_valid(column)
    return pc.and_(said, pc.invert(pc.is_in(column, pa.array(unmarked).cast(column.type)))) if unmarked else said


def _is(column: pa.ChunkedArray, value: Any) -> pa.ChunkedArray:
    return pc.fill_null(pc.equal(pc.cast(column, pa.string()), text_of(value)), False)


def _last_words(keys: Sequence[Any], gone: Sequence[bool], cuts: Sequence[bool], below: str) -> tuple[list[bool], list[int]]:
    """From the last row to the first: which rows are alive, and the rows whose key is gone for good.

    `cuts` are the rows that say that nothing lies below them any more: those that are gone, and leaves.
    """
    settled: set[Any] = set()  # keys whose last word was said
    folders: set[Any] = set()
    alive, last = [False] * len(keys), []
    for row in reversed(range(len(keys))):
        text = keys[row]
        if gone[row] and text is not None:
            if text not in settled:
                last.append(row)
            settled.add(text)
        else:
            alive[row] = text not in folders and not (below and text is not None and _lies_below(text, folders, below))
            settled.add(text)
        if cuts[row] and text is not None:
            folders.add(text)
    return alive, sorted(last)


def _lies_below(text: str, folders: set[Any], below: str) -> bool:
    end = text.find(below)
    while end >= 0:
        if text[:end] in folders:
            return True
        end = text.find(below, end + 1)
    return False


def _without_empty_mark(rows: pa.Table, column: str, known: pa.Schema | None) -> pa.Table:
    """A mark that only deleted records carry is no column of the others."""
    if (known is None or column not in known.names) and rows[column].null_count == len(rows):
        return rows.drop_columns([column])
    return rows


def key_table(
    keys: Iterable[Sequence[Any]], columns: Sequence[str], add: Mapping[str, Any], types: Mapping[str, str], known: pa.Schema | None
) -> pa.Table:
    """Keys as a provider names them, as a table in the lake's types: each gives the values of `columns`, `add` those of all of them."""
    objects = [{**add, **dict(zip(columns, key, strict=True))} for key in keys]
    return typed_table(objects, types, known)


def typed_table(objects: Sequence[Mapping[str, Any]], types: Mapping[str, str], known: pa.Schema | None) -> pa.Table:
    """Values as a table, read as records with these fields would be."""
    names = {name for each in objects for name in each}
    kept = None if known is None else pa.schema([field for field in known if field.name in names])
    decoder = PageDecoder("$", types={name: type_ for name, type_ in types.items() if name in names}, known=kept)
    decoder.decode(jsontext.write(objects))
    return decoder.flush()[0]


def without(rows: pa.Table, gone: pa.Table, key: Sequence[str]) -> pa.Table:
    """The rows whose key is not among those that are gone."""
    if not len(rows) or not len(gone) or any(name not in rows.column_names or name not in gone.column_names for name in key):
        return rows
    texts = records.key_texts(gone, key).combine_chunks()
    return rows.filter(pc.invert(pc.is_in(records.key_texts(rows, key), value_set=texts)))
