"""The `file` destination: each stretch of changes as files in a folder, written aside and renamed, so that no half file is ever seen.

A file's name says which delivery and which changes it holds, so a repeat replaces its own earlier attempt instead of adding to it.
"""

import os
import time
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from muxly_dagster.destination import Delivery, Receipt
from muxly_dagster.destinations.file.folder import Folder, explained, write_aside
from muxly_dagster.destinations.file.merging import merge, take_apart
from muxly_dagster.measures import Duration, parse_duration
from muxly_dagster.project_paths import InProject
from muxly_dagster.resource import CheckResult
from muxly_dagster.writing.names import Series
from muxly_dagster.writing.partition import levels
from muxly_dagster.writing.record_files import RecordFiles
from muxly_dagster.writing.rolling import Limits


class Roll(Limits):
    """When a new file begins. Without `age`, what is written stays as it is; with it, small files become larger ones."""

    age: Duration = Field(
        "", description="Small deliveries of the same `1h`, `1d` ... (UTC) are merged into larger files, up to `rows` and `bytes`."
    )


class File(RecordFiles):
    """A folder of JSON, NDJSON, CSV, Parquet or Arrow files, written as changes are delivered."""

    type: ClassVar[str] = "file"
    title: ClassVar[str] = "Files"

    path: Annotated[str, InProject()] = Field(min_length=1, description="The folder; made if missing. Each table gets its own in it.")
    roll: Roll = Field(
        Roll(), description="When a new file begins, and whether small ones are merged.", examples=[{"rows": 1_000_000, "age": "1d"}]
    )
    keep: Duration = Field("", description="Delete files of this delivery that are older than this, such as `90d`; empty: never.")

    def deliver(self, delivery: Delivery) -> Receipt:
        """Write the stretch. Files of an earlier attempt at any part of it are removed.

        Before that, small files of confirmed changes are merged where `roll` says so; after it, files older than `keep` are deleted.
        """
        place = self._place(delivery.table)
        pieces, detail = self.pieces(delivery)
        with explained(place):
            folder = Folder.opened(place, Series(delivery.id, delivery.table_id))
            take_apart(folder, delivery.after, self.form)
            if self.roll.age:
                merged = merge(folder, delivery.after, self.roll, parse_duration(self.roll.age), self.form)
                detail |= {"files_merged": merged} if merged else {}
            with write_aside() as aside:
                for piece in pieces:
                    with aside.open(place / piece.path(folder.series, self.form.extension)) as out:
                        self.form.write(piece.rows, delivery, out)
                # The old goes before the new comes: a reader in between sees fewer changes, never one of them twice.
                folder.remove_beyond(delivery.after)
                written = aside.show()
            if self.keep:
                deleted = folder.delete_older(time.time() - parse_duration(self.keep).total_seconds())
                detail |= {"files_deleted": deleted} if deleted else {}
        if written:
            detail |= {"file": str(written[0][0]), "bytes": sum(size for _, size in written)}
        if len(written) > 1:
            detail["files"] = len(written)
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
        below = [f"{level.name}=*" if level.name else "*" for level in levels(self.partition)]
        return str(self._place(table).joinpath(*below, f"*.{self.form.extension}"))

    def _place(self, table: str) -> Path:
        return Path(self.path).expanduser() / self.table_folder(table)
