"""Folders by value: which folder each row belongs in, as SQL expressions over its columns say."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import AfterValidator, BeforeValidator

from muxly_dagster import records, sandbox
from muxly_dagster.errors import ConfigurationError
from muxly_dagster.writing.names import NOTHING, folder_of

_ROWS = "_muxly_rows"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# What columns that no record has shown yet may turn out to be; tried in this order until the expressions make sense.
_UNSEEN = ("NULL", "NULL::VARCHAR", "NULL::TIMESTAMPTZ", "NULL::DOUBLE")
_MOST_FOLDERS = 10_000


@dataclass(frozen=True, slots=True)
class Level:
    """One level of folders: what its value is, and its name where folders are called `name=value`."""

    expression: sandbox.Expression
    name: str = ""


def _listed(declared: Any) -> Any:
    """One expression or one map as a list of one."""
    return [declared] if isinstance(declared, str | Mapping) else declared


def _readable(declared: list[str | dict[str, str]]) -> list[str | dict[str, str]]:
    try:
        named = [level.name for level in levels(declared) if level.name]
    except ConfigurationError as error:
        raise ValueError(str(error.problems[0])) from None
    for name in named:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} cannot stand before the = of a folder's name; use letters, digits and _")
    if len(set(named)) < len(named):
        raise ValueError("two levels of folders have the same name")
    return declared


Partition = Annotated[list[str | dict[str, str]], BeforeValidator(_listed), AfterValidator(_readable)]
"""Levels of folders from the outer to the inner: SQL expressions, or maps from a name to an expression for `name=value`."""


def levels(declared: Sequence[str | Mapping[str, str]]) -> tuple[Level, ...]:
    """What was declared, read. Raises ConfigurationError for what is not one expression of a row."""
    pairs: list[tuple[str, str]] = []
    for each in declared:
        pairs += [("", each)] if isinstance(each, str) else list(each.items())
    return tuple(Level(sandbox.read_expression(text), name) for name, text in pairs)


def split(rows: pa.Table, wanted: Sequence[Level]) -> Iterator[tuple[str, pa.Table, int]]:
    """The rows by folder (`date=2026-01-05/DE`), each in the order of the changes, with the number whose folder could not be computed.

    Rows whose value is null or cannot be computed lie in Hive's default folder. Raises ConfigurationError for an expression that can
    never run, and for one that makes a folder of almost every record.
    """
    if not wanted or not len(rows):
        yield "", rows, 0
        return
    answers = _values(rows, wanted)
    failed = np.zeros(len(rows), np.bool_)
    group: npt.NDArray[np.int64] = np.zeros(len(rows), np.int64)
    texts = []
    for answer in answers:
        failed |= pc.is_null(answer).to_numpy(zero_copy_only=False)
        # Whatever lies in the same folder must be one file there, or the second would take the place of the first.
        texts.append(pc.replace_with_mask(pc.fill_null(answer, ""), pc.fill_null(pc.equal(answer, NOTHING), False), ""))
        values = texts[-1].dictionary_encode()
        group = np.unique(group * len(values.dictionary) + values.indices.to_numpy(), return_inverse=True)[1]
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    if len(starts) > _MOST_FOLDERS:
        raise ConfigurationError(
            f"`partition` makes {len(starts)} folders of {len(rows)} changes", do="part them by something coarser, such as a date"
        )
    sorted_rows = rows if len(starts) == 1 else rows.take(pa.array(order))
    for start, end in zip(starts, [*starts[1:], len(rows)], strict=True):
        first = int(order[start])
        folder = "/".join(folder_of(text[first].as_py(), level.name) for text, level in zip(texts, wanted, strict=True))
        yield folder, sorted_rows.slice(start, end - start), int(failed[order[start:end]].sum())


def _values(rows: pa.Table, wanted: Sequence[Level]) -> list[pa.Array]:
    """Each level's values as text: empty for null, null where the expression failed."""
    import duckdb

    named = dict.fromkeys(name for level in wanted for name in level.expression.columns)
    folded = {column.casefold(): column for column in rows.column_names}
    found = dict.fromkeys(column for name in named if (column := name if name in rows.column_names else folded.get(name.casefold())))
    missing = [name for name in named if name.casefold() not in folded]
    scanned = rows.select(list(found)) if found else pa.table({"_muxly_none": pa.nulls(len(rows), pa.bool_())})
    # TRY gives null where the expression fails on a row; COALESCE first makes its own nulls empty, so the two stay apart.
    asked = ", ".join(f"TRY(COALESCE(CAST({level.expression.sql} AS VARCHAR), '')) AS v{n}" for n, level in enumerate(wanted))
    connection = sandbox.shared()
    connection.register(_ROWS, scanned)
    try:
        for kind in _UNSEEN:
            unseen = "".join(f", {kind} AS {sandbox.quote(name)}" for name in missing)
            try:
                answer = connection.sql(f"SELECT {asked} FROM (SELECT *{unseen} FROM {_ROWS})").to_arrow_table()
                return [column.cast(pa.string()).combine_chunks() for column in answer.columns]
            except duckdb.BinderException as error:
                if not missing or kind == _UNSEEN[-1]:
                    known = records.data_schema(rows.schema).names
                    hint = sandbox.unknown_column(missing[0], known) if missing else ""
                    raise ConfigurationError(f"`partition` cannot be computed: {sandbox.short(error)}", do=hint) from None
            except duckdb.Error as error:
                raise ConfigurationError(f"`partition` cannot be computed: {sandbox.short(error)}") from None
        raise AssertionError("unreachable: the last kind answers or raises")
    finally:
        connection.unregister(_ROWS)
