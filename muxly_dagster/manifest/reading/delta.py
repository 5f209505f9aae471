"""Delta sync: a full pull with a token taken before it began, then what the provider says has changed since that token."""

import logging
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from muxly_dagster.connector import Batch, Cursor, Span
from muxly_dagster.decoding import parse_path
from muxly_dagster.errors import SourceError
from muxly_dagster.manifest.asking.judging import Expiry
from muxly_dagster.manifest.asking.requests import build_request
from muxly_dagster.manifest.reading.deleting import typed_table
from muxly_dagster.manifest.reading.place import PlaceReader
from muxly_dagster.manifest.reading.places import Place
from muxly_dagster.manifest.reading.taking import EMPTY, Source, Taking, TokenExpired
from muxly_dagster.manifest.schema import DeltaSync, RequestSpec, StreamSpec

_log = logging.getLogger("muxly.manifest")

Kept = Mapping[str, Any]
"""What is kept of a place: `token`, and `at`: the value by which its records are told from other places'."""


class DeltaReader:
    """One pull of a stream by tokens of changes.

    A place without a token, or with one that has expired, is read in full, and what the lake holds of it beyond that is gone. Where no
    column tells the places' records apart, all of them are read in full then.
    """

    def __init__(self, source: Source, spec: StreamSpec, sync: DeltaSync, places: Sequence[Place], known: pa.Schema | None) -> None:
        self._source, self._spec, self._sync, self._places, self._known = source, spec, sync, places, known
        self._column = _telling_column(places, spec.types) if spec.for_each else ""
        self._apart = bool(self._column) or spec.for_each is None

    def read(self, cursor: Cursor | None, *, whole: bool) -> Iterator[Batch]:
        """The news since the cursor. `whole` says that the places are all there are, so that others are gone with their records."""
        held = self._held(cursor)
        names = {place.name for place in self._places}
        gone = [name for name in held if name not in names] if whole else []
        if (self._apart and all("at" in held[name] for name in gone)) or (held and not gone):
            try:
                for name in gone:
                    yield Batch(EMPTY, cleared=(self._span(held.pop(name)["at"]),))
                for place in self._places:
                    found, complete = yield from self._place(place, held.get(place.name))
                    if found is not None:
                        held[place.name] = found
                        yield Batch(EMPTY, self._cursor(held), complete=complete)
                return
            except TokenExpired:
                pass  # told already; the places' records cannot be told apart
        held = {}
        for place in self._places:
            found = yield from self._in_full(PlaceReader(self._source, self._spec, place, self._known))
            if found is not None:
                held[place.name] = found
        if len(held) == len(self._places):
            yield Batch(EMPTY, self._cursor(held), complete=(Span(),))

    def _place(self, place: Place, kept: Kept | None) -> Generator[Batch, None, tuple[Kept | None, tuple[Span, ...]]]:
        """One place's news: what is kept of it then (None: what was kept before), and the span that was read as a whole."""
        reader = PlaceReader(self._source, self._spec, place, self._known)
        if kept is not None:
            try:
                return (yield from self._changes(reader, kept)), ()
            except TokenExpired:
                of = f" of {place.name}" if place.name else ""
                _log.warning(
                    "%s: the provider no longer knows the token of changes%s; everything is read again", self._source.manifest.id, of
                )
                if not self._apart:
                    raise
        found = yield from self._in_full(reader)
        if not self._apart:
            return found, ()
        return found, (self._span(place.add[self._column]) if self._column else Span(),)

    # ---- requests

    def _changes(self, reader: PlaceReader, kept: Kept) -> Generator[Batch, None, Kept | None]:
        sync, names = self._sync, {"token": kept["token"]}
        taking = reader.taking(
            sync.request, sync.paging, sync.records or "", token=sync.token, gone=sync.deletes, expiry=Expiry(sync.expired)
        )
        yield from taking.read(names=names)
        all_read = yield from reader.deleted(names)
        return self._kept(reader.place, self._token_of(taking)) if all_read and not taking.passed_over else None

    def _in_full(self, reader: PlaceReader) -> Generator[Batch, None, Kept | None]:
        """Every record. The token is asked for before, so that what changes meanwhile comes with the changes."""
        seed, marks = self._sync.seed, None if isinstance(self._sync.deletes, str) else self._sync.deletes
        if marks is not None and marks.leaf is not None:
            marks = marks.model_copy(update={"leaf": None})  # a listing is compared as a whole, so nothing need be looked for below a leaf
        token = None if seed == "pages" else self._seed(reader)
        taking = reader.taking(token=self._sync.token if seed == "pages" else "", gone=marks)
        yield from taking.read()
        if not (yield from reader.deleted({})) or taking.passed_over:
            return None
        return self._kept(reader.place, self._token_of(taking) if seed == "pages" else token)

    def _seed(self, reader: PlaceReader) -> Any:
        seed, check = self._sync.seed, self._source.manifest.check
        request: RequestSpec | None
        if isinstance(seed, str):
            request, path = check, seed.removeprefix("check:")
        else:
            request, path = seed.request, seed.token
        assert request is not None, "the manifest was checked when it was read"
        response = self._source.http.request(build_request(request, reader.context))
        token = parse_path(path).first(response.json())
        if token is None or token == "":
            raise SourceError(f"the answer names no token at {path}", do="correct the stream's `sync.seed`", where=response.where)
        return token

    def _token_of(self, taking: Taking) -> Any:
        if taking.token is None:
            raise SourceError(f"no answer named a token at {self._sync.token}", do="correct the stream's `sync.token`")
        return taking.token

    # ---- what is kept

    def _held(self, cursor: Cursor | None) -> dict[str, Kept]:
        """The tokens by place; none where the cursor is of another kind of sync."""
        found = cursor if isinstance(cursor, Mapping) else {}
        places = found.get("places", {}) if self._spec.for_each else {"": found}
        return {name: kept for name, kept in places.items() if isinstance(kept, Mapping) and "token" in kept}

    def _kept(self, place: Place, token: Any) -> Kept:
        return {"token": token, "at": place.add[self._column]} if self._column else {"token": token}

    def _cursor(self, held: Mapping[str, Kept]) -> Cursor:
        return {"places": dict(held)} if self._spec.for_each else held[""]

    def _span(self, value: str | int) -> Span:
        table = typed_table([{self._column: value}], self._spec.types, self._known)  # the bounds are of the type it has in the lake
        value = table[self._column][0].as_py()
        return Span(self._column, value, value + "\0" if isinstance(value, str) else value + 1)


def _telling_column(places: Sequence[Place], types: Mapping[str, str]) -> str:
    """A column that every place gives another value, a text or a whole number; empty where there is none."""
    for column in places[0].add if places else ():
        if types.get(column, "string") not in ("string", "integer"):
            continue
        values = [place.add.get(column) for place in places]
        if {type(value) for value in values} in ({str}, {int}) and len(set(values)) == len(values):
            return column
    return ""
