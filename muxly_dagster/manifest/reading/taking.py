"""Taking answers in: from the bytes of an answer to batches of rows, with everything that a manifest says of them between the two."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyarrow as pa

from muxly_dagster.connector import Batch, Span, Unreadable
from muxly_dagster.decoding import Page, PageDecoder, Selector, parse_path
from muxly_dagster.errors import MuxlyError
from muxly_dagster.http import Http, Judge, Request, Response
from muxly_dagster.manifest.answers import jsontext
from muxly_dagster.manifest.answers.pages import page_reader
from muxly_dagster.manifest.asking.judging import Expiry
from muxly_dagster.manifest.asking.kept import ask
from muxly_dagster.manifest.asking.keyset import key_reader
from muxly_dagster.manifest.asking.paging import Asking, envelope_paths, read_pages
from muxly_dagster.manifest.language.expressions import Context, text_of
from muxly_dagster.manifest.reading.deleting import key_table, part, typed_table, without
from muxly_dagster.manifest.reading.downloads import ask_for_file, attach_files
from muxly_dagster.manifest.reading.enriching import Enricher
from muxly_dagster.manifest.reading.syncing import Position
from muxly_dagster.manifest.schema import (
    BinaryResponse,
    KeysetPaging,
    Manifest,
    MarkedDeletes,
    Paging,
    RequestSpec,
    ResponseSpec,
    StreamSpec,
)
from muxly_dagster.services import Services

_log = logging.getLogger("muxly.manifest")

_ROWS = 3_000  # enough to make columns worth while, few enough to stay in the processor's cache
_BYTES = 8 * 2**20
EMPTY = pa.table({})


@dataclass(frozen=True)
class Source:
    """What the streams of a manifest are read with."""

    http: Http
    manifest: Manifest
    context: Context
    judge: Judge | None
    services: Services
    in_flight: int
    decoders: dict[Any, PageDecoder] = field(default_factory=dict)
    """Decoders by what they read: a stream that is read from many places learns the shape of its records once."""


class TokenExpired(Exception):
    """The provider no longer knows the token of changes."""


@dataclass(frozen=True)
class Reading:
    """One kind of answers of a stream at one place: what is asked, and where the records, the next page and a token stand in an answer."""

    request: RequestSpec
    paging: Paging
    records: str
    context: Context
    types: Mapping[str, str]
    add: Mapping[str, Any] = field(default_factory=dict)
    token: str = ""
    gone: str | MarkedDeletes | None = None
    expiry: Expiry | None = None


class Taking:
    """Reads the pages of one `Reading` and gives batches.

    `token` is the newest token met, once a page has named one. `passed_over` says that an answer was skipped as the manifest's rules say:
    nobody knows what was in it and behind it, so no token or cursor may stand for more than what came before.
    """

    def __init__(self, source: Source, spec: StreamSpec, reading: Reading, known: pa.Schema | None) -> None:
        self._source, self._spec, self._reading, self._known = source, spec, reading, known
        self._paths = envelope_paths(reading.paging)
        self._decoder = self._decoder_of(reading)
        self._bytes_of = page_reader(spec.response, reading.records, source.manifest.max_answer)
        self._keys_of = key_reader(reading.records, reading.paging.by) if isinstance(reading.paging, KeysetPaging) else None
        self._gone_at = parse_path(reading.gone) if isinstance(reading.gone, str) else None
        self._marks = reading.gone if isinstance(reading.gone, MarkedDeletes) else None
        self._enricher = None
        if spec.enrich:
            own = [name for name in spec.key if name not in reading.add]
            self._enricher = Enricher(source.http, spec.enrich, reading.context, source.judge, own, in_flight=source.in_flight)
        self._added = typed_table([reading.add], reading.types, known) if reading.add else None
        self._gone: list[Any] = []
        self._skipped: list[Unreadable] = []
        self.token: Any = None
        self.passed_over = False

    def _decoder_of(self, reading: Reading) -> PageDecoder:
        beside = (*self._paths, *([reading.token] if reading.token else []))
        self._name = (id(self._spec), reading.records, beside, tuple(sorted(reading.types.items())))
        if self._name not in self._source.decoders:
            self._source.decoders[self._name] = PageDecoder(
                reading.records,
                types=reading.types,
                flatten=self._spec.flatten,
                known=self._known,
                envelope=beside,
                optional=self._spec.records_optional,
            )
        return self._source.decoders[self._name]

    def read(
        self, position: Position | None = None, names: Mapping[str, Any] | None = None, first: Response | None = None
    ) -> Iterator[Batch]:
        """Ask for every page. `names` are what this request's expressions may name beside the others; `first` is the answer to the first
        request, where it has been sent before. Raises TokenExpired."""
        reading = self._reading
        asking = asking_for(self._source, reading.request, {**reading.context, **(names or {})}, reading.expiry, self._spec.response)
        decoder = self._decoder
        for _ in read_pages(asking, reading.paging, self.take, first):
            while decoder.buffered_rows >= _ROWS or decoder.buffered_bytes >= _BYTES:
                yield self._batch(position)
            if self._gone:
                # What a page says of deletions holds for the pages before it, not for those behind: a key may come back.
                yield from self._until_empty(position)
        yield from self._until_empty(position)
        # Bad records of a page without good ones.
        rest = self._batch(position)
        if rest.unreadable:
            yield rest

    def _until_empty(self, position: Position | None) -> Iterator[Batch]:
        while self._decoder.buffered_rows or self._gone:
            yield self._batch(position)

    # ---- answers

    def take(self, response: Response) -> Page:
        """Read one answer."""
        if self._reading.expiry is not None and self._reading.expiry.fits(response):
            del self._source.decoders[self._name]  # with what it holds of the pages before
            raise TokenExpired
        judge = self._source.judge
        if judge is not None and judge(response) == "skip":
            self._skipped.append(skipped(response))
            self.passed_over = True
            return Page(0, (None,) * max(1, len(self._paths)))
        try:
            content = response.content if self._bytes_of is None else self._bytes_of(response.content)
            if self._gone_at is not None:
                self._gone += _values(self._gone_at, content)
            page = self._decoder.decode(content if self._enricher is None else self._enricher.enrich(content, self._reading.records))
        except MuxlyError as error:
            error.where = error.where or response.where
            raise
        if self._reading.token:
            *_, found = page.envelope
            self.token = found if found not in (None, "") else self.token
        return page if self._keys_of is None else Page(page.records, (self._keys_of(content), *page.envelope))

    # ---- batches

    def _batch(self, position: Position | None) -> Batch:
        rows, unread = self._decoder.flush(_BYTES)
        if position is not None:
            position.take(rows)
        lost = (*(Unreadable(*each) for each in unread), *self._skipped)
        self._skipped.clear()
        rows = self._with_added(rows)
        deletes, key = None, self._spec.key
        cleared: tuple[Span, ...] = ()
        if self._marks is not None:
            parted = part(rows, self._marks, key, self._known)
            rows, deletes, cleared = parted.rows, parted.deletes, parted.cleared
        elif self._gone:
            deletes = self._keys()
            rows = without(rows, deletes, key)
            if not self._decoder.buffered_rows:
                self._gone.clear()
            else:
                deletes = None  # more rows of the same page follow
        if self._spec.file is not None and len(rows):
            source = self._source
            files, context = self._spec.file, self._reading.context
            rows = attach_files(source.http, files, context, rows, source.services, source.judge, key, in_flight=source.in_flight)
        return Batch(rows, position.on_the_way() if position else None, lost, deletes=deletes, cleared=cleared)

    def _with_added(self, rows: pa.Table) -> pa.Table:
        if self._added is None or not len(rows):
            return rows
        for field_, column in zip(self._added.schema, self._added.columns, strict=True):
            rows = rows.drop_columns([field_.name]) if field_.name in rows.column_names else rows
            rows = rows.append_column(field_, pa.repeat(column[0], len(rows)))
        return rows

    def _keys(self) -> pa.Table:
        columns = [name for name in self._spec.key if name not in self._reading.add]
        keys = [key if isinstance(key, list) else [key] for key in self._gone]
        named = [key for key in keys if None not in key and len(key) == len(columns)]
        if not self._decoder.buffered_rows:  # else they are asked for again
            self._skipped += [nameless(key) for key in keys if None in key or len(key) != len(columns)]
        return self.key_table(named)

    def key_table(self, keys: Sequence[Sequence[Any]]) -> pa.Table:
        """Keys of deleted records as the provider names them, as the stream's key columns."""
        reading = self._reading
        columns = [name for name in self._spec.key if name not in reading.add]
        add = {name: value for name, value in reading.add.items() if name in self._spec.key}
        return key_table(keys, columns, add, reading.types, self._known)


def _values(path: Selector, page: bytes) -> list[Any]:
    try:
        return path.records(jsontext.exact(page)) or []
    except (ValueError, RecursionError):
        return []  # the decoder of the records says what is wrong with the page


def asking_for(source: Source, request: RequestSpec, context: Context, tag: Any = None, kind: ResponseSpec | None = None) -> Asking:
    """How the pages of a request are asked for: by the client alone, by way of the answers that are kept, or as files."""
    send: Callable[[Request], Response] | None = None
    if isinstance(kind, BinaryResponse):
        send = partial(ask_for_file, source.http, spec=kind, services=source.services)
    elif request.cache:
        send = partial(ask, source.http, answers=source.services.answers)
    return Asking(source.http, request, context, source.in_flight, send, tag)


def nameless(record: Any) -> Unreadable:
    """A deleted record that cannot be told by what is said of it."""
    return Unreadable(text_of(record), "it was deleted, but where its key should stand there is none")


def skipped(response: Response) -> Unreadable:
    """What is kept of an answer that the manifest's rules skip: it goes into quarantine, so that a pull without it deletes nothing."""
    _log.warning("%s: skipped an answer as the manifest says (%s)", response.where, response.status)
    return Unreadable(response.excerpt(), f"{response.where} was skipped as the manifest says: it answered {response.status}")
