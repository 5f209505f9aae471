"""What destinations that write files have in common: the fields that say how, and the files that a delivery comes to."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from muxly_dagster import records
from muxly_dagster.destination import Delivery, Destination, Guarantee
from muxly_dagster.writing.formats import COMPRESSIONS, Compression, Form, Format
from muxly_dagster.writing.names import Series, safe
from muxly_dagster.writing.partition import Partition, levels, split
from muxly_dagster.writing.rolling import Limits, cut


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows that go into one file: the folder by value ("" without one), the stretch its name tells, and the rows."""

    folder: str
    after: int
    upto: int
    rows: pa.Table

    def path(self, series: Series, extension: str) -> str:
        """Where it lies below the table's folder."""
        name = f"{series.name(self.after, self.upto)}.{extension}"
        return f"{self.folder}/{name}" if self.folder else name


class RecordFiles(Destination):
    """A destination of files, each with a stretch of one table's changes."""

    guarantee: ClassVar[Guarantee] = "exactly once"
    batch_rows: ClassVar[int] = 200_000
    bulk: ClassVar[bool] = True

    format: Format = Field("ndjson", description="How records are written.")
    compression: Compression | None = Field(
        None,
        description="How files are compressed; zstd for Parquet, none for others unless told otherwise. "
        "JSON, NDJSON and CSV take gzip and zstd, Arrow takes lz4 and zstd, Parquet takes any.",
    )
    records: Literal["record", "data"] = Field(
        "record",
        description="record: every change with its id, operation and metadata (as `_muxly_` columns in CSV, Parquet and Arrow). "
        "data: the source's own fields only, without deletes.",
    )
    partition: Partition = Field(
        [],
        description="Folders below the table's, from the outer to the inner: SQL expressions over a record's columns. "
        "As a map, folders are called `name=value`.",
        examples=[{"date": "strftime(created_at, '%Y-%m-%d')"}],
    )
    roll: Limits = Field(Limits(), description="How large a file may become before a new one begins.", examples=[{"rows": 1_000_000}])
    table: str = Field(
        "", description="The table's folder; what it comes from, with dots as underscores (`crm_deals`), unless told otherwise."
    )

    @model_validator(mode="after")
    def _fitting(self) -> "RecordFiles":
        takes = COMPRESSIONS[self.format]
        if self.compression is not None and self.compression not in takes:
            raise ValueError(f"{self.format} is not written with `compression: {self.compression}`; it takes {', '.join(takes)}")
        return self

    @property
    def form(self) -> Form:
        """How rows are written."""
        return Form(self.format, self.compression or COMPRESSIONS[self.format][0], self.records == "record")

    def table_folder(self, table: str) -> str:
        """The folder of a lake table, as one segment of a path."""
        return safe(self.table or table.replace(".", "_"))

    def pieces(self, delivery: Delivery) -> tuple[list[Piece], dict[str, object]]:
        """The files that a delivery comes to, the same in every repetition, and what the receipt should tell of them.

        Raises ConfigurationError for a `partition` that cannot be computed.
        """
        rows, detail = delivery.rows, dict[str, object]()
        if self.records == "data":
            rows = rows.filter(pc.not_equal(rows[records.OP], "delete"))
            if len(rows) < len(delivery.rows):
                detail["deletes_left_out"] = len(delivery.rows) - len(rows)
        pieces, failed = [], 0
        for folder, part, unanswered in split(rows, levels(self.partition)):
            failed += unanswered
            pieces += [Piece(folder, *piece) for piece in cut(part, self.roll, self.form, delivery)]
        if failed:
            detail["partition_without_an_answer"] = failed
        return pieces, detail
