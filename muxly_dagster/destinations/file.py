"""The `file` destination: each stretch of changes as a file in a folder, written aside and renamed, so that no half file is ever seen.

A file's name says which delivery and which changes it holds, so a repeat replaces its own earlier attempt instead of adding to it.
"""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO, ClassVar, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from pydantic import Field

from muxly_dagster import records
from muxly_dagster.destination import Delivery, Destination, Receipt
from muxly_dagster.errors import ConfigurationError, MuxlyError, RetryLater
from muxly_dagster.project_paths import InProject
from muxly_dagster.resource import CheckResult

_CHUNK_ROWS = 5_000
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP)


class File(Destination):
    """A folder of JSON, NDJSON, CSV or Parquet files, one per delivered stretch of changes."""

    type: ClassVar[str] = "file"
    title: ClassVar[str] = "Files"

    path: Annotated[str, InProject()] = Field(min_length=1, description="The folder; made if missing. Each table gets its own in it.")
    format: Literal["json", "ndjson", "csv", "parquet"] = Field("ndjson", description="How records are written.")
    records: Literal["record", "data"] = Field(
        "record",
        description="record: every change with its id, operation and metadata (as `_muxly_` columns in CSV and Parquet). "
        "data: the source's own fields only, without deletes.",
    )
    table: str = Field(
        "", description="The table's folder; what it comes from, with dots as underscores (`crm_deals`), unless told otherwise."
    )

    def deliver(self, delivery: Delivery) -> Receipt:
        """Write the stretch into one file. A file of an earlier attempt at any part of it is removed."""
        rows = delivery.rows
        if self.records == "data":
            rows = rows.filter(pc.not_equal(rows[records.OP], "delete"))
        folder = self._folder(delivery.table)
        series = f"{_safe(delivery.id)}-{_safe(delivery.table_id)}"
        file = folder / f"{series}-{delivery.after:012d}-{delivery.upto:012d}.{self.format}"
        aside = folder / f".{file.name}.part"
        with _explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                if len(rows):
                    with aside.open("wb") as out:
                        self._write(rows, delivery, out)
                        out.flush()
                        os.fsync(out.fileno())
                # The old goes before the new comes: a reader in between sees fewer changes, never one of them twice.
                _remove_attempts(folder, series, delivery.after, keep=aside)
                if len(rows):
                    aside.rename(file)
                _sync(folder)
            finally:
                aside.unlink(missing_ok=True)
        detail: dict[str, object] = {"file": str(file), "bytes": file.stat().st_size} if len(rows) else {}
        if len(rows) < len(delivery.rows):
            detail["deletes_left_out"] = len(delivery.rows) - len(rows)
        return Receipt(len(delivery.rows), detail=detail)

    def check(self) -> CheckResult:
        """See whether the folder can be written; nothing is created."""
        folder = Path(self.path).expanduser().absolute()
        nearest = next(p for p in (folder, *folder.parents) if p.exists())
        tried = f"look at {folder}"
        if not nearest.is_dir():
            return CheckResult("failed", tried, f"{nearest} is not a folder", "set `path` to a folder")
        if not os.access(nearest, os.W_OK | os.X_OK):
            return CheckResult("failed", tried, f"{nearest} cannot be written", "change its permissions, or set another `path`")
        return CheckResult("ok", tried, "the folder can be written" if nearest == folder else "the folder will be created")

    def public_name(self, table: str) -> str:
        """The table's folder and what its files are called."""
        return str(self._folder(table) / f"*.{self.format}")

    def _folder(self, table: str) -> Path:
        return Path(self.path).expanduser() / _safe(self.table or table.replace(".", "_"))

    def _write(self, rows: pa.Table, delivery: Delivery, out: BinaryIO) -> None:
        if self.format in ("json", "ndjson"):
            self._write_json(rows, delivery, out)
            return
        columns = rows if self.records == "record" else rows.select(records.data_schema(rows.schema).names)
        if self.format == "csv":
            pyarrow.csv.write_csv(_as_text(columns), out, pyarrow.csv.WriteOptions(quoting_style="needed"))
        else:
            from pyarrow import parquet

            parquet.write_table(columns, out, compression="zstd")

    def _write_json(self, rows: pa.Table, delivery: Delivery, out: BinaryIO) -> None:
        array = self.format == "json"
        before = b"[\n" if array else b""
        for start in range(0, len(rows), _CHUNK_ROWS):
            part = rows.slice(start, _CHUNK_ROWS)
            shown = records.to_records(part, connector_id=delivery.connector_id, table=delivery.table, table_id=delivery.table_id)
            out.write(
                before + (b",\n" if array else b"\n").join(records.to_json(r["data"] if self.records == "data" else r) for r in shown)
            )
            before = b",\n" if array else b"\n"
        out.write(b"\n]\n" if array else b"\n")


def _as_text(rows: pa.Table) -> pa.Table:
    """CSV knows no bytes: they are written in base64, as in JSON."""
    schema = pa.schema([f.with_type(pa.string()) if pa.types.is_binary(f.type) else f for f in rows.schema])
    return pa.table([records.cast(rows[f.name], f, was_json=records.is_json(f)) for f in schema], schema=schema)


def _remove_attempts(folder: Path, series: str, after: int, *, keep: Path) -> None:
    """Remove what earlier attempts left: files that reach beyond `after` were never confirmed, or are to be delivered again."""
    name = re.compile(rf"\.?{re.escape(series)}-\d{{12,}}-(\d{{12,}})\.(json|ndjson|csv|parquet)(\.part)?")
    for entry in list(folder.iterdir()):
        found = name.fullmatch(entry.name)
        if found and entry != keep and (int(found[1]) > after or found[3]):
            entry.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    """Make the new name survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _safe(name: str) -> str:
    """A name that is one path segment on every system."""
    return re.sub(r"[^A-Za-z0-9_.-]|^\.", "-", name)


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _as_muxly_error(error, str(folder)) from error


def _as_muxly_error(error: OSError, where: str) -> MuxlyError:
    reason = error.strerror or str(error)
    if error.errno in _FULL:
        return RetryLater(f"the disk is full: {reason}", do="free some space; the next run goes on from here", where=where)
    if error.errno in _FORBIDDEN:
        return ConfigurationError(
            f"the folder cannot be written: {reason}", do="change its permissions, or set another `path`", where=where
        )
    return RetryLater(f"the file could not be written: {reason}", do="check the disk; the next run goes on from here", where=where)
