"""Tables through the Storage Read API: one snapshot, parallel streams, resumed at (stream, offset), then what is new."""

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from muxly_dagster.connector import Batch, Span
from muxly_dagster.errors import ConfigurationError, MuxlyError, RetryLater
from muxly_dagster.testing.connectors import Pulled
from muxly_dagster_tests.connectors.lab import EPOCH, Lab, lab, orders, rows
from muxly_dagster_tests.connectors.test_bigquery import Orders

BY_TIME = {"key": ["id"], "cursor": "updated_at"}


@pytest.fixture
def peer() -> Iterator[Lab]:
    with lab() as found:
        yield found


def ids(found: list[Batch] | list[dict[str, Any]]) -> list[int]:
    plain = rows(found) if found and isinstance(found[0], Batch) else found  # type: ignore[arg-type]
    return sorted(row["id"] for row in plain)  # type: ignore[call-overload]


def restriction(peer: Lab) -> str:
    return str(peer.storage.sessions[-1].read_session.read_options.row_restriction)


def test_a_whole_pull_reads_every_stream_once(peer: Lab) -> None:
    peer.bigquery.put("shop.orders", orders(*range(20)))
    peer.storage.streams = 3
    assert ids(peer.batches()) == list(range(20))
    assert len(peer.storage.sessions) == 1 and len(peer.storage.reads) == 3


def test_at_most_so_many_streams_are_read_as_the_pull_says(peer: Lab) -> None:
    peer.bigquery.put("shop.orders", orders(*range(20)))
    peer.storage.streams = 10
    assert ids(peer.batches(streams=2)) == list(range(20))
    assert len(peer.storage.reads) == 2


def test_an_empty_table_has_no_streams_and_no_rows(peer: Lab) -> None:
    peer.bigquery.put("shop.orders", orders())
    assert rows(peer.batches()) == [] and rows(peer.batches(**BY_TIME)) == []


def test_a_table_is_read_as_it_was_at_one_moment(peer: Lab) -> None:
    peer.bigquery.put("shop.orders", orders(1, 2))
    peer.batches(**BY_TIME)
    snapshot = peer.storage.sessions[0].read_session.table_modifiers.snapshot_time
    peer.bigquery.put("shop.orders", orders(3))
    assert peer.bigquery.tables["shop.orders"].at(snapshot.replace(tzinfo=dt.UTC)).num_rows == 2


def test_a_broken_stream_goes_on_at_its_offset(peer: Lab) -> None:
    peer.bigquery.put("shop.orders", orders(*range(12)))
    peer.storage.streams, peer.storage.drops = 1, [(2, "UNAVAILABLE"), (1, "UNAVAILABLE")]
    assert ids(peer.batches()) == list(range(12))
    assert [offset for _, offset in peer.storage.reads] == [0, 4, 6]


def test_a_token_that_ran_out_in_mid_stream_is_asked_for_again(peer: Lab) -> None:
    peer.bigquery.put("shop.orders", orders(*range(12)))
    peer.storage.streams, peer.storage.drops = 1, [(2, "UNAUTHENTICATED")]
    assert ids(peer.batches()) == list(range(12))
    assert [offset for _, offset in peer.storage.reads] == [0, 4] and len(peer.bigquery.tokens) == 2


def test_another_process_goes_on_at_stream_and_offset(peer: Lab) -> None:
    peer.bigquery.put("shop.orders", orders(*range(12)))
    peer.storage.streams, peer.storage.drops = 1, [(2, "INTERNAL")]
    before = _until_trouble(peer)
    assert ids(before) == [0, 1, 2, 3]
    after = peer.batches(before[-1].cursor, **BY_TIME)
    assert ids(after) == list(range(4, 12))
    assert len(peer.storage.sessions) == 1 and peer.storage.reads[-1][1] == 4
    assert after[-1].cursor == {"column": "updated_at", "value": "2026-01-01T00:11:00+00:00"}


def _until_trouble(peer: Lab, error: type[MuxlyError] = RetryLater, **pull: Any) -> list[Batch]:
    connector, found = peer.connector(), []
    with pytest.raises(error):
        for batch in connector.pull(connector.Pull.model_validate({"stream": "shop.orders", **(pull or BY_TIME)}), None, None):
            found.append(batch)
    return found


def test_what_changed_while_a_snapshot_was_interrupted_comes_next(peer: Lab) -> None:
    peer.bigquery.put("shop.orders", orders(*range(6)))
    peer.storage.streams, peer.storage.drops = 1, [(2, "INTERNAL")]
    before = _until_trouble(peer)
    peer.bigquery.put("shop.orders", pa.concat_tables([orders(*range(6)), orders(7, hour=1)]))
    resumed = peer.batches(before[-1].cursor, **BY_TIME)
    assert ids(resumed) == [4, 5]
    assert ids(peer.batches(resumed[-1].cursor, **BY_TIME)) == [5, 7]


@pytest.mark.parametrize("lost", ["the session", "its time", "the settings"])
def test_where_the_session_is_lost_everything_is_read_again(peer: Lab, lost: str) -> None:
    peer.bigquery.put("shop.orders", orders(*range(6)))
    peer.storage.streams, peer.storage.drops = 1, [(2, "INTERNAL")]
    if lost == "its time":
        peer.storage.lifetime = dt.timedelta(seconds=1)
    before = _until_trouble(peer)
    if lost == "the session":
        peer.storage.forget()
    pull = BY_TIME | ({"where": "id > 1"} if lost == "the settings" else {})
    expected = [2, 3, 4, 5] if lost == "the settings" else [0, 1, 2, 3, 4, 5]
    assert ids(peer.batches(before[-1].cursor, **pull)) == expected
    assert len(peer.storage.sessions) == 2


def test_only_a_snapshot_read_in_one_go_says_what_is_gone(peer: Lab) -> None:
    peer.bigquery.put("shop.orders", orders(*range(6)))
    first = peer.batches(**BY_TIME)
    assert [batch.complete for batch in first if batch.complete] == [(Span(),)] and first[-1].complete
    assert not any(batch.complete for batch in peer.batches(first[-1].cursor, **BY_TIME))
    assert not any(batch.complete for batch in peer.batches(cursor="updated_at")), "without a key, rows are only added"
    peer.storage.streams, peer.storage.drops = 1, [(2, "INTERNAL")]
    before = _until_trouble(peer)
    assert not any(batch.complete for batch in [*before, *peer.batches(before[-1].cursor, **BY_TIME)])


def test_a_pull_from_the_start_deletes_what_is_gone(tmp_path: Path) -> None:
    with lab() as found:
        provider = Orders(found)
        provider.put(1, 2, 3, text="first")
        pulled = Pulled(provider, tmp_path)
        pulled.run()
        provider.delete(2)
        assert pulled.run().changed == 0
        assert pulled.run(from_start=True).metadata["deletes"] == 1
        assert set(pulled.rows()) == {1, 3}


def test_without_a_key_a_lost_session_is_told_and_nothing_is_stored_twice(peer: Lab) -> None:
    peer.bigquery.put("shop.orders", orders(*range(6)))
    peer.storage.streams, peer.storage.drops = 1, [(2, "INTERNAL")]
    before = _until_trouble(peer, cursor="updated_at")
    peer.storage.forget()
    with pytest.raises(ConfigurationError, match="--from-start"):
        peer.batches(before[-1].cursor, cursor="updated_at")


# ---- what is new -----------------------------------------------------------------------------------------------


def _after_first(peer: Lab, **pull: Any) -> Any:
    return peer.batches(**pull)[-1].cursor


def test_later_pulls_read_from_the_last_value_on(peer: Lab) -> None:
    peer.bigquery.put("shop.orders", orders(1, 2, 3))
    cursor = _after_first(peer, **BY_TIME)
    peer.bigquery.put("shop.orders", pa.concat_tables([orders(1, 2, 3), orders(4, hour=1)]))
    news = peer.batches(cursor, **BY_TIME)
    assert ids(news) == [3, 4]  # row 3 has the last value, which others may have joined
    assert restriction(peer) == "(`updated_at` >= TIMESTAMP '2026-01-01T00:03:00+00:00' OR `updated_at` IS NULL)"
    assert not peer.storage.sessions[-1].read_session.table_modifiers._pb.HasField("snapshot_time")
    assert news[-1].cursor["value"] == "2026-01-01T01:04:00+00:00"


def test_without_a_key_reading_goes_on_strictly_behind_the_last_value(peer: Lab) -> None:
    peer.bigquery.put("shop.orders", orders(1, 2, 3))
    cursor = _after_first(peer, cursor="updated_at")
    assert rows(peer.batches(cursor, cursor="updated_at")) == []


def test_a_lookback_reads_rows_that_came_late(peer: Lab) -> None:
    peer.bigquery.put("shop.orders", orders(1, 5))
    pull = BY_TIME | {"lookback": "2m"}
    cursor = _after_first(peer, **pull)
    peer.bigquery.put("shop.orders", orders(1, 3, 5))
    assert ids(peer.batches(cursor, **pull)) == [3, 5]


@pytest.mark.parametrize(
    ("type_", "values", "lookback", "expected"),
    [
        (pa.int64(), [1, 2, 9], "3", "9"),
        (pa.decimal128(38, 9), ["1.5", "2", "9.25"], "3", "9.250000000"),
        (pa.string(), ["a", "b'\\\"c", "d'\\x"], "", "d'\\x"),
        (pa.date32(), [EPOCH.date(), dt.date(2026, 2, 1), dt.date(2026, 3, 1)], "2d", "2026-03-01"),
        (pa.timestamp("us"), [dt.datetime(2026, 1, n, 3, 4, 5, 6) for n in (1, 2, 3)], "2h", "2026-01-03T03:04:05.000006"),
    ],
)
def test_any_ordered_type_can_be_gone_by(peer: Lab, type_: pa.DataType, values: list[Any], lookback: str, expected: str) -> None:
    column = pa.array(values).cast(type_) if pa.types.is_decimal(type_) else pa.array(values, type_)
    peer.bigquery.put("shop.orders", pa.table({"id": [1, 2, 3], "at": column}))
    pull: dict[str, Any] = {"key": ["id"], "cursor": "at", "lookback": lookback}
    cursor = _after_first(peer, **pull)
    assert str(cursor["value"]) == expected
    assert ids(peer.batches(cursor, **pull)) == [3]


def test_rows_without_a_value_come_each_time_where_a_key_tells_them_apart(peer: Lab) -> None:
    peer.bigquery.put("shop.orders", pa.table({"id": [1, 2], "n": pa.array([5, None], pa.int64())}))
    pull = {"key": ["id"], "cursor": "n"}
    assert ids(peer.batches(_after_first(peer, **pull), **pull)) == [1, 2]


def test_rows_without_a_value_are_set_aside_where_there_is_no_key(peer: Lab) -> None:
    peer.bigquery.put("shop.orders", pa.table({"id": [1, 2], "n": pa.array([5, None], pa.int64())}))
    found = peer.batches(cursor="n")
    assert ids(found) == [1]
    (lost,) = [unreadable for batch in found for unreadable in batch.unreadable]
    assert lost.text == '{"id":2,"n":null}' and "no key" in lost.reason


def test_only_the_named_columns_the_key_and_the_cursor_are_read(peer: Lab) -> None:
    table = orders(1).append_column("more", pa.array(["x"])).append_column("other", pa.array(["y"]))
    peer.bigquery.put("shop.orders", table)
    (row,) = peer.rows(**BY_TIME, columns=["more"])
    assert set(row) == {"id", "updated_at", "more"}
    assert list(peer.storage.sessions[-1].read_session.read_options.selected_fields) == ["id", "updated_at", "more"]


def test_a_condition_goes_to_bigquery_with_the_cursors(peer: Lab) -> None:
    peer.bigquery.put("shop.orders", pa.concat_tables([orders(1, 2), orders(3, text="other")]))
    pull = BY_TIME | {"where": "text = 'first' -- not the others"}
    cursor = _after_first(peer, **pull)
    assert cursor["value"] == "2026-01-01T00:02:00+00:00"
    assert ids(peer.batches(cursor, **pull)) == [2]


def test_a_cursor_of_another_column_asks_for_a_new_start(peer: Lab) -> None:
    peer.bigquery.put("shop.orders", orders(1))
    with pytest.raises(ConfigurationError, match="--from-start"):
        peer.batches(_after_first(peer, **BY_TIME), key=["id"], cursor="id")


def test_a_pull_can_be_left_in_the_middle(peer: Lab) -> None:
    peer.bigquery.put("shop.orders", orders(*range(200)))
    peer.storage.streams = 4
    connector = peer.connector()
    reading = connector.pull(connector.Pull.model_validate({"stream": "shop.orders"}), None, None)
    assert len(next(reading).rows)
    reading.close()  # type: ignore[attr-defined]
    assert ids(peer.batches()) == list(range(200))


def test_the_tables_key_and_types_are_found(peer: Lab) -> None:
    peer.bigquery.put("shop.orders", orders(1), key=("id",))
    connector = peer.connector(dataset="shop")
    stream = connector.resolve(connector.Pull.model_validate({"stream": "orders"}))
    assert (stream.key, stream.sync) == (("id",), "full")
    assert stream.schema == pa.schema({"id": pa.int64(), "text": pa.string(), "updated_at": pa.timestamp("us", "UTC")})
    assert [stream.name for stream in connector.streams()] == ["orders"]
    assert [stream.name for stream in peer.connector().streams()] == ["shop.orders"]
