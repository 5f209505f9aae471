"""Records of one object type: all of them in the order of the list, or those with given ids; pages of them into batches."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from muxly_dagster.connector import Batch, Cursor, Unreadable
from muxly_dagster.connectors.hubspot.api import Api, checked, in_chunks, parsed, whole
from muxly_dagster.connectors.hubspot.associations import associated, association_field
from muxly_dagster.connectors.hubspot.properties import ID, MERGED, repaired
from muxly_dagster.decoding import PageDecoder
from muxly_dagster.errors import MuxlyError
from muxly_dagster.http import Request, Response

HISTORY = "properties_with_history"

_PAGE, _PAGE_WITH_HISTORY = 100, 50
_IN_FLIGHT = 6
_MOST_ADDRESS = 6_000  # characters of property names that still travel in an address
_ROWS, _BYTES = 3_000, 8 * 2**20
_OWN_TYPES = {
    "id": "string",
    "createdAt": "timestamp",
    "updatedAt": "timestamp",
    "archivedAt": "timestamp",
    "propertiesWithHistory": "json",
    "associations": "json",
}

Place = tuple[str, Cursor | None]
"""How far a page reaches: the list's token or the last id, and the cursor for it; None where it is no place to go on from."""


@dataclass(frozen=True)
class Wanted:
    """What is read of every record. `types` are declared types by column."""

    object_type: str
    properties: tuple[str, ...]
    types: Mapping[str, str]
    history: tuple[str, ...] = ()
    associations: tuple[str, ...] = ()

    @property
    def by_list(self) -> bool:
        """Whether the list itself can give what is wanted. Histories and many properties only come by id: an address is not endless."""
        return not self.history and sum(len(name) + 3 for name in self.properties) <= _MOST_ADDRESS


class _Id(msgspec.Struct):
    id: str


class _Next(msgspec.Struct):
    after: str


class _Paging(msgspec.Struct):
    next: _Next | None = None


class _Ids(msgspec.Struct):
    results: list[_Id]
    paging: _Paging | None = None


def knows(api: Api, object_type: str, after: str) -> bool:
    """Whether the list still takes this token."""
    request = Request("GET", api.path("crm/objects", object_type), {"limit": 1, "properties": ID, "after": after})
    response = api.http.request(request)
    if response.status == 400:
        return False
    checked(response)
    return True


def listed_ids(api: Api, object_type: str, after: str | None, *, archived: bool = False) -> Iterator[tuple[list[str], str | None]]:
    """The ids of all records, page by page, with the token of the page behind each (None: it was the last)."""
    while True:
        params = {"limit": _PAGE, "properties": ID, "archived": archived, "after": after}
        page = parsed(api.get("crm/objects", object_type, params=params), _Ids)
        after = page.paging.next.after if page.paging and page.paging.next else None
        yield [record.id for record in page.results], after
        if after is None:
            return


class Records:
    """Takes pages of records and gives batches; what was deleted by a merge goes with them."""

    def __init__(self, api: Api, wanted: Wanted, known: pa.Schema | None) -> None:
        self._api, self._wanted = api, wanted
        self._types = {**_OWN_TYPES, **wanted.types}
        self._known = known
        self._decoder = self._new_decoder()

    def _new_decoder(self) -> PageDecoder:
        after = "$.paging.next.after"
        return PageDecoder("$.results", types=self._types, flatten=["properties"], known=self._known, envelope=[after])

    # ---- reading ----

    def listed(self, after: str | None) -> Iterator[str | None]:
        """Take all records in the order of the list, behind a token; after every page, the token to go on with (None: it was the last)."""
        wanted = self._wanted
        while True:
            params = {"limit": _PAGE, "properties": ",".join(wanted.properties), "after": after}
            found = self._take(self._api.get("crm/objects", wanted.object_type, params=params))
            after = None if found is None else str(found)
            yield after
            if after is None:
                return

    def by_id(self, found: Iterable[tuple[Sequence[str], Any]]) -> Iterator[Any]:
        """Take the records with these ids; behind the last page of each group of ids, what came with them, before that None."""
        for response in self._api.each(self._requests(found), _IN_FLIGHT):
            self._take(whole(response, "some records", "run the pull again: it goes on with them"))
            yield response.request.tag

    def _requests(self, found: Iterable[tuple[Sequence[str], Any]]) -> Iterator[Request]:
        wanted = self._wanted
        size = _PAGE_WITH_HISTORY if wanted.history else _PAGE
        for ids, place in found:
            chunks = list(in_chunks(ids, size))
            for number, chunk in enumerate(chunks, 1):
                inputs = [{"id": i} for i in chunk]
                body = {"inputs": inputs, "properties": wanted.properties, "propertiesWithHistory": wanted.history}
                tag = place if number == len(chunks) else None
                yield self._api.reading("crm/objects", wanted.object_type, "batch", "read", json=body, tag=tag)

    def _take(self, response: Response) -> Any:
        try:
            return self._decoder.decode(response.content).envelope[0]
        except MuxlyError as error:
            error.where = error.where or response.where
            raise

    # ---- giving batches ----

    def batches(self, places: Iterable[Cursor | None]) -> Iterator[Batch]:
        """Batches of what is taken while `places` goes on; each place is the cursor for everything taken so far, or None."""
        place: Cursor | None = None
        trouble: MuxlyError | None = None
        taking = iter(places)
        while trouble is None:
            try:
                found = next(taking)
            except StopIteration:
                break
            except MuxlyError as error:
                trouble = error
                continue
            place = found if found is not None else place
            while self._decoder.buffered_rows >= _ROWS or self._decoder.buffered_bytes >= _BYTES:
                # Trouble in here ends everything at once: what was being given is lost, and no place behind it may be said.
                yield from self._flush(place)
        if trouble is None:
            yield from self._rest(place)
            return
        # What was read before the trouble cost requests, of which there are only so many a day: it is kept.
        with contextlib.suppress(MuxlyError):
            yield from self._rest(place)
        raise trouble

    def _rest(self, place: Cursor | None) -> Iterator[Batch]:
        while self._decoder.buffered_rows:
            yield from self._flush(place)
        yield from self._flush(place)  # bad records of a page without good ones

    def _flush(self, place: Cursor | None) -> Iterator[Batch]:
        rows, unread = self._decoder.flush(_BYTES)
        lost, mended = self._mend([Unreadable(*u) for u in unread])
        for part in mended:
            yield self._batch(part, None, ())
        safe = place if not self._decoder.buffered_rows else None
        if len(rows) or lost:
            yield self._batch(rows, safe, tuple(lost))

    def _mend(self, unread: list[Unreadable]) -> tuple[list[Unreadable], list[pa.Table]]:
        """What stays unreadable, and the rows of records that were only unreadable for how their times are written."""
        texts = {number: text for number, bad in enumerate(unread) if (text := repaired(bad, self._types))}
        if not texts:
            return unread, []
        decoder = self._new_decoder()
        decoder.decode(b'{"results":[%s]}' % b",".join(texts.values()))
        lost = [bad for number, bad in enumerate(unread) if number not in texts]
        mended = []
        while decoder.buffered_rows:
            rows, still = decoder.flush(_BYTES)
            lost += [Unreadable(*u) for u in still]
            mended += [rows] if len(rows) else []
        return lost, mended

    def _batch(self, rows: pa.Table, place: Cursor | None, lost: tuple[Unreadable, ...]) -> Batch:
        if not len(rows):
            return Batch(rows, place, lost)
        names = [HISTORY if name == "propertiesWithHistory" else name for name in rows.column_names]
        rows = rows.rename_columns(names)
        if self._wanted.associations:
            ids = rows["id"].to_pylist()
            columns = associated(self._api, self._wanted.object_type, self._wanted.associations, ids)
            for to_type, column in zip(self._wanted.associations, columns, strict=True):
                rows = rows.append_column(association_field(to_type), column)
        return Batch(rows, place, lost, deletes=merged_away(rows))


def merged_away(rows: pa.Table) -> pa.Table | None:
    """The keys of records that these rows took in: a merge removes them without a trace of their own."""
    if MERGED not in rows.column_names or rows[MERGED].null_count == len(rows):
        return None
    some = rows.filter(pc.is_valid(rows[MERGED]))
    own = set(rows["id"].to_pylist())
    gone = {i.strip() for text in some[MERGED].to_pylist() for i in text.split(";")} - own - {""}
    return pa.table({"id": pa.array(sorted(gone), pa.string())}) if gone else None


def fingerprint(*settings: Sequence[str]) -> str:
    """What was asked for, as short text: the cursor remembers it, so that asking for more reads everything again."""
    return orjson.dumps([sorted(names) for names in settings]).decode()
