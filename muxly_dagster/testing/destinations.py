"""What people who write destinations test with: changes made by hand, a destination in memory, and the contract every one must keep.

class TestMine(DestinationContract):
    @pytest.fixture
    def destination(self, tmp_path):
        return Mine(path=str(tmp_path))

    def stored(self, destination):
        return [...]  # what is there now, one dict of data columns per record
"""

import datetime as dt
import decimal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import PrivateAttr

from muxly_dagster import records
from muxly_dagster.destination import Delivery, Destination, Receipt, Refusal
from muxly_dagster.errors import MuxlyError, RecordRefused, RetryLater
from muxly_dagster.resource import CheckResult

_READ_AT = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)

EVERY_TYPE: Mapping[str, tuple[pa.DataType, Any]] = {
    "a_bool": (pa.bool_(), True),
    "an_int": (pa.int64(), 2**53 + 1),
    "a_float": (pa.float64(), 0.1),
    "a_decimal": (pa.decimal128(38, 9), decimal.Decimal("12345678901234567890123456789.123456789")),
    "a_text": (pa.string(), 'Grüße, "Ada"\n\t\\N , 文字'),
    "some_bytes": (pa.binary(), b"\x00\xff\\x41"),
    "a_date": (pa.date32(), dt.date(1969, 12, 31)),
    "a_time": (records.TIMESTAMP, dt.datetime(2026, 7, 1, 12, 30, 0, 123456, tzinfo=dt.UTC)),
}
"""A value of each of the lake's types that a careless conversion would change."""


def changes(
    data: Sequence[Mapping[str, Any]],
    *,
    key: Sequence[str] = ("id",),
    ops: Sequence[records.Op] | None = None,
    first: int = 1,
    schema: pa.Schema | None = None,
) -> pa.Table:
    """Rows of a lake table with seqs from `first`, all upserts unless `ops` says otherwise."""
    rows = _rows(data, schema)
    seqs = list(range(first, first + len(rows)))
    keys = records.key_texts(rows, key) if key else pa.array([f"#{n}" for n in seqs])
    envelope = [
        pa.array(seqs, pa.int64()),
        pa.array(ops or ["upsert"] * len(rows), pa.string()),
        keys,
        pa.array(records.content_hashes(rows)),
        pa.array([_READ_AT] * len(rows), records.TIMESTAMP),
        pa.array(["run-1"] * len(rows), pa.string()),
        pa.nulls(len(rows), pa.string()),
    ]
    return pa.table([*envelope, *rows.columns], schema=pa.schema([*records.ENVELOPE, *rows.schema]))


def _rows(data: Sequence[Mapping[str, Any]], schema: pa.Schema | None) -> pa.Table:
    names = schema.names if schema else list(dict.fromkeys(name for row in data for name in row))
    fields, columns = [], []
    for name in names:
        values = [row.get(name) for row in data]
        nested = any(isinstance(v, dict | list) for v in values)
        if nested:
            values = [None if v is None else records.to_json(v).decode() for v in values]
        column = pa.array(values, schema.field(name).type if schema else None)
        fields.append(pa.field(name, column.type, metadata=records.JSON_FIELD if nested else None))
        columns.append(column)
    return records.normalise(pa.table(columns, schema=pa.schema(fields)))


def delivery(
    data: Sequence[Mapping[str, Any]] | pa.Table,
    *,
    key: Sequence[str] = ("id",),
    ops: Sequence[records.Op] | None = None,
    after: int = 0,
    upto: int | None = None,
    delivery_id: str = "big_deals.warehouse",
    table: str = "crm.deals",
    table_id: str = "0b8e1f9c",
) -> Delivery:
    """A stretch of changes that follow `after`, on their way."""
    rows = data if isinstance(data, pa.Table) else changes(data, key=key, ops=ops, first=after + 1)
    end = after + len(rows) if upto is None else upto
    return Delivery(delivery_id, table, table_id, tuple(key), rows, after, end, connector_id="hubspot", run_id="run-1")


@dataclass(slots=True)
class Memory:
    """What a MemoryDestination took, and how it is to behave."""

    taken: list[dict[str, Any]] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)
    refuses: Callable[[dict[str, Any]], str | None] | None = None
    batches_only: bool = False
    down: MuxlyError | None = None
    room: int | None = None


class MemoryDestination(Destination):
    """Keeps records in `memory.taken`, in the record form; each record once, however often it is delivered.

    It refuses what `refuse` says, record by record, or as a whole batch where `whole` is set. `go_down` lets every delivery
    fail until `come_up`; with `after_records`, so many records are taken first and confirmed in a receipt for a part.
    """

    type: ClassVar[str] = "memory"
    title: ClassVar[str] = "Memory"

    _memory: Memory = PrivateAttr(default_factory=Memory)

    @property
    def memory(self) -> Memory:
        """What was taken so far."""
        return self._memory

    @property
    def data(self) -> list[dict[str, Any]]:
        """The data of what was taken, in order."""
        return [record["data"] for record in self._memory.taken]

    def refuse(self, reason: Callable[[dict[str, Any]], str | None], *, whole: bool = False) -> None:
        """Refuse the records for which `reason` (asked with the record form) gives one; `whole`: without saying which it was."""
        self._memory.refuses, self._memory.batches_only = reason, whole

    def go_down(self, error: MuxlyError | None = None, *, after_records: int = 0) -> None:
        """Fail from now on, after `after_records` more records."""
        self._memory.down, self._memory.room = error or RetryLater("the memory is away", do="try again"), after_records

    def come_up(self) -> None:
        """Work again."""
        self._memory.down = self._memory.room = None

    def deliver(self, delivery: Delivery) -> Receipt:
        """Take the records into memory."""
        memory = self._memory
        memory.deliveries.append(delivery)
        shown = records.to_records(delivery.rows, connector_id=delivery.connector_id, table=delivery.table, table_id=delivery.table_id)
        reasons = {r["metadata"]["seq"]: reason for r in shown if memory.refuses and (reason := memory.refuses(r))}
        if memory.down and not memory.room:
            raise memory.down
        if reasons and memory.batches_only:
            raise RecordRefused(next(iter(reasons.values())))
        cut = memory.room if memory.down else None
        handled = shown[:cut]
        known = {r["id"] for r in memory.taken}
        memory.taken += [r for r in handled if r["metadata"]["seq"] not in reasons and r["id"] not in known]
        refused = tuple(Refusal(r["metadata"]["seq"], reasons[r["metadata"]["seq"]]) for r in handled if r["metadata"]["seq"] in reasons)
        accepted = len(handled) - len(refused)
        if memory.down and len(handled) < len(shown):
            memory.room = 0
            passing = memory.down if isinstance(memory.down, RetryLater) else None
            return Receipt(accepted, refused, upto=handled[-1]["metadata"]["seq"], retry=passing)
        if memory.room is not None:
            memory.room -= len(handled)
        return Receipt(accepted, refused)

    def check(self) -> CheckResult:
        """Say whether the memory is up."""
        down = self._memory.down
        return CheckResult("failed", "look", down.what, down.do) if down else CheckResult("ok", "look")


class DestinationContract:
    """What every destination must do. Subclass it with a pytest fixture `destination` and a method `stored`."""

    keeps: ClassVar[str] = "rows"
    """"rows": what is there is the newest version of each key. "changes": every change is there for itself."""

    columns: ClassVar[Sequence[str]] = tuple(EVERY_TYPE)
    """The columns of EVERY_TYPE that `stored` can read back as they were."""

    def stored(self, destination: Any) -> list[dict[str, Any]]:
        """What the destination holds now: the data of each record, nulls included or left out."""
        raise AssertionError("a subclass says how to read back what was delivered")

    def away(self) -> Destination | None:
        """The same destination where nothing answers; None if it cannot be away."""
        return None

    def test_what_is_delivered_arrives(self, destination: Any) -> None:
        """Records arrive, and the receipt counts them."""
        receipt = destination.deliver(delivery([{"id": 1, "name": "Ada"}, {"id": 2, "name": None}]))
        assert (receipt.accepted, receipt.refused, receipt.upto, receipt.retry) == (2, (), None, None)
        assert _sorted(self.stored(destination)) == [{"id": 1, "name": "Ada"}, {"id": 2}]

    def test_every_type_arrives_exactly(self, destination: Any) -> None:
        """No value of any of the lake's types is changed on the way."""
        schema = pa.schema([pa.field("id", pa.int64()), *(pa.field(n, t) for n, (t, _) in EVERY_TYPE.items())])
        row = {"id": 1, **{name: value for name, (_, value) in EVERY_TYPE.items()}}
        receipt = destination.deliver(delivery(changes([row, {"id": 2}], schema=schema)))
        assert receipt.accepted == 2
        first, second = _sorted(self.stored(destination))
        assert {n: first[n] for n in self.columns} == {n: row[n] for n in self.columns}
        assert second == {"id": 2}

    def test_a_repeated_delivery_changes_nothing(self, destination: Any) -> None:
        """After a crash the road delivers again what it is not sure of."""
        stretch = delivery([{"id": 1, "name": "Ada"}, {"id": 2, "name": "Bob"}])
        destination.deliver(stretch)
        before = _sorted(self.stored(destination))
        again = destination.deliver(stretch)
        assert again.accepted + len(again.refused) == 2
        assert _sorted(self.stored(destination)) == before

    def test_a_repeated_delivery_that_has_grown_adds_only_what_is_new(self, destination: Any) -> None:
        """More changes may have come between a crash and the next run."""
        destination.deliver(delivery([{"id": 1}, {"id": 2}]))
        destination.deliver(delivery([{"id": 1}, {"id": 2}, {"id": 3}]))
        assert [r["id"] for r in _sorted(self.stored(destination))] == [1, 2, 3]

    def test_the_last_change_of_a_key_wins(self, destination: Any) -> None:
        """Within a delivery and across deliveries."""
        destination.deliver(delivery([{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]))
        receipt = destination.deliver(delivery([{"id": 1, "name": "c"}], after=2))
        assert receipt.accepted == 1
        names = [r["name"] for r in self.stored(destination)]
        assert names[-1:] == ["c"]
        assert len(names) == (1 if self.keeps == "rows" else 3)

    def test_a_column_that_appears_later_is_taken(self, destination: Any) -> None:
        """Schemas grow."""
        destination.deliver(delivery([{"id": 1}]))
        destination.deliver(delivery([{"id": 2, "city": "Berlin"}], after=1))
        assert _sorted(self.stored(destination)) == [{"id": 1}, {"id": 2, "city": "Berlin"}]

    def test_nested_values_arrive(self, destination: Any) -> None:
        """Objects and lists travel as JSON text; the destination may store them as it likes, but not refuse them."""
        receipt = destination.deliver(delivery([{"id": 1, "tags": ["a", {"b": None}]}]))
        assert receipt.accepted == 1

    def test_two_deliveries_keep_apart(self, destination: Any) -> None:
        """Two routes may end in one destination."""
        destination.deliver(delivery([{"id": 1}], delivery_id="big_deals.warehouse"))
        destination.deliver(delivery([{"id": 2}], after=1, delivery_id="small_deals.warehouse"))
        assert [r["id"] for r in _sorted(self.stored(destination))] == [1, 2]

    def test_the_position_is_that_of_the_last_delivery(self, destination: Any) -> None:
        """Where a destination keeps positions at all."""
        before = destination.position("big_deals.warehouse", "0b8e1f9c")
        destination.deliver(delivery([{"id": 1}], after=4, upto=9))
        assert before is None
        assert destination.position("big_deals.warehouse", "0b8e1f9c") in (None, 9)
        assert destination.position("big_deals.warehouse", "another table") is None

    def test_checking_delivers_nothing(self, destination: Any) -> None:
        """`muxly check` leaves nothing behind."""
        destination.deliver(delivery([{"id": 1}]))
        before = self.stored(destination)
        assert destination.check().status == "ok"
        assert self.stored(destination) == before

    def test_it_says_where_records_end_up(self, destination: Any) -> None:
        """For people and for Dagster."""
        assert destination.public_name("crm.deals")

    def test_a_destination_that_is_away_asks_for_another_time(self) -> None:
        """Nothing is refused for good because a machine is down."""
        away = self.away()
        if away is None:
            return
        try:
            away.deliver(delivery([{"id": 1}]))
        except RetryLater as error:
            assert error.what and error.do
        else:
            raise AssertionError("a delivery to nowhere was confirmed")
        assert away.check().status == "failed"


def _sorted(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    present = [{name: value for name, value in row.items() if value is not None} for row in rows]
    return sorted(present, key=lambda row: (row["id"], str(row)))
