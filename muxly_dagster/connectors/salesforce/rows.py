"""Records into batches: those that are deleted apart from those that are not."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import pyarrow as pa

from muxly_dagster.connector import Batch, Cursor, Unreadable
from muxly_dagster.connectors.salesforce.objects import DELETED
from muxly_dagster.decoding import PageDecoder
from muxly_dagster.errors import MuxlyError

EMPTY = pa.table({})
_ROWS, _BYTES = 3_000, 8 * 2**20
_OURS = ("attributes", DELETED)


@dataclass(frozen=True)
class Records:
    """Some records as JSON texts, the ids of those that are deleted, and the cursor for all up to here (None: no place to go on from)."""

    alive: Sequence[msgspec.Raw | bytes] = ()
    gone: Sequence[str] = ()
    cursor: Cursor | None = None


def deletes_of(names: Sequence[str]) -> Batch:
    """A batch that says that these records are gone."""
    return Batch(EMPTY, deletes=pa.table({"Id": pa.array(names, pa.string())}))


@dataclass
class Batches:
    """Gives batches of records. `types` are declared types by column; `gone` are the ids of all the deleted ones so far."""

    types: Mapping[str, str]
    known: pa.Schema | None
    gone: set[str] = field(default_factory=set)
    _decoder: PageDecoder = field(init=False)

    def __post_init__(self) -> None:
        # An object beside the record's fields (its type and address) is read as text, and left out below.
        self._decoder = PageDecoder("$", types={**self.types, "attributes": "json"}, known=self.known)

    def of(self, parts: Iterable[Records]) -> Iterator[Batch]:
        """Batches of these records."""
        cursor: Cursor | None = None
        try:
            for part in parts:
                if part.alive:
                    self._decoder.decode(b"[" + b",".join(map(bytes, part.alive)) + b"]")
                if part.gone:
                    self.gone.update(part.gone)
                    yield deletes_of(part.gone)
                cursor = part.cursor if part.cursor is not None else cursor
                while self._decoder.buffered_rows >= _ROWS or self._decoder.buffered_bytes >= _BYTES:
                    yield self._batch(cursor)
        except MuxlyError as error:
            with contextlib.suppress(MuxlyError):  # what was read before the trouble cost requests: it is kept
                yield from self._rest(cursor)
            raise error
        yield from self._rest(cursor)

    def _rest(self, cursor: Cursor | None) -> Iterator[Batch]:
        while self._decoder.buffered_rows:
            yield self._batch(cursor)
        yield self._batch(cursor)

    def _batch(self, cursor: Cursor | None) -> Batch:
        rows, unread = self._decoder.flush(_BYTES)
        rows = rows.drop_columns([name for name in _OURS if name in rows.column_names])
        safe = cursor if not self._decoder.buffered_rows else None
        return Batch(rows, safe, tuple(Unreadable(*each) for each in unread))
