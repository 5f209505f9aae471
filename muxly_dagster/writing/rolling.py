"""How large a file may become: a stretch of changes that is larger is cut, always at the same places."""

from collections.abc import Iterator

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from muxly_dagster import records
from muxly_dagster.destination import Delivery
from muxly_dagster.measures import Size, parse_size
from muxly_dagster.writing.formats import Form

_SAMPLE_ROWS = 500


class Limits(BaseModel):
    """The most that one file holds. Sizes are about right, since a file is cut before it is written."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: int | None = Field(None, ge=1, description="Most rows in a file.")
    bytes: Size = Field("", description="About the most bytes in a file, before compression, such as `128MB`.")

    @property
    def most_bytes(self) -> int | None:
        """Bytes of one file; None without a limit."""
        return parse_size(self.bytes) if self.bytes else None


def cut(rows: pa.Table, limits: Limits, form: Form, delivery: Delivery) -> Iterator[tuple[int, int, pa.Table]]:
    """The rows file by file, with the stretch (`after`, `upto`] that each one stands for. Together they are the whole delivery's."""
    size = _rows_in_a_file(rows, limits, form, delivery)
    after = delivery.after
    for start in range(0, len(rows), size):
        part = rows.slice(start, size)
        upto = delivery.upto if start + size >= len(rows) else part[records.SEQ][-1].as_py()
        yield after, upto, part
        after = upto


def _rows_in_a_file(rows: pa.Table, limits: Limits, form: Form, delivery: Delivery) -> int:
    most = max(1, len(rows))
    if limits.rows:
        most = min(most, limits.rows)
    if limits.most_bytes and len(rows):
        most = min(most, max(1, int(limits.most_bytes / _bytes_of_a_row(rows, form, delivery))))
    return most


def _bytes_of_a_row(rows: pa.Table, form: Form, delivery: Delivery) -> float:
    """What a row takes before compression: as text by trying some of them, in Parquet and Arrow about what it takes in memory."""
    if not form.is_text:
        columns = rows if form.whole else rows.select(records.data_schema(rows.schema).names)
        return max(1.0, columns.nbytes / len(rows)) if columns.num_columns else 1.0
    step = max(1, len(rows) // _SAMPLE_ROWS)
    sample = rows.take(pa.array(range(0, len(rows), step), pa.int64())) if step > 1 else rows
    out = pa.BufferOutputStream()
    Form(form.format, "none", form.whole).write(sample, delivery, out)
    return max(1.0, float(out.getvalue().size) / len(sample))
