"""What a delivery would do, before it does it: the plan for a person, and the guard that stops what is too much."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from muxly_dagster import records
from muxly_dagster.assembly import Target
from muxly_dagster.delivery.choosing import Choosing
from muxly_dagster.delivery.patience import Patience
from muxly_dagster.delivery.sending import delivery_of
from muxly_dagster.destination import Plan
from muxly_dagster.errors import MuxlyError, RecordRefused
from muxly_dagster.lake import Lake, LakeTable
from muxly_dagster.lake.known import newest
from muxly_dagster.state import State

Seqs = npt.NDArray[np.int64]

_STRETCH = 50_000


class TooMuch(MuxlyError):
    """A run would delete or change more than the destination's guard lets it."""


@dataclass(frozen=True, slots=True)
class Planned:
    """What is before a target: changes that wait, those of them that would be sent, and what that would do."""

    target: str
    destination: str
    waiting: int
    sent: int
    plan: Plan
    warning: str = ""


def plan(lake: Lake, state: State, target: Target, *, patience: Patience | None = None) -> Planned:
    """What the next run of a target would do, with nothing changed. Raises as `Destination.deliver` does."""
    table = lake.existing(target.table)
    patience = patience or Patience()
    offset = state.ledger.offset(target.name)
    after = offset.seq if offset is not None and offset.table_id == table.table_id else 0
    choosing = Choosing(state, target, table, offset, patience.now())
    last = (
        _last_of_each_key(table, Choosing(state, target, table, offset, patience.now()), after)[1]
        if target.destination.one_row_per_key
        else None
    )
    sent, counted, history = 0, Plan(), _History(table, after)
    for rows, begins, ends in _pending(table, choosing, after):
        sent += len(rows)
        if last is not None:
            rows = rows.filter(pa.array(np.isin(rows[records.SEQ].to_numpy(), last)))
        counted = _sum(counted, _planned(target, table, rows, begins, ends, history, patience))
    warning = _too_much(state, target, table, after, patience)
    return Planned(target.name, target.destination.public_name(target.table), table.head - after, sent, counted, warning)


def guard(state: State, target: Target, table: LakeTable, after: int, patience: Patience) -> None:
    """Raise TooMuch when the changes behind `after` would delete or change more at the destination than they should."""
    found = _too_much(state, target, table, after, patience)
    if found:
        raise TooMuch(
            found,
            where=target.name,
            do=f"look at it with `muxly plan {target.name}`; if it is right, `muxly run {target.name} --past-guard`,"
            " or in Dagster a run with the tag muxly/past_guard: true",
        )


# ---- how --------------------------------------------------------------------------------------------------------------


def _pending(table: LakeTable, choosing: Choosing, after: int) -> Iterator[tuple[pa.Table, int, int]]:
    """What would be sent of the changes behind `after`, a stretch at a time, with where it begins and ends."""
    while after < table.head:
        upto = min(after + _STRETCH, table.head)
        yield choosing.choose(table.changes(after, upto)), after, upto
        after = upto


def _last_of_each_key(table: LakeTable, choosing: Choosing, after: int) -> tuple[Seqs, Seqs, npt.NDArray[np.bool_]]:
    """Of the changes that would be sent, those that no later one of their key takes the place of: key hashes, seqs, whether it deletes.

    In arrays, 17 bytes a change: there may be millions.
    """
    keys, seqs, deleted = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0, np.bool_)]
    for rows, _, _ in _pending(table, choosing, after):
        keys.append(records.hash_texts(rows[records.KEY]))
        seqs.append(rows[records.SEQ].to_numpy())
        deleted.append(pc.equal(rows[records.OP], "delete").to_numpy())
    found = np.concatenate(keys), np.concatenate(seqs), np.concatenate(deleted)
    last = newest(found[0], found[1], np.zeros(len(found[0]), np.bool_))
    return found[0][last], found[1][last], found[2][last]


class _History:
    """By what was there before: a key's first change is new, a later one changes it. For destinations that cannot tell themselves."""

    def __init__(self, table: LakeTable, after: int) -> None:
        self._table, self._after = table, after
        self._known: Seqs | None = None

    def plan(self, rows: pa.Table) -> Plan:
        """What these rows would do, behind those it was asked about before."""
        if self._known is None:
            self._known = self._table.key_hashes(upto=self._after)
        keys = records.hash_texts(rows[records.KEY])
        deleted = pc.equal(rows[records.OP], "delete").to_numpy()
        appended = pc.equal(rows[records.OP], "append").to_numpy()
        at = np.searchsorted(self._known, keys)
        at[at == len(self._known)] = 0
        known = (self._known[at] == keys if len(self._known) else False) | ~_first_of_each(keys)
        # A stable sort merges two that are sorted; numpy's union would hash a million keys for each stretch.
        self._known = np.sort(np.concatenate([self._known, np.sort(keys)]), kind="stable")
        return Plan(int((~known & ~deleted | appended).sum()), int((known & ~deleted & ~appended).sum()), int(deleted.sum()))


def _planned(target: Target, table: LakeTable, rows: pa.Table, begins: int, ends: int, history: _History, patience: Patience) -> Plan:
    """What sending these rows would do; what is refused as a whole is halved, as it would be when it is sent."""
    if not len(rows):
        return Plan()
    delivery = delivery_of(target, table, rows, begins, ends, target.name, "plan")
    try:
        own = patience.retrying(lambda: target.destination.plan(delivery))
        if own is not None:
            return own
        target.destination.render(delivery)
        return history.plan(rows)
    except RecordRefused as error:
        if len(rows) == 1:
            return Plan(refused=1, notes=(f"refused: {error.what}",))
        middle = len(rows) // 2
        half = rows[records.SEQ][middle - 1].as_py()
        first = _planned(target, table, rows.slice(0, middle), begins, half, history, patience)
        return _sum(first, _planned(target, table, rows.slice(middle), half, ends, history, patience))


def _first_of_each(keys: Seqs) -> npt.NDArray[np.bool_]:
    first = np.zeros(len(keys), np.bool_)
    first[np.unique(keys, return_index=True)[1]] = True
    return first


def _sum(a: Plan, b: Plan) -> Plan:
    notes = tuple(dict.fromkeys((*a.notes, *b.notes)))
    return Plan(a.inserted + b.inserted, a.updated + b.updated, a.deleted + b.deleted, a.refused + b.refused, notes)


def _too_much(state: State, target: Target, table: LakeTable, after: int, patience: Patience) -> str:
    """What of the changes behind `after` is more than the guard lets through, in words; empty where nothing is."""
    guard = target.destination.guard
    deletes = guard.most_deletes if target.destination.passes_deletes else None
    if not after or (deletes is None and guard.most_changes is None):
        return ""  # what was never delivered before cannot be lost
    if guard.most_changes is None and table.count_deletes(after) < guard.at_least:
        return ""
    choosing = Choosing(state, target, table, state.ledger.offset(target.name), patience.now())
    keys, _, deleted = _last_of_each_key(table, choosing, after)
    held = np.unique(_routed(target, table, table.current_seqs(upto=after)))
    changed = np.isin(keys, held)
    gone = int((changed & deleted).sum())
    counts = (("delete", gone, deletes), ("change or delete", int(changed.sum()), guard.most_changes))
    for what, count, most in counts:
        if most is not None and count >= guard.at_least and count > most * len(held):
            return f"it would {what} {count:,} of {len(held):,} rows ({count / len(held):.0%}); the guard allows {most:.0%}"
    return ""


def _routed(target: Target, table: LakeTable, seqs: Seqs) -> Seqs:
    """The key hashes of those of these versions that the rules send to the target."""
    found = [np.zeros(0, np.int64)]
    for batch in table.versions(seqs, envelope=True):
        rows = pa.Table.from_batches([batch])
        mask = target.router.route(rows, target.destination_name)
        found.append(records.hash_texts(rows[records.KEY])[mask])
    return np.concatenate(found)
