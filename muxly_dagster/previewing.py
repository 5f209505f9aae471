"""What would happen next, with nothing stored and nothing sent."""

from typing import Any

import orjson
import pyarrow as pa

from muxly_dagster import records
from muxly_dagster.assembly import Pull, Target
from muxly_dagster.lake import Lake
from muxly_dagster.routing import describe
from muxly_dagster.services import Services
from muxly_dagster.state import State


def preview_pull(pull: Pull, limit: int) -> list[dict[str, Any]]:
    """The first records of a stream as they would be stored, read live from the provider."""
    taken: list[pa.Table] = []
    # Files and answers of its own, which go when it ends; the rate budgets are the account's all the same.
    connector = pull.connector.equipped(Services(turns=pull.connector.services.turns))
    stream = connector.resolve(pull.settings)
    batches = connector.pull(pull.settings, None, stream.schema)
    for batch in batches:
        taken.append(batch.rows)
        if sum(map(len, taken)) >= limit:
            break
    batches.close()  # type: ignore[attr-defined]  # a generator: let go of the provider's connections now
    return [row for table in taken for row in to_rows(table.slice(0, limit))][:limit]


def preview_targets(lake: Lake, state: State, targets: list[Target], limit: int) -> list[dict[str, Any]]:
    """The next changes that the targets of one route have before them, where each would go, and the rule that decides.

    Where nothing is waiting, the newest changes stand in.
    """
    table = lake.existing(targets[0].table)
    offsets = [state.ledger.offset(target.name) for target in targets]
    after = min(offset.seq if offset and offset.table_id == table.table_id else 0 for offset in offsets)
    if after >= table.head:
        after = max(0, table.head - limit)
    rows = table.changes(after, min(after + limit, table.head))
    decisions = targets[0].router.decide(rows)
    names = {target.destination_name for target in targets}
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
        }
        for at, record in enumerate(shown)
    ]


def to_rows(table: pa.Table) -> list[dict[str, Any]]:
    """Rows as dictionaries, with JSON columns read."""
    nested = [f.name for f in table.schema if records.is_json(f)]
    rows: list[dict[str, Any]] = table.to_pylist()
    for row in rows:
        for name in nested:
            row[name] = None if row[name] is None else orjson.loads(row[name])
    return rows
