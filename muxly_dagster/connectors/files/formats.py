"""How a file of each format becomes Arrow tables of the lake's types, some rows at a time."""

import codecs
import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import orjson
import pyarrow as pa
import pyarrow.csv as pacsv
from pydantic import BaseModel, ConfigDict, Field, field_validator

from muxly_dagster import records
from muxly_dagster.connector import Unreadable
from muxly_dagster.decoding import PageDecoder, declared_field
from muxly_dagster.decoding.values import declare
from muxly_dagster.errors import SourceError

Format = Literal["json", "ndjson", "csv", "parquet"]

FORMATS: dict[str, Format] = {
    "json": "json",
    "ndjson": "ndjson",
    "jsonl": "ndjson",
    "csv": "csv",
    "tsv": "csv",
    "parquet": "parquet",
    "pq": "parquet",
}
"""A file's format by its ending."""

_BLOCK = 4 << 20
_CSV_BLOCK = 16 << 20  # no row can be longer than this
_BATCH_ROWS = 20_000
_UNREADABLE_TEXT = 64 << 10
_UTF8_BOM = b"\xef\xbb\xbf"


class CsvOptions(BaseModel):
    """How CSV files are written (RFC 4180 unless told otherwise)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    delimiter: str = Field("", max_length=1, description="Between values: a comma, in .tsv files a tab, unless told otherwise.")
    quote: str = Field('"', min_length=1, max_length=1, description="Around values that hold a delimiter or a line break.")
    header: bool = Field(True, description="Whether the first line names the columns.")
    names: list[str] = Field([], description="Names of the columns, instead of those in the header.")
    encoding: str = Field("utf-8", description="How text is encoded, such as `latin-1`.")
    null_values: list[str] = Field([""], description="Unquoted values that mean: there is none.")

    @field_validator("encoding")
    @classmethod
    def _is_known(cls, encoding: str) -> str:
        try:
            return codecs.lookup(encoding).name
        except LookupError:
            raise ValueError("is no encoding; write one such as utf-8, latin-1 or utf-16") from None


@dataclass(frozen=True, slots=True)
class Read:
    """Some rows of a file, in the lake's types, and what could not be read on the way."""

    rows: pa.Table
    unreadable: tuple[Unreadable, ...] = ()


class Reading:
    """Reads the files of one pull; what it learns of their columns' types carries over from file to file."""

    def __init__(self, types: Mapping[str, str], records_path: str, options: CsvOptions, known: pa.Schema | None) -> None:
        self._types, self._options, self._known = types, options, known
        self._json = PageDecoder(records_path, types=dict(types), known=known)
        self._ndjson = PageDecoder(types=dict(types), known=known)
        self._grown: dict[str, pa.Field] = {}

    def read(self, file: Path, format_: Format) -> Iterator[Read]:
        """The file's rows. Raises SourceError, OSError and pa.ArrowException where it is not what it should be."""
        if format_ == "json":
            return self._read_json(file)
        if format_ == "ndjson":
            return self._read_ndjson(file)
        return self._read_csv(file) if format_ == "csv" else _read_parquet(file)

    # ---- JSON and NDJSON ----

    def _read_json(self, file: Path) -> Iterator[Read]:
        with _open(file) as stream:
            page = stream.read().removeprefix(_UTF8_BOM)
        try:
            self._json.decode(page)
        except SourceError as error:
            raise SourceError(error.what.replace("The answer", "The file"), do="mend the file, or move it away", where=str(file)) from None
        yield from _flushed(self._json)

    def _read_ndjson(self, file: Path) -> Iterator[Read]:
        with _open(file) as stream:
            rest = stream.read(_BLOCK).removeprefix(_UTF8_BOM)
            while rest:
                block = stream.read(_BLOCK)
                end = block.rfind(b"\n") + 1 if block else 0
                if block and not end:
                    rest += block
                    continue
                bad = self._take_lines(rest + block[:end])
                yield from _with(bad, _flushed(self._ndjson))
                rest = block[end:] or stream.read(_BLOCK)

    def _take_lines(self, block: bytes) -> tuple[Unreadable, ...]:
        lines = [line for line in map(bytes.strip, block.split(b"\n")) if line]
        page = b"[" + b",".join(lines) + b"]"
        bad: tuple[Unreadable, ...] = ()
        if not _one_record_a_line(page, len(lines)):
            good = []
            for line in lines:
                reason = _broken(line)
                if reason:
                    bad += (Unreadable(line[:_UNREADABLE_TEXT].decode("utf-8", "replace"), reason),)
                else:
                    good.append(line)
            page = b"[" + b",".join(good) + b"]"
        self._ndjson.decode(page)
        return bad

    # ---- CSV ----

    def _read_csv(self, file: Path) -> Iterator[Read]:
        options = self._options
        delimiter = options.delimiter or ("\t" if ".tsv" in file.suffixes else ",")
        names, header_lines = self._csv_header(file, delimiter)
        if not names:
            return
        bad: list[Unreadable] = []

        def set_aside(row: Any) -> str:
            bad.append(Unreadable((row.text or "")[:_UNREADABLE_TEXT], f"{row.actual_columns} values for {row.expected_columns} columns"))
            return "skip"

        with _open(file) as stream:
            try:
                reader = pacsv.open_csv(
                    stream,
                    read_options=pacsv.ReadOptions(
                        column_names=names, skip_rows=header_lines, encoding=options.encoding, block_size=_CSV_BLOCK, use_threads=False
                    ),
                    parse_options=pacsv.ParseOptions(
                        delimiter=delimiter, quote_char=options.quote, newlines_in_values=True, invalid_row_handler=set_aside
                    ),
                    convert_options=pacsv.ConvertOptions(
                        column_types=dict.fromkeys(names, pa.binary()),
                        null_values=options.null_values,
                        strings_can_be_null=True,
                        quoted_strings_can_be_null=False,
                    ),
                )
            except pa.ArrowInvalid as error:
                if "Empty CSV file" in str(error):
                    return
                raise
            for batch in reader:
                rows, unreadable = self._typed(pa.Table.from_batches([batch]))
                yield Read(rows, tuple(bad) + unreadable)
                bad.clear()
        if bad:
            yield Read(pa.table({}), tuple(bad))

    def _csv_header(self, file: Path, delimiter: str) -> tuple[list[str], int]:
        """The columns' names (none in a file without rows), and how many lines they take."""
        options = self._options
        with _open(file) as stream, io.TextIOWrapper(stream, options.encoding, errors="replace", newline="") as text:
            reader = csv.reader(text, delimiter=delimiter, quotechar=options.quote)
            try:
                first = next(reader, [])
            except csv.Error as error:
                raise SourceError(
                    f"the file's first line is no CSV: {error}", do="check the pull's `csv` options", where=str(file)
                ) from None
            lines = reader.line_num if options.header else 0
            if options.header and not text.read(1):
                return [], lines  # nothing but the header
        found = first if options.header else [""] * len(first)
        if found:
            found[0] = found[0].removeprefix("\ufeff")
        names = options.names or [name.strip() or f"column_{place}" for place, name in enumerate(found, 1)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise SourceError(
                f"the file has two columns {twice[0]}",
                do="name all its columns apart with the pull's `csv: {names: [...]}`",
                where=str(file),
            )
        return names, lines

    def _typed(self, rows: pa.Table) -> tuple[pa.Table, tuple[Unreadable, ...]]:
        fields, arrays = [], []
        bad: dict[int, str] = {}
        for name, column in zip(rows.column_names, rows.columns, strict=True):
            texts = _as_text(name, column.combine_chunks(), bad)
            type_ = self._types.get(name)
            to = pa.field(name, pa.string())
            if type_:
                known = self._known.field(name) if self._known is not None and name in self._known.names else None
                start = (
                    known if known is not None and type_ == "decimal" and pa.types.is_decimal(known.type) else declared_field(name, type_)
                )
                (texts,), to, misfits = declare([("text" if type_ == "json" else "string", texts)], type_, self._grown.get(name, start))
                misfits |= _no_json(name, texts) if type_ == "json" else {}
                self._grown[name] = to
                for row, reason in misfits.items():
                    bad[row] = f"{bad[row]}; {reason}" if row in bad else reason
            fields.append(to)
            arrays.append(texts)
        table = pa.table(arrays, schema=pa.schema(fields))
        if bad:
            lost = rows.take(pa.array(sorted(bad))).to_pylist()
            table = table.filter(pa.array([row not in bad for row in range(len(rows))]))
            unreadable = tuple(Unreadable(_shown(row), bad[at]) for at, row in zip(sorted(bad), lost, strict=True))
            return records.normalise(table), unreadable
        return records.normalise(table), ()


def _open(file: Path) -> Any:
    """The file's bytes; .gz, .bz2, .lz4 and .zst are unpacked."""
    return pa.input_stream(str(file), compression="detect", buffer_size=1 << 20)


def _one_record_a_line(page: bytes, lines: int) -> bool:
    try:
        return len(_records_of(page)) == lines
    except (ValueError, RecursionError):
        return False


_records_of = msgspec.json.Decoder(list[msgspec.Raw]).decode


def _broken(line: bytes) -> str:
    try:
        orjson.loads(line)
    except ValueError as error:
        return f"it is no valid JSON: {str(error).partition(chr(10))[0]}"
    return ""


def _flushed(decoder: PageDecoder) -> Iterator[Read]:
    while True:
        rows, unread = decoder.flush()
        yield Read(rows, tuple(Unreadable(*item) for item in unread))
        if not decoder.buffered_rows:
            return


def _with(bad: tuple[Unreadable, ...], reads: Iterator[Read]) -> Iterator[Read]:
    for read in reads:
        yield Read(read.rows, read.unreadable + bad)
        bad = ()


def _as_text(name: str, values: pa.Array, bad: dict[int, str]) -> pa.Array:
    try:
        return values.cast(pa.string())
    except pa.ArrowInvalid:
        texts: list[str | None] = []
        for row, value in enumerate(values.to_pylist()):
            try:
                texts.append(None if value is None else value.decode())
            except UnicodeDecodeError:
                texts.append(None)
                bad.setdefault(
                    row, f"{name}: the text is not valid UTF-8; if the file is written in another encoding, say `csv: {{encoding: ...}}`"
                )
        return pa.array(texts, pa.string())


def _no_json(name: str, texts: pa.Array) -> dict[int, str]:
    return {
        row: f"{name}: {_broken(text.encode())}"
        for row, text in enumerate(texts.to_pylist())
        if text is not None and _broken(text.encode())
    }


def _shown(row: dict[str, bytes | None]) -> str:
    texts = {name: None if value is None else value.decode("utf-8", "backslashreplace") for name, value in row.items()}
    return records.to_json(texts).decode()[:_UNREADABLE_TEXT]


def _read_parquet(file: Path) -> Iterator[Read]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as parquet:
        for batch in parquet.iter_batches(batch_size=_BATCH_ROWS, use_threads=False):
            yield Read(records.normalise(pa.Table.from_batches([batch])))
