"""The runner: one stream of a manifest, from its requests to batches."""

import datetime as dt
import logging
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from muxly_dagster.connector import Batch, Cursor, Unreadable
from muxly_dagster.decoding import Page, PageDecoder
from muxly_dagster.errors import MuxlyError
from muxly_dagster.http import Http, Judge, Request, Response
from muxly_dagster.manifest.ahead import read_ahead
from muxly_dagster.manifest.expressions import ABSENT, Context, render
from muxly_dagster.manifest.paging import envelope_paths, read_pages
from muxly_dagster.manifest.schema import CursorSync, RequestSpec, StreamSpec, parse_duration
from muxly_dagster.manifest.syncing import Position, Slice, slices

_log = logging.getLogger("muxly.manifest")

_ROWS = 3_000  # enough to make columns worth while, few enough to stay in the processor's cache
_BYTES = 8 * 2**20


def build_request(spec: RequestSpec, context: Context) -> Request:
    """The request with its expressions filled in."""
    body = render(spec.body, context)
    headers = {name: str(value) for name, value in render(spec.headers, context).items()}
    path = render(spec.path, context, into_path=True)
    return Request(
        spec.method,
        "" if path is ABSENT else path,
        params=render(spec.query, context) or None,
        headers=headers or None,
        json=None if body is ABSENT else body,
        idempotent=True,  # a pull only reads, a search by POST too
    )


def column_of(field: str, flatten: list[str]) -> str:
    """The column that a sync field becomes: `properties.updated` is `updated` where `properties` is flattened."""
    top, _, rest = field.partition(".")
    return rest if rest and top in flatten else field


def read_stream(
    http: Http, spec: StreamSpec, context: Context, cursor: Cursor | None, known: pa.Schema | None, judge: Judge | None, in_flight: int
) -> Iterator[Batch]:
    """Read the stream's news in batches of some thousand records or some megabytes, the cursor wherever it is safe.

    The next batch is being read while the last one is stored. Closing the iterator early closes the client.
    """
    return read_ahead(_read(http, spec, context, cursor, known, judge, in_flight), http.close)


def _read(
    http: Http, spec: StreamSpec, context: Context, cursor: Cursor | None, known: pa.Schema | None, judge: Judge | None, in_flight: int
) -> Iterator[Batch]:
    sync = spec.sync
    decoder = PageDecoder(
        spec.records,
        types=spec.types,
        flatten=spec.flatten,
        known=known,
        envelope=envelope_paths(spec.paging),
        optional=spec.records_optional,
    )
    skipped: list[Unreadable] = []

    def take(response: Response) -> Page:
        if judge is not None and judge(response) == "skip":
            _log.warning("%s: skipped an answer as the manifest says (%s)", response.where, response.status)
            skipped.append(
                Unreadable(response.excerpt(), f"{response.where} was skipped as the manifest says: it answered {response.status}")
            )
            return Page(0, (None,) * len(envelope_paths(spec.paging)))
        try:
            return decoder.decode(response.content)
        except MuxlyError as error:
            error.where = error.where or response.where
            raise

    position, stretches = None, iter([Slice(None, None)])
    if isinstance(sync, CursorSync):
        now = dt.datetime.now(dt.UTC)
        stretches = slices(sync, cursor, context, now)
        latest = now - _lag(sync, context) if sync.lag is not None else None
        position = Position(sync, column_of(sync.field, spec.flatten), cursor, latest)
    for stretch in stretches:
        request = build_request(spec.request, {**context, **stretch.context()})
        for _ in read_pages(http, spec.paging, request, take, in_flight=in_flight):
            while decoder.buffered_rows >= _ROWS or decoder.buffered_bytes >= _BYTES:
                yield _batch(decoder, position, skipped)
        while decoder.buffered_rows:
            yield _batch(decoder, position, skipped)
        # Bad records of a page without good ones, and the place the stretch ended at.
        rest, unread = decoder.flush()
        lost = (*(Unreadable(*u) for u in unread), *skipped)
        end = position.at_end() if position else None
        if lost or end is not None:
            skipped.clear()
            yield Batch(rest, end, lost)


def _batch(decoder: PageDecoder, position: Position | None, skipped: list[Unreadable]) -> Batch:
    rows, unread = decoder.flush(_BYTES)
    if position is not None:
        position.take(rows)
    lost = (*(Unreadable(*u) for u in unread), *skipped)
    skipped.clear()
    return Batch(rows, position.on_the_way() if position else None, lost)


def _lag(sync: CursorSync, context: Context) -> dt.timedelta:
    found: Any = render(sync.lag, context)
    return dt.timedelta() if found is ABSENT or found is None else parse_duration(found)
