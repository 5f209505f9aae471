"""Several files of one form as one: read in blocks, so that no file is held in memory as a whole."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from muxly_dagster.writing.formats import Form, arrow_writer, compressed

_BLOCK = 1 << 20
_BATCH_ROWS = 100_000
_OPENING, _CLOSING = b"[\n", b"\n]\n"  # of a JSON list, as `formats` writes it


def columns(path: Path, form: Form) -> bytes:
    """What must be the same in files that become one: the schema, or a CSV file's first line; nothing in JSON."""
    match form.format:
        case "parquet":
            from pyarrow import parquet

            return bytes(parquet.read_schema(path).serialize())
        case "arrow":
            with pa.ipc.open_file(path) as reader:
                return bytes(reader.schema.serialize())
        case "csv":
            return _csv_head(path, form)
        case _:
            return b""


def count(path: Path, form: Form) -> int:
    """How many rows a file has."""
    match form.format:
        case "parquet":
            from pyarrow import parquet

            return int(parquet.read_metadata(path).num_rows)
        case "arrow":
            with pa.ipc.open_file(path) as reader:
                return sum(reader.get_batch(n).num_rows for n in range(reader.num_record_batches))
        case "csv":
            return sum(1 for _ in _csv_records(path, form)) - 1  # the first one names the columns
        case _:
            # One record stands on one line; a list has a line before the first and one after the last.
            lines = sum(block.count(b"\n") for block in _blocks(path, form))
            return lines - 2 if form.format == "json" else lines


def join(paths: Sequence[Path], form: Form, out: BinaryIO) -> None:
    """Write the rows of the files, which have the same `columns`, in their order. `out` is left open."""
    if form.is_text:
        with compressed(out, form.compression) as text:
            _join_text(paths, form, text)
    else:
        schema, first = _batches(paths[0], form)
        _write(itertools.chain(first, *(_batches(path, form)[1] for path in paths[1:])), schema, form, out)


def head(path: Path, rows: int, form: Form, out: BinaryIO) -> None:
    """Write the first rows of a file, at least one. `out` is left open."""
    if form.format in ("json", "ndjson"):
        with compressed(out, form.compression) as text:
            _head_of_lines(path, rows, form, text)
    elif form.format == "csv":
        with compressed(out, form.compression) as text:
            text.writelines(itertools.islice(_csv_records(path, form), rows + 1))
    else:
        schema, batches = _batches(path, form)
        _write(_first(batches, rows), schema, form, out)


# ---- Parquet and Arrow ----------------------------------------------------------------------------------------------


def _batches(path: Path, form: Form) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    if form.format == "parquet":
        from pyarrow import parquet

        return parquet.read_schema(path), parquet.ParquetFile(path).iter_batches(_BATCH_ROWS)
    with pa.ipc.open_file(path) as reader:
        return reader.schema, _arrow_batches(path)


def _arrow_batches(path: Path) -> Iterator[pa.RecordBatch]:
    with pa.ipc.open_file(path) as reader:
        for number in range(reader.num_record_batches):
            yield reader.get_batch(number)


def _write(batches: Iterable[pa.RecordBatch], schema: pa.Schema, form: Form, out: BinaryIO) -> None:
    if form.format == "parquet":
        from pyarrow import parquet

        with parquet.ParquetWriter(out, schema, compression=form.compression) as writer:
            for table in _gathered(batches):
                writer.write_table(table)
    else:
        with arrow_writer(out, schema, form.compression) as arrow:
            for table in _gathered(batches):
                arrow.write_table(table.combine_chunks())


def _gathered(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Batches put together, since many small ones make a file large and slow to read."""
    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        if sum(each.num_rows for each in held) >= _BATCH_ROWS:
            yield pa.Table.from_batches(held)
            held = []
    if held:
        yield pa.Table.from_batches(held)


def _first(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        yield batch.slice(0, rows)
        rows -= batch.num_rows
        if rows <= 0:
            return


# ---- text -----------------------------------------------------------------------------------------------------------


def _head_of_lines(path: Path, rows: int, form: Form, out: BinaryIO) -> None:
    lines = itertools.islice(_lines(path, form), rows + (1 if form.format == "json" else 0))
    last = next(lines)
    for line in lines:
        out.write(last)
        last = line
    out.write(last.removesuffix(b"\n").removesuffix(b",") + _CLOSING if form.format == "json" else last)


def _csv_records(path: Path, form: Form) -> Iterator[bytes]:
    """A file's records as they stand in it: a record goes on in the next line where a quotation mark is still open."""
    held = b""
    for line in _lines(path, form):
        held += line
        if held.count(b'"') % 2 == 0:
            yield held
            held = b""
    if held:
        yield held


def _lines(path: Path, form: Form) -> Iterator[bytes]:
    rest = b""
    for block in _blocks(path, form):
        *whole, rest = (rest + block).split(b"\n")
        for line in whole:
            yield line + b"\n"
    if rest:
        yield rest


def _join_text(paths: Sequence[Path], form: Form, out: BinaryIO) -> None:
    if form.format == "json":
        out.write(_OPENING)
    for number, path in enumerate(paths):
        blocks = _blocks(path, form)
        if form.format == "csv" and number:
            blocks = _without(blocks, len(_csv_head(path, form)), 0)
        if form.format == "json":
            out.write(b",\n" if number else b"")
            blocks = _without(blocks, len(_OPENING), len(_CLOSING))
        for block in blocks:
            out.write(block)
    if form.format == "json":
        out.write(_CLOSING)


def _without(blocks: Iterator[bytes], first: int, last: int) -> Iterator[bytes]:
    """The blocks' bytes but for so many at the beginning and at the end."""
    held = b""
    for block in blocks:
        held += block
        if first:
            first, held = first - len(held[:first]), held[first:]
        if len(held) > last:
            yield held[: len(held) - last]
            held = held[len(held) - last :]


def _csv_head(path: Path, form: Form) -> bytes:
    """The names of the columns, with the line break: a name may hold one itself, in quotes."""
    return next(_csv_records(path, form), b"")


def _blocks(path: Path, form: Form) -> Iterator[bytes]:
    with _text(path, form) as text:
        while block := text.read(_BLOCK):
            yield block


def _text(path: Path, form: Form) -> pa.NativeFile:
    return pa.input_stream(str(path), compression=None if form.compression == "none" else form.compression)
