"""Files appear whole, are replaced by a repeat, and hold what was delivered in each format."""

import datetime as dt
import errno
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from muxly_dagster import records
from muxly_dagster.destinations.file import File
from muxly_dagster.errors import ConfigurationError, MuxlyError, RetryLater
from muxly_dagster.testing import EVERY_TYPE, DestinationContract, changes, delivery
from muxly_dagster_tests.destinations.recorded import data_of, files, read, shown

FORMATS = ["json", "ndjson", "csv", "parquet", "arrow"]


def file(**fields: Any) -> File:
    """A destination from fields as they stand in muxly.yaml."""
    return File(**fields)


class FileContract(DestinationContract):
    keeps = "changes"

    def stored(self, destination: File) -> list[dict[str, Any]]:
        folder = Path(destination.path)
        return [data_of(row) for name in shown(folder) for row in read(folder / name)]


class TestNdjson(FileContract):
    columns = tuple(name for name in EVERY_TYPE if name not in ("a_decimal", "some_bytes", "a_date", "a_time"))

    @pytest.fixture
    def destination(self, tmp_path: Path) -> File:
        return file(path=str(tmp_path / "out"))


class TestJson(FileContract):
    columns = TestNdjson.columns

    @pytest.fixture
    def destination(self, tmp_path: Path) -> File:
        return file(path=str(tmp_path / "out"), format="json")


class TestCsv(FileContract):
    columns = ("a_bool", "an_int", "a_float", "a_text", "a_date")

    @pytest.fixture
    def destination(self, tmp_path: Path) -> File:
        return file(path=str(tmp_path / "out"), format="csv")


class TestParquet(FileContract):
    @pytest.fixture
    def destination(self, tmp_path: Path) -> File:
        return file(path=str(tmp_path / "out"), format="parquet")


class TestArrow(FileContract):
    @pytest.fixture
    def destination(self, tmp_path: Path) -> File:
        return file(path=str(tmp_path / "out"), format="arrow")


class TestCompressed(FileContract):
    columns = TestNdjson.columns

    @pytest.fixture(params=["gzip", "zstd"])
    def destination(self, tmp_path: Path, request: pytest.FixtureRequest) -> File:
        return file(path=str(tmp_path / "out"), compression=request.param)


class TestInFolders(FileContract):
    """With everything on that moves files about."""

    columns = TestNdjson.columns

    @pytest.fixture
    def destination(self, tmp_path: Path) -> File:
        return file(path=str(tmp_path / "out"), partition=["id % 2"], roll={"rows": 2, "age": "1d"}, keep="10d")


def test_a_file_is_named_after_the_delivery_and_the_changes_in_it(tmp_path: Path) -> None:
    receipt = file(path=str(tmp_path)).deliver(delivery([{"id": 1}], after=41, upto=99))
    assert files(tmp_path) == ["crm_deals/big_deals.warehouse-0b8e1f9c-000000000041-000000000099.ndjson"]
    assert receipt.detail["file"] == str(tmp_path / files(tmp_path)[0])


def test_json_files_hold_the_record_form(tmp_path: Path) -> None:
    file(path=str(tmp_path)).deliver(delivery([{"id": 1, "tags": ["a"]}], ops=["delete"]))
    (record,) = read(tmp_path / files(tmp_path)[0])
    assert record["id"] == "crm.deals:0b8e1f9c:1"
    assert (record["op"], record["key"], record["connector_id"], record["stream"]) == ("delete", "1", "hubspot", "crm.deals")
    assert record["data"] == {"id": 1, "tags": ["a"]}
    assert record["metadata"]["seq"] == 1


def test_csv_and_parquet_say_the_operation_in_columns(tmp_path: Path) -> None:
    for format_ in ("csv", "parquet", "arrow"):
        destination = file(path=str(tmp_path / format_), format=format_)
        destination.deliver(delivery([{"id": 1}, {"id": 1}], ops=["upsert", "delete"]))
        rows = read(tmp_path / format_ / files(tmp_path / format_)[0])
        assert [(r[records.OP], r[records.SEQ], r["id"]) for r in rows] == [("upsert", 1, 1), ("delete", 2, 1)]


def test_data_files_hold_the_sources_own_fields_and_no_deletes(tmp_path: Path) -> None:
    for format_ in FORMATS:
        destination = file(path=str(tmp_path / format_), format=format_, records="data")
        receipt = destination.deliver(delivery([{"id": 1}, {"id": 2}], ops=["upsert", "delete"]))
        assert read(tmp_path / format_ / files(tmp_path / format_)[0]) == [{"id": 1}]
        assert receipt.accepted == 2
        assert receipt.detail["deletes_left_out"] == 1


def test_nothing_but_deletes_makes_no_data_file(tmp_path: Path) -> None:
    receipt = file(path=str(tmp_path), records="data").deliver(delivery([{"id": 1}], ops=["delete"]))
    assert receipt.accepted == 1
    assert files(tmp_path) == []


def test_csv_keeps_an_empty_text_apart_from_nothing_and_writes_bytes_in_base64(tmp_path: Path) -> None:
    rows = [{"id": 1, "note": "", "raw": b"\x00\xff"}, {"id": 2, "note": None, "raw": None}]
    file(path=str(tmp_path), format="csv", records="data").deliver(delivery(rows))
    assert (tmp_path / files(tmp_path)[0]).read_text() == '"id","note","raw"\n1,"","AP8="\n2,,\n'


def test_json_is_one_list_however_many_records(tmp_path: Path) -> None:
    many = [{"id": n} for n in range(12_000)]
    file(path=str(tmp_path), format="json", records="data").deliver(delivery(many))
    assert read(tmp_path / files(tmp_path)[0]) == many


def test_a_repeat_replaces_the_attempts_before_it_whether_they_held_less_or_more(tmp_path: Path) -> None:
    destination = file(path=str(tmp_path), records="data")
    destination.deliver(delivery([{"id": 1}]))
    destination.deliver(delivery([{"id": 2}, {"id": 3}], after=1))
    destination.deliver(delivery([{"id": 2}, {"id": 3}, {"id": 4}], after=1))
    assert [name.rpartition("-")[2] for name in files(tmp_path)] == ["000000000001.ndjson", "000000000004.ndjson"]
    destination.deliver(delivery([{"id": 2}], after=1))
    assert [read(tmp_path / name) for name in files(tmp_path)] == [[{"id": 1}], [{"id": 2}]]


def test_delivering_from_the_start_again_leaves_each_record_once(tmp_path: Path) -> None:
    destination = file(path=str(tmp_path), records="data")
    for n in range(3):
        destination.deliver(delivery([{"id": n}], after=n))
    destination.deliver(delivery([{"id": 0}, {"id": 1}, {"id": 2}]))
    assert [read(tmp_path / name) for name in files(tmp_path)] == [[{"id": 0}, {"id": 1}, {"id": 2}]]


def test_routes_that_share_a_folder_leave_each_others_files_alone(tmp_path: Path) -> None:
    destination = file(path=str(tmp_path), records="data")
    destination.deliver(delivery([{"id": 1}], delivery_id="big.archive"))
    destination.deliver(delivery([{"id": 2}], delivery_id="small.archive"))
    destination.deliver(delivery([{"id": 1}], delivery_id="big.archive"))
    destination.deliver(delivery([{"id": 9}], delivery_id="big.archive", table_id="another"))
    destination.deliver(delivery([{"id": 7}], delivery_id="big.archive/letter-1"))
    assert sorted(read(tmp_path / name)[0]["id"] for name in files(tmp_path)) == [1, 2, 7, 9]


def test_what_a_killed_process_left_half_written_is_removed(tmp_path: Path) -> None:
    destination = file(path=str(tmp_path))
    destination.deliver(delivery([{"id": 1}]))
    folder = tmp_path / "crm_deals"
    half = folder / ".big_deals.warehouse-0b8e1f9c-000000000001-000000000009.ndjson.part"
    half.write_text('{"id"')
    (folder / "people.ndjson").write_text("not ours")
    destination.deliver(delivery([{"id": 2}], after=1))
    assert not half.exists()
    assert (folder / "people.ndjson").exists()


@pytest.fixture
def small_files_only() -> Iterator[None]:
    """The kernel refuses to let any file grow beyond 64 KiB, as a full quota would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("format_", FORMATS)
def test_a_full_disk_leaves_no_half_file_and_asks_for_room(tmp_path: Path, small_files_only: None, format_: str) -> None:
    big = [{"id": n, "text": os.urandom(500).hex()} for n in range(400)]
    with pytest.raises(RetryLater, match="the disk is full") as caught:
        file(path=str(tmp_path), format=format_).deliver(delivery(big))
    assert "free some space" in str(caught.value)
    assert files(tmp_path) == []


def test_a_disk_that_fills_up_at_the_last_moment_keeps_the_file_that_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    destination = file(path=str(tmp_path), records="data")
    destination.deliver(delivery([{"id": 1}]))

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RetryLater, match="No space left on device"):
        destination.deliver(delivery([{"id": 1}, {"id": 2}]))
    assert [read(tmp_path / name) for name in files(tmp_path)] == [[{"id": 1}]]


def test_a_path_that_is_a_file_is_a_mistake_in_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    destination = file(path=str(tmp_path / "out"))
    with pytest.raises(ConfigurationError, match="cannot be written"):
        destination.deliver(delivery([{"id": 1}]))
    check = destination.check()
    assert check.status == "failed"
    assert "is not a folder" in check.what


def test_checking_does_not_create_the_folder(tmp_path: Path) -> None:
    check = file(path=str(tmp_path / "a" / "b")).check()
    assert (check.status, check.what) == ("ok", "the folder will be created")
    assert list(tmp_path.iterdir()) == []


def test_a_table_name_cannot_leave_the_folder(tmp_path: Path) -> None:
    file(path=str(tmp_path / "out"), table="../elsewhere").deliver(delivery([{"id": 1}]))
    assert [name.split("/")[0] for name in files(tmp_path)] == ["out"]


def test_times_and_decimals_are_written_exactly_in_json(tmp_path: Path) -> None:
    schema = pa.schema([("id", pa.int64()), ("at", records.TIMESTAMP), ("price", pa.decimal128(20, 2))])
    row = {"id": 1, "at": dt.datetime(2026, 1, 1, tzinfo=dt.UTC), "price": 1}
    file(path=str(tmp_path), records="data").deliver(delivery(changes([row], schema=schema)))
    assert read(tmp_path / files(tmp_path)[0]) == [{"id": 1, "at": "2026-01-01T00:00:00Z", "price": "1.00"}]


def test_every_failure_is_one_of_ours(tmp_path: Path) -> None:
    destination = file(path=str(tmp_path), table="x" * 300)
    with pytest.raises(MuxlyError):
        destination.deliver(delivery([{"id": 1}]))
