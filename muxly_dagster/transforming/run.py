"""Runs a transform, or shows what it would give."""

import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from muxly_dagster import records, sandbox
from muxly_dagster.assembly import Transform
from muxly_dagster.errors import MuxlyError
from muxly_dagster.lake import Lake
from muxly_dagster.outcome import Outcome, Progress
from muxly_dagster.relations import Rows, relation_rows, steps_query
from muxly_dagster.sandbox import quote
from muxly_dagster.transforming.function import function_rows

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa


NO_PARAMETERS: Mapping[str, Any] = {}


def transform(
    lake: Lake,
    transform: Transform,
    *,
    run_id: str,
    progress: Progress | None = None,
    project_folder: Path | None = None,
    parameters: Mapping[str, Any] = NO_PARAMETERS,
) -> Outcome:
    """Compute the transform's rows and store what changed; rows that are no longer there are deleted.

    `project_folder` is where Python functions are imported from, `parameters` what one that asks for them is given. Raises
    ConfigurationError for SQL or a function that can never work, MuxlyError for input that is not there yet, data that does not fit, and
    a key that is given twice.
    """
    started = time.monotonic()
    with (
        _output(lake, transform, project_folder, parameters) as rows,
        lake.writer(transform.name, key=transform.key, run_id=run_id, contract=transform.spec.contract) as writer,
    ):
        seen: list[Any] = []
        for batch in rows():
            seen.append(_key_hashes(batch, transform.key))
            writer.add(batch)
            if writer.full:
                writer.commit()
            if progress:
                progress(transform.name, writer.written.read)
        _refuse_duplicates(transform, rows, seen)
        written = writer.finish(whole=True)
    return Outcome(
        asset=transform.name,
        read=written.read,
        changed=written.changed,
        seconds=time.monotonic() - started,
        metadata={"upserts": written.upserts, "deletes": written.deletes, "schema_changes": written.schema_changes},
    )


def preview(lake: Lake, transform: Transform, limit: int, *, project_folder: Path | None = None) -> list[dict[str, Any]]:
    """The first rows the transform would give, as dictionaries. Stores nothing; raises what `transform` raises."""
    shown: list[dict[str, Any]] = []
    with _output(lake, transform, project_folder, NO_PARAMETERS) as rows:
        for batch in rows():
            nested = [field.name for field in batch.schema if records.is_json(field)]
            for row in batch.slice(0, limit - len(shown)).to_pylist():
                shown.append(row | {name: orjson.loads(row[name]) for name in nested if row[name] is not None})
            if len(shown) >= limit:
                break
    return shown


@contextmanager
def _output(lake: Lake, transform: Transform, project_folder: Path | None, parameters: Mapping[str, Any]) -> Iterator[Rows]:
    with tempfile.TemporaryDirectory(prefix="muxly-") as spill, ExitStack() as stack:
        connection = stack.enter_context(sandbox.connect(spill=Path(spill)))
        spec = transform.spec
        if spec.python is not None:
            yield stack.enter_context(function_rows(lake, connection, transform, spec.python, project_folder, parameters))
            return
        lake.attach(connection, transform.inputs)
        if spec.sql is not None:
            yield relation_rows(f"transform {transform.name}", lambda: connection.sql(sandbox.read_query(spec.sql or "").text))
        else:
            query = _steps_query(lake, connection, transform)
            yield relation_rows(f"transform {transform.name}", lambda: connection.sql(query))


def _steps_query(lake: Lake, connection: "duckdb.DuckDBPyConnection", transform: Transform) -> str:
    source = transform.inputs[0]
    table = ".".join(map(quote, source.split(".")))
    return steps_query(connection, table, lake.existing(source).schema, transform.steps, f"transforms.{transform.name}")


def _key_hashes(rows: "pa.Table", key: tuple[str, ...]) -> Any:
    """Of the rows that have a key; those without one are the writer's to refuse."""
    if not key or any(name not in rows.column_names for name in key):
        return np.zeros(0, np.int64)
    return records.hash_texts(records.key_texts(rows, key).drop_null())


def _refuse_duplicates(transform: Transform, rows: Rows, seen: list[Any]) -> None:
    """Two rows of one key would take turns in the lake, run after run, each a change to deliver."""
    hashes = np.sort(np.concatenate(seen)) if seen else np.zeros(0, np.int64)
    twice = hashes[1:][hashes[1:] == hashes[:-1]]
    if not len(twice):
        return
    for batch in rows():
        keys = records.key_texts(batch, transform.key).drop_null()
        at = np.flatnonzero(records.hash_texts(keys) == twice[0])
        if len(at):
            raise MuxlyError(
                f"the key ({', '.join(transform.key)}) {keys[int(at[0])].as_py()} is given by more than one row",
                do="group by the key, add the step `dedupe`, or declare more columns as the key",
                where=f"transform {transform.name}",
            )
