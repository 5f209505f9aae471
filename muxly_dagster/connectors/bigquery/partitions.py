"""A partitioned table by its partitions: those that changed since the last pull are read and replaced as a whole.

Source: INFORMATION_SCHEMA.PARTITIONS (ids, times of change), "Introduction to partitioned tables" (units, __NULL__, __UNPARTITIONED__).
"""

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from muxly_dagster.connector import Batch, Cursor, Span
from muxly_dagster.connectors.bigquery.jobs import Jobs
from muxly_dagster.connectors.bigquery.reading import open_session, read
from muxly_dagster.connectors.bigquery.service import Service
from muxly_dagster.connectors.bigquery.settings import BigqueryPull
from muxly_dagster.connectors.bigquery.sources import Source, quoted
from muxly_dagster.connectors.bigquery.types import to_lake
from muxly_dagster.errors import ConfigurationError
from muxly_dagster.records import TIMESTAMP

INGESTION_COLUMN = "partition_time"
"""What the lake calls the pseudo-column _PARTITIONTIME, which has no name of its own in the table."""

_BEING_READ = 0
"""Stands in the cursor for the last change of a partition that was begun and not ended."""

_NULL, _OUTSIDE = "__NULL__", "__UNPARTITIONED__"
_GROUP_BYTES = 4 << 30
"""Partitions side by side are read together up to so many bytes; after a break, such a group is read again."""

_FORMATS = {4: "%Y", 6: "%Y%m", 8: "%Y%m%d", 10: "%Y%m%d%H"}


@dataclass(frozen=True, slots=True)
class Partition:
    """`modified` is the last change in microseconds since 1970, `bytes` the size."""

    id: str
    modified: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Partitioning:
    """How a table is partitioned: by which column, of which type. A range has its start, end and interval; a time, none."""

    column: str
    kind: str
    range: tuple[int, int, int] | None = None

    @classmethod
    def of(cls, source: Source) -> "Partitioning":
        """Raises ConfigurationError for a table without partitions."""
        table = source.table if source.path else None
        if table is not None and table.range_partitioning is not None:
            found = table.range_partitioning
            return cls(found.field, "INT64", (int(found.range_.start), int(found.range_.end), int(found.range_.interval)))
        if table is None or table.time_partitioning is None:
            raise ConfigurationError(
                f"{source.where} has no partitions", do="leave `partition` out, or name a `cursor`", where=source.where
            )
        if table.time_partitioning.field is None:
            return cls("", "TIMESTAMP")
        column = table.time_partitioning.field
        return cls(column, next(str(item.field_type) for item in table.schema if item.name == column))

    @property
    def lake_column(self) -> str:
        """The column's name in the lake."""
        return self.column or INGESTION_COLUMN

    def bounds(self, id_: str) -> tuple[Any, Any]:
        """The first value of a partition, and the first behind it, in the lake's type."""
        if self.range is not None:
            return int(id_), min(int(id_) + self.range[2], self.range[1])
        start = dt.datetime.strptime(id_, _FORMATS[len(id_)])
        if len(id_) == 4:
            end = start.replace(year=start.year + 1)
        elif len(id_) == 6:
            end = (start + dt.timedelta(days=31)).replace(day=1)
        else:
            end = start + (dt.timedelta(days=1) if len(id_) == 8 else dt.timedelta(hours=1))
        if self.kind == "DATE":
            return start.date(), end.date()
        return start.replace(tzinfo=dt.UTC), end.replace(tzinfo=dt.UTC)

    def spans(self, id_: str) -> tuple[Span, ...]:
        """Where in the lake a partition's rows lie; nowhere for rows without a value, which no span holds."""
        if id_ == _OUTSIDE and self.range is not None:
            return Span(self.lake_column, None, self.range[0]), Span(self.lake_column, self.range[1], None)
        return () if id_.startswith("__") else (Span(self.lake_column, *self.bounds(id_)),)

    def literal(self, value: Any) -> str:
        """A bound in GoogleSQL."""
        if isinstance(value, int):
            return str(value)
        if isinstance(value, dt.datetime):
            return f"{self.kind} '{value.replace(tzinfo=None).isoformat(sep=' ')}{'+00:00' if self.kind == 'TIMESTAMP' else ''}'"
        return f"DATE '{value.isoformat()}'"


@dataclass(frozen=True, slots=True)
class _Group:
    """Partitions read together, the condition on their rows, and the spans that are complete then."""

    partitions: Sequence[Partition]
    condition: str
    complete: tuple[Span, ...]


def fields_with_partition(source: Source) -> tuple[tuple[str, ...], dict[str, pa.Field]]:
    """The columns that a pull by partition gives, and their types: the partition's own column is among them."""
    column = Partitioning.of(source).column
    fields = dict(source.fields)
    if column:
        return (source.columns if column in source.columns else (*source.columns, column)), fields
    return (*source.columns, INGESTION_COLUMN), fields | {INGESTION_COLUMN: pa.field(INGESTION_COLUMN, TIMESTAMP)}


def by_partition(service: Service, jobs: Jobs, source: Source, pull: BigqueryPull, cursor: Cursor | None) -> Iterator[Batch]:
    """Changed partitions, group by group; a cursor stands behind each. Partitions that are gone are cleared."""
    partitioning = Partitioning.of(source)
    if cursor is not None and cursor.get("partition") != partitioning.lake_column:
        raise ConfigurationError(
            f"the last pull did not go by partitions of {partitioning.lake_column}",
            do="run `muxly run NAME --from-start` for this pull once",
            where=source.where,
        )
    columns, fields = fields_with_partition(source)
    nothing = pa.schema([fields[name] for name in columns]).empty_table()
    known: dict[str, int] = dict(cursor["partitions"]) if cursor else {}
    listed = _listed(jobs, source, partitioning)

    def place() -> Cursor:
        return {"partition": partitioning.lake_column, "partitions": dict(known)}

    gone = [id_ for id_ in known if id_ not in {partition.id for partition in listed}]
    if gone:
        for id_ in gone:
            del known[id_]
        yield Batch(nothing, place(), cleared=tuple(span for id_ in gone for span in partitioning.spans(id_)))
    elif not listed:
        yield Batch(nothing, place(), complete=(Span(),))
    # Listed first, read later: what changes in between is read, and read once more the next time.
    snapshot = jobs.now() if source.table.table_type == "TABLE" else None
    for group in _groups(listed, dict(known), partitioning, first=cursor is None):
        if known:  # where the next pull finds these gone, it clears what has been stored of them by then
            known |= {partition.id: _BEING_READ for partition in group.partitions}
            yield Batch(nothing, place())
        path, condition = source.path, " AND ".join([*([f"({pull.where}\n)"] if pull.where else []), group.condition])
        if not partitioning.column:
            path, condition = _result_of(jobs, source, condition), ""
        session = open_session(
            service,
            path,
            columns=columns if partitioning.column else (),
            restriction=condition,
            snapshot=snapshot if partitioning.column else None,
            streams=pull.streams,
            where=source.where,
        )
        for piece in read(service, session, lambda rows: to_lake(rows, fields), source.where):
            if piece.rows is not None:
                yield Batch(piece.rows)
        known |= {partition.id: partition.modified for partition in group.partitions}
        yield Batch(nothing, place(), complete=group.complete)


def _result_of(jobs: Jobs, source: Source, condition: str) -> str:
    """Pseudo-columns can only be read by a query; the table of its result."""
    names = ", ".join(map(quoted, source.columns))
    sql = f"SELECT {names}, _PARTITIONTIME AS {INGESTION_COLUMN} FROM `{source.where}` WHERE {condition}"
    jobs.checked(sql)
    return jobs.run(sql)


def _listed(jobs: Jobs, source: Source, partitioning: Partitioning) -> list[Partition]:
    from google.cloud import bigquery  # a large import, which listing and checking a project can do without

    table = source.table
    rows = jobs.rows(
        "SELECT partition_id, MAX(last_modified_time) AS modified, SUM(total_logical_bytes) AS bytes "
        f"FROM `{table.project}.{table.dataset_id}`.INFORMATION_SCHEMA.PARTITIONS "
        "WHERE table_name = @table AND partition_id IS NOT NULL GROUP BY partition_id",
        [bigquery.ScalarQueryParameter("table", "STRING", table.table_id)],
    )
    found = [Partition(row["partition_id"], _micros(row["modified"]), int(row["bytes"] or 0)) for row in rows]
    # Rows of the streaming buffer are in no partition yet; they are read when they have come to theirs, which changes it. Of a range,
    # the unpartitioned rows are those outside of it.
    kept = [p for p in found if not p.id.startswith("__") or p.id == _NULL or (p.id == _OUTSIDE and partitioning.range is not None)]
    return sorted(kept, key=lambda partition: (partition.id.startswith("__"), len(partition.id), partition.id))


def _micros(moment: dt.datetime) -> int:
    return (moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)


def _groups(listed: Sequence[Partition], known: Mapping[str, int], partitioning: Partitioning, *, first: bool) -> Iterator[_Group]:
    """What has to be read. On a first pull the groups' spans leave no gap, so that whatever else the lake holds is gone then."""
    column = partitioning.lake_column
    name = quoted(partitioning.column) if partitioning.column else "_PARTITIONTIME"
    proper = sorted((p for p in listed if not p.id.startswith("__")), key=lambda p: partitioning.bounds(p.id)[0])
    runs: list[list[Partition]] = []
    before: Partition | None = None
    for partition in proper:
        if known.get(partition.id) != partition.modified:
            joins = runs and runs[-1][-1] is before and sum(p.bytes for p in runs[-1]) + partition.bytes <= _GROUP_BYTES
            if joins:
                runs[-1].append(partition)
            else:
                runs.append([partition])
        before = partition
    # What lies outside of a range is a partition too; where there is none, the first and the last span have no end.
    outside = partitioning.range if any(partition.id == _OUTSIDE for partition in listed) else None
    least, most = (outside[0], outside[1]) if outside else (None, None)
    for number, run in enumerate(runs):
        start, end = partitioning.bounds(run[0].id)[0], partitioning.bounds(run[-1].id)[1]
        span = Span(column, start, end)
        if first:
            last = number == len(runs) - 1
            span = Span(column, start if number else least, most if last else partitioning.bounds(runs[number + 1][0].id)[0])
        condition = f"{name} >= {partitioning.literal(start)} AND {name} < {partitioning.literal(end)}"
        yield _Group(run, condition, (span,))
    for partition in listed:
        if partition.id.startswith("__") and known.get(partition.id) != partition.modified:
            if partition.id == _NULL:
                # The lake's spans hold no rows without a value: of this partition, deletes are not heard.
                yield _Group([partition], f"{name} IS NULL", ())
            else:
                condition = f"({name} < {partitioning.literal(least)} OR {name} >= {partitioning.literal(most)})"
                yield _Group([partition], condition, partitioning.spans(partition.id))
