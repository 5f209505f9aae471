"""What the lake stores: only what changed, in types that hold it exactly, in the shape the contract allows."""

import decimal
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from muxly_dagster import records, sandbox
from muxly_dagster.connector import Contract
from muxly_dagster.errors import BusyError, MuxlyError
from muxly_dagster.lake import Lake, Written


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


def write(
    lake: Lake, *batches: pa.Table, key: tuple[str, ...] = ("id",), contract: Contract = "evolve", whole: bool = True, appends: bool = False
) -> Written:
    with lake.writer("crm.things", key=key, run_id="run", contract=contract, appends=appends) as writer:
        for batch in batches:
            writer.add(batch)
        writer.take_rejected()
        return writer.finish(whole=whole)


def current(lake: Lake) -> list[dict[str, Any]]:
    return sorted(lake.existing("crm.things").current().to_pylist(), key=str)


def ops(lake: Lake) -> list[tuple[str, str]]:
    changes = lake.existing("crm.things").changes(0, 1 << 40)
    return list(zip(changes[records.OP].to_pylist(), changes[records.KEY].to_pylist(), strict=True))


def test_a_second_identical_pull_stores_nothing(lake: Lake) -> None:
    rows = pa.table({"id": ["1", "2"], "n": [1, 2]})
    assert write(lake, rows).upserts == 2
    version = lake.existing("crm.things").delta.version()
    assert write(lake, rows).changed == 0
    assert lake.existing("crm.things").delta.version() == version


def test_what_a_whole_pull_no_longer_has_is_deleted_with_its_last_values(lake: Lake) -> None:
    write(lake, pa.table({"id": ["1", "2"], "n": [1, 2]}))
    assert write(lake, pa.table({"id": ["2"], "n": [2]})).deletes == 1
    assert current(lake) == [{"id": "2", "n": 2}]
    deleted = lake.existing("crm.things").changes(2, 3).to_pylist()[0]
    assert (deleted["_muxly_op"], deleted["id"], deleted["n"]) == ("delete", "1", 1)


def test_a_deleted_record_that_comes_back_unchanged_is_stored_again(lake: Lake) -> None:
    both = pa.table({"id": ["1", "2"], "n": [1, 2]})
    write(lake, both)
    write(lake, both.slice(0, 1))
    write(lake, both)
    assert ops(lake) == [("upsert", "1"), ("upsert", "2"), ("delete", "2"), ("upsert", "2")]


def test_the_last_of_a_duplicate_key_wins(lake: Lake) -> None:
    written = write(lake, pa.table({"id": ["1", "1"], "n": [1, 2]}))
    assert (written.read, written.upserts, written.duplicates) == (2, 1, 1)
    assert current(lake) == [{"id": "1", "n": 2}]


def test_a_new_column_changes_only_the_rows_that_have_it(lake: Lake) -> None:
    write(lake, pa.table({"id": ["1", "2"], "n": [1, 2]}))
    written = write(lake, pa.table({"id": ["1", "2"], "n": [1, 2], "city": pa.array([None, "Ulm"])}))
    assert written.upserts == 1
    assert written.schema_changes == ["column city appeared (string)"]


def test_null_and_empty_text_are_told_apart(lake: Lake) -> None:
    write(lake, pa.table({"id": ["1"], "a": pa.array([None], pa.string()), "b": [""]}))
    assert write(lake, pa.table({"id": ["1"], "a": [""], "b": pa.array([None], pa.string())})).upserts == 1
    assert write(lake, pa.table({"id": ["1"], "a": [""], "b": [""]})).upserts == 1


@pytest.mark.parametrize(
    ("before", "after", "type_", "values"),
    [
        ([1, 2], [1.5, 2.0], pa.float64(), [1.5, 2.0]),
        ([1, 2], ["x", "2"], pa.string(), ["x", "2"]),
        ([True, False], ["x", "false"], pa.string(), ["x", "false"]),
        ([2**53 + 1, 2], [1.5, 2.0], pa.string(), ["1.5", "2"]),
        ([1, 2], pa.array([decimal.Decimal(10) ** 30, 2], pa.decimal128(38, 0)), pa.decimal128(38, 0), [decimal.Decimal(10) ** 30, 2]),
    ],
)
def test_a_type_that_changes_widens_the_column_and_keeps_the_log(
    lake: Lake, before: Any, after: Any, type_: pa.DataType, values: Any
) -> None:
    write(lake, pa.table({"id": ["1", "2"], "v": before}))
    written = write(lake, pa.table({"id": ["1", "2"], "v": after}))
    table = lake.existing("crm.things")
    assert table.schema.field("v").type == type_
    assert [row["v"] for row in current(lake)] == values
    assert "column v changed" in written.schema_changes[0]
    assert table.head == len(table.changes(0, 99)) == 2 + written.upserts


def test_a_type_that_changes_in_mid_pull_widens_what_is_pending(lake: Lake) -> None:
    write(lake, pa.table({"id": ["1"], "v": [1]}), pa.table({"id": ["2"], "v": ["two"]}))
    assert current(lake) == [{"id": "1", "v": "1"}, {"id": "2", "v": "two"}]


def test_text_becomes_json_text_once_a_value_is_nested(lake: Lake) -> None:
    write(lake, pa.table({"id": ["1"], "v": ["plain"]}))
    nested = pa.table(
        {"id": ["2"], "v": ['{"a":1}']}, schema=pa.schema([("id", pa.string()), pa.field("v", pa.string(), metadata=records.JSON_FIELD)])
    )
    write(lake, nested, whole=False)
    assert current(lake) == [{"id": "1", "v": '"plain"'}, {"id": "2", "v": '{"a":1}'}]
    assert records.is_json(lake.existing("crm.things").schema.field("v"))


def test_a_frozen_contract_refuses_drift_and_stores_nothing(lake: Lake) -> None:
    write(lake, pa.table({"id": ["1"], "v": [1]}))
    with pytest.raises(MuxlyError, match=r"contract of crm\.things is frozen, but column new appeared"):
        write(lake, pa.table({"id": ["2"], "v": [2], "new": ["x"]}), contract="freeze")
    assert current(lake) == [{"id": "1", "v": 1}]


def test_a_discarding_contract_leaves_new_columns_out_and_rejects_what_does_not_fit(lake: Lake) -> None:
    write(lake, pa.table({"id": ["1"], "v": [1]}))
    with lake.writer("crm.things", key=("id",), run_id="run", contract="discard") as writer:
        writer.add(pa.table({"id": ["2", "3"], "v": ["2", "three"], "new": ["x", "y"]}))
        rejected = writer.take_rejected()
        written = writer.finish(whole=False)
    assert current(lake) == [{"id": "1", "v": 1}, {"id": "2", "v": 2}]
    assert written.schema_changes == ["column new left out by contract"]
    assert [(rows["id"].to_pylist(), "does not fit" in reason) for rows, reason in rejected] == [(["3"], True)]


def test_rows_without_their_key_are_handed_back(lake: Lake) -> None:
    with lake.writer("crm.things", key=("id",), run_id="run") as writer:
        writer.add(pa.table({"id": ["1", None], "v": [1, 2]}))
        writer.add(pa.table({"v": [3]}))
        reasons = [reason for _, reason in writer.take_rejected()]
        writer.finish(whole=True)
    assert reasons == ["the record has no key: id is null", "the record has no key: id is missing"]
    assert current(lake) == [{"id": "1", "v": 1}]


def test_rejected_rows_that_nobody_took_fail_the_run(lake: Lake) -> None:
    with lake.writer("crm.things", key=("id",), run_id="run") as writer:
        writer.add(pa.table({"id": pa.array([None], pa.string())}))
        with pytest.raises(MuxlyError, match="cannot store a record"):
            writer.finish(whole=True)


def test_rows_without_a_key_are_known_by_their_content_and_number(lake: Lake) -> None:
    write(lake, pa.table({"v": ["a", "a", "b"]}), key=())
    assert write(lake, pa.table({"v": ["b", "a", "a"]}), key=()).changed == 0
    assert write(lake, pa.table({"v": ["a", "b"]}), key=()).deletes == 1
    assert current(lake) == [{"v": "a"}, {"v": "b"}]


def test_appends_are_changes_of_their_own(lake: Lake) -> None:
    write(lake, pa.table({"v": ["a"]}), pa.table({"v": ["a"]}), key=(), appends=True, whole=False)
    write(lake, pa.table({"v": ["a"]}), key=(), appends=True, whole=False)
    assert current(lake) == [{"v": "a"}] * 3


def test_a_composite_key_is_one_identity(lake: Lake) -> None:
    write(lake, pa.table({"a": [1, 1], "b": ["x", "y"], "v": [1, 2]}), key=("a", "b"))
    assert write(lake, pa.table({"a": [1], "b": ["y"], "v": [3]}), key=("a", "b"), whole=False).upserts == 1
    assert ops(lake) == [("upsert", '[1,"x"]'), ("upsert", '[1,"y"]'), ("upsert", '[1,"y"]')]


def test_a_stale_writer_is_told_that_another_run_was_faster(lake: Lake) -> None:
    write(lake, pa.table({"id": ["1"], "v": [1]}))
    with lake.writer("crm.things", key=("id",), run_id="a") as slow, lake.writer("crm.things", key=("id",), run_id="b") as fast:
        fast.add(pa.table({"id": ["2"], "v": [2]}))
        fast.commit(1)
        slow.add(pa.table({"id": ["3"], "v": [3]}))
        with pytest.raises(BusyError, match="another run wrote to crm.things"):
            slow.commit(1)


def test_compaction_merges_files_and_changes_nothing_that_is_read(lake: Lake) -> None:
    for n in range(5):
        write(lake, pa.table({"id": [str(n)], "v": [n]}), whole=False)
    with lake.writer("crm.things", key=("id",), run_id="run") as writer:
        writer.add(pa.table({"id": ["9"], "v": [9]}))
        writer.commit(7)
    before, log = current(lake), lake.existing("crm.things").changes(0, 99)
    done = lake.maintain(lake.names(), keep_hours=0)["crm.things"]
    after = lake.existing("crm.things")
    assert (done["files_before"], done["files_after"]) == (6, 1)
    assert len(list(Path(after.url.removeprefix("file://")).glob("*.parquet"))) == 1
    assert current(lake) == before
    assert after.changes(0, 99).equals(log)
    assert (after.head, after.cursor_version, after.key) == (6, 7, ("id",))


def test_a_broken_table_says_what_to_do(lake: Lake) -> None:
    write(lake, pa.table({"id": ["1"]}))
    log = Path(lake.path("crm.things")) / "_delta_log" / "00000000000000000000.json"
    log.write_text("rubbish")
    with pytest.raises(MuxlyError, match="cannot be read") as error:
        lake.table("crm.things")
    assert "--from-start" in error.value.do


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pulls=st.lists(
        st.dictionaries(st.sampled_from("abcdef"), st.one_of(st.integers(0, 3), st.sampled_from(["x", "y"]), st.none())),
        min_size=1,
        max_size=6,
    )
)
def test_any_series_of_whole_pulls_leaves_exactly_the_last_one_current(tmp_path: Path, pulls: list[dict[str, Any]]) -> None:
    shutil.rmtree(tmp_path / "lake", ignore_errors=True)
    lake = Lake(str(tmp_path / "lake"))
    replayed: dict[str, Any] = {}
    for pull in pulls:
        kinds = ([k for k, v in pull.items() if isinstance(v, int)], [k for k, v in pull.items() if not isinstance(v, int)])
        write(lake, *(records.normalise(pa.table({"id": keys, "v": [pull[k] for k in keys]})) for keys in kinds if keys))
    as_text = {k: None if v is None else str(v) for k, v in pulls[-1].items()}
    assert {row["id"]: None if row.get("v") is None else str(row["v"]) for row in current(lake)} == as_text
    for change in lake.existing("crm.things").changes(0, 1 << 40).to_pylist():
        value = None if change.get("v") is None else str(change["v"])
        replayed.pop(change["_muxly_key"]) if change["_muxly_op"] == "delete" else replayed.update({change["_muxly_key"]: value})
    assert replayed == as_text


def test_rows_that_are_none_still_bring_their_columns(lake: Lake) -> None:
    write(lake, pa.table({"id": pa.array([], pa.string()), "v": pa.array([], pa.int64())}))
    assert lake.existing("crm.things").schema.names == ["id", "v"]
    assert write(lake, pa.table({"id": ["1"], "v": [1]})).upserts == 1


def test_sql_reads_current_rows_under_their_own_names(lake: Lake) -> None:
    nested = pa.schema([pa.field("id", pa.string()), pa.field("v", pa.string(), metadata=records.JSON_FIELD)])
    write(lake, pa.table([["1", "2"], ['{"a":1}', None]], schema=nested))
    write(lake, pa.table([["1"], ['{"a":2}']], schema=nested))
    with sandbox.connect() as connection:
        lake.attach(connection, ["crm.things"])
        assert connection.sql("select id, v->>'a', typeof(v) from crm.things").fetchall() == [("1", "2", "JSON")]


def test_a_table_without_columns_or_data_says_so(lake: Lake) -> None:
    write(lake)
    with sandbox.connect() as connection, pytest.raises(MuxlyError, match="has had no record yet"):
        lake.attach(connection, ["crm.things"])
    with sandbox.connect() as connection, pytest.raises(MuxlyError, match="has no data yet"):
        lake.attach(connection, ["crm.nothing"])
