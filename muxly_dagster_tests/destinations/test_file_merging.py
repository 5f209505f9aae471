"""Small files become larger ones and can be taken apart again, and files go when they are old."""

import os
import random
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from muxly_dagster.destinations.file import File
from muxly_dagster.destinations.file.folder import Stretch
from muxly_dagster.destinations.file.merging import Sized, groups
from muxly_dagster.errors import ConfigurationError, RetryLater
from muxly_dagster.testing import changes, delivery
from muxly_dagster.writing.rolling import Limits
from muxly_dagster_tests.destinations.recorded import data_of, files, read, seqs, shown
from muxly_dagster_tests.destinations.test_file_layout import FORMATS, file, names

DAY = 86_400


def deliver_one_by_one(destination: File, rows: Sequence[dict[str, Any]], after: int = 0) -> None:
    for number, row in enumerate(rows, after):
        destination.deliver(delivery([row], after=number))


def age(folder: Path, seconds: float) -> None:
    """Let time pass."""
    for path in folder.rglob("*"):
        if path.is_file():
            os.utime(path, (path.stat().st_mtime - seconds,) * 2)


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("form", ["record", "data"])
def test_many_small_deliveries_become_few_files_that_hold_each_change_once(tmp_path: Path, format_: Any, form: Any) -> None:
    rows = [{"id": n, "name": 'a "quoted"\nname'} for n in range(40)]
    deliver_one_by_one(file(tmp_path, format=format_, records=form, roll={"age": "1000w"}), rows)
    assert len(shown(tmp_path)) < 10
    assert [data_of(row) for name in shown(tmp_path) for row in read(tmp_path / name)] == rows


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_compressed_files_are_merged_too(tmp_path: Path, compression: Any) -> None:
    rows = [{"id": n} for n in range(20)]
    deliver_one_by_one(file(tmp_path, compression=compression, records="data", roll={"age": "1000w"}), rows)
    assert len(shown(tmp_path)) < 10
    assert [row for name in shown(tmp_path) for row in read(tmp_path / name)] == rows


def test_without_age_no_file_changes_once_it_is_there(tmp_path: Path) -> None:
    deliver_one_by_one(file(tmp_path, roll={"rows": 100}), [{"id": n} for n in range(5)])
    assert names(tmp_path) == ["0-1.ndjson", "1-2.ndjson", "2-3.ndjson", "3-4.ndjson", "4-5.ndjson"]


def test_files_of_another_time_are_merged_among_themselves(tmp_path: Path) -> None:
    destination = file(tmp_path, roll={"age": "1d"})
    deliver_one_by_one(destination, [{"id": n} for n in range(5)])
    age(tmp_path, 2 * DAY)
    deliver_one_by_one(destination, [{"id": n} for n in range(5, 7)], after=5)
    assert names(tmp_path)[0] == "0-5-merged.ndjson"
    merged = tmp_path / shown(tmp_path)[0]
    assert merged.stat().st_mtime < time.time() - DAY
    assert seqs(tmp_path) == [1, 2, 3, 4, 5, 6, 7]


def test_merged_files_stay_within_the_limits(tmp_path: Path) -> None:
    destination = file(tmp_path, roll={"age": "1d", "rows": 3})
    deliver_one_by_one(destination, [{"id": n} for n in range(8)])
    age(tmp_path, 2 * DAY)
    destination.deliver(delivery([{"id": 8}], after=8))
    assert names(tmp_path) == ["0-3-merged.ndjson", "3-6-merged.ndjson", "6-8-merged.ndjson", "8-9.ndjson"]
    destination = file(tmp_path / "b", roll={"age": "1d", "bytes": "700B"})
    deliver_one_by_one(destination, [{"id": n} for n in range(8)])
    age(tmp_path / "b", 2 * DAY)
    destination.deliver(delivery([{"id": 8}], after=8))
    assert all((tmp_path / "b" / name).stat().st_size <= 700 for name in shown(tmp_path / "b"))
    assert 3 <= len(shown(tmp_path / "b")) < 9


def test_files_whose_columns_differ_stay_apart(tmp_path: Path) -> None:
    for format_ in ("csv", "parquet", "arrow"):
        destination = file(tmp_path / format_, format=format_, roll={"age": "1d"})
        deliver_one_by_one(destination, [{"id": 1}, {"id": 2}, {"id": 3, "city": "Rome"}, {"id": 4, "city": "Rome"}])
        age(tmp_path / format_, 2 * DAY)
        destination.deliver(delivery([{"id": 5}], after=4))
        assert names(tmp_path / format_) == [f"0-2-merged.{format_}", f"2-4-merged.{format_}", f"4-5.{format_}"]


def test_folders_by_value_are_merged_each_for_itself(tmp_path: Path) -> None:
    destination = file(tmp_path, partition="city", roll={"age": "1000w"})
    deliver_one_by_one(destination, [{"id": n, "city": "Rome" if n % 2 else "Paris"} for n in range(8)])
    assert {name.partition("/")[0] for name in names(tmp_path)} == {"Paris", "Rome"}
    assert len(names(tmp_path)) < 8
    assert seqs(tmp_path) == list(range(1, 9))


def test_each_change_is_written_again_a_few_times_and_not_with_every_delivery() -> None:
    """A thousand files of one size, merged as they come."""
    sizes: list[int] = []
    moved = 0
    for _ in range(1_000):
        sizes.append(1)
        found = groups([Sized(Stretch(Path(str(n)), n, n + 1), size, size, 0.0) for n, size in enumerate(sizes)], Limits(), closed=False)
        for group in found:
            moved += sum(f.bytes for f in group)
            sizes = [*sizes[: group[0].stretch.after], sum(f.bytes for f in group)]
    assert sum(sizes) == 1_000
    assert len(sizes) <= 10
    assert moved < 10 * 1_000


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("back_to", [1, 3, 6, 7])
def test_a_delivery_that_starts_over_within_a_merged_file_takes_it_apart(tmp_path: Path, format_: Any, back_to: int) -> None:
    """As after a ledger was put back from an older copy. What comes after it is delivered again, what came before it stays."""
    rows = [{"id": n, "name": 'a "quoted"\nname,\r\n'} for n in range(9)]
    destination = file(tmp_path, format=format_, records="data", roll={"age": "1d"})
    deliver_one_by_one(destination, rows)
    age(tmp_path, 2 * DAY)
    destination.deliver(delivery(changes(rows[:1], first=10), after=9))
    assert names(tmp_path)[0] == f"0-9-merged.{format_}"
    destination.deliver(delivery(changes(rows[back_to:], first=back_to + 1), after=back_to, upto=9))
    assert [row for name in shown(tmp_path) for row in read(tmp_path / name)] == rows
    deliver_one_by_one(destination, rows[:1], after=9)
    assert [row for name in shown(tmp_path) for row in read(tmp_path / name)] == [*rows, rows[0]]


def test_a_disk_that_fills_up_while_files_are_merged_loses_nothing(tmp_path: Path) -> None:
    destination = file(tmp_path, roll={"age": "1d"})
    noise = random.Random(0)
    deliver_one_by_one(destination, [{"id": n, "noise": noise.randbytes(20_000).hex()} for n in range(4)])
    age(tmp_path, 2 * DAY)
    before = files(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, limits[1]))
    try:
        with pytest.raises(RetryLater, match="the disk is full"):
            destination.deliver(delivery([{"id": 4}], after=4))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert files(tmp_path) == before
    destination.deliver(delivery([{"id": 4}], after=4))
    assert seqs(tmp_path) == [1, 2, 3, 4, 5]


def test_a_delivery_from_the_start_replaces_merged_files(tmp_path: Path) -> None:
    destination = file(tmp_path, roll={"age": "1000w"})
    deliver_one_by_one(destination, [{"id": n} for n in range(9)])
    destination.deliver(delivery([{"id": n} for n in range(9)]))
    assert names(tmp_path) == ["0-9.ndjson"]
    assert files(tmp_path) == shown(tmp_path)


def test_a_merged_file_without_its_note_is_not_guessed_at(tmp_path: Path) -> None:
    destination = file(tmp_path, roll={"age": "1d"})
    deliver_one_by_one(destination, [{"id": n} for n in range(3)])
    age(tmp_path, 2 * DAY)
    destination.deliver(delivery([{"id": 3}], after=3))
    (note,) = [name for name in files(tmp_path) if name.endswith(".parts")]
    (tmp_path / note).unlink()
    with pytest.raises(ConfigurationError, match="which says of what, is gone"):
        destination.deliver(delivery([{"id": 2}], after=2))
    assert seqs(tmp_path) == [1, 2, 3, 4]


# ---- keeping ---------------------------------------------------------------------------------------------------------


def test_old_files_of_this_delivery_are_deleted_and_no_others(tmp_path: Path) -> None:
    destination = file(tmp_path, keep="90d", partition="id")
    destination.deliver(delivery([{"id": 1}]))
    destination.deliver(delivery([{"id": 5}], delivery_id="big_deals.warehouse/0123456789abcdef", after=4))
    destination.deliver(delivery([{"id": 6}], delivery_id="small_deals.warehouse"))
    destination.deliver(delivery([{"id": 7}], table_id="another"))
    (tmp_path / "crm_deals" / "people.ndjson").write_text("{}")
    age(tmp_path, 91 * DAY)
    destination.deliver(delivery([{"id": 2}], after=1))
    age(tmp_path, 1)
    receipt = destination.deliver(delivery([{"id": 3}], after=2))
    left = sorted(Path(name).parent.name for name in shown(tmp_path))
    assert left == ["2", "3", "6", "7", "crm_deals"]
    assert "files_deleted" not in receipt.detail
    assert not (tmp_path / "crm_deals" / "1").exists()


def test_a_merged_file_is_kept_as_long_as_what_is_newest_in_it(tmp_path: Path) -> None:
    destination = file(tmp_path, keep="10d", roll={"age": "1000w"})
    destination.deliver(delivery([{"id": 1}]))
    age(tmp_path, 9 * DAY)
    destination.deliver(delivery([{"id": 2}], after=1))
    destination.deliver(delivery([{"id": 3}], after=2))
    age(tmp_path, 2 * DAY)
    assert destination.deliver(delivery([{"id": 4}], after=3)).detail.get("files_deleted") is None
    assert seqs(tmp_path) == [1, 2, 3, 4]
    age(tmp_path, 11 * DAY)
    assert destination.deliver(delivery([{"id": 5}], after=4)).detail["files_deleted"] >= 1
    assert seqs(tmp_path) == [5]
    assert files(tmp_path) == shown(tmp_path)
