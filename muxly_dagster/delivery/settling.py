"""What a delivery was answered, written down: receipt, dead letters and offset, all or nothing."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from muxly_dagster import records
from muxly_dagster.assembly import Target
from muxly_dagster.delivery.choosing import Choosing, split_rules, within
from muxly_dagster.destination import Receipt, Refusal
from muxly_dagster.errors import MuxlyError
from muxly_dagster.lake import LakeTable
from muxly_dagster.state import Beside, DeadLetter, State, StoredReceipt


@dataclass(slots=True)
class Tally:
    """What a run has come to so far."""

    read: int = 0
    accepted: int = 0
    refused: int = 0
    unrouted: int = 0
    receipts: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    detail: dict[str, object] = field(default_factory=dict)


class Settling:
    """Settles stretches of one target's changes, in their order."""

    def __init__(self, state: State, target: Target, table: LakeTable, run_id: str, choosing: Choosing) -> None:
        self._state, self._target, self._table, self._run_id, self._choosing = state, target, table, run_id, choosing
        self._ruleset = state.ledger.keep_rules(target.router.written)
        self._shelved: Mapping[int, str] | None = None
        self.tally = Tally()

    def settle(self, after: int, upto: int, receipt: Receipt, rows: pa.Table, seconds: float) -> None:
        """Book the answer for all changes with seq in (after, upto], of which `rows` were sent.

        Raises MuxlyError when the destination did not answer for every row.
        """
        refused = len(receipt.refused)
        if receipt.accepted + refused != len(rows):
            raise MuxlyError(
                f"the destination answered for {receipt.accepted} accepted and {refused} refused records, but was given {len(rows)}",
                where=self._target.name,
                do="this is a mistake in the destination: report it to whoever wrote it",
            )
        accepted = receipt.accepted + len(within(self._choosing.ahead, after, upto))
        refused += len(within(self._choosing.skipped, after, upto))
        stored = StoredReceipt(
            target=self._target.name,
            table_id=self._table.table_id,
            after=after,
            upto=upto,
            read=upto - after,
            accepted=accepted,
            refused=refused,
            unrouted=upto - after - accepted - refused,
            seconds=seconds,
            detail={**receipt.detail, **self._told(after, upto)},
            run_id=self._run_id,
            ruleset=self._ruleset,
        )
        self._state.ledger.record(stored, self.letters(receipt.refused, rows), self._beside(receipt, rows, after, upto))
        self._choosing.settled(upto)
        tally = self.tally
        tally.read += stored.read
        tally.accepted += stored.accepted
        tally.refused += stored.refused
        tally.unrouted += stored.unrouted
        tally.receipts.append(stored.id)
        if len(rows):
            tally.seconds.append(seconds)
            tally.detail = dict(stored.detail)

    def shelve(self, refused: Sequence[Refusal], rows: pa.Table, ahead: Collection[int], upto: int) -> None:
        """Keep dead letters of changes beyond the offset `upto`, where a delivery stopped, and what was taken beyond it."""
        self._state.ledger.shelve(self.letters(refused, rows))
        marks = [self._choosing.marks[seq] for seq in ahead if seq in self._choosing.marks]
        self._state.ledger.keep_ahead(self._target.name, self._table.table_id, [seq for seq in ahead if seq > upto], marks)

    def taken_ahead(self, seqs: Collection[int]) -> None:
        """Remember, for the rest of this run, changes that the destination took before its turn came to them."""
        self._choosing.take_ahead(seqs)

    def letters(self, refusals: Sequence[Refusal], rows: pa.Table) -> list[DeadLetter]:
        """The refused rows as dead letters."""
        if not refusals:
            return []
        reasons = {refusal.seq: refusal.reason for refusal in refusals}
        bad, _ = split_rules(rows.filter(pc.is_in(rows[records.SEQ], pa.array(list(reasons), pa.int64()))))
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

    def _told(self, after: int, upto: int) -> dict[str, object]:
        told: dict[str, object] = {}
        if self._choosing.rules_without_an_answer:
            told["rules_without_an_answer"] = dict(self._choosing.rules_without_an_answer)
        if alike := within(self._choosing.alike, after, upto):
            told["held_back_as_alike"] = alike
        return told

    def _beside(self, receipt: Receipt, rows: pa.Table, after: int, upto: int) -> Beside:
        if self._shelved is None:
            # Of what is delivered once more, dead letters may be open: they are settled with it.
            self._shelved = self._state.ledger.letters_of(self._target.name, self._table.table_id, "open", after=after)
        refused = {refusal.seq for refusal in receipt.refused}
        marks, shelved = self._choosing.marks, self._shelved
        sent = rows[records.SEQ].to_pylist() if marks or shelved else []
        taken = [*(seq for seq in sent if seq not in refused), *receipt.ahead]
        return Beside(
            ahead=[seq for seq in receipt.ahead if seq > upto],
            marks=[marks[seq] for seq in taken if seq in marks],
            replayed=[shelved[seq] for seq in taken if seq in shelved],
        )
