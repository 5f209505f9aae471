"""Sends rows to a target's destination: waits out passing troubles, finds the record at fault, and does what `on_error` says."""

import time
from typing import NoReturn

import pyarrow as pa
import pyarrow.compute as pc

from muxly_dagster import records
from muxly_dagster.assembly import Target
from muxly_dagster.delivery.choosing import Choosing, split_rules
from muxly_dagster.delivery.contact import Contact
from muxly_dagster.delivery.patience import Patience
from muxly_dagster.delivery.settling import Settling
from muxly_dagster.destination import Delivery, Receipt, Refusal
from muxly_dagster.errors import MuxlyError, RecordRefused, RetryLater
from muxly_dagster.lake import LakeTable


class Stopped(MuxlyError):
    """A record was refused, and the destination is to get nothing that comes behind it."""


class Sending:
    """Sends one run's stretches."""

    def __init__(
        self, target: Target, table: LakeTable, run_id: str, patience: Patience, choosing: Choosing, settling: Settling, contact: Contact
    ) -> None:
        self._target, self._table, self._run_id, self._patience = target, table, run_id, patience
        self._choosing, self._settling, self._contact = choosing, settling, contact

    def send(self, rows: pa.Table, after: int, upto: int) -> None:
        """Send the rows among the changes with seq in (after, upto]; halve them when they are refused as a whole.

        Raises as `Destination.deliver` does, and Stopped; what was settled until then stays settled.
        """
        while after < upto:
            freed = self._choosing.first_freed(upto)
            if freed is not None:
                self.send(_until(rows, freed - 1), after, freed - 1)
                self.send(self._choosing.again(freed), freed - 1, freed)
                rows, after = _beyond(rows, freed), freed
                continue
            if not len(rows):
                self._settling.settle(after, upto, Receipt(0), rows, 0.0)
                return
            started = time.monotonic()
            try:
                receipt = self._answer(rows, after, upto)
            except RecordRefused as error:
                if len(rows) > 1:
                    half = rows[records.SEQ][len(rows) // 2 - 1].as_py()
                    self.send(_until(rows, half), after, half)
                    rows, after = _beyond(rows, half), half
                    continue
                receipt = Receipt(0, (Refusal(rows[records.SEQ][0].as_py(), error.what),))
            except RetryLater as error:
                rows, after = self._give_up(error, rows, after, upto)
                continue
            if receipt.refused and self._target.destination.on_error == "stop":
                self._contact.works()
                self._stop(rows, after, receipt, time.monotonic() - started)
            answered = receipt.retry is None or receipt.accepted > 0
            left, end = self._settle(receipt, rows, after, upto if receipt.upto is None else receipt.upto, time.monotonic() - started)
            if answered:
                self._contact.works()
            if receipt.retry is not None:
                self._contact.error = receipt.retry
                rows, after = self._give_up(receipt.retry, left, end, upto)
                continue
            if end <= after and len(left) == len(rows):
                raise MuxlyError(
                    f"the destination answered for nothing of {len(rows)} records and does not say why",
                    where=self._target.name,
                    do="this is a mistake in the destination: report it to whoever wrote it",
                )
            rows, after = left, end

    def _settle(self, receipt: Receipt, rows: pa.Table, after: int, end: int, seconds: float) -> tuple[pa.Table, int]:
        """Settle what was answered for, up to `end`; answers the rows that are left, and from where on.

        It ends before the first record that was held back for the sake of one that is refused now: that one is sent after all.
        """
        cut = self._choosing.free([refusal.seq for refusal in receipt.refused], end)
        if cut is not None:
            receipt, end = _cut(receipt, rows, cut, end), cut
        if end > after:
            self._settling.settle(after, end, receipt, _until(rows, end), seconds)
        elif receipt.ahead:
            self._settling.shelve((), rows, receipt.ahead, after)
        left = _beyond(rows, end)
        if receipt.ahead:
            self._settling.taken_ahead(receipt.ahead)
            left = left.filter(pc.invert(pc.is_in(left[records.SEQ], pa.array(list(receipt.ahead), pa.int64()))))
        return left, end

    def _answer(self, rows: pa.Table, after: int, upto: int) -> Receipt:
        delivery = delivery_of(self._target, self._table, rows, after, upto, self._target.name, self._run_id)
        with self._contact.asking():
            receipt = self._patience.retrying(lambda: self._target.destination.deliver(delivery))
        self._check(receipt, rows, after, upto)
        return receipt

    def _check(self, receipt: Receipt, rows: pa.Table, after: int, upto: int) -> None:
        """Raises MuxlyError for a receipt about other records than those that were sent: to believe it would lose some."""
        end = upto if receipt.upto is None else receipt.upto
        refused, ahead = [refusal.seq for refusal in receipt.refused], list(receipt.ahead)
        known = set(rows[records.SEQ].to_pylist()) if refused or ahead else set()
        sound = after <= end <= upto and len(set(refused)) == len(refused) and known.issuperset(refused) and known.issuperset(ahead)
        if not (sound and max(refused, default=end) <= end and min(ahead, default=end + 1) > end):
            raise MuxlyError(
                "the destination answered for records that it was not given, or for one of them twice",
                where=self._target.name,
                do="this is a mistake in the destination: report it to whoever wrote it",
            )

    def _give_up(self, error: RetryLater, rows: pa.Table, after: int, upto: int) -> tuple[pa.Table, int]:
        """Leave what an interrupted delivery did not come to. Under `on_error: dead_letter` it is shelved, until the breaker opens."""
        if self._target.destination.on_error != "dead_letter":
            raise error
        if self._choosing.first_freed(upto) is not None:
            return rows, after  # it comes first, and meets the same trouble
        left, end = self._settle(_shelved(rows, error), rows, after, upto, 0.0)
        self._contact.gave_up(error)
        return left, end

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


def _until(rows: pa.Table, seq: int) -> pa.Table:
    return rows.filter(pc.less_equal(rows[records.SEQ], seq))


def _beyond(rows: pa.Table, seq: int) -> pa.Table:
    return rows.filter(pc.greater(rows[records.SEQ], seq))


def _cut(receipt: Receipt, rows: pa.Table, cut: int, end: int) -> Receipt:
    """The receipt for the rows up to `cut` only: what was accepted of those up to `end` behind it was taken ahead."""
    refused = {refusal.seq for refusal in receipt.refused}
    accepted = [seq for seq in rows[records.SEQ].to_pylist() if seq <= end and seq not in refused]
    return Receipt(
        sum(seq <= cut for seq in accepted),
        tuple(refusal for refusal in receipt.refused if refusal.seq <= cut),
        receipt.detail,
        upto=cut,
        ahead=(*(seq for seq in accepted if seq > cut), *receipt.ahead),
    )
