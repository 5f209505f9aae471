"""The files connector: what stands in a file arrives exactly, what cannot be read is set aside, and news is found by file."""

import datetime as dt
import decimal
import gzip
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from muxly_dagster import records
from muxly_dagster.connector import Batch, Cursor
from muxly_dagster.connectors.files import Files, FilesPull
from muxly_dagster.errors import ConfigurationError, SourceError


def batches(folder: Path, since: Cursor | None = None, /, **pull: Any) -> list[Batch]:
    settings = FilesPull.model_validate({"stream": "orders", **pull})
    return list(Files.model_validate({"path": str(folder)}).pull(settings, since, None))


def rows(found: list[Batch]) -> list[dict[str, Any]]:
    return [row for batch in found for row in batch.rows.to_pylist()]


def reasons(found: list[Batch]) -> list[str]:
    return [bad.reason for batch in found for bad in batch.unreadable]


def last_cursor(found: list[Batch]) -> Cursor:
    return json.loads(json.dumps([batch.cursor for batch in found if batch.cursor is not None][-1]))


_clock = iter(range(1_700_000_000, 1_800_000_000))


def write(path: Path, content: str | bytes) -> Path:
    """A file that is younger than every file written before, whatever the clock's grain."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    now = next(_clock)
    os.utime(path, (now, now))
    return path


# ---- formats --------------------------------------------------------------------------------------------------------


def test_a_json_file_is_read_exactly(tmp_path: Path) -> None:
    write(tmp_path / "orders.json", '[{"id": 9007199254740993, "price": 0.1, "tags": ["a"]}, {"id": 2, "price": 1.25, "name": "Zoë"}]')
    (batch,) = batches(tmp_path)
    assert batch.rows.to_pylist() == [
        {"id": 9007199254740993, "price": 0.1, "tags": '["a"]', "name": None},
        {"id": 2, "price": 1.25, "tags": None, "name": "Zoë"},
    ]
    assert records.is_json(batch.rows.schema.field("tags"))


def test_records_can_lie_within_a_json_file(tmp_path: Path) -> None:
    write(tmp_path / "orders.json", '\ufeff{"data": {"items": [{"id": 1}, {"id": 2}]}}')
    assert rows(batches(tmp_path, records="$.data.items")) == [{"id": 1}, {"id": 2}]


def test_ndjson_lines_that_cannot_be_read_are_set_aside(tmp_path: Path) -> None:
    write(
        tmp_path / "orders.ndjson",
        b'\xef\xbb\xbf{"id": 1}\r\n\n{"id": 2, \n[3]\n{"id": 4}{"id": 5}\n{"id": "\xff"}\n{"id": NaN}\n  {"id": 6}',
    )
    found = batches(tmp_path)
    assert [row["id"] for row in rows(found)] == [1, 6]
    assert len(reasons(found)) == 5
    assert {'{"id": 2,', "[3]", '{"id": 4}{"id": 5}'} <= {bad.text for batch in found for bad in batch.unreadable}


def test_an_ndjson_file_larger_than_a_block_is_read_to_its_last_line(tmp_path: Path) -> None:
    line = json.dumps({"id": 0, "text": "x" * 5_000_000})
    lines = [line, *(json.dumps({"id": n, "text": "y" * 1000}) for n in range(1, 9000))]
    write(tmp_path / "orders.jsonl", "\n".join(lines))
    found = batches(tmp_path)
    assert [row["id"] for row in rows(found)] == list(range(9000))
    assert len(found) > 1 and len(rows(found)[0]["text"]) == 5_000_000


def test_csv_values_are_text_unless_a_type_is_declared(tmp_path: Path) -> None:
    text = '\ufeffid,zip,price,day,note\n1,00123,10.10,2024-02-29,"two\nlines, ""quoted"""\n2,,,,""\n'
    write(tmp_path / "orders.csv", text)
    assert rows(batches(tmp_path))[0] == {"id": "1", "zip": "00123", "price": "10.10", "day": "2024-02-29", "note": 'two\nlines, "quoted"'}
    found = batches(tmp_path, types={"id": "integer", "price": "decimal", "day": "date"})
    assert rows(found) == [
        {"id": 1, "zip": "00123", "price": decimal.Decimal("10.10"), "day": dt.date(2024, 2, 29), "note": 'two\nlines, "quoted"'},
        {"id": 2, "zip": None, "price": None, "day": None, "note": ""},
    ]


def test_csv_rows_that_cannot_be_read_are_set_aside(tmp_path: Path) -> None:
    write(tmp_path / "orders.csv", b'id,n,doc\n1,5,{}\n2,many,\n3\n4,5,6,7\n5,\xff,\n6,7,"{""a"":"\n7,8,"{""a"": 1}"\n')
    found = batches(tmp_path, types={"n": "integer", "doc": "json"})
    assert [(row["id"], row["n"], row["doc"]) for row in rows(found)] == [("1", 5, "{}"), ("7", 8, '{"a": 1}')]
    assert sorted(reason.split(":")[0] for reason in reasons(found)) == [
        "1 values for 3 columns",
        "4 values for 3 columns",
        "doc",
        "n",
        "n",
    ]


def test_csv_files_of_other_dialects(tmp_path: Path) -> None:
    write(tmp_path / "orders.csv", "name;city\n'Zoë;Z';Köln\nNA;x\n".encode("latin-1"))
    csv: dict[str, Any] = {"delimiter": ";", "quote": "'", "encoding": "latin-1", "null_values": ["", "NA"]}
    assert rows(batches(tmp_path, csv=csv)) == [{"name": "Zoë;Z", "city": "Köln"}, {"name": None, "city": "x"}]
    write(tmp_path / "bare.tsv", "1\ta b\n2\tc\n")
    assert rows(batches(tmp_path, glob="bare.*", csv={"header": False})) == [
        {"column_1": "1", "column_2": "a b"},
        {"column_1": "2", "column_2": "c"},
    ]
    assert rows(batches(tmp_path, glob="bare.*", csv={"header": False, "names": ["n", "t"]}))[1] == {"n": "2", "t": "c"}


def test_csv_files_without_rows_are_no_error(tmp_path: Path) -> None:
    write(tmp_path / "orders.csv", "id,name\n")
    write(tmp_path / "orders.empty.csv", "")
    assert rows(batches(tmp_path)) == []


def test_a_csv_header_that_names_a_column_twice_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "orders.csv", "id,name,name\n1,a,b\n")
    with pytest.raises(SourceError, match="two columns name"):
        batches(tmp_path)
    assert rows(batches(tmp_path, csv={"names": ["id", "first", "last"]})) == [{"id": "1", "first": "a", "last": "b"}]


def test_parquet_columns_arrive_in_the_lakes_types(tmp_path: Path) -> None:
    table = pa.table(
        {
            "id": pa.array([1, 2], pa.uint8()),
            "big": pa.array([2**64 - 1, None], pa.uint64()),
            "at": pa.array([dt.datetime(2024, 1, 1, 12), None], pa.timestamp("ns")),
            "tags": pa.array([["a"], None]),
            "kind": pa.array(["x", "y"]).dictionary_encode(),
        }
    )
    pq.write_table(table, tmp_path / "orders.parquet")
    (batch,) = batches(tmp_path)
    assert batch.rows.schema.types == [pa.int64(), pa.decimal128(20, 0), records.TIMESTAMP, pa.string(), pa.string()]
    assert batch.rows["big"].to_pylist() == [decimal.Decimal(2**64 - 1), None]


def test_packed_files_are_unpacked(tmp_path: Path) -> None:
    write(tmp_path / "orders.1.csv.gz", gzip.compress(b"id\n1\n"))
    write(tmp_path / "orders.2.ndjson.gz", gzip.compress(b'{"id": "2"}\n'))
    assert rows(batches(tmp_path)) == [{"id": "1"}, {"id": "2"}]


@pytest.mark.parametrize("name", ["orders.parquet", "orders.json", "orders.ndjson.gz", "orders.csv.gz"])
def test_a_broken_file_is_named(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, '{"half": [1, 2')
    with pytest.raises(SourceError, match=name):
        batches(tmp_path)


# ---- which files ----------------------------------------------------------------------------------------------------


def test_a_pull_reads_the_files_of_its_name_or_of_its_glob(tmp_path: Path) -> None:
    write(tmp_path / "orders.ndjson", '{"id": 1}')
    write(tmp_path / "orders.2.json", '[{"id": 2}]')
    write(tmp_path / "old/orders.json", '[{"id": 3}]')
    assert sorted(row["id"] for row in rows(batches(tmp_path))) == [1, 2]
    assert [row["id"] for row in rows(batches(tmp_path, glob="old/*.json"))] == [3]
    found = batches(tmp_path, glob="**/*.json", file_column="file")
    assert sorted((row["id"], row["file"]) for row in rows(found)) == [(2, "orders.2.json"), (3, "old/orders.json")]
    assert rows(batches(tmp_path / "orders.ndjson")) == [{"id": 1}]


def test_only_the_named_columns_are_kept(tmp_path: Path) -> None:
    write(tmp_path / "orders.csv", "id,a,b\n1,2,3\n")
    assert rows(batches(tmp_path, columns=["id", "b"])) == [{"id": "1", "b": "3"}]


def test_files_that_are_not_there_or_not_told_what_they_are_get_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no file in .* matches orders\.\*"):
        batches(tmp_path)
    with pytest.raises(ConfigurationError, match="no file or folder"):
        batches(tmp_path / "nowhere")
    write(tmp_path / "orders.xls", "x")
    with pytest.raises(ConfigurationError, match="set the pull's `format`"):
        batches(tmp_path)
    assert rows(batches(tmp_path, format="csv")) == []
    with pytest.raises(ConfigurationError, match="no pattern"):
        batches(tmp_path, glob="/etc/*")


def test_settings_that_contradict_each_other_are_refused() -> None:
    for wrong in (
        {"types": {"a": "money"}},
        {"format": "xls"},
        {"format": "parquet", "types": {"a": "date"}},
        {"csv": {"encoding": "klingon"}},
    ):
        with pytest.raises(ValidationError):
            FilesPull.model_validate(wrong)


def test_the_folder_tells_its_streams(tmp_path: Path) -> None:
    for name in ("orders.csv", "orders.2.csv", "customers.json", "readme.txt"):
        write(tmp_path / name, "")
    source = Files.model_validate({"path": str(tmp_path)})
    assert [stream.name for stream in source.streams()] == ["customers", "orders"]
    assert source.test_connection().what == "2 streams"
    assert Files.model_validate({"path": str(tmp_path / "no")}).test_connection().status == "failed"
    assert source.stream(FilesPull(stream="orders", sync="new", key=["id"])).key == ("id",)


# ---- what is new ----------------------------------------------------------------------------------------------------


def test_new_files_are_read_once(tmp_path: Path) -> None:
    assert batches(tmp_path, sync="new") == []
    write(tmp_path / "orders.2.csv", "id\n1\n")
    write(tmp_path / "orders.1.csv", "id\n2\n")
    first = batches(tmp_path, sync="new")
    assert [row["id"] for row in rows(first)] == ["1", "2"]
    assert rows(batches(tmp_path, last_cursor(first), sync="new")) == []
    write(tmp_path / "orders.3.csv", "id\n3\n")
    (tmp_path / "orders.1.csv").unlink()
    third = batches(tmp_path, last_cursor(first), sync="new")
    assert [row["id"] for row in rows(third)] == ["3"]
    assert sorted(last_cursor(third)["files"]) == ["orders.2.csv", "orders.3.csv"]


def test_a_file_that_changed_is_read_again_where_there_is_a_key(tmp_path: Path) -> None:
    write(tmp_path / "orders.csv", "id\n1\n2\n")
    first = batches(tmp_path, sync="new", key=["id"])
    write(tmp_path / "orders.csv", "id\n1\n")
    assert rows(batches(tmp_path, last_cursor(first), sync="new", key=["id"])) == [{"id": "1"}]


def test_without_a_key_a_grown_file_is_read_on_from_where_it_ended(tmp_path: Path) -> None:
    write(tmp_path / "orders.ndjson", '{"id": 1}\n{"id": 2}\n{"id"')
    first = batches(tmp_path, sync="new")
    assert [row["id"] for row in rows(first)] == [1, 2] and len(reasons(first)) == 1
    write(tmp_path / "orders.ndjson", '{"id": 1}\n{"id": 2}\n{"id": 3}\n{"id": 4}\n')
    second = batches(tmp_path, last_cursor(first), sync="new")
    assert [row["id"] for row in rows(second)] == [3, 4]
    write(tmp_path / "orders.ndjson", '{"id": 1}\n')
    with pytest.raises(SourceError, match="shorter"):
        batches(tmp_path, last_cursor(second), sync="new")


@pytest.mark.parametrize("key", [[], ["id"]])
def test_every_cursor_on_the_way_is_a_place_to_go_on_from(tmp_path: Path, key: list[str]) -> None:
    for part in range(3):
        pq.write_table(pa.table({"id": range(part * 50_000, (part + 1) * 50_000)}), tmp_path / f"orders.{part}.parquet")
    found = batches(tmp_path, sync="new", key=key)
    assert len(found) > 6 and [row["id"] for row in rows(found)] == list(range(150_000))
    for end in range(1, len(found)):
        read = sum(len(batch.rows) for batch in found[:end])
        rest = batches(tmp_path, last_cursor(found[:end]), sync="new", key=key)
        assert [row["id"] for row in rows(rest)] == list(range(read, 150_000))
