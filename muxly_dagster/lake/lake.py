"""The lake: its tables written, listed, laid open to SQL, kept compact."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from muxly_dagster import records
from muxly_dagster.connector import Contract
from muxly_dagster.errors import MuxlyError
from muxly_dagster.lake.table import unwritable
from muxly_dagster.lake.tables import Tables
from muxly_dagster.lake.writer import Writer

if TYPE_CHECKING:
    import duckdb


def _column(field: pa.Field) -> str:
    """A column in a view; JSON text as DuckDB's JSON, so that what reads it knows."""
    name = '"' + field.name.replace('"', '""') + '"'
    return f"cast({name} as json) as {name}" if records.is_json(field) else name


class Lake(Tables):
    """The tables, and what is done to them: written, laid open to SQL, kept compact."""

    def writer(
        self, name: str, *, key: Iterable[str], run_id: str, contract: Contract = "evolve", appends: bool = False, flush_rows: int = 50_000
    ) -> Writer:
        """A writer that appends what really changes; see Writer."""
        return Writer(self, name, key=tuple(key), run_id=run_id, contract=contract, appends=appends, flush_rows=flush_rows)

    def attach(self, connection: "duckdb.DuckDBPyConnection", names: Iterable[str]) -> None:
        """Make the current rows of these tables readable in DuckDB under their own names (`crm.contacts`, `customers`)."""
        for name in names:
            table = self.existing(name)
            schema, _, short = name.rpartition(".")
            target = f'"{schema}"."{short}"' if schema else f'"{short}"'
            if schema:
                connection.execute(f'create schema if not exists "{schema}"')
            log = f"_muxly_log_{name.replace('.', '__')}"
            connection.register(log, table.dataset())
            if not table.schema.names:
                raise MuxlyError(
                    f"{name} has had no record yet, so its columns are not known", do=f"run `muxly run {name}` when there are some"
                )
            columns = ", ".join(_column(field) for field in table.schema)
            connection.execute(
                f'create or replace view {target} as select {columns} from "{log}" where _muxly_seq in ('
                f"select max(_muxly_seq) from \"{log}\" group by _muxly_key having arg_max(_muxly_op, _muxly_seq) <> 'delete')"
            )

    def names(self) -> list[str]:
        """The tables of a lake that is a local folder, sorted."""
        root = Path(self.url)
        return sorted(".".join(log.parent.relative_to(root).parts) for log in root.glob("**/_delta_log")) if root.is_dir() else []

    def maintain(self, names: Iterable[str], *, keep_hours: int = 168) -> dict[str, Any]:
        """Merge small files and remove those that no version younger than `keep_hours` needs. Answers counts per table."""
        done: dict[str, Any] = {}
        for name in names:
            table = self.table(name)
            if table is None:
                continue
            try:
                done[name] = _maintain(table.delta, keep_hours)
            except (OSError, DeltaError) as error:
                raise unwritable(name, self.path(name), error) from error
        return done


def _maintain(delta: DeltaTable, keep_hours: int) -> dict[str, int]:
    merged = delta.optimize.compact()
    delta.create_checkpoint()
    removed = delta.vacuum(retention_hours=keep_hours, dry_run=False, enforce_retention_duration=False)
    delta.cleanup_metadata()
    return {"files_before": merged["numFilesRemoved"], "files_after": merged["numFilesAdded"], "files_vacuumed": len(removed)}
