"""What would happen next, with nothing stored and nothing sent."""

import datetime as dt
from typing import Any

import orjson
import pyarrow as pa

from muxly_dagster import records
from muxly_dagster.assembly import Pull, Target
from muxly_dagster.delivery import Choosing, delivery_of
from muxly_dagster.errors import RecordRefused
from muxly_dagster.lake import Lake, LakeTable
from muxly_dagster.routing import describe
from muxly_dagster.services import Services
from muxly_dagster.state import State


def preview_pull(pull: Pull, limit: int) -> list[dict[str, Any]]:
    """The first records of a stream as they would be stored, read live from the provider."""
    taken: list[pa.Table] = []
    # Files and answers of its own, which go when it ends; the rate budgets are the account's all the same, and what waits is looked at.
    lent = pull.connector.services
    connector = pull.connector.equipped(Services(turns=lent.turns, inbox=lent.inbox, calls=lent.calls, source=lent.source))
    stream = connector.resolve(pull.settings)
    batches = connector.pull(pull.settings, None, stream.schema)
    for batch in batches:
        taken.append(batch.rows)
        if sum(map(len, taken)) >= limit:
            break
    batches.close()  # type: ignore[attr-defined]  # a generator: let go of the provider's connections now
    return [row for table in taken for row in to_rows(table.slice(0, limit))][:limit]


def preview_targets(lake: Lake, state: State, targets: list[Target], limit: int) -> list[dict[str, Any]]:
    """The next changes that the targets of one route have before them, where each would go, the rule that decides, and the message.

    `messages` are by destination, for those that send something else than the record; a message about several records stands with the
    newest of them. What a destination would refuse is told in the message's place. Where nothing is waiting, the newest changes stand in.
    """
    table = lake.existing(targets[0].table)
    offsets = [state.ledger.offset(target.name) for target in targets]
    after = min(offset.seq if offset and offset.table_id == table.table_id else 0 for offset in offsets)
    if after >= table.head:
        after = max(0, table.head - limit)
    upto = min(after + limit, table.head)
    rows = table.changes(after, upto)
    decisions = targets[0].router.decide(rows)
    names = {target.destination_name for target in targets}
    messages = {target.destination_name: _messages(state, target, table, rows, after, upto) for target in targets}
    shown = records.to_records(rows, connector_id=targets[0].connector_id, table=table.name, table_id=table.table_id)
    return [
        {
            "id": record["id"],
            "op": record["op"],
            "key": record["key"],
            "to": [name for name in decisions.destinations_of(at) if name in names],
            "because": [describe(index, decisions.rules[index]) for index in decisions.rules_of(at)]
            or ["otherwise" if decisions.otherwise else "no rule matches"],
            "data": record["data"],
            "messages": {name: text for name, texts in messages.items() if (text := texts.get(record["metadata"]["seq"]))},
        }
        for at, record in enumerate(shown)
    ]


def _messages(state: State, target: Target, table: LakeTable, changes: pa.Table, after: int, upto: int) -> dict[int, str]:
    """What would be sent of these changes, by the seq of the newest record in each message."""
    rows = Choosing(state, target, table, None, dt.datetime.now(dt.UTC)).choose(changes)
    return _rendered(target, table, rows, after, upto) if len(rows) else {}


def _rendered(target: Target, table: LakeTable, rows: pa.Table, after: int, upto: int) -> dict[int, str]:
    seqs = rows[records.SEQ].to_pylist()
    try:
        found = target.destination.render(delivery_of(target, table, rows, after, upto, target.name, "preview"))
    except RecordRefused as error:
        if len(seqs) == 1:
            return {seqs[0]: f"refused: {error.what}"}
        alone = (_rendered(target, table, rows.slice(at, 1), seq - 1, seq) for at, seq in enumerate(seqs))
        return {seq: text for each in alone for seq, text in each.items()}
    return {max(message.seqs): message.text for message in found}


def to_rows(table: pa.Table) -> list[dict[str, Any]]:
    """Rows as dictionaries, with JSON columns read."""
    nested = [f.name for f in table.schema if records.is_json(f)]
    rows: list[dict[str, Any]] = table.to_pylist()
    for row in rows:
        for name in nested:
            row[name] = None if row[name] is None else orjson.loads(row[name])
    return rows
