"""Cursor sync: which stretch of a stream to ask for, and how far a pull has safely come."""

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from muxly_dagster.connector import Cursor
from muxly_dagster.errors import SourceError
from muxly_dagster.manifest.language.expressions import ABSENT, Context, iso, moment, render
from muxly_dagster.manifest.schema import CursorSync, Duration, parse_duration


@dataclass(frozen=True, slots=True)
class Slice:
    """A stretch to ask for: from `start` (None: the beginning) up to `end` (None: where the field is no time)."""

    start: Any
    end: dt.datetime | None

    def context(self) -> dict[str, Any]:
        """What the request's expressions may name."""
        return {"cursor": self.start, "window": {"start": self.start, "end": self.end}}


def slices(sync: CursorSync, cursor: Cursor | None, config: Context, now: dt.datetime) -> Iterator[Slice]:
    """The stretches between the stored cursor and now, in order. Lag, lookback and window count in time."""
    start = cursor["value"] if cursor else _start(sync, config)
    lag, lookback, window = (_duration(d, config) for d in (sync.lag, sync.lookback, sync.window))
    end = now - lag if lag else now
    if lookback and cursor:
        start = moment(start) - lookback
    if not window or start is None:
        yield Slice(start, end)
        return
    begin = moment(start)
    while begin < end:
        yield Slice(begin, min(begin + window, end))
        begin += window


def column_of(field: str, flatten: list[str]) -> str:
    """The column that a sync field becomes: `properties.updated` is `updated` where `properties` is flattened."""
    top, _, rest = field.partition(".")
    return rest if rest and top in flatten else field


def lag_of(sync: CursorSync, context: Context) -> dt.timedelta:
    """How long the newest records are left out."""
    return _duration(sync.lag, context) or dt.timedelta()


def _start(sync: CursorSync, config: Context) -> Any:
    start = render(sync.start, config)
    return None if start is ABSENT else start


def _duration(value: Duration | None, config: Context) -> dt.timedelta | None:
    found = render(value, config)
    return None if found is ABSENT or found is None else parse_duration(found)


class Position:
    """The greatest value of the sync field read so far, and whether the records really come in its order."""

    def __init__(self, sync: CursorSync, column: str, cursor: Cursor | None, latest: dt.datetime | None) -> None:
        self._field, self._column, self._latest = sync.field, column, latest
        self._stored = cursor["value"] if cursor else None
        self._greatest: Any = None
        self._below: Any = None  # greatest value that was left behind for good, where records come in order
        self._ascending = sync.ascending

    def take(self, rows: pa.Table) -> None:
        """Note the values of a batch. Raises SourceError where the records do not have the field."""
        if not len(rows):
            return
        if self._column not in rows.column_names:
            raise SourceError(
                f"no record has a value in {self._field}, by which the stream is synced",
                do="correct the stream's `sync.field`, or use `sync: {kind: full}`",
            )
        column = rows[self._column].combine_chunks().drop_null()
        if not len(column):
            return
        least, most = pc.min_max(column).as_py().values()
        if self._greatest is not None and type(most) is not type(self._greatest):
            self._greatest, most, least, self._ascending = str(self._greatest), str(most), str(least), False
        if self._ascending and ((self._greatest is not None and least < self._greatest) or not _in_order(column)):
            self._ascending = False
        if self._ascending:
            lower = pc.max(column.filter(pc.less(column, pa.scalar(most, column.type)))).as_py()
            if lower is not None or (self._greatest is not None and self._greatest < most):
                self._below = self._greatest if lower is None else lower
        self._greatest = most if self._greatest is None else max(self._greatest, most)

    def on_the_way(self) -> Cursor | None:
        """Where a pull that breaks off now could go on. More records of the greatest value may follow, so it is not this one."""
        return self._cursor(self._below) if self._ascending and self._below is not None else None

    def at_end(self) -> Cursor | None:
        """Where the next pull goes on once everything up to here was read; None where it has not moved."""
        return None if self._greatest is None else self._cursor(self._greatest)

    def _cursor(self, value: Any) -> Cursor:
        if self._latest is not None and isinstance(value, dt.date):
            value = min(moment(value), self._latest) if isinstance(value, dt.datetime) else min(value, self._latest.date())
        if self._stored is not None:
            value = max(value, _like(self._stored, value))
        if isinstance(value, dt.datetime):
            return {"value": iso(value)}
        return {"value": str(value) if isinstance(value, dt.date | Decimal) else value}


def _in_order(column: pa.Array) -> bool:
    return len(column) < 2 or bool(pc.all(pc.less_equal(column[:-1], column[1:])).as_py())


def _like(stored: Any, value: Any) -> Any:
    """The stored cursor in the form of a value just read; that value itself where they cannot be compared."""
    try:
        if isinstance(value, dt.datetime):
            return moment(stored)
        if isinstance(value, dt.date):
            return moment(stored).date()
        if isinstance(value, Decimal):
            return Decimal(str(stored))
        return stored if isinstance(stored, type(value)) else type(value)(stored)
    except (ValueError, TypeError, ArithmeticError):
        return value
