"""The road out: changes since the offset → rules → destination → receipt and offset, in one ledger transaction.

Every change is counted once: read = accepted + refused + unrouted, for every receipt. A destination that keeps offsets with its
rows is believed over the ledger, so a crash between the two repeats nothing.
"""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from muxly_dagster import records
from muxly_dagster.assembly import Target
from muxly_dagster.destination import Delivery, Receipt, Refusal
from muxly_dagster.errors import MuxlyError, RecordRefused, RetryLater
from muxly_dagster.lake import Lake, LakeTable
from muxly_dagster.outcome import Outcome, Progress
from muxly_dagster.state import DeadLetter, Offset, State, StoredReceipt

T = TypeVar("T")

_STRETCH_BYTES = 48 << 20
_FIRST_STRETCH = 10_000


@dataclass(frozen=True, slots=True)
class Patience:
    """How long one run waits out passing troubles before it leaves the rest to the next run."""

    attempts: int = 4
    base: float = 0.5
    cap: float = 15.0
    sleep: Callable[[float], None] = time.sleep

    def wait(self, attempt: int, asked: float | None) -> None:
        """Full jitter, or what the destination asked for. Raises nothing: a longer wish than the cap is the caller's to see."""
        self.sleep(asked if asked is not None else random.uniform(0, min(self.cap, self.base * 2**attempt)))


@dataclass(slots=True)
class _Tally:
    read: int = 0
    accepted: int = 0
    refused: int = 0
    unrouted: int = 0
    receipts: list[str] = field(default_factory=list)
    detail: dict[str, object] = field(default_factory=dict)


def deliver(
    lake: Lake, state: State, target: Target, *, run_id: str, progress: Progress | None = None, patience: Patience | None = None
) -> Outcome:
    """Bring a target up to the head of its table.

    Raises RetryLater, SignInError, ConfigurationError as the destination does; what was confirmed until then stays confirmed.
    """
    started = time.monotonic()
    with state.lock(f"deliver.{target.name}"):
        table = lake.existing(target.table)
        run = _Run(state, target, table, run_id, patience or Patience())
        after = run.start()
        most, row_bytes = min(_FIRST_STRETCH, target.destination.batch_rows), 1
        while after < table.head:
            # Both what came last and the file that comes next: a few large records must not be read by the ten thousand.
            row_bytes = max(row_bytes, table.row_bytes(after + 1))
            upto = min(after + max(1, min(most, _STRETCH_BYTES // row_bytes)), table.head)
            rows = table.changes(after, upto)
            run.deliver(rows, after, upto)
            after = upto
            if progress:
                progress(target.name, run.tally.read)
            most, row_bytes = target.destination.batch_rows, max(1, rows.nbytes // max(1, len(rows)))
    tally = run.tally
    return Outcome(
        asset=target.name,
        read=tally.read,
        changed=tally.accepted,
        accepted=tally.accepted,
        refused=tally.refused,
        unrouted=tally.unrouted,
        seconds=time.monotonic() - started,
        metadata={"offset": table.head, "table_id": table.table_id, "receipts": tally.receipts[-10:], "last_receipt": tally.detail},
    )


class _Run:
    """One run of one target."""

    def __init__(self, state: State, target: Target, table: LakeTable, run_id: str, patience: Patience) -> None:
        self._state, self._target, self._table, self._run_id, self._patience = state, target, table, run_id, patience
        self.tally = _Tally()
        self._undecided: dict[str, int] = {}

    def start(self) -> int:
        """The seq to go on from. What the destination took without our hearing of it gets its receipt now."""
        offset = self._state.ledger.offset(self._target.name)
        after = offset.seq if offset and offset.table_id == self._table.table_id else 0
        held = self._retrying(lambda: self._target.destination.position(self._target.name, self._table.table_id))
        if after and held is None and self._target.destination.keeps_offset and self._accepted():
            # Another database than the one that took them, or the old one without its tables.
            self._state.ledger.rewind(self._target.name, Offset(self._table.table_id, 0))
            return 0
        if max(after, held or 0) > self._table.head:
            # Going on would pass over the changes that are numbered anew up to there.
            raise MuxlyError(
                f"{self._table.name} ends at change {self._table.head}, but {max(after, held or 0)} were delivered:"
                " the lake holds an older copy of the table",
                where=self._target.name,
                do=f"put the newer copy back, or deliver everything again with `muxly run {self._target.name} --from-start`",
            )
        if held is not None and after < held:
            changes = self._table.changes(after, held)
            routed = self._routed(changes)
            self._settle(
                after,
                held,
                len(changes),
                Receipt(len(routed), detail={"recovered": "confirmed before a crash, counted after it"}),
                routed,
                0.0,
            )
            after = held
        return after

    def _accepted(self) -> int:
        return self._state.ledger.totals(self._target.name, table_id=self._table.table_id)["accepted"]

    def deliver(self, changes: pa.Table, after: int, upto: int) -> None:
        """Deliver one stretch of changes, all of those with seq in (after, upto]."""
        self._send(self._routed(changes), after, upto)

    def _routed(self, changes: pa.Table) -> pa.Table:
        decisions = self._target.router.decide(changes, self._target.destination_name)
        for rule, count in decisions.failures.items():
            self._undecided[rule] = self._undecided.get(rule, 0) + count
        return changes.filter(pa.array(decisions.mask(self._target.destination_name)))

    def _send(self, rows: pa.Table, after: int, upto: int) -> None:
        """Send a stretch; halve it when it is refused as a whole, until the record at fault stands alone."""
        while after < upto:
            if not len(rows):
                self._settle(after, upto, upto - after, Receipt(0), rows, 0.0)
                return
            started = time.monotonic()
            try:
                receipt = self._retrying(lambda rows=rows, after=after: self._target.destination.deliver(self._delivery(rows, after, upto)))  # type: ignore[misc]
            except RecordRefused as error:
                if len(rows) > 1:
                    half = rows[records.SEQ][len(rows) // 2 - 1].as_py()
                    seqs = rows[records.SEQ]
                    self._send(rows.filter(pc.less_equal(seqs, half)), after, half)
                    rows, after = rows.filter(pc.greater(seqs, half)), half
                    continue
                receipt = Receipt(0, (Refusal(rows[records.SEQ][0].as_py(), error.what),))
            end = upto if receipt.upto is None else receipt.upto
            done = rows.filter(pc.less_equal(rows[records.SEQ], end))
            if end > after:
                self._settle(after, end, end - after, receipt, done, time.monotonic() - started)
            if receipt.retry is not None:
                raise receipt.retry
            if end <= after:
                raise MuxlyError(
                    f"the destination answered for nothing of {len(rows)} records and does not say why",
                    where=self._target.name,
                    do="this is a mistake in the destination: report it to whoever wrote it",
                )
            rows, after = rows.filter(pc.greater(rows[records.SEQ], end)), end

    def _delivery(self, rows: pa.Table, after: int, upto: int) -> Delivery:
        return delivery_of(self._target, self._table, rows, after, upto, self._target.name, self._run_id)

    def _settle(self, after: int, upto: int, read: int, receipt: Receipt, rows: pa.Table, seconds: float) -> None:
        """Write the receipt, the dead letters and the offset, all or nothing."""
        refused = len(receipt.refused)
        if receipt.accepted + refused != len(rows):
            raise MuxlyError(
                f"the destination answered for {receipt.accepted} accepted and {refused} refused records, but was given {len(rows)}",
                where=self._target.name,
                do="this is a mistake in the destination: report it to whoever wrote it",
            )
        stored = StoredReceipt(
            target=self._target.name,
            table_id=self._table.table_id,
            after=after,
            upto=upto,
            read=read,
            accepted=receipt.accepted,
            refused=refused,
            unrouted=read - len(rows),
            seconds=seconds,
            detail=receipt.detail | ({"rules_without_an_answer": dict(self._undecided)} if self._undecided else {}),
            run_id=self._run_id,
        )
        self._state.ledger.record(stored, self._letters(receipt.refused, rows))
        self.tally.read += read
        self.tally.accepted += receipt.accepted
        self.tally.refused += refused
        self.tally.unrouted += stored.unrouted
        self.tally.receipts.append(stored.id)
        self.tally.detail = dict(stored.detail)

    def _letters(self, refusals: Sequence[Refusal], rows: pa.Table) -> list[DeadLetter]:
        if not refusals:
            return []
        reasons = {refusal.seq: refusal.reason for refusal in refusals}
        bad = rows.filter(pc.is_in(rows[records.SEQ], pa.array(list(reasons), pa.int64())))
        shown = records.to_records(bad, connector_id=self._target.connector_id, table=self._table.name, table_id=self._table.table_id)
        return [
            DeadLetter(
                "delivery",
                self._target.name,
                reasons[record["metadata"]["seq"]],
                records.to_json(record).decode(),
                self._run_id,
                record_id=record["id"],
                table_id=self._table.table_id,
                seq=record["metadata"]["seq"],
            )
            for record in shown
        ]

    def _retrying(self, attempt: Callable[[], T]) -> T:
        for number in range(self._patience.attempts):
            try:
                return attempt()
            except RetryLater as error:
                if number + 1 == self._patience.attempts or (error.after or 0) > self._patience.cap:
                    raise
                self._patience.wait(number, error.after)
        raise AssertionError("unreachable: attempts is at least 1")


def delivery_of(target: Target, table: LakeTable, rows: pa.Table, after: int, upto: int, delivery_id: str, run_id: str) -> Delivery:
    """A stretch of a table's changes, addressed to a target's destination."""
    return Delivery(
        id=delivery_id,
        table=target.table,
        table_id=table.table_id,
        key=target.key or table.key,
        rows=rows,
        after=after,
        upto=upto,
        connector_id=target.connector_id,
        run_id=run_id,
    )


def lag(lake: Lake, state: State, target: Target) -> int:
    """How many changes of its table a target has not dealt with yet."""
    table = lake.table(target.table)
    offset = state.ledger.offset(target.name)
    if table is None:
        return 0
    return table.head - (offset.seq if offset and offset.table_id == table.table_id else 0)


def rewind(lake: Lake, state: State, target: Target) -> None:
    """Forget how far a target has come, here and at the destination, so that everything is delivered again."""
    with state.lock(f"deliver.{target.name}"):
        table = lake.existing(target.table)
        target.destination.rewind(target.name, table.table_id, 0)
        state.ledger.rewind(target.name, None)


def replay(lake: Lake, state: State, target: Target, letters: Sequence[DeadLetter], *, run_id: str) -> dict[str, int]:
    """Send refused records again, each to the one target that refused it. Answers how many were replayed, superseded and refused.

    A record whose newer version the target has already dealt with is superseded: sending the old one would undo the new one.
    """
    counts = {"replayed": 0, "superseded": 0, "refused": 0}
    with state.lock(f"deliver.{target.name}"):
        table = lake.existing(target.table)
        offset = state.ledger.offset(target.name)
        for letter in letters:
            status = _replay_one(state, target, table, letter, offset.seq if offset else 0, run_id)
            counts[status] += 1
    return counts


def _replay_one(state: State, target: Target, table: LakeTable, letter: DeadLetter, done: int, run_id: str) -> str:
    rows = table.changes(letter.seq - 1, letter.seq) if letter.table_id == table.table_id else None
    if rows is None or not len(rows):
        state.ledger.close([letter], "superseded")
        return "superseded"
    newer = table.history_of(rows[records.KEY][0].as_py())[records.SEQ].to_pylist()
    if any(letter.seq < seq <= done for seq in newer):
        state.ledger.close([letter], "superseded")
        return "superseded"
    delivery = delivery_of(target, table, rows, letter.seq - 1, letter.seq, f"{target.name}/{letter.id}", run_id)
    try:
        receipt = target.destination.deliver(delivery)
    except RecordRefused as error:
        receipt = Receipt(0, (Refusal(letter.seq, error.what),))
    if receipt.retry is not None:
        raise receipt.retry
    if receipt.refused:
        state.ledger.shelve([_refused_again(letter, receipt.refused[0].reason, run_id)])
        return "refused"
    state.ledger.close([letter], "replayed")
    return "replayed"


def _refused_again(letter: DeadLetter, reason: str, run_id: str) -> DeadLetter:
    return DeadLetter(
        "delivery", letter.name, reason, letter.record, run_id, record_id=letter.record_id, table_id=letter.table_id, seq=letter.seq
    )
