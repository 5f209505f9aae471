"""Files lie in folders by value, are compressed as asked, and are as large as they may be."""

import datetime as dt
import random
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from pydantic import ValidationError

from muxly_dagster import records
from muxly_dagster.destinations.file import File
from muxly_dagster.errors import ConfigurationError
from muxly_dagster.testing import changes, delivery
from muxly_dagster_tests.destinations.recorded import files, read, seqs, shown

FORMATS = ["json", "ndjson", "csv", "parquet", "arrow"]


def file(folder: Path, **fields: Any) -> File:
    """A destination from fields as they stand in muxly.yaml."""
    return File(path=str(folder), **fields)


def names(folder: Path) -> list[str]:
    """Below the table's folder, with the series left out: `DE/0-2.ndjson`."""
    short = []
    for name in shown(folder):
        parts = name.split("/")
        after, upto = parts[-1].removeprefix("big_deals.warehouse-0b8e1f9c-").split("-", 1)
        short.append("/".join([*parts[1:-1], f"{int(after)}-{upto.lstrip('0')}"]))
    return short


# ---- folders by value ------------------------------------------------------------------------------------------------


def test_folders_are_named_by_expressions_from_the_outer_to_the_inner(tmp_path: Path) -> None:
    schema = pa.schema([("id", pa.int64()), ("created_at", records.TIMESTAMP), ("country", pa.string())])
    late = dt.datetime(2026, 1, 5, 23, 59, 59, tzinfo=dt.UTC)
    rows = [
        {"id": 1, "created_at": late, "country": "DE"},
        {"id": 2, "created_at": late + dt.timedelta(seconds=1), "country": "FR"},
        {"id": 3, "created_at": late, "country": "DE"},
    ]
    file(tmp_path / "a", partition=["strftime(created_at, '%Y-%m-%d')", "country"]).deliver(delivery(changes(rows, schema=schema)))
    assert names(tmp_path / "a") == ["2026-01-05/DE/0-3.ndjson", "2026-01-06/FR/0-3.ndjson"]
    named = file(tmp_path / "b", partition={"date": "strftime(created_at, '%Y-%m-%d')", "land": "country"}, format="parquet")
    named.deliver(delivery(changes(rows, schema=schema)))
    assert names(tmp_path / "b") == ["date=2026-01-05/land=DE/0-3.parquet", "date=2026-01-06/land=FR/0-3.parquet"]
    assert named.public_name("crm.deals") == str(tmp_path / "b/crm_deals/date=*/land=*/*.parquet")
    found = duckdb.sql(f"select date::varchar, land, id from '{tmp_path}/b/crm_deals/**/*.parquet' order by id").fetchall()
    assert found == [("2026-01-05", "DE", 1), ("2026-01-06", "FR", 2), ("2026-01-05", "DE", 3)]


def test_a_partition_may_be_one_expression_or_a_list_of_both_kinds(tmp_path: Path) -> None:
    file(tmp_path / "a", partition="id").deliver(delivery([{"id": 7}]))
    file(tmp_path / "b", partition=[{"op": "_muxly_op"}, "id + 1"]).deliver(delivery([{"id": 7}]))
    assert names(tmp_path / "a") == ["7/0-1.ndjson"]
    assert names(tmp_path / "b") == ["op=upsert/8/0-1.ndjson"]


def test_rows_stay_in_their_order_within_each_folder(tmp_path: Path) -> None:
    file(tmp_path, partition=["id % 3"]).deliver(delivery([{"id": n} for n in range(3_000)]))
    for name in shown(tmp_path):
        ids = [row["data"]["id"] for row in read(tmp_path / name)]
        assert len(ids) == 1_000 and ids == sorted(ids)


def test_no_value_leaves_its_folder_or_shares_one(tmp_path: Path) -> None:
    values = [
        "..",
        ".",
        "../../up",
        "/etc",
        "a/b",
        "a%2Fb",
        "a b",
        "CON",
        "é",
        "e\u0301",
        "~",
        ".hidden",
        "\x00",
        "x" * 300,
        "x" * 301,
        "=",
        "文" * 90,
    ]
    file(tmp_path / "out", partition=["name"]).deliver(delivery([{"id": n, "name": value} for n, value in enumerate(values)]))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]
    found = {name.split("/")[1]: [row["data"]["name"] for row in read(tmp_path / "out" / name)] for name in shown(tmp_path / "out")}
    assert sorted(found.values()) == sorted([value] for value in values)
    assert all(name.isascii() and not name.startswith(".") and len(name) < 200 for name in found)


def test_nothing_and_what_cannot_be_computed_lie_in_hives_default_folder(tmp_path: Path) -> None:
    rows = [{"id": 1, "n": "4"}, {"id": 2, "n": None}, {"id": 3, "n": ""}, {"id": 4, "n": "four"}]
    receipt = file(tmp_path, partition={"n": "n::int"}).deliver(delivery(rows))
    assert names(tmp_path) == ["n=4/0-4.ndjson", "n=__HIVE_DEFAULT_PARTITION__/0-4.ndjson"]
    assert (receipt.accepted, receipt.detail["partition_without_an_answer"]) == (4, 2)


def test_a_value_that_is_the_name_of_hives_default_folder_is_not_lost_there(tmp_path: Path) -> None:
    file(tmp_path, partition="n").deliver(
        delivery([{"id": 1, "n": None}, {"id": 2, "n": "__HIVE_DEFAULT_PARTITION__"}, {"id": 3, "n": "b"}])
    )
    assert seqs(tmp_path) == [1, 2, 3]


def test_a_column_that_no_record_has_shown_yet_is_null(tmp_path: Path) -> None:
    destination = file(tmp_path, partition=["strftime(seen_at, '%Y')", "upper(city)"])
    destination.deliver(delivery([{"id": 1}]))
    assert names(tmp_path) == ["__HIVE_DEFAULT_PARTITION__/__HIVE_DEFAULT_PARTITION__/0-1.ndjson"]


def test_columns_are_found_in_any_letter_case(tmp_path: Path) -> None:
    file(tmp_path, partition=["COUNTRY"]).deliver(delivery([{"id": 1, "Country": "DE"}]))
    assert names(tmp_path) == ["DE/0-1.ndjson"]


@pytest.mark.parametrize(
    ("partition", "what"),
    [
        ("count(id)", "an aggregate"),
        ("(select 1)", "a subquery"),
        ("id; drop table x", "statements"),
        ({"a=b": "id"}, "cannot stand before the ="),
        ([{"day": "id"}, {"day": "id"}], "the same name"),
    ],
)
def test_what_is_no_expression_of_a_record_is_told_when_the_project_is_loaded(tmp_path: Path, partition: Any, what: str) -> None:
    with pytest.raises(ValidationError, match=what):
        file(tmp_path, partition=partition)


def test_an_expression_that_can_never_run_stops_the_delivery_and_writes_nothing(tmp_path: Path) -> None:
    for partition, what in (
        ("strftime(id, '%Y')", "strftime"),
        ("no_such_function(id)", "no_such_function"),
        ("read_text('/etc/passwd')", "read_text"),
    ):
        with pytest.raises(ConfigurationError, match=what):
            file(tmp_path, partition=partition).deliver(delivery([{"id": 1}]))
    assert files(tmp_path) == []


def test_a_folder_for_every_record_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="10001 folders of 10001 changes"):
        file(tmp_path, partition="id").deliver(delivery([{"id": n} for n in range(10_001)]))
    assert files(tmp_path) == []


def test_a_repeat_replaces_the_attempt_in_every_folder(tmp_path: Path) -> None:
    destination = file(tmp_path, partition="city")
    destination.deliver(delivery([{"id": 1, "city": "Berlin"}]))
    destination.deliver(delivery([{"id": 2, "city": "Berlin"}, {"id": 3, "city": "Paris"}], after=1))
    destination.deliver(delivery([{"id": 2, "city": "Rome"}], after=1))
    assert names(tmp_path) == ["Berlin/0-1.ndjson", "Rome/1-2.ndjson"]
    assert not (tmp_path / "crm_deals" / "Paris").exists()


# ---- compression -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("format_", "compression", "extension"),
    [
        ("json", "gzip", "json.gz"),
        ("ndjson", "zstd", "ndjson.zst"),
        ("csv", "gzip", "csv.gz"),
        ("csv", "zstd", "csv.zst"),
        ("parquet", "snappy", "parquet"),
        ("parquet", "none", "parquet"),
        ("parquet", "brotli", "parquet"),
        ("arrow", "lz4", "arrow"),
        ("arrow", "zstd", "arrow"),
    ],
)
def test_compressed_files_hold_the_same_rows_and_are_the_same_every_time(
    tmp_path: Path, format_: Any, compression: Any, extension: str
) -> None:
    rows = [{"id": n, "word": "word" * (n % 7)} for n in range(12_000)]
    contents = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        file(folder, format=format_, compression=compression, records="data").deliver(delivery(rows))
        (name,) = shown(folder)
        assert name.endswith(f".{extension}")
        assert read(folder / name) == rows
        contents.append((folder / name).read_bytes())
    assert contents[0] == contents[1]


def test_duckdb_reads_what_is_compressed(tmp_path: Path) -> None:
    rows = [{"id": n} for n in range(20_000)]
    for compression in ("gzip", "zstd"):
        for format_ in ("ndjson", "csv"):
            file(tmp_path / compression, format=format_, compression=compression, records="data").deliver(delivery(rows))
            (name,) = [name for name in shown(tmp_path / compression) if format_ in name]
            assert duckdb.sql(f"select count(*), sum(id) from '{tmp_path / compression / name}'").fetchall() == [(20_000, 199_990_000)]


def test_a_compression_that_the_format_does_not_know_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="ndjson is not written with `compression: snappy`; it takes none, gzip, zstd"):
        file(tmp_path, compression="snappy")


# ---- cutting ---------------------------------------------------------------------------------------------------------


def test_a_large_delivery_is_cut_into_files_that_say_which_changes_they_hold(tmp_path: Path) -> None:
    receipt = file(tmp_path, roll={"rows": 2}).deliver(delivery([{"id": n} for n in range(5)], after=10, upto=20))
    assert names(tmp_path) == ["10-12.ndjson", "12-14.ndjson", "14-20.ndjson"]
    assert seqs(tmp_path) == [11, 12, 13, 14, 15]
    assert receipt.detail["files"] == 3


def test_a_repeat_that_is_cut_in_other_places_leaves_each_change_once(tmp_path: Path) -> None:
    rows = [{"id": n} for n in range(9)]
    for size in (2, 4, 3, 100):
        file(tmp_path, roll={"rows": size}).deliver(delivery(rows[: 5 + size]))
        assert seqs(tmp_path) == list(range(1, 1 + len(rows[: 5 + size])))


@pytest.mark.parametrize("format_", FORMATS)
def test_files_are_about_as_large_as_they_may_be(tmp_path: Path, format_: Any) -> None:
    noise = random.Random(0)
    rows = [{"id": n, "text": noise.randbytes(200).hex()} for n in range(3_000)]
    compression = "none"
    file(tmp_path, format=format_, compression=compression, roll={"bytes": "200kB"}, records="data").deliver(delivery(rows))
    sizes = [(tmp_path / name).stat().st_size for name in shown(tmp_path)]
    assert 5 <= len(sizes) <= 8
    assert all(100_000 < size < 260_000 for size in sizes[:-1])
