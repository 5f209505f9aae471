"""Where did this record go? From the pull that read it, through the rules that decided, to the receipts that cover it."""

from typing import Any

import pyarrow as pa

from muxly_dagster import records
from muxly_dagster.assembly import Assembly, Target, table_named
from muxly_dagster.errors import ConfigurationError
from muxly_dagster.explaining import explain
from muxly_dagster.lake import Lake, LakeTable
from muxly_dagster.routing import Router, describe
from muxly_dagster.state import DeadLetter, State, StoredReceipt


def trace(lake: Lake, state: State, assembly: Assembly, text: str) -> list[dict[str, Any]]:
    """The story of a change, or of every change of a record.

    `text` is a record id (`crm.contacts:8f3a2c11:42`) or a table and a key (`crm.contacts 1001` or `crm.contacts/1001`). Each
    answer has `record` (the unified form) and `targets`: one entry per target of every route that reads the table, with the
    rules as they were when it was delivered, what they answered and which parts of their conditions decided, the receipt that covers it
    (None: not delivered yet) and its dead letter if it was refused.
    Raises ConfigurationError when nothing of that name is found.
    """
    table, rows = _find(lake, assembly, text)
    targets = [t for t in assembly.targets.values() if t.table == table.name]
    connector_id = assembly.pulls[table.name].connector.id if table.name in assembly.pulls else "transform"
    shown = records.to_records(rows, connector_id=connector_id, table=table.name, table_id=table.table_id)
    return [
        {"record": record, "targets": [_at(state, target, rows.slice(at, 1), record) for target in targets]}
        for at, record in enumerate(shown)
    ]


def _find(lake: Lake, assembly: Assembly, text: str) -> tuple[LakeTable, pa.Table]:
    said, _, key = text.partition(" ") if " " in text else text.partition("/")
    parsed = None if key else records.parse_record_id(text)
    if not key and parsed is None:
        what = "names a table, but no record of it" if said in (*assembly.pulls, *assembly.transforms) else "is no record"
        raise ConfigurationError(f"{text} {what}", do="give a record id, or a table and a key: `muxly trace crm.deals 1001`")
    name = table_named(assembly, parsed[0] if parsed else said)
    table = lake.existing(name)
    if parsed and parsed[1] != table.table_id:
        raise ConfigurationError(
            f"{text} is from an earlier life of the table {name}, which has been pulled anew since",
            do=f"look the record up by its key: `muxly trace {name} KEY`",
        )
    rows = table.changes(parsed[2] - 1, parsed[2]) if parsed else table.history_of(key)
    if not len(rows):
        columns = ", ".join(table.key) or "*"
        wanted = text if parsed else f"with the key {key}"
        raise ConfigurationError(
            f"{name} never held a record {wanted}", do=f'list its keys with `muxly query "select {columns} from {name} limit 10"`'
        )
    return table, rows


def _at(state: State, target: Target, row: pa.Table, record: dict[str, Any]) -> dict[str, Any]:
    seq, table_id = record["metadata"]["seq"], record["id"].split(":")[1]
    covering = state.ledger.receipts(target.name, table_id=table_id, seq=seq, limit=1)
    receipt = covering[0] if covering else None
    letters = state.ledger.dead_letters(target.name, status=None, record_id=record["id"])
    kept = state.ledger.rules(receipt.ruleset) if receipt is not None and receipt.ruleset else None
    router = Router.of(kept) if kept else target.router
    decisions = router.decide(row)
    routed, decided = target.destination_name in decisions.destinations_of(0), decisions.rules_of(0)
    wait = state.waiting.read(target.name) if routed and receipt is None else None
    return {
        "target": target.name,
        "destination": target.destination.public_name(target.table),
        "routed": routed,
        "outcome": _outcome(state, target, receipt, letters, record, routed=routed),
        "waits": {"until": wait.until.isoformat(), "why": wait.why} if wait is not None else None,
        "rules_of": "then" if kept else "now",
        "rules": [
            {
                "rule": describe(index, rule),
                "when": rule.when,
                "answer": answer,
                "sampled": not decisions.unsampled[index][0],
                "decided": index in decided,
                "because": _because(rule.when, row),
                "to": list(rule.to),
            }
            for index, (rule, answer) in enumerate(zip(decisions.rules, decisions.answers_of(0), strict=True))
        ],
        "otherwise": list(decisions.otherwise) if not decided else [],
        "receipt": {"id": receipt.id, "at": receipt.at, "run": receipt.run_id, "detail": receipt.detail} if receipt else None,
        "dead_letter": {"id": letters[0].id, "reason": letters[0].reason, "status": letters[0].status} if letters else None,
    }


def _outcome(
    state: State, target: Target, receipt: StoredReceipt | None, letters: list[DeadLetter], record: dict[str, Any], *, routed: bool
) -> str:
    """What became of a change at a target, in words."""
    seq, table_id = record["metadata"]["seq"], record["id"].split(":")[1]
    if letters:
        return "refused" if letters[0].status == "open" else letters[0].status
    if not routed:
        return "not routed here"
    if receipt is None:
        return "accepted" if seq in state.ledger.ahead(target.name, table_id) else "waiting"
    return "held back: one like it was delivered shortly before" if seq in receipt.detail.get("held_back_as_alike", ()) else "accepted"


def _because(when: str | None, row: pa.Table) -> list[dict[str, Any]]:
    """The parts of a condition that decided about a row, with the values they saw."""
    if when is None:
        return []
    return [{"text": part.text, "answer": part.answer, "values": dict(part.values)} for part in explain(when, row).decided]
