"""The values of metrics in the state database: what a target's records add up to, and which of its changes are in it."""

import contextlib
import hashlib
import itertools
import json
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import sqlalchemy as sa

from muxly_dagster.services import MetricBook, Series
from muxly_dagster.state import tables

_AT_ONCE = 500
"""Values in one question: SQLite takes no statement with more than some thousand of them."""

Labels = tuple[tuple[str, str], ...]
T = TypeVar("T")


class Metrics:
    """See `services.MetricStore`."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    @contextlib.contextmanager
    def open(self, target: str) -> Iterator[MetricBook]:
        """One transaction of the state database."""
        with self._engine.begin() as connection:
            yield _Book(connection, target)


class _Book:
    """See `services.MetricBook`."""

    def __init__(self, connection: sa.Connection, target: str) -> None:
        self._connection, self._target = connection, target

    def held(self) -> tuple[str, int | None] | None:
        """The row of the target; nobody else's until the transaction ends."""
        table = tables.metric_positions
        query = sa.select(table.c.table_id, table.c.seq).where(table.c.target == self._target).with_for_update()
        row = self._connection.execute(query).one_or_none()
        return (row.table_id, row.seq) if row else None

    def move(self, table_id: str, seq: int | None) -> None:
        """Write the row of the target: in its place, since who waits for it in `held` would not see a new one."""
        table, row = tables.metric_positions, {"table_id": table_id, "seq": seq}
        if not self._connection.execute(sa.update(table).where(table.c.target == self._target).values(row)).rowcount:
            self._connection.execute(sa.insert(table).values(target=self._target, **row))

    def definitions(self) -> Mapping[str, str]:
        """By metric."""
        table = tables.metric_definitions
        rows = self._connection.execute(sa.select(table.c.metric, table.c.definition).where(table.c.target == self._target))
        return {row.metric: row.definition for row in rows}

    def define(self, metric: str, definition: str | None) -> None:
        """Forget what the metric counted."""
        for table in (tables.metric_definitions, tables.metric_counted, tables.metric_keys):
            self._connection.execute(sa.delete(table).where(*self._of(table, metric)))
        if definition is not None:
            self._connection.execute(sa.insert(tables.metric_definitions).values(target=self._target, metric=metric, definition=definition))

    def series(self, metric: str | None = None) -> list[Series]:
        """In the order of metrics and labels, so that every reading of the same values looks alike."""
        table = tables.metric_series
        query = sa.select(table).where(*self._of(table, metric))
        return sorted(map(_series, self._connection.execute(query).mappings()), key=lambda series: (series.metric, series.labels))

    def find(self, metric: str, labels: Collection[Labels], owners: Collection[str] = ()) -> list[Series]:
        """By labels, then by owner; each once."""
        table = tables.metric_series
        query = sa.select(table).where(*self._of(table, metric))
        found: dict[Labels, Series] = {}
        for column, wanted in ((table.c.id, [_id(each) for each in labels]), (table.c.owner, [each for each in owners if each])):
            for some in _some(wanted):
                rows = self._connection.execute(query.where(column.in_(some))).mappings()
                found |= {series.labels: series for series in map(_series, rows)}
        return list(found.values())

    def gone(self) -> list[Series]:
        """Rows that are marked so."""
        table = tables.metric_series
        rows = self._connection.execute(sa.select(table).where(table.c.target == self._target, table.c.gone.is_(True))).mappings()
        return [_series(row) for row in rows]

    def size(self, metric: str) -> int:
        """A count of rows."""
        table = tables.metric_series
        return self._connection.scalar(sa.select(sa.func.count()).where(*self._of(table, metric), table.c.gone.is_(False))) or 0

    def save(self, series: Iterable[Series]) -> None:
        """Write rows in place of those there were."""
        by_metric: dict[str, list[dict[str, Any]]] = {}
        for each in series:
            by_metric.setdefault(each.metric, []).append(_row(each))
        for metric, rows in by_metric.items():
            self._replace(tables.metric_series, rows, {"metric": metric}, "id")

    def remove(self, series: Iterable[Series]) -> None:
        """Delete rows."""
        table = tables.metric_series
        for metric, of_metric in itertools.groupby(sorted(series, key=lambda each: each.metric), lambda each: each.metric):
            for some in _some([_id(each.labels) for each in of_metric]):
                self._connection.execute(sa.delete(table).where(*self._of(table, metric), table.c.id.in_(some)))

    def counted(self, metric: str, chunks: Collection[int]) -> dict[int, bytes]:
        """The bits, unpacked."""
        table = tables.metric_counted
        query = sa.select(table.c.chunk, table.c.bits).where(*self._of(table, metric))
        found: dict[int, bytes] = {}
        for some in _some(list(chunks)):
            found |= {row.chunk: zlib.decompress(row.bits) for row in self._connection.execute(query.where(table.c.chunk.in_(some)))}
        return found

    def mark(self, metric: str, chunk: int, bits: bytes) -> None:
        """Most chunks are full or follow a pattern, so that little is left of them."""
        self._replace(tables.metric_counted, [{"chunk": chunk, "bits": zlib.compress(bits, 1)}], {"metric": metric}, "chunk")

    def known(self, metric: str, keys: Collection[str]) -> set[str]:
        """Those that have a row."""
        table = tables.metric_keys
        query = sa.select(table.c.key).where(*self._of(table, metric))
        return {key for some in _some(list(keys)) for key in self._connection.scalars(query.where(table.c.key.in_(some)))}

    def learn(self, metric: str, keys: Collection[str]) -> None:
        """A row for each."""
        if keys:
            rows = [{"target": self._target, "metric": metric, "key": key} for key in keys]
            self._connection.execute(sa.insert(tables.metric_keys), rows)

    def _of(self, table: sa.Table, metric: str | None) -> list[sa.ColumnElement[bool]]:
        mine = [table.c.target == self._target]
        return mine if metric is None else [*mine, table.c.metric == metric]

    def _replace(self, table: sa.Table, rows: list[dict[str, Any]], shared: dict[str, Any], key: str) -> None:
        """Rows that differ in `key` alone, in place of those of the same key."""
        whose = [table.c.target == self._target, *(table.c[name] == value for name, value in shared.items())]
        for some in _some([row[key] for row in rows]):
            self._connection.execute(sa.delete(table).where(*whose, table.c[key].in_(some)))
        if rows:
            self._connection.execute(sa.insert(table), [{"target": self._target, **shared, **row} for row in rows])


def _some(values: list[T]) -> Iterator[list[T]]:
    for start in range(0, len(values), _AT_ONCE):
        yield values[start : start + _AT_ONCE]


def _row(series: Series) -> dict[str, Any]:
    return {
        "id": _id(series.labels),
        "kind": series.kind,
        "labels": [list(pair) for pair in series.labels],
        "value": series.value,
        "count": series.count,
        "buckets": [list(pair) for pair in series.buckets],
        "seq": series.seq,
        "owner": series.owner,
        "at": series.at,
        "sample_at": series.sample_at,
        "sent_at": series.sent_at,
        "created_at": series.created_at,
        "gone": series.gone,
    }


def _series(row: Any) -> Series:
    values = {name: row[name] for name in ("metric", "kind", "value", "count", "seq", "owner", "at", "sample_at", "sent_at")}
    labels, buckets = tuple((name, value) for name, value in row["labels"]), tuple((bound, count) for bound, count in row["buckets"])
    return Series(**values, labels=labels, buckets=buckets, created_at=row["created_at"], gone=bool(row["gone"]))


def _id(labels: Labels) -> str:
    return hashlib.sha256(json.dumps(labels).encode()).hexdigest()[:32]
