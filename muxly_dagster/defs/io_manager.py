"""Dagster IO managers for people's own assets: read and written as pandas, pyarrow or DuckDB, kept in the lake, delivered further."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import dagster as dg
import pyarrow as pa

from muxly_dagster import records
from muxly_dagster.assembly.tags import PAST_GUARD, is_set
from muxly_dagster.defs.failures import dagster_errors
from muxly_dagster.defs.metadata import TABLE_NAME, lake_metadata
from muxly_dagster.delivery import Leave
from muxly_dagster.errors import ConfigurationError
from muxly_dagster.lake import Lake, LakeTable
from muxly_dagster.runtime import Runtime

KEY = "muxly/key"
"""Metadata of an asset: the columns that identify a row of what it returns. Without them, a row's whole content does."""

COLUMNS = "muxly/columns"
"""Metadata of an AssetIn: the only columns to read."""

_READABLE = "pandas.DataFrame, pyarrow.Table, pyarrow.RecordBatchReader or duckdb.DuckDBPyRelation"


class LakeIOManager(dg.IOManager):
    """Reads an asset's current rows in the type its parameter is annotated with (pyarrow.Table where there is none).

    Stores what an asset returns as a table of the lake named after its key, appending only what changed since last time:
    what is returned is the whole table, so rows that are no longer there are deleted.
    """

    def __init__(self, lake: Callable[[], Lake]) -> None:
        self._lake = lake

    def load_input(self, context: dg.InputContext) -> Any:
        """The current rows of the upstream asset's table."""
        with dagster_errors():
            if context.has_asset_partitions:
                raise _no_partitions(context.asset_key)
            table = self._lake().existing(_table_name(context.asset_key))
            columns = context.definition_metadata.get(COLUMNS)
            return _as_type(context.dagster_type.typing_type, table, context.name, columns)

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Store the rows and tell Dagster about the table."""
        with dagster_errors():
            if context.has_asset_partitions:
                raise _no_partitions(context.asset_key)
            name = _table_name(context.asset_key)
            key = _key_columns(context.definition_metadata.get(KEY, ()), name)
            lake = self._lake()
            with lake.writer(name, key=key, run_id=context.run_id) as writer:
                writer.add(records.normalise(_as_table(obj, name)))
                written = writer.finish(whole=True)
            context.add_output_metadata({TABLE_NAME: name, "read": written.read, "changed": written.changed})
            table = lake.table(name)
            if table is not None:
                context.add_output_metadata(lake_metadata(table))


class DestinationIOManager(LakeIOManager):
    """Stores an asset as LakeIOManager does, and delivers what changed to a bulk destination: a table, files, objects.

    So the asset has an offset, receipts and dead letters like any delivery (`ASSET.DESTINATION`), what is gone from it is deleted there
    where the destination does that, and a run that was killed repeats nothing. It is read back from the lake.
    """

    def __init__(self, project: Callable[[], Runtime], destination: str) -> None:
        super().__init__(lambda: project().lake)
        self._project, self._destination = project, destination

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Store the rows, deliver what changed, and tell Dagster about both."""
        super().handle_output(context, obj)
        with dagster_errors():
            name = _table_name(context.asset_key)
            key = _key_columns(context.definition_metadata.get(KEY, ()), name)
            leave = Leave(past_guard=is_set(context.step_context.dagster_run.tags, PAST_GUARD))
            outcome = self._project().deliver_table(name, key, self._destination, run_id=context.run_id, leave=leave)
            context.add_output_metadata({"accepted": outcome.accepted, "rows_refused": outcome.refused, "delivered_to": self._destination})


def _table_name(key: dg.AssetKey) -> str:
    return ".".join(key.path)


def _no_partitions(key: dg.AssetKey) -> ConfigurationError:
    return ConfigurationError(
        f"the asset {key.to_user_string()} has partitions, but a lake table is stored and read as a whole",
        do="remove its partitions, or give it another IO manager",
    )


def _key_columns(value: Any, name: str) -> tuple[str, ...]:
    columns = [value] if isinstance(value, str) else value
    if isinstance(columns, Sequence) and all(isinstance(column, str) for column in columns):
        return tuple(columns)
    raise ConfigurationError(
        f"the metadata {KEY} of the asset {name} is not a list of column names", do=f'write it like {{"{KEY}": ["id"]}}'
    )


def _as_type(wanted: Any, table: LakeTable, parameter: str, columns: Sequence[str] | None) -> Any:
    names = list(columns) if columns is not None else None
    missing = [name for name in names or () if name not in table.schema.names]
    if missing:
        raise ConfigurationError(
            f"the table {table.name} has no column {', '.join(missing)}",
            do=f"correct the metadata {COLUMNS} of the input {parameter}; there are: {', '.join(table.schema.names)}",
        )
    if wanted in (pa.Table, Any, object):
        return table.current(names)
    if wanted is pa.RecordBatchReader:
        return table.current_reader(names)
    if wanted is _loaded("pandas", "DataFrame"):
        return _as_pandas(table.current(names))
    if wanted is _loaded("duckdb", "DuckDBPyRelation"):
        return _as_relation(table.current(names))
    raise ConfigurationError(
        f"the input {parameter} is annotated as {getattr(wanted, '__name__', wanted)}, which the lake cannot be read as",
        do=f"annotate it as {_READABLE}",
    )


def _loaded(module: str, name: str) -> Any:
    """A class of a module that is imported already; whoever uses the class has imported it, nobody else pays for it."""
    return getattr(sys.modules.get(module), name, _loaded)


def _as_pandas(rows: pa.Table) -> Any:
    """Whole numbers and booleans in pandas' nullable types: as floats, large numbers beside a null would lose digits."""
    import pandas as pd

    return rows.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}.get)


def _as_relation(rows: pa.Table) -> Any:
    """A relation on a connection of its own, which lives as long as the relation does."""
    import duckdb

    return duckdb.connect().from_arrow(rows)


def _as_table(obj: Any, name: str) -> pa.Table:
    """What an asset returned, in Arrow."""
    if isinstance(obj, pa.Table):
        return obj
    if isinstance(obj, sys.modules["pandas"].DataFrame if "pandas" in sys.modules else ()):
        return pa.Table.from_pandas(obj, preserve_index=False)
    if hasattr(obj, "__arrow_c_stream__"):
        return pa.table(obj)
    if isinstance(obj, list) and all(isinstance(row, dict) for row in obj):
        return pa.Table.from_pylist(obj)
    raise ConfigurationError(
        f"the asset {name} returned {type(obj).__name__}, which cannot be stored in the lake",
        do=f"return {_READABLE}, or a list of dicts",
    )
