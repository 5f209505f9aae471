"""A table or query read whole, or what came by its cursor column: first one consistent snapshot, then the rows from the last value on."""

import dataclasses
import datetime as dt
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from muxly_dagster import records
from muxly_dagster.connector import Batch, Cursor, Span, Unreadable
from muxly_dagster.connectors.bigquery.jobs import Jobs
from muxly_dagster.connectors.bigquery.reading import Piece, Session, SessionLost, open_session, read
from muxly_dagster.connectors.bigquery.service import Service
from muxly_dagster.connectors.bigquery.settings import BigqueryPull
from muxly_dagster.connectors.bigquery.sources import Source
from muxly_dagster.connectors.bigquery.types import to_lake
from muxly_dagster.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class _Shaped:
    """Rows in the lake's types, the greatest value of the cursor's column among them, and the rows that nothing could tell apart later."""

    rows: pa.Table
    newest: Any = None
    unreadable: tuple[Unreadable, ...] = ()


@dataclass(frozen=True, slots=True)
class _Progress:
    """How far one read session has been read. In a cursor, so that another process can go on at (stream, offset)."""

    session: Session
    of: str
    """What the session reads, in short: another table, columns or condition need another session."""

    newest: Any = None
    snapshot: str = ""
    streams: Mapping[str, int | None] = field(default_factory=dict)

    @classmethod
    def stored(cls, found: Any) -> "_Progress | None":
        if not found:
            return None
        session = Session(found["session"], dt.datetime.fromisoformat(found["expires"]), found["streams"])
        return cls(session, found["of"], found["newest"], found["snapshot"], found["streams"])

    def to_json(self) -> dict[str, Any]:
        return {
            "session": self.session.name,
            "expires": self.session.expires.isoformat(),
            "streams": dict(self.streams),
            "of": self.of,
            "newest": self.newest,
            "snapshot": self.snapshot,
        }

    def behind(self, piece: Piece[_Shaped], source: Source) -> "_Progress":
        assert source.cursor is not None
        newest = source.cursor.later(piece.rows.newest, self.newest) if piece.rows else self.newest
        return dataclasses.replace(self, newest=newest, streams={**self.streams, piece.stream: piece.offset})


def everything(service: Service, jobs: Jobs, source: Source, pull: BigqueryPull) -> Iterator[Batch]:
    """All rows, in one state of the table. Batches hold no place to resume from: a whole pull begins again, and what it read already
    is not stored twice."""
    session, _ = _opened(service, jobs, source, pull, None)
    for piece in read(service, session, lambda rows: to_lake(rows, dict(source.fields)), source.where):
        if piece.rows is not None:
            yield Batch(piece.rows)


def by_cursor(service: Service, jobs: Jobs, source: Source, pull: BigqueryPull, cursor: Cursor | None) -> Iterator[Batch]:
    """Rows from the cursor on, each batch with the place behind it. Raises ConfigurationError for a cursor of another column."""
    column = source.cursor
    assert column is not None
    if pull.lookback and not source.key:
        raise ConfigurationError("`lookback` reads rows again, and without a key they would be stored twice", do="set the pull's `key`")
    if cursor is not None and cursor.get("column") != column.name:
        raise ConfigurationError(
            f"the last pull went by {cursor.get('column', 'partitions')}, not by {column.name}",
            do="run `muxly run NAME --from-start` for this pull once, or set `cursor` back",
        )
    last = cursor["value"] if cursor else None
    start = None if last is None else column.earlier(last, pull.lookback)
    of = _short(source, pull, start)
    stored = _Progress.stored(cursor.get("reading") if cursor else None)
    if stored is not None:
        try:
            if stored.of == of and not stored.session.expired():
                yield from _read_on(service, source, stored, last)
                return
        except SessionLost:
            pass
        if not source.key:
            raise ConfigurationError(
                "the pull broke off, the rest can be read no more, and without a key nothing tells which rows are stored already",
                do="set the pull's `key`, or store everything once more with `muxly run NAME --from-start`",
                where=source.where,
            )
    session, snapshot = _opened(service, jobs, source, pull, start)
    begun = _Progress(session, of, last, snapshot, session.streams)
    # Only a snapshot that was read in one go says what is not there any more.
    whole = cursor is None and bool(source.key)
    yield from _read_on(service, source, begun, last, complete=(Span(),) if whole else ())


def _read_on(service: Service, source: Source, progress: _Progress, last: Any, complete: tuple[Span, ...] = ()) -> Iterator[Batch]:
    """Batches, each with the place behind it, and at the end the greatest value of the cursor's column."""
    assert source.cursor is not None
    session = dataclasses.replace(progress.session, streams=progress.streams)
    for piece in read(service, session, lambda rows: _shaped(rows, source), source.where):
        progress = progress.behind(piece, source)
        cursor = {"column": source.cursor.name, "value": last, "reading": progress.to_json()}
        rows = piece.rows or _Shaped(source.schema.empty_table())
        yield Batch(rows.rows, cursor, rows.unreadable)
    yield Batch(source.schema.empty_table(), {"column": source.cursor.name, "value": progress.newest}, complete=complete)


def _opened(service: Service, jobs: Jobs, source: Source, pull: BigqueryPull, start: Any) -> tuple[Session, str]:
    """A session of the rows from a cursor's value on (None: all), and the time of the snapshot it reads, where it is a table's."""
    if not source.path:
        sql, parameters = source.after(start)
        if source.table is not None:
            jobs.checked(sql, parameters)  # a query of the user's was looked through when its columns were asked for
        return open_session(service, jobs.run(sql, parameters), streams=pull.streams, where=source.where), ""
    snapshot = jobs.now() if start is None and source.table.table_type == "TABLE" else None
    conditions = [f"({pull.where}\n)"] if pull.where else []
    if start is not None:
        assert source.cursor is not None
        conditions.append(source.newer(source.cursor.literal(start)))
    session = open_session(
        service,
        source.path,
        columns=source.columns,
        restriction=" AND ".join(conditions),
        snapshot=snapshot,
        streams=pull.streams,
        where=source.where,
    )
    return session, snapshot.isoformat() if snapshot else ""


def _shaped(rows: pa.Table, source: Source) -> _Shaped:
    assert source.cursor is not None
    values = rows[source.cursor.name]
    lost: tuple[Unreadable, ...] = ()
    if not source.key and values.null_count:
        reason = f"{source.cursor.name} is null and the pull has no key; set `key`, or leave such rows out with `where`"
        missing = to_lake(rows.filter(pc.is_null(values)), dict(source.fields))
        lost = tuple(Unreadable(records.to_json(row).decode(), reason) for row in missing.to_pylist())
        rows = rows.filter(pc.is_valid(values))
    return _Shaped(to_lake(rows, dict(source.fields)), source.cursor.newest(values), lost)


def _short(source: Source, pull: BigqueryPull, start: Any) -> str:
    """A digest of what is read."""
    said = [source.path, source.query, list(source.columns), pull.where, start, repr(sorted(pull.parameters.items(), key=str))]
    return hashlib.sha256(records.to_json(said)).hexdigest()[:16]
