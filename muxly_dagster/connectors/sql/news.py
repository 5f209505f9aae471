"""What came since the last pull: rows in the order of the cursor's columns, and the keys that are still there."""

import datetime as dt
import decimal
from collections.abc import Generator, Iterator, Mapping
from typing import Any

import pyarrow as pa

from muxly_dagster import records
from muxly_dagster.connector import Batch, Cursor, Span, Unreadable
from muxly_dagster.connectors.sql.dialect import Chunk, Column, Database, Select
from muxly_dagster.connectors.sql.source import Source
from muxly_dagster.errors import ConfigurationError
from muxly_dagster.measures import parse_duration

_KEYS_AT_ONCE = 100_000


def batch(chunk: Chunk, cursor: Cursor | None = None) -> Batch:
    """A chunk as a batch."""
    return Batch(records.normalise(chunk.rows), cursor, chunk.unreadable, chunk.metadata)


def news(database: Database, source: Source, cursor: Cursor | None, known: pa.Schema | None) -> Generator[Batch, None, None]:
    """Rows in the order of the cursor, after those without a value there and those that `lookback` asks for again.

    Rows of the last value are read again where a key tells them apart: others may have joined them since. With `deletes: keys`, all
    keys follow, seen by the same snapshot.
    """
    pull = source.pull
    _check_cursor(database, source)
    said: Any = pull.order[0] if len(pull.order) == 1 else list(pull.order)
    if cursor is not None and cursor.get("column") != said:
        raise ConfigurationError(
            f"the last pull went by {_names(cursor.get('column'))}, not by {_names(said)}",
            do=f"run `muxly run NAME --from-start` for this pull once, or set `cursor` back to {_names(cursor.get('column'))}",
        )
    started = dt.datetime.now(dt.UTC)
    last = None if cursor is None else tuple(cursor["value"]) if len(pull.order) > 1 else (cursor["value"],)
    position = _Position(said, cursor)
    unreadable = False
    for found in _rows_since(database, source, last, position, known):
        unreadable = unreadable or bool(found.unreadable)
        yield found
    if pull.deletes and _is_due(cursor, pull.deletes_every, started):
        for chunk in database.read(Select(source.keys, source.sql(), batch_rows=max(pull.batch_rows, _KEYS_AT_ONCE)), known):
            unreadable = unreadable or bool(chunk.unreadable)
            yield Batch(pa.table({}), unreadable=chunk.unreadable, alive=records.normalise(chunk.rows))
        compared = None if unreadable or position.newest is None else position.newest | {"compared": started.isoformat()}
        yield Batch(pa.table({}), compared, complete=(Span(),))


class _Position:
    """Cursors of one pull, as they are stored."""

    def __init__(self, said: str | list[str], cursor: Cursor | None) -> None:
        self.newest: dict[str, Any] | None = cursor
        self._fixed: Mapping[str, Any] = {"column": said}
        self._more = {} if cursor is None or "compared" not in cursor else {"compared": cursor["compared"]}

    def at(self, values: tuple[Any, ...]) -> Cursor:
        """The cursor that stands behind all rows of these values."""
        self.newest = {**self._fixed, "value": values[0] if len(values) == 1 else list(values), **self._more}
        return self.newest


def _rows_since(
    database: Database, source: Source, last: tuple[Any, ...] | None, position: _Position, known: pa.Schema | None
) -> Iterator[Batch]:
    pull, first = source.pull, source.order[0]
    earlier = None if last is None else _earlier(last[0], pull.lookback, first)
    from_item = source.sql(database.literal(earlier, first))

    def read(where: str, *, ordered: bool) -> Iterator[Chunk]:
        return database.read(Select(source.columns, from_item, where, pull.order if ordered else (), pull.batch_rows), known)

    nullable = [database.quote(column.name) for column in source.order if column.nullable]
    if nullable:
        for chunk in read(" or ".join(f"{name} is null" for name in nullable), ordered=False):
            yield batch(chunk) if source.key else _without_position(chunk, _names(list(pull.order)))
    filled = [f"{database.quote(column.name)} is not null" for column in source.order]
    if last is None:
        yield from _in_order(read(" and ".join(filled), ordered=True), position)
        return
    if pull.lookback:
        since = database.compare([first], ">=", [earlier])
        for chunk in read(" and ".join([since, database.compare(source.order, "<", last), *filled[1:]]), ordered=False):
            yield batch(chunk)
    since = database.compare(source.order, ">=" if source.key else ">", last)
    yield from _in_order(read(" and ".join([since, *filled[1:]]), ordered=True), position)


def _is_due(cursor: Cursor | None, every: str, now: dt.datetime) -> bool:
    """Whether all keys are to be read: a first pull has just read every row."""
    if cursor is None:
        return False
    compared = cursor.get("compared")
    return not every or compared is None or now - dt.datetime.fromisoformat(compared) >= parse_duration(every)


def _names(said: Any) -> str:
    return ", ".join(map(str, said)) if isinstance(said, list) else str(said)


def _in_order(chunks: Iterator[Chunk], position: _Position) -> Iterator[Batch]:
    """Batches whose cursor never stands between rows of the same value: the last value of a chunk waits for the next one."""
    held: pa.Table | None = None
    held_at: tuple[Any, ...] = ()

    for chunk in chunks:
        if not chunk.positions:
            yield batch(chunk)
            continue
        if held is not None:
            yield batch(Chunk(held), position.at(held_at) if chunk.positions[0] != held_at else None)
        held_at = chunk.positions[-1]
        cut = len(chunk.positions)
        while cut and chunk.positions[cut - 1] == held_at:
            cut -= 1
        whole = position.at(chunk.positions[cut - 1]) if cut else None
        yield batch(Chunk(chunk.rows.slice(0, cut), (), chunk.unreadable, chunk.metadata), whole)
        held = chunk.rows.slice(cut)
    if held is not None:
        yield batch(Chunk(held), position.at(held_at))


def _without_position(chunk: Chunk, name: str) -> Batch:
    """Rows without key and without a cursor's value: nothing tells whether the lake has them already."""
    reason = f"{name} is null and the pull has no key; set `key`, or leave such rows out in a `query`"
    lost = tuple(Unreadable(records.to_json(row).decode(), reason) for row in chunk.rows.to_pylist())
    return Batch(records.normalise(chunk.rows.slice(0, 0)), None, chunk.unreadable + lost)


def _check_cursor(database: Database, source: Source) -> None:
    pull = source.pull
    for column in source.order:
        type_ = column.field.type
        if pa.types.is_boolean(type_) or pa.types.is_binary(type_) or records.is_json(column.field):
            raise ConfigurationError(f"{column.name} ({column.kind}) has no order to go by", do="name a number or a time as `cursor`")
        if pa.types.is_string(type_) and database.folds_text and not source.key:
            # Values that differ only in case or accents are equal there: a batch could end between them.
            raise ConfigurationError(f"the text column {column.name} can only be a cursor where there is a key", do="set the pull's `key`")
    first = source.order[0]
    if pull.lookback and not source.key:
        raise ConfigurationError("`lookback` reads rows again, and without a key they would be stored twice", do="set the pull's `key`")
    if pull.lookback and not database.dynamic and (pa.types.is_temporal(first.field.type) == str(pull.lookback).isdecimal()):
        raise _wrong_lookback(pull.lookback, first)
    if pull.deletes and not source.key:
        raise ConfigurationError("`deletes: keys` compares keys, and there is no key", do="set the pull's `key`")


def _earlier(value: Any, lookback: str | int, column: Column) -> Any:
    """The cursor's value moved back; None where there is none yet."""
    if value is None or not lookback:
        return value
    try:
        if str(lookback).isdecimal():
            return str(decimal.Decimal(value) - int(lookback)) if isinstance(value, str) else value - int(lookback)
        moment = dt.datetime.fromisoformat(value)
    except (ValueError, TypeError, ArithmeticError):
        raise _wrong_lookback(lookback, column) from None
    try:
        back = moment - parse_duration(str(lookback))
    except OverflowError:
        back = dt.datetime.min
    if len(value) <= len("2024-01-01"):
        return back.date().isoformat()
    text = back.isoformat(sep=value[10])
    return text.replace("+00:00", "Z") if value.endswith("Z") else text


def _wrong_lookback(lookback: str | int, column: Column) -> ConfigurationError:
    return ConfigurationError(
        f"`lookback` {lookback} cannot be taken from {column.name} ({column.kind or 'its values'})",
        do="write 1000 for a number, 15m for a time",
    )
