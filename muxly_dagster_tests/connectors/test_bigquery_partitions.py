"""Tables by partition: what changed is read and replaced, what is gone is deleted, on the whole road into the lake."""

import datetime as dt
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pytest

from muxly_dagster.connector import Batch, Connector, Span
from muxly_dagster.errors import ConfigurationError
from muxly_dagster.testing.connectors import ConnectorContract
from muxly_dagster_tests.connectors.lab import EPOCH, Lab, lab, rows

DAY = pa.schema([("id", pa.int64()), ("text", pa.string()), ("day", pa.date32())])


class ByDay:
    """A Provider: orders in partitions of two days' numbers, each of which knows when it changed."""

    pull: Mapping[str, Any] = {"stream": "shop.orders", "key": ["id"], "partition": True}

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._rows: dict[int, dict[str, Any]] = {}
        self._changed: dict[str, dt.datetime] = {}
        self._changes = 0
        self._fields = list(DAY)
        self._store()

    @property
    def secrets(self) -> list[str]:
        return [self._lab.bigquery.key(), *self._lab.bigquery.tokens]

    def connector(self, *, wrong: bool = False) -> Connector:
        return self._lab.connector(owner="stranger" if wrong else "muxly")

    def put(self, *numbers: int, text: str = "") -> None:
        for number in numbers:
            self._rows[number] = {"id": number, "text": text, "day": _day(number), "extra": "more"}
            self._touch(number)
        self._store()

    def delete(self, number: int) -> None:
        self._touch(number)
        del self._rows[number]
        self._store()

    def number(self, row: Mapping[str, Any]) -> int:
        return int(row["id"])

    def text(self, row: Mapping[str, Any]) -> str:
        return str(row["text"])

    def drift(self) -> None:
        self._fields.append(pa.field("extra", pa.string()))

    def fail_once(self, status: int) -> None:
        self._lab.storage.fail_next.append(status)

    def break_after(self, requests: int) -> None:
        self._lab.storage.breaks_after = requests

    def mend(self) -> None:
        self._lab.storage.breaks_after = None

    def expire(self) -> None:
        """Nothing expires."""

    def _touch(self, number: int) -> None:
        self._changes += 1
        self._changed[_id(number)] = EPOCH + dt.timedelta(seconds=self._changes)

    def _store(self) -> None:
        schema = pa.schema(self._fields)
        there = {_id(number) for number in self._rows}
        self._lab.bigquery.put(
            "shop.orders",
            pa.Table.from_pylist(list(self._rows.values()), schema),
            partitioning={"timePartitioning": {"type": "DAY", "field": "day"}},
            partitions=[(id_, changed, 100) for id_, changed in self._changed.items() if id_ in there],
        )


def _day(number: int) -> dt.date:
    return EPOCH.date() + dt.timedelta(days=number // 2)


def _id(number: int) -> str:
    return _day(number).strftime("%Y%m%d")


class TestBigqueryByPartition(ConnectorContract):
    """Replaced partitions show what was deleted in them."""

    refreshes = True

    @pytest.fixture
    def provider(self) -> Iterator[ByDay]:
        with lab() as found:
            yield ByDay(found)


# ---- what is read, and what is said of it --------------------------------------------------------------------------


@pytest.fixture
def peer() -> Iterator[Lab]:
    with lab() as found:
        yield found


def _put(peer: Lab, column: pa.Array, partitioning: dict[str, Any], partitions: dict[str, int], size: int = 100) -> None:
    table = pa.table({"id": pa.array(range(len(column)), pa.int64()), "at": column})
    listed = [(id_, EPOCH + dt.timedelta(seconds=changed), size) for id_, changed in partitions.items()]
    peer.bigquery.put("shop.orders", table, partitioning=partitioning, partitions=listed)


def _ids(batches: list[Batch]) -> list[int]:
    return sorted(row["id"] for row in rows(batches))


def _spans(batches: list[Batch]) -> list[Span]:
    return [span for batch in batches for span in batch.complete]


DATES = pa.array([dt.date(2026, 1, 1), dt.date(2026, 1, 2), dt.date(2026, 1, 9)])
BY_DAY = {"timePartitioning": {"type": "DAY", "field": "at"}}


def test_a_first_pull_reads_all_partitions_and_leaves_no_gap(peer: Lab) -> None:
    _put(peer, DATES, BY_DAY, {"20260101": 1, "20260102": 1, "20260109": 1}, size=3 << 30)
    found = peer.batches(partition=True)
    assert _ids(found) == [0, 1, 2]
    days = [dt.date(2026, 1, 2), dt.date(2026, 1, 9)]
    assert _spans(found) == [Span("at", None, days[0]), Span("at", days[0], days[1]), Span("at", days[1], None)]


def test_later_pulls_read_the_partitions_that_changed_side_by_side(peer: Lab) -> None:
    changed = {"20260101": 1, "20260102": 1, "20260109": 1}
    _put(peer, DATES, BY_DAY, changed)
    cursor = peer.batches(partition=True)[-1].cursor
    assert peer.batches(cursor, partition=True) == []
    _put(peer, DATES, BY_DAY, changed | {"20260102": 2, "20260109": 2})
    found = peer.batches(cursor, partition=True)
    assert _ids(found) == [1, 2]
    assert _spans(found) == [Span("at", dt.date(2026, 1, 2), dt.date(2026, 1, 10))]


def test_partitions_that_are_gone_are_cleared(peer: Lab) -> None:
    _put(peer, DATES, BY_DAY, {"20260101": 1, "20260102": 1, "20260109": 1})
    cursor = peer.batches(partition=True)[-1].cursor
    _put(peer, DATES[1:], BY_DAY, {"20260102": 1, "20260109": 1})
    (found,) = peer.batches(cursor, partition=True)
    assert found.cleared == (Span("at", dt.date(2026, 1, 1), dt.date(2026, 1, 2)),)
    assert "20260101" not in found.cursor["partitions"]  # type: ignore[index]


def test_a_break_costs_the_group_that_was_being_read(peer: Lab) -> None:
    _put(peer, DATES, BY_DAY, {"20260101": 1, "20260102": 1, "20260109": 1}, size=3 << 30)
    connector = peer.connector()
    reading = connector.pull(connector.Pull.model_validate({"stream": "shop.orders", "partition": True}), None, None)
    first = next(batch for batch in reading if batch.cursor)
    reading.close()  # type: ignore[attr-defined]
    assert _ids(peer.batches(first.cursor, partition=True)) == [1, 2]


UTC = dt.UTC
HOURS = [dt.datetime(2026, 1, 1, 5), dt.datetime(2026, 1, 1, 6)]


@pytest.mark.parametrize(
    ("unit", "column", "ids", "end"),
    [
        ("HOUR", pa.array(HOURS, pa.timestamp("us", "UTC")), ["2026010105", "2026010106"], dt.datetime(2026, 1, 1, 6, tzinfo=UTC)),
        ("DAY", pa.array([dt.datetime(2026, 2, 28), dt.datetime(2026, 3, 1)], pa.timestamp("us")), ["20260228", "20260301"],
         dt.datetime(2026, 3, 1, tzinfo=UTC)),
        ("MONTH", pa.array([dt.date(2026, 12, 3), dt.date(2027, 1, 1)]), ["202612", "202701"], dt.date(2027, 1, 1)),
        ("YEAR", pa.array([dt.date(2025, 12, 3), dt.date(2026, 1, 1)]), ["2025", "2026"], dt.date(2026, 1, 1)),
    ],
)  # fmt: skip
def test_units_of_time(peer: Lab, unit: str, column: pa.Array, ids: list[str], end: Any) -> None:
    partitioning = {"timePartitioning": {"type": unit, "field": "at"}}
    _put(peer, column, partitioning, dict.fromkeys(ids, 1))
    cursor = peer.batches(partition=True)[-1].cursor
    _put(peer, column, partitioning, {ids[0]: 2, ids[1]: 1})
    found = peer.batches(cursor, partition=True)
    assert _ids(found) == [0]
    (span,) = _spans(found)
    assert span.end == end


def test_ranges_of_numbers_and_what_lies_outside_of_them(peer: Lab) -> None:
    partitioning = {"rangePartitioning": {"field": "at", "range": {"start": "0", "end": "25", "interval": "10"}}}
    column = pa.array([-5, 3, 12, 24, 99, None], pa.int64())
    ids = {"0": 1, "10": 1, "20": 1, "__UNPARTITIONED__": 1, "__NULL__": 1}
    _put(peer, column, partitioning, ids)
    found = peer.batches(partition=True)
    assert Counter(_ids(found)) == Counter(range(6))
    assert _spans(found) == [Span("at", 0, 25), Span("at", None, 0), Span("at", 25, None)]
    _put(peer, column, partitioning, ids | {"20": 2})
    assert _spans(peer.batches(found[-1].cursor, partition=True)) == [Span("at", 20, 25)]


def test_what_lay_outside_of_the_range_is_cleared_when_its_partition_is_gone(peer: Lab) -> None:
    partitioning = {"rangePartitioning": {"field": "at", "range": {"start": "0", "end": "20", "interval": "10"}}}
    _put(peer, pa.array([3, 99], pa.int64()), partitioning, {"0": 1, "__UNPARTITIONED__": 1})
    cursor = peer.batches(partition=True)[-1].cursor
    _put(peer, pa.array([3], pa.int64()), partitioning, {"0": 1})
    (found,) = peer.batches(cursor, partition=True)
    assert found.cleared == (Span("at", None, 0), Span("at", 20, None))
    assert _spans(peer.batches(partition=True)) == [Span("at", None, None)], "from the start, no gap is left"


def test_partitions_that_were_being_read_when_the_pull_broke_and_are_gone_then_are_cleared(peer: Lab) -> None:
    changed = {"20260101": 1, "20260102": 1, "20260109": 1}
    _put(peer, DATES, BY_DAY, changed, size=3 << 30)
    connector = peer.connector()
    reading = connector.pull(connector.Pull.model_validate({"stream": "shop.orders", "partition": True}), None, None)
    seen: list[Batch] = []
    while _ids(seen) != [0, 1]:  # rows of the second partition are there, its cursor is not
        seen.append(next(reading))
    reading.close()  # type: ignore[attr-defined]
    cursor = [batch.cursor for batch in seen if batch.cursor][-1]
    _put(peer, DATES.take(pa.array([0, 2])), BY_DAY, {"20260101": 1, "20260109": 1}, size=3 << 30)
    found = peer.batches(cursor, partition=True)
    assert found[0].cleared == (Span("at", dt.date(2026, 1, 2), dt.date(2026, 1, 3)),)


def test_rows_in_the_streaming_buffer_wait_for_their_partition(peer: Lab) -> None:
    _put(peer, DATES[:1], BY_DAY, {"20260101": 1, "__UNPARTITIONED__": 1})
    cursor = peer.batches(partition=True)[-1].cursor
    _put(peer, DATES[:1], BY_DAY, {"20260101": 1, "__UNPARTITIONED__": 2})
    assert peer.batches(cursor, partition=True) == []


def test_partitions_by_time_of_ingestion_have_a_column_in_the_lake(peer: Lab) -> None:
    days = pa.array([dt.datetime(2026, 1, 1), dt.datetime(2026, 1, 2)], pa.timestamp("us", "UTC"))
    table = pa.table({"id": pa.array([1, 2], pa.int64()), "_PARTITIONTIME": days})
    listed = [("20260101", EPOCH, 100), ("20260102", EPOCH, 100)]
    peer.bigquery.put("shop.orders", table, partitioning={"timePartitioning": {"type": "DAY"}}, partitions=listed)
    found = peer.batches(partition=True)
    assert [(row["id"], row["partition_time"].day) for row in rows(found)] == [(1, 1), (2, 2)]
    assert _spans(found) == [Span("partition_time", None, None)]
    connector = peer.connector()
    stream = connector.resolve(connector.Pull.model_validate({"stream": "shop.orders", "partition": True}))
    assert stream.schema is not None and stream.schema.names == ["id", "partition_time"]
    assert (stream.sync, stream.deletes) == ("delta", True)


def test_a_table_that_lost_all_its_partitions_is_empty_in_the_lake_too(peer: Lab) -> None:
    _put(peer, DATES[:0], BY_DAY, {})
    (found,) = peer.batches(partition=True)
    assert found.complete == (Span(),)


def test_a_table_without_partitions_says_so(peer: Lab) -> None:
    _put(peer, DATES, {}, {})
    with pytest.raises(ConfigurationError, match="no partitions"):
        peer.batches(partition=True)
    connector = peer.connector()
    (said,) = connector.check_pull(connector.Pull.model_validate({"stream": "shop.orders", "partition": True}))
    assert "no partitions" in said
