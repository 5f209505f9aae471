"""From DuckDB to the lake: transform steps as one query, and what a query or function gives as rows in the lake's types."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from muxly_dagster import records, sandbox
from muxly_dagster.errors import ConfigurationError, MuxlyError
from muxly_dagster.sandbox import quote
from muxly_dagster.transform import Step

if TYPE_CHECKING:
    import duckdb

Rows = Callable[[], Iterator[pa.Table]]
"""The rows a transform gives, in the lake's types, a batch at a time; may be asked for again."""

_BATCH, _BATCH_BYTES = 20_000, 32 << 20
# What Arrow has no plain type for, or the lake would spell in another way than SQL does.
_AS_TEXT = ("INTERVAL", "TIME", "TIME_NS", "TIME WITH TIME ZONE", "BIT", "UUID", "VARIANT", "BIGNUM")


def steps_query(connection: "duckdb.DuckDBPyConnection", source: str, schema: pa.Schema, steps: Sequence[Step], where: str) -> str:
    """All steps as one query over `source` (SQL for a table whose columns are `schema`), each over the one before.

    Raises ConfigurationError for a step that can never work on such a table, with its number and name behind `where`.
    """
    # Marked as JSON in DuckDB too, so that nested values are still known as such behind the last step.
    columns = ", ".join(f"CAST({quote(f.name)} AS JSON) AS {quote(f.name)}" if records.is_json(f) else quote(f.name) for f in schema)
    chain = [f"_muxly_0 AS (SELECT {columns} FROM {source})"]
    for number, step in enumerate(steps, 1):
        place = f"{where}.steps.{number} ({step.name})"
        try:
            chain.append(f"_muxly_{number} AS ({step.sql(f'_muxly_{number - 1}', schema)})")
        except ConfigurationError as error:
            raise ConfigurationError(error.problems, where=place) from error
        with sandbox.explained(place):
            schema = connection.sql(f"WITH {', '.join(chain)} SELECT * FROM _muxly_{number} LIMIT 0").to_arrow_table().schema
    return f"WITH {', '.join(chain)} SELECT * FROM _muxly_{len(steps)}"


def relation_rows(where: str, relation: "Callable[[], duckdb.DuckDBPyRelation]") -> Rows:
    """The rows of a DuckDB relation, streamed. It is made anew each time they are asked for."""

    def rows() -> Iterator[pa.Table]:
        with sandbox.explained(where):
            given = relation()
            types = {name: str(kind) for name, kind in zip(given.columns, given.types, strict=True)}
            _check_names(given.columns, where)
            shown = given.project(", ".join(_shown(name, kind) for name, kind in types.items()))
            reader = shown.to_arrow_reader(_BATCH)
        nested = [name for name, kind in types.items() if kind == "JSON" or kind.startswith("MAP(")]
        marked = pa.schema([field.with_metadata(records.JSON_FIELD) if field.name in nested else field for field in reader.schema])
        huge = [name for name, kind in types.items() if kind in ("HUGEINT", "UHUGEINT")]
        try:
            for table in _gathered(reader, where):
                yield _normalised(_narrowed(table.cast(marked), huge), where)
        finally:
            # An open reader keeps the connection to itself, even when nobody reads on.
            reader.close()

    return rows


def _gathered(reader: pa.RecordBatchReader, where: str) -> Iterator[pa.Table]:
    """Batches worth their overhead: a join or filter may give them a few rows at a time."""
    batches: list[pa.RecordBatch] = []
    rows = size = 0
    while True:
        with sandbox.explained(where):
            batch = next(reader, None)
        if batch is not None:
            batches.append(batch)
            rows, size = rows + len(batch), size + batch.nbytes
        if rows and (batch is None or rows >= _BATCH or size >= _BATCH_BYTES):
            yield pa.Table.from_batches(batches)
            batches, rows, size = [], 0, 0
        if batch is None:
            return


def returned_rows(where: str, target: str, given: Any) -> Rows:
    """The rows of what a Python function returned: a pyarrow table, a pandas frame or a DuckDB relation."""
    kind = f"{type(given).__module__.partition('.')[0].lstrip('_')}.{type(given).__name__}"
    if kind == "duckdb.DuckDBPyRelation":
        return relation_rows(where, lambda: given)
    if kind == "pandas.DataFrame":
        try:
            given = pa.Table.from_pandas(given.rename(columns=str), preserve_index=False).replace_schema_metadata(None)
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            do = "give every column one type, with DataFrame.astype"
            raise MuxlyError(f"{target} gives a column of mixed types: {error.args[0]}", do=do, where=where) from error
    if not isinstance(given, pa.Table):
        raise ConfigurationError(
            f"{target} returns {kind if given is not None else 'nothing'}",
            do="return a pyarrow.Table, a pandas.DataFrame or a duckdb.DuckDBPyRelation",
            where=where,
        )
    _check_names(given.column_names, where)
    table = _normalised(given, where)
    return lambda: (table.slice(at, _BATCH) for at in range(0, len(table), _BATCH))


def _shown(name: str, kind: str) -> str:
    column = quote(name)
    if kind.startswith("MAP("):
        return f"to_json({column}) AS {column}"
    return f"CAST({column} AS VARCHAR) AS {column}" if kind in _AS_TEXT or kind.startswith(("UNION(", "GEOMETRY")) else column


def _narrowed(rows: pa.Table, huge: list[str]) -> pa.Table:
    """Sums of integers are 128 bits wide in DuckDB; where they fit, they are the plain integers their author expects."""
    for name in huge:
        try:
            column = pc.cast(rows[name], pa.int64())
        except pa.ArrowInvalid:
            continue
        rows = rows.set_column(rows.schema.get_field_index(name), name, column)
    return rows


def _check_names(names: list[str], where: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name.casefold() in seen:
            raise ConfigurationError(f"two columns are named {name}", do="give one of them another name with AS", where=where)
        if name.casefold().startswith("_muxly_"):
            raise ConfigurationError(f"the column {name} has a name of Muxly's own", do="give it a name without _muxly_", where=where)
        seen.add(name.casefold())


def _normalised(rows: pa.Table, where: str) -> pa.Table:
    try:
        return records.normalise(rows)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        raise MuxlyError(f"a column cannot be stored: {error}", do="cast it to a type the lake holds, such as text", where=where) from error
