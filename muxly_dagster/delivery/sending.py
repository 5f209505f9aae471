"""Sends rows to a target's destination: waits out passing troubles, finds the record at fault, and does what `on_error` says."""

import time
from typing import NoReturn

import pyarrow as pa
import pyarrow.compute as pc

from muxly_dagster import records
from muxly_dagster.assembly import Target
from muxly_dagster.delivery.choosing import split_rules
from muxly_dagster.delivery.patience import Patience
from muxly_dagster.delivery.settling import Settling
from muxly_dagster.destination import Delivery, Receipt, Refusal
from muxly_dagster.errors import MuxlyError, RecordRefused, RetryLater
from muxly_dagster.lake import LakeTable


class Stopped(MuxlyError):
    """A record was refused, and the destination is to get nothing that comes behind it."""


class Sending:
    """Sends one run's stretches. `succeeded` says whether the destination took anything yet."""

    def __init__(self, target: Target, table: LakeTable, run_id: str, patience: Patience, settling: Settling) -> None:
        self._target, self._table, self._run_id, self._patience, self._settling = target, table, run_id, patience, settling
        self.succeeded = False

    def send(self, rows: pa.Table, after: int, upto: int) -> None:
        """Send the rows among the changes with seq in (after, upto]; halve them when they are refused as a whole.

        Raises as `Destination.deliver` does, and Stopped; what was settled until then stays settled.
        """
        while after < upto:
            if not len(rows):
                self._settling.settle(after, upto, Receipt(0), rows, 0.0)
                return
            started = time.monotonic()
            try:
                receipt = self._answer(rows, after, upto)
            except RecordRefused as error:
                if len(rows) > 1:
                    half = rows[records.SEQ][len(rows) // 2 - 1].as_py()
                    seqs = rows[records.SEQ]
                    self.send(rows.filter(pc.less_equal(seqs, half)), after, half)
                    rows, after = rows.filter(pc.greater(seqs, half)), half
                    continue
                receipt = Receipt(0, (Refusal(rows[records.SEQ][0].as_py(), error.what),))
            if receipt.refused and self._target.destination.on_error == "stop":
                self._stop(rows, after, receipt, time.monotonic() - started)
            end = upto if receipt.upto is None else receipt.upto
            if end > after:
                done = rows.filter(pc.less_equal(rows[records.SEQ], end))
                self._settling.settle(after, end, receipt, done, time.monotonic() - started)
                self.succeeded = self.succeeded or receipt.accepted > 0 or receipt.retry is None
            elif receipt.ahead:
                self._settling.shelve((), rows, receipt.ahead, after)
            if receipt.retry is not None:
                rest = self._without(rows.filter(pc.greater(rows[records.SEQ], end)), receipt)
                self._give_up(receipt.retry, rest, end, upto)
                return
            if end <= after:
                raise MuxlyError(
                    f"the destination answered for nothing of {len(rows)} records and does not say why",
                    where=self._target.name,
                    do="this is a mistake in the destination: report it to whoever wrote it",
                )
            rows, after = self._without(rows.filter(pc.greater(rows[records.SEQ], end)), receipt), end

    def _without(self, rows: pa.Table, receipt: Receipt) -> pa.Table:
        """The rows that were not taken ahead of the others."""
        if not receipt.ahead:
            return rows
        self._settling.taken_ahead(receipt.ahead)
        return rows.filter(pc.invert(pc.is_in(rows[records.SEQ], pa.array(list(receipt.ahead), pa.int64()))))

    def _answer(self, rows: pa.Table, after: int, upto: int) -> Receipt:
        delivery = delivery_of(self._target, self._table, rows, after, upto, self._target.name, self._run_id)
        try:
            return self._patience.retrying(lambda: self._target.destination.deliver(delivery))
        except RetryLater as error:
            if self._target.destination.on_error != "dead_letter":
                raise
            return _shelved(rows, error)

    def _give_up(self, error: RetryLater, rows: pa.Table, after: int, upto: int) -> None:
        """Leave what an interrupted delivery did not come to; under `on_error: dead_letter` it is shelved."""
        if self._target.destination.on_error != "dead_letter":
            raise error
        self._settling.settle(after, upto, _shelved(rows, error), rows, 0.0)

    def _stop(self, rows: pa.Table, after: int, receipt: Receipt, seconds: float) -> NoReturn:
        """Settle what comes before the first refused record, and nothing from there on."""
        first = min(receipt.refused, key=lambda refusal: refusal.seq)
        seqs = rows[records.SEQ]
        refused = {refusal.seq for refusal in receipt.refused}
        end = max(seqs.to_pylist()) if receipt.upto is None else receipt.upto
        before = rows.filter(pc.less(seqs, first.seq))
        behind = [seq for seq in seqs.to_pylist() if first.seq < seq <= end and seq not in refused]
        ahead = (*behind, *receipt.ahead)
        if first.seq - 1 > after:
            settled = Receipt(len(before), detail=receipt.detail, ahead=ahead)
            self._settling.settle(after, first.seq - 1, settled, before, seconds)
        self._settling.shelve([first], rows, ahead, first.seq - 1)
        record = records.record_id(self._table.name, self._table.table_id, first.seq)
        name = self._target.name
        raise Stopped(
            f"{record} was refused, and with `on_error: stop` nothing is sent behind it: {first.reason}",
            where=name,
            do=f"correct the record or the destination and run it again, or pass over it with `muxly dead-letters skip {name}`",
        )


def delivery_of(target: Target, table: LakeTable, rows: pa.Table, after: int, upto: int, delivery_id: str, run_id: str) -> Delivery:
    """A stretch of a table's changes, addressed to a target's destination."""
    rows, rules = split_rules(rows)
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
        rules=rules,
        templates=target.templates,
    )


def _shelved(rows: pa.Table, error: RetryLater) -> Receipt:
    """All rows refused, because what keeps them from the destination did not pass."""
    reason = f"it could not be delivered: {error.what}"
    return Receipt(0, tuple(Refusal(seq, reason) for seq in rows[records.SEQ].to_pylist()), {"gave_up": error.what})
