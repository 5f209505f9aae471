"""Reading back what destinations of files wrote, with the readers that people use."""

import gzip
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cramjam
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

Row = dict[str, Any]


def rows_of(name: str, content: bytes) -> list[Row]:
    """The rows of a file, as its name says it is written."""
    if name.endswith(".gz"):
        name, content = name.removesuffix(".gz"), gzip.decompress(content)
    elif name.endswith(".zst"):
        name, content = name.removesuffix(".zst"), bytes(cramjam.zstd.decompress(content))
    rows: list[Row]
    match name.rpartition(".")[2]:
        case "ndjson":
            rows = [json.loads(line) for line in content.split(b"\n") if line]
        case "json":
            rows = json.loads(content)
        case "csv":
            told_apart = pyarrow.csv.ConvertOptions(strings_can_be_null=True, quoted_strings_can_be_null=False)
            newlines = pyarrow.csv.ParseOptions(newlines_in_values=True)
            rows = pyarrow.csv.read_csv(io.BytesIO(content), parse_options=newlines, convert_options=told_apart).to_pylist()
        case "arrow":
            rows = pa.ipc.open_file(content).read_all().to_pylist()
        case _:
            rows = pyarrow.parquet.read_table(io.BytesIO(content)).to_pylist()
    return rows


def data_of(row: Row) -> Row:
    """The source's own fields of a row."""
    return row["data"] if "data" in row else {n: v for n, v in row.items() if not n.startswith("_muxly_")}


def seq_of(row: Row) -> int:
    """The number of a change."""
    return int(row["metadata"]["seq"] if "metadata" in row else row["_muxly_seq"])


def files(folder: Path) -> list[str]:
    """What a reader sees below a folder, and whatever else there is."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def shown(folder: Path) -> list[str]:
    """What a reader sees below a folder: names that begin with a dot are none of his business."""
    return [name for name in files(folder) if not Path(name).name.startswith(".")]


def read(path: Path) -> list[Row]:
    """The rows of a file."""
    return rows_of(path.name, path.read_bytes())


def seqs(folder: Path) -> list[int]:
    """The numbers of all changes that a reader sees below a folder, as often as he sees them."""
    return sorted(seq_of(row) for name in shown(folder) for row in read(folder / name))


def seqs_by_manifests(objects: Mapping[str, bytes]) -> list[int]:
    """The numbers of all changes that a reader sees who goes by manifests; sizes and rows are as they say."""
    found = []
    for key, content in objects.items():
        if re.search(r"_manifests/.*\.json$", key):
            manifest = json.loads(content)
            for each in manifest["objects"]:
                rows = rows_of(each["key"], objects[each["key"]])
                assert (len(rows), len(objects[each["key"]])) == (each["rows"], each["bytes"])
                found += [seq_of(row) for row in rows]
    return sorted(found)
