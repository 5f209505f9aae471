"""The runner: one stream of a manifest, from its requests to batches."""

import datetime as dt
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import pyarrow as pa

from muxly_dagster.connector import Batch, Cursor
from muxly_dagster.http import Request, Response
from muxly_dagster.manifest.language.expressions import expressions
from muxly_dagster.manifest.reading.ahead import read_ahead
from muxly_dagster.manifest.reading.beside import side_by_side
from muxly_dagster.manifest.reading.delta import DeltaReader
from muxly_dagster.manifest.reading.parents import Parents
from muxly_dagster.manifest.reading.place import PlaceReader
from muxly_dagster.manifest.reading.places import Place, places
from muxly_dagster.manifest.reading.syncing import Position, column_of, lag_of, slices
from muxly_dagster.manifest.reading.taking import EMPTY, Source
from muxly_dagster.manifest.schema import BinaryResponse, CursorSync, DeltaSync, ListedDeletes, StreamSpec


def read_stream(source: Source, stream: str, cursor: Cursor | None, known: pa.Schema | None) -> Iterator[Batch]:
    """Read the stream's news in batches of some thousand records or some megabytes, the cursor wherever it is safe.

    The next batch is being read while the last one is stored. Closing the iterator early closes the client.
    """
    return read_ahead(_read(source, stream, cursor, known), source.http.close)


def _read(source: Source, stream: str, cursor: Cursor | None, known: pa.Schema | None) -> Iterator[Batch]:
    spec, parents = source.manifest.streams[stream], Parents(source)
    found = places(spec.for_each, source.context, parents.read)

    def open_place(place: Place) -> PlaceReader:
        return PlaceReader(source, spec, place, known)

    match spec.sync:
        case DeltaSync() as sync:
            every = list(found)
            if parents.unread:
                # Before anything is said to be complete: what lies below these is not gone.
                yield Batch(EMPTY, unreadable=tuple(parents.unread))
            yield from DeltaReader(source, spec, sync, every, known).read(cursor, whole=not parents.unread)
        case CursorSync() as sync if spec.for_each is None:
            (place,) = found
            yield from _since(open_place(place), sync, cursor if _has_value(cursor) else None, dt.datetime.now(dt.UTC))
        case CursorSync() as sync:
            yield from _since_each(source, spec, found, open_place, sync, cursor, parents)
        case _:

            def begin(place: Place) -> tuple[PlaceReader, Request | None]:
                reader = open_place(place)
                return reader, reader.first_request({})

            for reader, first in side_by_side(source.http, found, begin, _ahead(source, spec)):
                yield from reader.taking().read(first=first)
    if parents.unread and not isinstance(spec.sync, DeltaSync):
        # Records below these are not gone: a pull that could not read everything deletes nothing.
        yield Batch(EMPTY, unreadable=tuple(parents.unread))


def _since_each(
    source: Source,
    spec: StreamSpec,
    found: Iterator[Place],
    open_place: Callable[[Place], PlaceReader],
    sync: CursorSync,
    cursor: Cursor | None,
    parents: Parents,
) -> Iterator[Batch]:
    """Every place since its own cursor. One that was not there before is read from the start; one that is gone is forgotten."""
    kept = cursor.get("places", {}) if isinstance(cursor, Mapping) else {}
    kept = {name: each for name, each in kept.items() if _has_value(each)}
    held = kept
    names: set[str] = set()

    def begin(place: Place) -> tuple[tuple[Place, PlaceReader, dt.datetime], Request | None]:
        # The time is taken before the request is sent: what comes later is for the next pull.
        reader, now = open_place(place), dt.datetime.now(dt.UTC)
        stretch = next(slices(sync, held.get(place.name), reader.context, now), None)
        return (place, reader, now), None if stretch is None else reader.first_request(stretch.context())

    for (place, reader, now), first in side_by_side(source.http, found, begin, _ahead(source, spec)):
        names.add(place.name)
        for batch in _since(reader, sync, held.get(place.name), now, first):
            if batch.cursor is not None:
                kept = {**kept, place.name: batch.cursor}
                batch = replace(batch, cursor={"places": kept})
            yield batch
    if not parents.unread and set(kept) - names:
        yield Batch(EMPTY, {"places": {name: each for name, each in kept.items() if name in names}})


def _ahead(source: Source, spec: StreamSpec) -> int:
    """How many places are begun before they are read: one where there is but one, or where each page is asked for by itself."""
    alone = spec.for_each is None or spec.request.cache or isinstance(spec.response, BinaryResponse)
    return 1 if alone else source.in_flight


def _since(
    reader: PlaceReader, sync: CursorSync, cursor: Cursor | None, now: dt.datetime, first: Response | None = None
) -> Iterator[Batch]:
    """What came since the cursor, one stretch after another, each a place to resume from. `first` answers the first one's request."""
    spec = reader.spec
    latest = now - lag_of(sync, reader.context) if sync.lag is not None else None
    position = Position(sync, column_of(sync.field, spec.flatten), cursor, latest)
    by_stretch = _asks_by_stretch(spec)
    all_read = True
    for stretch in slices(sync, cursor, reader.context, now):
        names, taking = stretch.context(), reader.taking()
        for batch in taking.read(position, names, first):
            # A cursor on the way would pass what is listed as deleted only behind these records.
            yield batch if all_read and not by_stretch else replace(batch, cursor=None)
        first = None
        all_read = all_read and not taking.passed_over
        if by_stretch:
            all_read = (yield from reader.deleted(names)) and all_read
        end = position.at_end()
        if end is not None and all_read:
            yield Batch(EMPTY, end)
    if not by_stretch:
        yield from reader.deleted({})


def _asks_by_stretch(spec: StreamSpec) -> bool:
    """Whether the list of deleted records is asked for by the same bounds as the records."""
    if not isinstance(spec.deletes, ListedDeletes):
        return False
    named = {path for path, _ in expressions(spec.deletes.request.model_dump())}
    return bool(named & {"cursor", "window.start", "window.end"})


def _has_value(cursor: Cursor | None) -> bool:
    return isinstance(cursor, Mapping) and "value" in cursor
