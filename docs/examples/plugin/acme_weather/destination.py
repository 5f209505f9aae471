"""Keeps a bulletin for every record: a small text file that is always up to date."""

import re
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from muxly_dagster import records
from muxly_dagster.destination import Delivery, Destination, Receipt
from muxly_dagster.project_paths import InProject
from muxly_dagster.resource import CheckResult


class Bulletin(Destination):
    """A folder with one text file for every record; a deleted record's file goes."""

    type: ClassVar[str] = "bulletin"
    title: ClassVar[str] = "Bulletins"

    path: Annotated[str, InProject()] = Field(description="The folder.")

    def deliver(self, delivery: Delivery) -> Receipt:
        """Write them. A repetition writes the same files again, so nothing is there twice."""
        folder = Path(self.path)
        folder.mkdir(parents=True, exist_ok=True)
        for record in records.to_records(
            delivery.rows, connector_id=delivery.connector_id, table=delivery.table, table_id=delivery.table_id
        ):
            name = re.sub(r"[^A-Za-z0-9_-]", "_", "-".join(str(record["data"][column]) for column in delivery.key))
            file = folder / f"{name}.txt"
            if record["op"] == "delete":
                file.unlink(missing_ok=True)
            else:
                file.write_text("".join(f"{column}: {value}\n" for column, value in record["data"].items()), "utf-8")
        return Receipt(len(delivery.rows))

    def check(self) -> CheckResult:
        """Look whether the path is taken by something else."""
        if Path(self.path).exists() and not Path(self.path).is_dir():
            return CheckResult("failed", f"look at {self.path}", "it is no folder", "set `path` to a folder")
        return CheckResult("ok", f"look at {self.path}")
