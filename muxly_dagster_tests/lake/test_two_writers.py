"""Two writers of one table at once: the later commit is refused, whatever it holds, and nothing is numbered twice."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from muxly_dagster import records
from muxly_dagster.errors import BusyError, MuxlyError
from muxly_dagster.lake import Lake, Writer
from muxly_dagster.lake import writer as writing


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


def writer(lake: Lake) -> Writer:
    return lake.writer("customers", key=("id",), run_id="run")


def seqs(lake: Lake) -> list[int]:
    found: list[int] = lake.existing("customers").changes(0, 1 << 40)[records.SEQ].to_pylist()
    return found


def test_two_first_commits(lake: Lake) -> None:
    one, two = writer(lake), writer(lake)
    for each in (one, two):
        each.add(pa.table({"id": ["1"], "v": [1]}))
    one.commit()
    with pytest.raises(BusyError, match="another run wrote to customers at the same time"):
        two.commit()
    assert seqs(lake) == [1]


def test_two_commits_that_name_no_cursor(lake: Lake) -> None:
    with writer(lake) as first:
        first.add(pa.table({"id": ["1"], "v": [1]}))
        first.finish(whole=True)
    one, two = writer(lake), writer(lake)
    one.add(pa.table({"id": ["2"], "v": [2]}))
    two.add(pa.table({"id": ["3"], "v": [3]}))
    one.commit()
    with pytest.raises(BusyError, match="another run wrote to customers at the same time"):
        two.commit()
    assert seqs(lake) == [1, 2]


def test_a_column_that_is_widened_while_another_run_appends(lake: Lake) -> None:
    with writer(lake) as first:
        first.add(pa.table({"id": ["1"], "v": [1]}))
        first.commit(4)
    one, two = writer(lake), writer(lake)
    one.add(pa.table({"id": ["2"], "v": [2]}))
    one.commit()
    with pytest.raises(BusyError, match="another run wrote to customers at the same time"):
        two.add(pa.table({"id": ["3"], "v": ["three"]}))
    with writer(lake) as third:
        third.add(pa.table({"id": ["3"], "v": ["three"]}))
        third.finish(whole=False)
    assert seqs(lake) == [1, 2, 3]
    assert (lake.existing("customers").cursor_version, lake.existing("customers").key) == (4, ("id",))


def test_a_commit_that_came_through_though_it_seemed_to_fail_is_not_made_again(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk can show itself after the commit, when Delta writes its own checkpoint."""
    with writer(lake) as first:
        first.add(pa.table({"id": ["1"], "v": [1]}))
        first.finish(whole=True)

    def too_late(*arguments: Any, **options: Any) -> None:
        write_deltalake(*arguments, **options)
        raise OSError("No space left on device")

    with writer(lake) as second:
        second.add(pa.table({"id": ["2"], "v": [2]}))
        monkeypatch.setattr(writing, "write_deltalake", too_late)
        with pytest.raises(MuxlyError, match="No space left"):
            second.commit()
        monkeypatch.undo()
        with pytest.raises(MuxlyError, match="an earlier commit to customers failed"):
            second.commit()
    assert seqs(lake) == [1, 2]


def test_many_deletions_are_stored_on_the_way(lake: Lake) -> None:
    with writer(lake) as first:
        first.add(pa.table({"id": [str(n) for n in range(1_000)], "v": [1] * 1_000}))
        first.finish(whole=True)
    before = lake.existing("customers").delta.version()
    with lake.writer("customers", key=("id",), run_id="run", flush_rows=100) as second:
        second.add(pa.table({"id": ["0"], "v": [2], "new": ["x"]}))
        assert second.finish(whole=True).deletes == 999
    table = lake.existing("customers")
    assert table.current().to_pylist() == [{"id": "0", "v": 2, "new": "x"}]
    assert seqs(lake) == list(range(1, 2_001))
    assert table.delta.version() > before


def test_the_size_of_a_change_is_known_before_it_is_read(lake: Lake) -> None:
    with writer(lake) as first:
        first.add(pa.table({"id": [str(n) for n in range(10)], "v": ["x" * 100_000] * 10}))
        first.commit()
        first.add(pa.table({"id": ["small"], "v": ["x"]}))
        first.finish(whole=False)
    table = lake.existing("customers")
    assert 100_000 <= table.row_bytes(3) <= 110_000
    assert table.row_bytes(11) < 1_000
    assert table.row_bytes(12) == 1
