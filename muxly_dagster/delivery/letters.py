"""Dead letters of deliveries: corrected, sent again to the one target that refused them, or passed over."""

import base64
import dataclasses
import datetime as dt
import decimal
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import pyarrow as pa

from muxly_dagster import records, sandbox
from muxly_dagster.assembly import Target
from muxly_dagster.delivery.choosing import RULE, Choosing, versions_behind
from muxly_dagster.delivery.sending import delivery_of
from muxly_dagster.destination import Receipt, Refusal
from muxly_dagster.errors import ConfigurationError, RecordRefused
from muxly_dagster.lake import Lake, LakeTable
from muxly_dagster.state import DeadLetter, State


def replay(lake: Lake, state: State, target: Target, letters: Sequence[DeadLetter], *, run_id: str) -> dict[str, int]:
    """Send refused records again, each to the one target that refused it. Answers how many were replayed, superseded and refused.

    What a person edited is sent as it was edited. A record whose newer version the target has already dealt with is superseded: sending
    the old one would undo the new one. A change that the offset has not passed yet is left to the next run.
    """
    counts = {"replayed": 0, "superseded": 0, "refused": 0}
    with state.lock(f"deliver.{target.name}"):
        table = lake.existing(target.table)
        offset = state.ledger.offset(target.name)
        done = offset.seq if offset is not None and offset.table_id == table.table_id else 0
        choosing = Choosing(state, dataclasses.replace(target, destination=_without_dedupe(target)), table, None, dt.datetime.now(dt.UTC))
        for letter in sorted(letters, key=lambda each: each.seq):
            counts[_replay_one(state, target, table, choosing, letter, done, run_id)] += 1
    return counts


def edit(lake: Lake, state: State, letter: DeadLetter, data: Mapping[str, Any] | None) -> None:
    """Correct the data of a refused record; None takes the correction back. What a replay sends is this.

    Raises ConfigurationError for a letter of a pull, and for data that has a field which the record lacks or whose type does not fit.
    """
    if letter.kind != "delivery":
        raise ConfigurationError(f"{letter.id} could not be read, so there is nothing to correct", do="correct the source, then pull again")
    if data is None:
        state.ledger.edit(letter, None)
        return
    written = orjson.loads(letter.edited) if letter.edited is not None else orjson.loads(letter.record)["data"]
    unknown = [name for name in data if name not in written]
    if unknown:
        raise ConfigurationError(f"{letter.id}: {sandbox.unknown_column(unknown[0], written)}")
    table = lake.existing(orjson.loads(letter.record)["stream"])
    _row(table.schema, written | dict(data))
    state.ledger.edit(letter, records.to_json(written | dict(data)).decode())


def skip(state: State, letters: Sequence[DeadLetter]) -> int:
    """Pass over refused records: they are not sent again, and a delivery that one of them stops goes on behind it."""
    chosen = [letter for letter in letters if letter.status == "open"]
    state.ledger.close(chosen, "skipped")
    return len(chosen)


def _replay_one(state: State, target: Target, table: LakeTable, choosing: Choosing, letter: DeadLetter, done: int, run_id: str) -> str:
    rows = table.changes(letter.seq - 1, letter.seq) if letter.table_id == table.table_id else None
    if rows is None or not len(rows):
        state.ledger.close([letter], "superseded")
        return "superseded"
    if any(seq <= done or seq in choosing.ahead for seq in versions_behind(table, letter.seq)):
        state.ledger.close([letter], "superseded")
        return "superseded"
    chosen = choosing.choose(rows)
    rows = _edited(table, rows, chosen, letter.edited) if letter.edited is not None else chosen
    if not len(rows):
        state.ledger.close([letter], "superseded")  # the rules send it elsewhere by now, or a step leaves it out
        return "superseded"
    # A letter that was refused anew is another delivery; one whose replay was cut off is the same.
    name = f"{target.name}/{letter.id}.{letter.times}"
    delivery = delivery_of(target, table, rows, letter.seq - 1, letter.seq, name, run_id)
    try:
        receipt = target.destination.deliver(delivery)
    except RecordRefused as error:
        receipt = Receipt(0, (Refusal(letter.seq, error.what),))
    if receipt.retry is not None:
        raise receipt.retry
    if receipt.refused:
        state.ledger.shelve([dataclasses.replace(letter, reason=receipt.refused[0].reason, run_id=run_id)])
        return "refused"
    state.ledger.close([letter], "replayed")
    if letter.seq > done:
        state.ledger.keep_ahead(target.name, table.table_id, [letter.seq])  # so that the run that comes to it does not send it again
    return "replayed"


def _without_dedupe(target: Target) -> Any:
    return target.destination.model_copy(update={"dedupe": None})


def _edited(table: LakeTable, row: pa.Table, chosen: pa.Table, edited: str) -> pa.Table:
    """The change with the data as it was edited: behind the steps, which were done before it was refused.

    `chosen` is the change as it would be sent today, which tells its rule and the types that steps give; perhaps it would not be.
    """
    data = _row(chosen.schema if len(chosen) else table.schema, orjson.loads(edited))
    envelope = chosen.select([*records.ENVELOPE.names, RULE]) if len(chosen) else row.select(records.ENVELOPE.names)
    return pa.table([*envelope.columns, *data.columns], schema=pa.schema([*envelope.schema, *data.schema]))


def _row(schema: pa.Schema, data: Mapping[str, Any]) -> pa.Table:
    """Data from JSON as a row in the types of the schema; columns that it does not know are typed by their values."""
    fields, columns = [], []
    for name, value in data.items():
        known = schema.field(name) if name in schema.names else None
        try:
            field, column = _column(name, value, known)
        except (pa.ArrowInvalid, pa.ArrowTypeError, ValueError, TypeError, ArithmeticError):
            kind = known.type if known is not None else "a value"
            raise ConfigurationError(f"{name}: {value!r} is not {kind}", do="write the value as it stands in the record") from None
        fields.append(field)
        columns.append(column)
    return pa.table(columns, schema=pa.schema(fields))


def _column(name: str, value: Any, known: pa.Field | None) -> tuple[pa.Field, pa.Array]:
    if isinstance(value, dict | list) or (known is not None and records.is_json(known)):
        text = None if value is None else records.to_json(value).decode()
        return pa.field(name, pa.string(), metadata=records.JSON_FIELD), pa.array([text], pa.string())
    if known is None:
        column = pa.array([value], pa.string() if value is None else None)
        return pa.field(name, column.type), column
    return known, pa.array([_value(value, known.type)], known.type)


def _value(value: Any, type_: pa.DataType) -> Any:
    """A JSON value as Arrow takes it for this type: the inverse of `records.to_json`, which also reads numbers and truths from text.

    Raises ValueError where nothing exact comes of it.
    """
    if value is None:
        return None
    if pa.types.is_string(type_):
        return value if isinstance(value, str) else records.to_json(value).decode()
    if pa.types.is_boolean(type_):
        return {"true": True, "false": False}.get(value, value)
    if isinstance(value, bool) or (isinstance(value, int | float) and not _is_number(type_)):
        raise ValueError(value)
    if pa.types.is_decimal(type_):
        return decimal.Decimal(str(value))
    if pa.types.is_floating(type_):
        return float(value)
    if pa.types.is_integer(type_):
        if isinstance(value, float) and not value.is_integer():
            raise ValueError(value)
        return int(value)
    if pa.types.is_timestamp(type_):
        return dt.datetime.fromisoformat(value)
    if pa.types.is_date(type_):
        return dt.date.fromisoformat(value)
    return base64.b64decode(value, validate=True)


def _is_number(type_: pa.DataType) -> bool:
    return bool(pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_decimal(type_))
