"""One run of one target: changes since its offset, chosen, gathered, sent, settled; and what happens when that cannot be."""

import datetime as dt
import time
from dataclasses import dataclass
from typing import Any

from muxly_dagster.assembly import Target
from muxly_dagster.delivery.choosing import Choosing
from muxly_dagster.delivery.contact import Contact, contact, within_window
from muxly_dagster.delivery.gathering import NOTHING, Gathering
from muxly_dagster.delivery.patience import Patience
from muxly_dagster.delivery.planning import guard
from muxly_dagster.delivery.sending import Sending
from muxly_dagster.delivery.settling import Settling, Tally
from muxly_dagster.destination import Receipt
from muxly_dagster.errors import MuxlyError
from muxly_dagster.lake import Lake, LakeTable
from muxly_dagster.outcome import Outcome, Progress
from muxly_dagster.state import Offset, State, Wait

_STRETCH_BYTES = 48 << 20
_FIRST_STRETCH = 10_000
_RECEIPTS_TOLD = 10


@dataclass(frozen=True, slots=True)
class Leave:
    """What a person lets a run do: try a destination that is left alone (`by_hand`), do what the guard would stop (`past_guard`)."""

    by_hand: bool = False
    past_guard: bool = False


NO_LEAVE = Leave()


def deliver(
    lake: Lake,
    state: State,
    target: Target,
    *,
    run_id: str,
    progress: Progress | None = None,
    patience: Patience | None = None,
    leave: Leave = NO_LEAVE,
) -> Outcome:
    """Bring a target up to the head of its table, as far as its window and its batching let it.

    Raises RetryLater, GoneError, SignInError, ConfigurationError as the destination does, TooMuch when the guard stops it, Stopped where a
    refused record stops it; what was confirmed until then stays confirmed.
    """
    started = time.monotonic()
    patience = patience or Patience()
    with state.lock(f"deliver.{target.name}"):
        table = lake.existing(target.table)
        now = patience.now()
        if within_window(target, now) > now:
            return _outcome(target, table, Tally(), started, _shut(state, target, now))
        if (
            table.head == _known(state.ledger.offset(target.name), table)
            and state.breakers.read(target.destination_name).status != "closed"
        ):
            state.waiting.clear(target.name)
            return _outcome(target, table, Tally(), started, None)  # nothing to do for a destination that is left alone
        with contact(state, target, patience, by_hand=leave.by_hand) as made:
            run = _Run(state, target, table, run_id, patience, made)
            kept = run.go(progress, leave)
    return _outcome(target, table, run.settling.tally, started, kept)


class _Run:
    def __init__(self, state: State, target: Target, table: LakeTable, run_id: str, patience: Patience, made: Contact) -> None:
        self._state, self._target, self._table, self._patience, self._contact = state, target, table, patience, made
        self._choosing = Choosing(state, target, table, state.ledger.offset(target.name), patience.now())
        self.settling = Settling(state, target, table, run_id, self._choosing)
        self._sending = Sending(target, table, run_id, patience, self._choosing, self.settling, made)

    def go(self, progress: Progress | None, leave: Leave) -> Wait | None:
        """Deliver what there is; answers what is kept back, and until when."""
        target, table, batching = self._target, self._table, self._target.destination.batching
        after = self._start()
        self._choosing.forget_old()
        if after < table.head and not leave.past_guard:
            guard(self._state, target, table, after, self._patience)
        gathering = Gathering(batching, self._patience.now(), after)
        most, row_bytes = min(_FIRST_STRETCH, target.destination.batch_rows), 1
        while after < table.head and (gathering.kept_back is None or gathering.wants_more):
            if within_window(target, now := self._patience.now()) > now:
                self._keep_back(gathering)
                return _shut(self._state, target, now)
            # Both what came last and the file that comes next: a few large records must not be read by the ten thousand.
            row_bytes = max(row_bytes, table.row_bytes(after + 1))
            upto = min(after + max(1, min(most, _STRETCH_BYTES // row_bytes)), table.head)
            changes = table.changes(after, upto)
            for piece in gathering.take(self._choosing.choose(changes), upto):
                for part in piece.parts(target.destination.batch_rows):
                    self._sending.send(part.rows, part.after, part.upto)
            after = upto
            if progress:
                progress(target.name, self.settling.tally.read)
            most, row_bytes = target.destination.batch_rows, max(1, changes.nbytes // max(1, len(changes)))
        return self._keep_back(gathering)

    def _keep_back(self, gathering: Gathering) -> Wait | None:
        """Settle what comes before the first row that is kept back, and remember when there is something to do for it."""
        first, until = gathering.kept_back, gathering.waits_until
        if first is None or until is None:
            self._state.waiting.clear(self._target.name)
            return None
        if first - 1 > gathering.after:
            self.settling.settle(gathering.after, first - 1, Receipt(0), NOTHING, 0.0)
        wait = Wait(self._target.name, within_window(self._target, until), "a batch is not full yet")
        self._state.waiting.put(wait)
        return wait

    def _start(self) -> int:
        """The seq to go on from. What the destination took without our hearing of it gets its receipt now."""
        target, table, ledger = self._target, self._table, self._state.ledger
        after = _known(ledger.offset(target.name), table)
        with self._contact.asking():
            held = self._patience.retrying(lambda: target.destination.position(target.name, table.table_id))
        if after and held is None and target.destination.keeps_offset and self._has_accepted():
            # Another database than the one that took them, or the old one without its tables.
            ledger.rewind(target.name, Offset(table.table_id, 0))
            return 0
        if max(after, held or 0) > table.head:
            # Going on would pass over the changes that are numbered anew up to there.
            raise MuxlyError(
                f"{table.name} ends at change {table.head}, but {max(after, held or 0)} were delivered:"
                " the lake holds an older copy of the table",
                where=target.name,
                do=f"put the newer copy back, or deliver everything again with `muxly run {target.name} --from-start`",
            )
        if held is not None and held < after and target.destination.keeps_offset:
            sent = ledger.last_sent(target.name, table.table_id, after)
            if held < sent:
                # An older copy of the database was put back: what came after it is taken again.
                ledger.set_back(target.name, held)
                return held
        if held is not None and after < held:
            routed = self._choosing.choose(table.changes(after, held))
            recovered = Receipt(len(routed), detail={"recovered": "confirmed before a crash, counted after it"})
            self.settling.settle(after, held, recovered, routed, 0.0)
            after = held
        return after

    def _has_accepted(self) -> bool:
        return self._state.ledger.totals(self._target.name, table_id=self._table.table_id)["accepted"] > 0


def _shut(state: State, target: Target, now: dt.datetime) -> Wait:
    """Let a target wait for its window; what it waited for before is not lost, since it is behind still."""
    wait = Wait(target.name, within_window(target, now), "its window is closed")
    state.waiting.put(wait)
    return wait


def _known(offset: Offset | None, table: LakeTable) -> int:
    """The last seq of the table that the ledger knows to be done."""
    return offset.seq if offset is not None and offset.table_id == table.table_id else 0


def _outcome(target: Target, table: LakeTable, tally: Tally, started: float, kept: Wait | None) -> Outcome:
    waits = {"waits": kept.why, "waits_until": kept.until.isoformat()} if kept is not None else {}
    metadata: dict[str, Any] = {
        "offset": table.head,
        "table_id": table.table_id,
        "receipts": tally.receipts[-_RECEIPTS_TOLD:],
        "latency": [round(seconds, 4) for seconds in tally.seconds],
        "last_receipt": tally.detail,
    }
    return Outcome(
        asset=target.name,
        read=tally.read,
        changed=tally.accepted,
        accepted=tally.accepted,
        refused=tally.refused,
        unrouted=tally.unrouted,
        seconds=time.monotonic() - started,
        metadata=metadata | waits,
    )
