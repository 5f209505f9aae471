"""One stream at one place: its records, what was deleted of them, and its records as a parent's are read."""

from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from muxly_dagster.connector import Batch, Unreadable
from muxly_dagster.decoding import Page, parse_path
from muxly_dagster.errors import SourceError
from muxly_dagster.http import Request, Response
from muxly_dagster.manifest.answers import jsontext
from muxly_dagster.manifest.answers.pages import page_reader
from muxly_dagster.manifest.asking.judging import Expiry
from muxly_dagster.manifest.asking.keyset import key_reader
from muxly_dagster.manifest.asking.paging import Take, envelope_paths, first_request, read_pages
from muxly_dagster.manifest.language.expressions import Context, expressions, text_of
from muxly_dagster.manifest.reading.deleting import UNMARKED
from muxly_dagster.manifest.reading.discovering import discover
from muxly_dagster.manifest.reading.places import Place
from muxly_dagster.manifest.reading.taking import EMPTY, Reading, Source, Taking, asking_for, nameless, skipped
from muxly_dagster.manifest.schema import (
    DeltaSync,
    JsonResponse,
    KeysetPaging,
    ListedDeletes,
    MarkedDeletes,
    Paging,
    RequestSpec,
    ResponseSpec,
    StreamSpec,
)


class PlaceReader:
    """Reads a stream at one of its places. Asks for the stream's fields first, where the provider says which they are."""

    def __init__(self, source: Source, spec: StreamSpec, place: Place, known: pa.Schema | None) -> None:
        self.source, self.spec, self.place, self._known = source, spec, place, known
        self.types: Mapping[str, str] = spec.types
        self.context: Context = place.context
        if spec.discover is not None:
            found = discover(source.http, spec.discover, place.context, source.judge)
            if not found.names and "schema.names" in {path for path, _ in expressions(spec.request.model_dump())}:
                raise SourceError(
                    "the provider names no fields, and a request that asks for none of them would empty every record",
                    do="see what the request of the stream's `schema` answers; let no rule of `errors` skip it",
                )
            self.types = {**found.types, **spec.types}
            self.context = {**place.context, "schema": {"names": found.names}}

    def taking(
        self,
        request: RequestSpec | None = None,
        paging: Paging | None = None,
        records: str = "",
        *,
        token: str = "",
        gone: str | MarkedDeletes | None = None,
        expiry: Expiry | None = None,
    ) -> Taking:
        """A reader of the stream's own answers, or of others of the same records."""
        spec = self.spec
        if gone is None and isinstance(spec.deletes, MarkedDeletes):
            gone = spec.deletes
        reading = Reading(
            request or spec.request,
            paging or spec.paging,
            records or spec.records,
            self.context,
            self.types,
            self.place.add,
            token,
            gone,
            expiry,
        )
        return Taking(self.source, spec, reading, self._known)

    def first_request(self, names: Mapping[str, Any]) -> Request | None:
        """What is asked first for the stream's records, where the client alone can ask for it: no kept answer, no file."""
        asking = asking_for(self.source, self.spec.request, {**self.context, **names}, kind=self.spec.response)
        return None if asking.ask else first_request(asking, self.spec.paging)

    def deleted(self, names: Mapping[str, Any]) -> Generator[Batch, None, bool]:
        """What a list of its own says was deleted, page by page; nothing where there is none. Answers whether all of the list was read."""
        listed = self.spec.deletes
        if not isinstance(listed, ListedDeletes):
            return True
        table = self.taking().key_table
        paths = [parse_path(path) for path in listed.key]
        found: list[Any] = []
        unread: list[Unreadable] = []
        take = self._objects_taker(JsonResponse(), listed.records, listed.paging, found, unread, optional=listed.records_optional)
        unnamed: list[Unreadable] = []
        for _ in read_pages(asking_for(self.source, listed.request, {**self.context, **names}), listed.paging, take):
            keys = [[path.first(record) for path in paths] for record in found]
            unnamed += [nameless(record) for record, key in zip(found, keys, strict=True) if None in key]
            found.clear()
            if keys := [key for key in keys if None not in key]:
                yield Batch(EMPTY, deletes=table(keys))
        if unread or unnamed:
            yield Batch(EMPTY, unreadable=(*unread, *unnamed))
        return not unread

    def objects(self, names: Mapping[str, Any], unread: list[Unreadable]) -> Iterator[dict[str, Any]]:
        """The records as the answers hold them, without what enriching and files would add; `unread` takes what is none."""
        spec, found = self.spec, list[Any]()
        marks = spec.deletes or (spec.sync.deletes if isinstance(spec.sync, DeltaSync) else None)
        take = self._objects_taker(spec.response, spec.records, spec.paging, found, unread, optional=spec.records_optional)
        for _ in read_pages(asking_for(self.source, spec.request, {**self.context, **names}), spec.paging, take):
            for record in found:
                if not isinstance(record, dict):
                    unread.append(Unreadable(text_of(record), "it is no object"))
                elif not isinstance(marks, MarkedDeletes) or not _is_marked(_column(record, marks.column, spec.flatten), marks.equals):
                    yield {**record, **self.place.add}
            found.clear()

    def _objects_taker(
        self, kind: ResponseSpec, records: str, paging: Paging, found: list[Any], unread: list[Unreadable], *, optional: bool
    ) -> Take:
        """Takes answers that are read into objects rather than columns: they go into `found`, answers that are skipped into `unread`."""
        selector = parse_path(records)
        beside = [parse_path(path) for path in envelope_paths(paging)]
        keys_of = key_reader(records, paging.by) if isinstance(paging, KeysetPaging) else None
        bytes_of, judge = page_reader(kind, records, self.source.manifest.max_answer), self.source.judge

        def take(response: Response) -> Page:
            if judge is not None and judge(response) == "skip":
                unread.append(skipped(response))
                return Page(0, (None,) * max(1, len(beside)))
            content = response.content if bytes_of is None else bytes_of(response.content)
            try:
                document = jsontext.exact(content)
            except (ValueError, RecursionError):
                document = response.json()  # says what came instead, or reads what JSON does not allow
            records_found = selector.records(document)
            if records_found is None:
                if not (optional and isinstance(document, dict)):
                    do = "check the `records:` path; if the API leaves an empty list out, say `records_optional: true`"
                    raise SourceError(f"the answer has no records at {records}", do=do, where=response.where)
                records_found = []
            found.extend(records_found)
            envelope = tuple(path.first(document) for path in beside)
            return Page(len(records_found), (keys_of(content),) if keys_of else envelope)

        return take


def _column(record: Mapping[str, Any], name: str, flatten: Sequence[str]) -> Any:
    """What the record has in a column, which may come from a flattened object."""
    holders = [record, *(inner for top in flatten if isinstance(inner := record.get(top), dict))]
    return next((each[name] for each in holders if name in each), None)


def _is_marked(value: Any, equals: Any) -> bool:
    return value not in UNMARKED if equals is None else value is not None and text_of(value) == text_of(equals)
