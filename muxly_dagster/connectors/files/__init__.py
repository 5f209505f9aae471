"""The files connector: JSON, NDJSON, CSV and Parquet files of a folder, all of them or those that are new."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field, field_validator, model_validator

from muxly_dagster.connector import Batch, Connector, Cursor, Declaration, PullSettings, Stream
from muxly_dagster.connectors.files.formats import FORMATS, CsvOptions, Format, Read, Reading
from muxly_dagster.decoding import declared_field
from muxly_dagster.errors import ConfigurationError, SourceError
from muxly_dagster.project_paths import InProject
from muxly_dagster.resource import CheckResult


class FilesPull(PullSettings):
    """Which files a pull reads, and how."""

    glob: str = Field("", description="Which files, such as `orders/**/*.csv`; the pull's own name with any ending unless told otherwise.")
    format: Format | None = Field(None, description="json, ndjson, csv or parquet; by the file's ending unless told otherwise.")
    sync: Literal["full", "new"] = Field("full", description="full reads every file every time, new only files that came or changed since.")
    types: dict[str, str] = Field({}, description="Types of columns of JSON, NDJSON and CSV files, such as `{amount: decimal}`.")
    columns: list[str] = Field([], description="Columns to keep; all unless told otherwise.")
    file_column: str = Field("", description="A column to add that says which file a record is from.")
    records: str = Field("$", description="JSONPath of the records in a JSON file.")
    csv: CsvOptions = Field(CsvOptions(), description="How CSV files are written.")

    @field_validator("types")
    @classmethod
    def _are_types(cls, types: dict[str, str]) -> dict[str, str]:
        for name, type_ in types.items():
            declared_field(name, type_)
        return types

    @model_validator(mode="after")
    def _agrees(self) -> "FilesPull":
        if self.format == "parquet" and self.types:
            raise ValueError("has `types`, but Parquet files have types of their own; leave `types` out")
        return self


class Files(Connector):
    """Files in a folder of this machine (or a network folder mounted on it)."""

    id: ClassVar[str] = "files"
    title: ClassVar[str] = "Files (JSON, NDJSON, CSV, Parquet)"
    Pull: ClassVar[type[PullSettings]] = FilesPull
    example: ClassVar[Mapping[str, Any]] = {"path": "./data", "pulls": {"orders": {"glob": "orders*.csv", "key": ["id"], "sync": "new"}}}

    path: Annotated[str, InProject()] = Field(description="The folder, or a single file.")

    @classmethod
    def declaration(cls) -> Declaration:
        """Which streams there are, only the folder knows."""
        return Declaration(syncs=("full", "cursor"))

    def stream(self, pull: PullSettings) -> Stream:
        """The stream as declared."""
        return Stream(pull.stream, key=tuple(pull.key or ()), sync="full" if _settings(pull).sync == "full" else "cursor")

    def streams(self) -> list[Stream]:
        """A stream for every file of the folder that can be read without being told its format."""
        root = self._root()
        found = [root] if root.is_file() else sorted(p for p in root.iterdir() if p.is_file())
        names = dict.fromkeys(p.name.partition(".")[0] for p in found if _guessed(p))
        return [Stream(name) for name in names if name]

    def test_connection(self) -> CheckResult:
        """See whether the folder is there and what it holds."""
        tried = f"look into {self.path}"
        try:
            count = len(self.streams())
        except (ConfigurationError, OSError) as error:
            return CheckResult("failed", tried, str(error), "correct the source's `path`")
        return CheckResult("ok", tried, f"{count} {'stream' if count == 1 else 'streams'}")

    def pull(self, pull: PullSettings, cursor: Cursor | None, known: pa.Schema | None) -> Iterator[Batch]:
        """Read the files, or what is new in them.

        Raises SourceError for a file that is not what it should be, ConfigurationError where there are no files.
        """
        settings = _settings(pull)
        root = self._root()
        files = _matching(root, settings)
        reading = Reading(settings.types, settings.records, settings.csv, known)
        if settings.sync == "new":
            yield from _new(root, files, settings, cursor or {}, reading)
            return
        if not files:
            raise ConfigurationError(
                f"no file in {root} matches {_glob(settings)}",
                do="correct the pull's `glob`; where files may be missing, say `sync: new`, which deletes nothing",
            )
        for file in files:
            for read in _read(file, settings, reading):
                yield _batch(read, settings, _name(file, root))

    def _root(self) -> Path:
        root = Path(self.path).expanduser()
        if not root.exists():
            raise ConfigurationError(f"there is no file or folder {root}", do="correct the source's `path`")
        return root


def _settings(pull: PullSettings) -> FilesPull:
    return pull if isinstance(pull, FilesPull) else FilesPull.model_validate(pull.model_dump())


def _glob(pull: FilesPull) -> str:
    return pull.glob or f"{pull.stream}.*"


def _matching(root: Path, pull: FilesPull) -> list[Path]:
    if root.is_file():
        return [root]
    try:
        return sorted(path for path in root.glob(_glob(pull)) if path.is_file())
    except (ValueError, NotImplementedError) as error:
        raise ConfigurationError(f"`glob` {_glob(pull)} is no pattern: {error}", do="write one such as `orders/**/*.csv`") from None


def _name(file: Path, root: Path) -> str:
    return file.name if root.is_file() else file.relative_to(root).as_posix()


def _guessed(file: Path) -> Format | None:
    endings = [ending.lower().lstrip(".") for ending in file.suffixes]
    if endings and endings[-1] in ("gz", "bz2", "zst", "lz4"):
        endings.pop()
    return FORMATS.get(endings[-1]) if endings else None


def _read(file: Path, pull: FilesPull, reading: Reading) -> Iterator[Read]:
    format_ = pull.format or _guessed(file)
    if format_ is None:
        raise ConfigurationError(
            f"{file} does not say by its ending what it is", do="set the pull's `format`, or narrow its `glob` to the files that are meant"
        )
    if format_ == "parquet" and pull.types:
        raise ConfigurationError(f"{file} is a Parquet file, which has types of its own", do="leave the pull's `types` out")
    try:
        yield from reading.read(file, format_)
    except FileNotFoundError:
        raise SourceError("the file vanished while the pull was running", do="run the pull again", where=str(file)) from None
    except PermissionError:
        raise ConfigurationError(f"{file} may not be read", do="give the user that Muxly runs as the right to read it") from None
    except (OSError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise SourceError(f"the file is no readable {format_}: {reason}", do="mend the file, or move it away", where=str(file)) from None


def _batch(read: Read, pull: FilesPull, name: str, cursor: Cursor | None = None, skip: int = 0) -> Batch:
    rows = read.rows.slice(skip)
    if pull.columns and rows.num_columns:
        rows = rows.select([column for column in rows.column_names if column in pull.columns])
    if pull.file_column and rows.num_columns:
        rows = rows.append_column(pull.file_column, pa.array([name] * len(rows), pa.string()))
    return Batch(rows, cursor, read.unreadable)


# ---- what is new ----------------------------------------------------------------------------------------------------


def _new(root: Path, files: list[Path], pull: FilesPull, cursor: dict[str, Any], reading: Reading) -> Iterator[Batch]:
    """Files that came or changed since, oldest first. The cursor says of every file when it changed, its size and the rows read of it.

    A key tells the rows of a changed file apart: it is read again. Without one, files are taken to grow at their end only, and
    reading goes on behind the rows that were read.
    """
    present = {_name(file, root): file for file in files}
    seen: dict[str, list[int]] = {name: entry for name, entry in cursor.get("files", {}).items() if name in present}
    states = {name: file.stat() for name, file in present.items() if file.exists()}
    for name, stat in sorted(states.items(), key=lambda item: (item[1].st_mtime_ns, item[0])):
        modified, size, read_before = seen.get(name, [0, 0, 0])
        whole = cursor.get("within") != name
        if [modified, size] == [stat.st_mtime_ns, stat.st_size] and whole:
            continue
        changed = [modified, size] != [stat.st_mtime_ns, stat.st_size]
        if pull.key and changed:
            read_before = 0
        elif size > stat.st_size:
            raise SourceError(
                "the file has become shorter since it was read, and without a key its rows cannot be told from those read before",
                do="set the pull's `key`, or read everything again with `muxly run NAME --from-start`",
                where=str(present[name]),
            )
        row = 0
        for read in _read(present[name], pull, reading):
            count = len(read.rows)
            skip = min(max(read_before - row, 0), count)
            row += count
            if skip == count and count:
                continue
            seen[name] = [stat.st_mtime_ns, stat.st_size, max(row, read_before)]
            yield _batch(read, pull, name, {"files": dict(seen), "within": name}, skip)
        seen[name] = [stat.st_mtime_ns, stat.st_size, max(row, read_before)]
        yield Batch(pa.table({}), {"files": dict(seen)})
