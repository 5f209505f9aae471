"""What the rules of today would have done with the changes of the past, beside what was decided then. Nothing is sent or stored."""

import datetime as dt
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from muxly_dagster import records
from muxly_dagster.assembly import Assembly, Target
from muxly_dagster.errors import ConfigurationError
from muxly_dagster.lake import Lake, LakeTable
from muxly_dagster.project.checks import did_you_mean
from muxly_dagster.routing import ELSEWHERE, Router, rule_names
from muxly_dagster.state import State

_STRETCH = 50_000
_EXAMPLES = 5
_UNDECIDED = -3

_Rules = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Then:
    """For each row the index of the rule that decided then (_UNDECIDED where none did, or nobody knows), and what it was called."""

    indexes: _Rules
    names: list[str]


@dataclass(slots=True)
class Difference:
    """What changes for one destination. `undecided` changes were not delivered yet; all others were decided one way or the other.

    `examples` name some of the changes that would be added or removed: id, key, data, and `was` and `now`, the deciding rule then and
    today (empty: not sent).
    """

    destination: str
    before: int = 0
    now: int = 0
    added: int = 0
    removed: int = 0
    undecided: int = 0
    examples: list[dict[str, Any]] = field(default_factory=list)


def compare_rules(lake: Lake, state: State, assembly: Assembly, route: str, since: dt.datetime) -> list[Difference]:
    """Ask a route's rules about every change read since then, and compare with the rules by which it was delivered.

    Raises ConfigurationError when there is no such route.
    """
    targets = {target.destination_name: target for target in assembly.targets.values() if target.route == route}
    if not targets:
        routes = dict.fromkeys(target.route for target in assembly.targets.values())
        raise ConfigurationError(f"there is no route named {route}", do=did_you_mean(route, routes))
    first = next(iter(targets.values()))
    table = lake.existing(first.table)
    known = [name.removeprefix(f"{route}.") for name in state.ledger.targets(f"{route}.")]
    found = {name: Difference(name) for name in dict.fromkeys([*targets, *known])}
    histories = {name: _History(state, table, f"{route}.{name}", name) for name in found}
    after = table.first_since(since) - 1
    while after < table.head:
        upto = min(after + _STRETCH, table.head)
        rows = table.changes(after, upto)
        decisions = first.router.decide(rows)
        for name, difference in found.items():
            now = decisions.rule_for(name) if name in targets else np.full(len(rows), ELSEWHERE, np.int64)
            _compare(difference, histories[name].decided(rows), now, rows, first, table.table_id)
        after = upto
    return list(found.values())


class _History:
    """By which rules a target's changes were decided when they were delivered."""

    def __init__(self, state: State, table: LakeTable, target: str, destination: str) -> None:
        self._destination = destination
        self._spans = state.ledger.decided(target, table.table_id)
        wanted = dict.fromkeys(ruleset for _, _, ruleset in self._spans)
        self._routers = {name: Router.of(rules) for name in wanted if name and (rules := state.ledger.rules(name))}

    def decided(self, rows: pa.Table) -> _Then:
        """What was decided about each row."""
        seqs = rows[records.SEQ].to_numpy()
        indexes: _Rules = np.full(len(rows), _UNDECIDED, np.int64)
        names = [""] * len(rows)
        for after, upto, ruleset in self._spans:
            begins, ends = np.searchsorted(seqs, after, side="right"), np.searchsorted(seqs, upto, side="right")
            router = self._routers.get(ruleset)
            if router is None or begins == ends:
                continue
            part = router.decide(rows.slice(begins, ends - begins), self._destination).rule_for(self._destination)
            called = rule_names(router.rules)
            indexes[begins:ends] = part
            names[begins:ends] = [called.get(int(index), "every record") if index != ELSEWHERE else "" for index in part]
        return _Then(indexes, names)


def _compare(difference: Difference, then: _Then, now: _Rules, rows: pa.Table, target: Target, table_id: str) -> None:
    decided = then.indexes != _UNDECIDED
    was, goes = decided & (then.indexes != ELSEWHERE), now != ELSEWHERE
    added, removed = goes & decided & ~was, was & ~goes
    difference.before += int(was.sum())
    difference.now += int((goes & decided).sum())
    difference.undecided += int((~decided & goes).sum())
    difference.added += int(added.sum())
    difference.removed += int(removed.sum())
    names = rule_names(target.router.rules)
    for row in np.flatnonzero(added | removed)[: max(0, _EXAMPLES - len(difference.examples))].tolist():
        [shown] = records.to_records(rows.slice(row, 1), connector_id=target.connector_id, table=target.table, table_id=table_id)
        rule = names.get(int(now[row]), "every record") if goes[row] else ""
        difference.examples.append({"id": shown["id"], "key": shown["key"], "was": then.names[row], "now": rule, "data": shown["data"]})
