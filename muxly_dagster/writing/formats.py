"""Formats that changes are written in, and how the bytes are compressed. The same rows always give the same bytes."""

import gzip
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from muxly_dagster import records
from muxly_dagster.destination import Delivery

Format = Literal["json", "ndjson", "csv", "parquet", "arrow"]
Compression = Literal["none", "gzip", "zstd", "snappy", "lz4", "brotli"]

_TEXT: tuple[Compression, ...] = ("none", "gzip", "zstd")
COMPRESSIONS: dict[Format, tuple[Compression, ...]] = {
    "json": _TEXT,
    "ndjson": _TEXT,
    "csv": _TEXT,
    "parquet": ("zstd", "none", "snappy", "gzip", "lz4", "brotli"),
    "arrow": ("none", "lz4", "zstd"),
}
"""What each format can be compressed with; the first is taken unless told otherwise."""

_SUFFIX = {"none": "", "gzip": ".gz", "zstd": ".zst"}
_CHUNK_ROWS = 5_000
_GROUP_ROWS = 250_000
_SAMPLE_ROWS = 1_000
_BLOCK = 1 << 20
_LEVEL = {"gzip": 6, "zstd": 3}

EXTENSION = r"(?:json|ndjson|csv)(?:\.gz|\.zst)?|parquet|arrow"
"""What the name of a file ends in, as a regular expression."""


@dataclass(frozen=True, slots=True)
class Form:
    """How rows are written. Columns are the data alone where `whole` is false, else the whole record."""

    format: Format
    compression: Compression
    whole: bool

    @property
    def is_text(self) -> bool:
        """Whether compression is wrapped around the format; Parquet and Arrow compress inside."""
        return self.format in ("json", "ndjson", "csv")

    @property
    def extension(self) -> str:
        """What the name of such a file ends in, without the dot: `ndjson.gz`."""
        return self.format + (_SUFFIX[self.compression] if self.is_text else "")

    def of(self, name: str) -> "Form":
        """How the file of this name was written; Parquet and Arrow do not say how they are compressed, so that is as here."""
        format_ = next(f for f in COMPRESSIONS if re.search(rf"\.{f}(\.\w+)?$", name))
        wrapped = next((c for c in ("gzip", "zstd") if name.endswith(_SUFFIX[c])), "none")
        return Form(format_, cast(Compression, wrapped) if Form(format_, "none", True).is_text else self.compression, self.whole)

    def write(self, rows: pa.Table, delivery: Delivery, out: BinaryIO) -> None:
        """Write rows of a delivery (data and `_muxly_` columns) as one file. `out` is left open. Errors are those of `out`."""
        columns = rows if self.whole else rows.select(records.data_schema(rows.schema).names)
        match self.format:
            case "parquet":
                from pyarrow import parquet

                # Looking for repetitions costs more than half the time where there are none, and makes those columns larger.
                repeating = [name for name in columns.column_names if _repeats(columns[name])]
                parquet.write_table(
                    columns, out, compression=self.compression, row_group_size=_GROUP_ROWS, use_dictionary=repeating or False
                )
            case "arrow":
                with arrow_writer(out, columns.schema, self.compression) as writer:
                    writer.write_table(columns, max_chunksize=_GROUP_ROWS)
            case "csv":
                with compressed(out, self.compression) as text:
                    pyarrow.csv.write_csv(_as_text(columns), text, pyarrow.csv.WriteOptions(quoting_style="needed"))
            case _:
                with compressed(out, self.compression) as text:
                    self._write_json(rows, delivery, text)

    def _write_json(self, rows: pa.Table, delivery: Delivery, out: BinaryIO) -> None:
        array = self.format == "json"
        before = b"[\n" if array else b""
        for start in range(0, len(rows), _CHUNK_ROWS):
            part = rows.slice(start, _CHUNK_ROWS)
            shown = records.to_records(part, connector_id=delivery.connector_id, table=delivery.table, table_id=delivery.table_id)
            out.write(before + (b",\n" if array else b"\n").join(records.to_json(r if self.whole else r["data"]) for r in shown))
            before = b",\n" if array else b"\n"
        out.write(b"\n]\n" if array else b"\n")


def arrow_writer(out: BinaryIO, schema: pa.Schema, compression: Compression) -> pa.ipc.RecordBatchFileWriter:
    """A writer of Arrow's IPC file format (which Feather files are, too)."""
    options = pa.ipc.IpcWriteOptions(compression=None if compression == "none" else compression)
    return pa.ipc.new_file(out, schema, options=options)


def compressed(out: BinaryIO, compression: Compression) -> "_Compressed":
    """A stream whose bytes are compressed on their way to `out`; leaving its block ends the compression, and leaves `out` open."""
    return _Compressed(out, compression)


class _Compressed:
    """One gzip member (RFC 1952, without a time in it) or one zstd frame (RFC 8878)."""

    mode = "wb"
    closed = False

    def __init__(self, out: BinaryIO, compression: Compression) -> None:
        self._out = out
        self._gzip = gzip.GzipFile("", "wb", _LEVEL["gzip"], out, mtime=0) if compression == "gzip" else None
        self._zstd: Any = None
        self._waiting = 0
        if compression == "zstd":
            import cramjam

            self._zstd = cramjam.zstd.Compressor(_LEVEL["zstd"])

    def __enter__(self) -> BinaryIO:
        return cast(BinaryIO, self)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            return
        if self._gzip:
            self._gzip.close()
        if self._zstd:
            self._out.write(bytes(self._zstd.finish()))

    def write(self, data: bytes) -> int:
        """Take some bytes."""
        if self._gzip:
            self._gzip.write(data)
        elif self._zstd:
            self._waiting += self._zstd.compress(bytes(data))
            if self._waiting >= _BLOCK:  # each time costs a little in size
                self._out.write(bytes(self._zstd.flush()))
                self._waiting = 0
        else:
            self._out.write(data)
        return len(data)

    def writelines(self, lines: Iterable[bytes]) -> None:
        """Take some lines, which end as they should."""
        for line in lines:
            self.write(line)

    def writable(self) -> bool:
        """It is."""
        return True

    def flush(self) -> None:
        """Nothing: the end comes with the block's."""

    def close(self) -> None:
        """Nothing: the end comes with the block's."""


def _repeats(column: pa.ChunkedArray) -> bool:
    """Whether texts come again and again, as far as the first rows show."""
    if not (pa.types.is_string(column.type) or pa.types.is_binary(column.type)):
        return False
    first = column.slice(0, _SAMPLE_ROWS)
    return len(first) == 0 or pc.count_distinct(first).as_py() <= max(1, len(first) // 10)


def _as_text(rows: pa.Table) -> pa.Table:
    """CSV knows no bytes: they are written in base64, as in JSON."""
    schema = pa.schema([f.with_type(pa.string()) if pa.types.is_binary(f.type) else f for f in rows.schema])
    return pa.table([records.cast(rows[f.name], f, was_json=records.is_json(f)) for f in schema], schema=schema)
