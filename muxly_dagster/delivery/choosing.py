"""What of a stretch of changes is sent to a target: by its rules, without what it has already, with its steps done."""

import bisect
import datetime as dt
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from muxly_dagster import records, sandbox
from muxly_dagster.assembly import Target
from muxly_dagster.errors import ConfigurationError
from muxly_dagster.lake import LakeTable
from muxly_dagster.policy import Dedupe
from muxly_dagster.relations import relation_rows, steps_query
from muxly_dagster.routing import ELSEWHERE, OTHERWISE, rule_names
from muxly_dagster.state import Offset, State

RULE = "_muxly_rule"
"""The column, beside the envelope, that names the rule by which a row goes to the target."""

_ROW = "muxly row"
"""Carries a row's seq through the steps; a blank keeps it apart from the columns that people name in them."""

_STRETCH = "_muxly_stretch"
_Seqs = npt.NDArray[np.int64]


class Choosing:
    """Chooses for one run of one target. Asks the state once for what was settled before; changes nothing."""

    def __init__(self, state: State, target: Target, table: LakeTable, offset: Offset | None, now: dt.datetime) -> None:
        self._state, self._target, self._table, self._now = state, target, table, now
        self.rules_without_an_answer: dict[str, int] = {}
        self.alike: list[int] = []
        """Changes that are held back, ascending, as far as they are not settled yet."""
        self.marks: dict[int, str] = {}
        """By change, what makes it alike to others, for those that are to be sent and are not settled yet."""
        self._behind: dict[str, list[int]] = {}
        self._freed: list[int] = []
        # Neither needs an offset: a first delivery may have stopped at its very first record.
        self.ahead = _sorted(state.ledger.ahead(target.name, table.table_id))
        stops = target.destination.on_error == "stop"
        skipped = _sorted(state.ledger.letters_of(target.name, table.table_id, "skipped") if stops else ())
        overtaken = self._overtaken() if stops and len(self.ahead) else []
        self.skipped = np.setdiff1d(np.union1d(skipped, _sorted(overtaken)), self.ahead)  # one that was sent after all counts once
        known = offset if offset is not None and offset.table_id == table.table_id else None
        self._resync_upto = known.resync_upto if known is not None else None
        self._newest: _Seqs | None = None

    def _overtaken(self) -> list[int]:
        """Refused changes of whose record the target has a newer version already: sending the old one would undo the new one."""
        refused = self._state.ledger.letters_of(self._target.name, self._table.table_id, "open")
        refused |= self._state.ledger.letters_of(self._target.name, self._table.table_id, "superseded")
        beyond = [seq for seq in refused if seq < self.ahead[-1]]
        return [seq for seq in beyond if np.isin(versions_behind(self._table, seq), self.ahead).any()]

    def choose(self, changes: pa.Table) -> pa.Table:
        """The rows to send of these changes, in order: envelope, data as the steps leave it, and RULE."""
        decisions = self._target.router.decide(changes, self._target.destination_name)
        for rule, count in decisions.failures.items():
            self.rules_without_an_answer[rule] = self.rules_without_an_answer.get(rule, 0) + count
        rule_of = decisions.rule_for(self._target.destination_name)
        kept = (rule_of != ELSEWHERE) & self._not_settled(changes)
        names = rule_names(decisions.rules)
        called = pa.array([names.get(index, "") for index in range(OTHERWISE, len(decisions.rules))], pa.string())
        rows = changes if kept.all() else changes.filter(pa.array(kept))
        rows = rows.append_column(RULE, called.take(pa.array(rule_of[kept] - OTHERWISE)))
        stepped = self._stepped(rows)
        if self._target.destination.dedupe is None:
            return stepped
        # What a step leaves out holds back nothing.
        first = self._first_of_alike(rows.filter(pc.is_in(rows[records.SEQ], stepped[records.SEQ].combine_chunks())))
        return stepped.filter(pc.is_in(stepped[records.SEQ], first[records.SEQ].combine_chunks()))

    def forget_old(self) -> None:
        """Drop what was delivered too long ago to hold anything back."""
        dedupe = self._target.destination.dedupe
        if dedupe is not None:
            self._state.ledger.forget_alike(self._target.name, self._since(dedupe))

    def _since(self, dedupe: Dedupe) -> str:
        return (self._now - dedupe.time).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    def take_ahead(self, seqs: Collection[int]) -> None:
        """Count these changes as taken when their turn comes."""
        self.ahead = np.union1d(self.ahead, _sorted(list(seqs)))

    def free(self, refused: Collection[int], end: int) -> int | None:
        """Let records go after all that were held back because of these, which are refused of the changes up to `end`.

        Answers the seq right before the first of them; None where there is none up to `end`. Of what is refused beyond that nothing is
        freed: it is sent once more.
        """
        behind = {seq: mark for seq in refused if (mark := self.marks.get(seq)) is not None and self._behind[mark]}
        cut = min((self._behind[mark][0] - 1 for mark in behind.values() if self._behind[mark][0] <= end), default=None)
        for seq, mark in behind.items():
            if cut is None or seq <= cut:
                first = self._behind[mark].pop(0)
                del self.marks[seq]
                self.marks[first] = mark  # what comes later waits for this one now
                bisect.insort(self._freed, first)
        return cut

    def first_freed(self, upto: int) -> int | None:
        """The first change up to `upto` that is to be sent although it was held back; None where there is none."""
        return self._freed[0] if self._freed and self._freed[0] <= upto else None

    def again(self, seq: int) -> pa.Table:
        """The first freed change as it is to be sent."""
        self._freed.remove(seq)
        self.alike.remove(seq)
        before = dict(self.rules_without_an_answer)
        rows = self.choose(self._table.changes(seq - 1, seq))
        self.rules_without_an_answer = before  # counted when it was chosen first
        return rows

    def settled(self, upto: int) -> None:
        """Forget what is only of use for changes that are not settled: the state remembers what was delivered."""
        for seq in [seq for seq in self.marks if seq <= upto]:
            del self._behind[self.marks.pop(seq)]
        del self.alike[: bisect.bisect_right(self.alike, upto)]

    def _not_settled(self, changes: pa.Table) -> npt.NDArray[np.bool_]:
        """Whether there is something left to do about a change: nobody passed it over, and during a resync it is the newest of its key."""
        seqs: _Seqs = changes[records.SEQ].to_numpy()
        kept = ~np.isin(seqs, self.ahead) & ~np.isin(seqs, self.skipped)
        if self._resync_upto is None or not len(seqs) or seqs[0] > self._resync_upto:
            return kept
        if self._newest is None:
            self._newest = self._table.newest_seqs(upto=self._resync_upto)
        kept &= (seqs > self._resync_upto) | np.isin(seqs, self._newest)
        return kept

    def _first_of_alike(self, rows: pa.Table) -> pa.Table:
        dedupe = self._target.destination.dedupe
        if dedupe is None or not len(rows):
            return rows
        missing = [name for name in dedupe.by if name not in rows.column_names]
        if missing:
            known = records.data_schema(self._table.schema).names
            raise ConfigurationError(f"dedupe.by: {sandbox.unknown_column(missing[0], known)}", where=self._target.name)
        values = zip(*(rows[name].to_pylist() for name in dedupe.by or (records.KEY,)), strict=True)
        marks = [xxhash.xxh3_128_hexdigest(records.to_json(each)) for each in values]
        seen = self._state.ledger.alike(self._target.name, marks, self._since(dedupe))
        first: list[bool] = []
        for seq, mark in zip(rows[records.SEQ].to_pylist(), marks, strict=True):
            first.append(mark not in seen and (mark not in self._behind or self.marks.get(seq) == mark))
            if first[-1]:
                self.marks[seq] = mark
                self._behind.setdefault(mark, [])
            else:
                bisect.insort(self.alike, seq)
                if mark in self._behind:
                    self._behind[mark].append(seq)
        return rows.filter(pa.array(first, pa.bool_()))

    # ---- steps --------------------------------------------------------------------------------------------------------

    def _stepped(self, rows: pa.Table) -> pa.Table:
        if not len(rows) or not any(self._target.steps.values()):
            return rows
        parts = []
        for rule in dict.fromkeys(rows[RULE].to_pylist()):
            part = rows.filter(pc.equal(rows[RULE], rule))
            parts.append(self._done(part, rule) if self._target.steps.get(rule) else part)
        return joined(parts).sort_by(records.SEQ)

    def _done(self, rows: pa.Table, rule: str) -> pa.Table:
        """The rows of one rule behind its steps. A step may leave rows out; the envelope stays that of the change."""
        steps = self._target.steps[rule]
        source = rows.select(records.data_schema(rows.schema).names).append_column(pa.field(_ROW, pa.int64()), rows[records.SEQ])
        where = f"routes.{self._target.route}" + (f".rules ({rule})" if rule else "")
        connection = sandbox.shared()
        connection.register(_STRETCH, source)
        try:
            query = steps_query(connection, _STRETCH, source.schema, steps, where)
            parts = list(relation_rows(where, lambda: connection.sql(query))())
        finally:
            connection.unregister(_STRETCH)
        if not parts:
            return rows.slice(0, 0)
        schema = parts[0].schema
        for part in parts[1:]:
            schema = records.widen_schema(schema, part.schema)
        given = pa.concat_tables([records.conform(part, schema) for part in parts])
        if _ROW not in given.column_names:
            raise ConfigurationError(
                "a step leaves out a column that it was not given", where=where, do="keep the columns it does not name"
            )
        origin = pc.index_in(given[_ROW], value_set=rows[records.SEQ].combine_chunks())
        envelope = rows.select([*records.ENVELOPE.names, RULE]).take(origin)
        data = given.drop_columns([_ROW])
        return pa.table([*envelope.columns, *data.columns], schema=pa.schema([*envelope.schema, *data.schema]))


def versions_behind(table: LakeTable, seq: int) -> list[int]:
    """The newer changes of the record that a change is about, ascending."""
    row = table.changes(seq - 1, seq)
    if not len(row):
        return []
    return [newer for newer in table.history_of(row[records.KEY][0].as_py())[records.SEQ].to_pylist() if newer > seq]


def split_rules(rows: pa.Table) -> tuple[pa.Table, Sequence[str]]:
    """The rows without RULE, and what it says; nothing where no row has a rule."""
    if RULE not in rows.column_names:
        return rows, ()
    rules = rows[RULE]
    said = pc.any(pc.not_equal(rules, "")).as_py()
    return rows.drop_columns([RULE]), rules.to_pylist() if said else ()


def within(seqs: Mapping[int, object] | Sequence[int] | _Seqs, after: int, upto: int) -> list[int]:
    """Those of the seqs that lie in (after, upto]."""
    return [int(seq) for seq in seqs if after < seq <= upto]


def _sorted(seqs: Sequence[int] | Mapping[int, object]) -> _Seqs:
    return np.array(sorted(seqs), np.int64)


def joined(parts: Sequence[pa.Table]) -> pa.Table:
    """Chosen rows one behind the other; where their columns differ, wide enough for all of them."""
    if all(part.schema.equals(parts[0].schema, check_metadata=True) for part in parts):
        return pa.concat_tables(parts)
    schema = records.data_schema(parts[0].schema)
    for part in parts[1:]:
        schema = records.widen_schema(schema, records.data_schema(part.schema))
    return pa.concat_tables([_conformed(part, schema) for part in parts])


def _conformed(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """The rows with these data columns, and the envelope with RULE before them."""
    envelope = rows.select([*records.ENVELOPE.names, RULE])
    data = records.conform(rows.select(records.data_schema(rows.schema).names), schema)
    return pa.table([*envelope.columns, *data.columns], schema=pa.schema([*envelope.schema, *schema]))
