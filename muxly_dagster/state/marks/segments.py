"""Segments of the index: so many marks that were brought in at once, spread over buckets by some bits of theirs.

A segment is written once, in order, and never changed: random marks in one great tree would write a page of some kilobytes each.
To look for a mark is to read one bucket of each segment. Statements take and give all there is in one value: for each row that passes
between the database and Python, a thread gives up the interpreter and waits for its turn.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import sqlalchemy as sa

from muxly_dagster.state import tables
from muxly_dagster.state.marks.batch import Keys, keys_of
from muxly_dagster.state.posts import MARK

_FULL = 256  # marks of a bucket, or half as many
_PLACES = 1 << 24  # buckets of a segment, or fewer
_WRITTEN = 256  # buckets that one statement writes
_ASKED = 20_000  # buckets that one statement looks into

# `:cuts` are triples of place, begin (from 1) and length; `:asked` pairs of place and begin; `:spans` pairs of places.
_SQLITE = {
    "write": "insert into inbox_buckets (place, marks) select json_extract(value, '$[0]'),"
    " substr(:marks, json_extract(value, '$[1]'), json_extract(value, '$[2]')) from json_each(:cuts)",
    "find": "select json_group_array(asked.key) from json_each(:asked) as asked cross join inbox_buckets"
    " where place = json_extract(asked.value, '$[0]')"
    f" and (instr(marks, substr(:marks, json_extract(asked.value, '$[1]'), {MARK})) - 1) % {MARK} = 0",
    "read": "select group_concat(hex(marks), '') from json_each(:spans) as span cross join inbox_buckets"
    " where place between json_extract(span.value, '$[0]') and json_extract(span.value, '$[1]')",
}
_POSTGRES = {
    "write": "insert into inbox_buckets (place, marks) select cast(cut->>0 as bigint),"
    " substring(cast(:marks as bytea) from cast(cut->>1 as int) for cast(cut->>2 as int))"
    " from json_array_elements(cast(:cuts as json)) as cut",
    "find": "select cast(json_agg(number - 1) as text)"
    " from json_array_elements(cast(:asked as json)) with ordinality as asked(pair, number)"
    " join inbox_buckets on place = cast(pair->>0 as bigint)"
    f" where (position(substring(cast(:marks as bytea) from cast(pair->>1 as int) for {MARK}) in marks) - 1) % {MARK} = 0",
    "read": "select encode(string_agg(marks, ''), 'hex') from json_array_elements(cast(:spans as json)) as span"
    " join inbox_buckets on place between cast(span->>0 as bigint) and cast(span->>1 as bigint)",
}

_segments = tables.inbox_segments
_buckets = tables.inbox_buckets
_WHOLE = (
    sa.select(*(_segments.c[name] for name in ("segment", "since", "at", "count", "buckets", "merged")))
    .where(_segments.c.count > 0)
    .order_by(_segments.c.segment)
)


@dataclass(frozen=True, slots=True)
class Segment:
    """Its marks were accepted from `since` to `at` (seconds since 1970); `buckets` is a power of two, `merged` what it was made of."""

    number: int
    since: int
    at: int
    count: int
    buckets: int
    merged: tuple[int, ...] = ()

    def places(self, keys: Keys) -> "np.ndarray[Any, np.dtype[np.int64]]":
        """Where the buckets of some keys lie."""
        return self.number * _PLACES + (keys.astype(np.int64) * self.buckets >> 32)

    def span(self, part: int, parts: int) -> tuple[int, int]:
        """The first and last place of one of so many equal parts of all keys; there may be others in these buckets."""
        first, end = part * self.buckets // parts, -(-(part + 1) * self.buckets // parts)
        return self.number * _PLACES + first, self.number * _PLACES + end - 1


def parts(segment: Segment, size: int) -> int:
    """Into how many equal parts a segment is cut, so that each has about so many marks; no bucket lies in two of them."""
    return min(1 << max(0, segment.count // size).bit_length(), segment.buckets)


def only(marks: bytes, part: int, parts: int) -> bytes:
    """Those of some marks that are of a part of all keys."""
    mine = keys_of(marks).astype(np.int64) * parts >> 32 == part
    found: bytes = np.frombuffer(marks, f"V{MARK}")[mine].tobytes()
    return found


def number_at(place: int) -> int:
    """The number of the segment that a place belongs to."""
    return place // _PLACES


def behind(place: int) -> int:
    """The first place behind the segment that a place belongs to."""
    return (number_at(place) + 1) * _PLACES


def whole(connection: sa.Connection) -> list[Segment]:
    """All segments that are written to their end, the oldest first."""
    rows = connection.execute(_WHOLE)
    return [Segment(number, since, at, count, buckets, tuple(orjson.loads(of))) for number, since, at, count, buckets, of in rows]


def row_of(number: int) -> sa.Select[int]:
    """Finds the segment of a number, whole or not, unless it was merged or forgotten."""
    return sa.select(_segments.c.segment).where(_segments.c.segment == number)


def begin(connection: sa.Connection, since: int, at: int, count: int, merged: Sequence[int] = ()) -> Segment:
    """A new segment for so many marks. Nobody looks into it until it is said to be whole."""
    buckets = _buckets_for(count)
    row = {"since": since, "at": at, "count": 0, "buckets": buckets, "merged": orjson.dumps(merged).decode()}
    [number] = connection.execute(sa.insert(_segments), row).inserted_primary_key or (0,)
    return Segment(number, since, at, count, buckets, tuple(merged))


def write(connection: sa.Connection, segment: Segment, marks: bytes) -> None:
    """Write marks into buckets that nobody has written before."""
    keys = keys_of(marks)
    order = np.argsort(keys, kind="stable")
    places, begins = np.unique(segment.places(keys[order]), return_index=True)
    ends = np.append(begins[1:], len(keys))
    in_order = np.frombuffer(marks, f"V{MARK}")[order]
    for at in range(0, len(places), _WRITTEN):
        here = slice(at, at + _WRITTEN)
        first, last = begins[here][0], ends[here][-1]
        cuts = np.column_stack((places[here], (begins[here] - first) * MARK + 1, (ends[here] - begins[here]) * MARK))
        connection.execute(_said(connection, "write"), {"marks": in_order[first:last].tobytes(), "cuts": _json(cuts)})


def finish(connection: sa.Connection, segment: Segment) -> None:
    """Say that a segment is whole; what it was made of is none any more."""
    update = sa.update(_segments).where(_segments.c.segment == segment.number).values(count=segment.count)
    finished = connection.execute(update).rowcount == 1  # else another process took what was not whole for left behind
    if segment.merged and finished:
        connection.execute(sa.delete(_segments).where(_segments.c.segment.in_(segment.merged)))


def find(connection: sa.Connection, segments: Sequence[Segment], marks: bytes) -> set[int]:
    """The places of those of some marks, one behind the other, that are in any of these segments."""
    keys, found = keys_of(marks), set[int]()
    begins = np.arange(len(keys), dtype=np.int64) * MARK + 1
    step = max(1, _ASKED // max(1, len(segments)))
    for at in range(0, len(keys) if segments else 0, step):
        here = slice(at, at + step)
        places = np.concatenate([segment.places(keys[here]) for segment in segments])
        asked = np.column_stack((places, np.tile(begins[: len(keys[here])], len(segments))))
        given = {"marks": marks[at * MARK : (at + step) * MARK], "asked": _json(asked)}
        hits = orjson.loads(connection.scalar(_said(connection, "find"), given) or b"[]")
        found.update(at + hit % len(keys[here]) for hit in hits)
    return found


def read(connection: sa.Connection, spans: Sequence[tuple[int, int]]) -> bytes:
    """The marks of all buckets whose places lie in these spans, the ends included."""
    return bytes.fromhex(connection.scalar(_said(connection, "read"), {"spans": orjson.dumps(spans).decode()}) or "")


def _buckets_for(count: int) -> int:
    return min(1 << max(0, -(-count // _FULL) - 1).bit_length(), _PLACES)


def _said(connection: sa.Connection, what: str) -> sa.TextClause:
    return (_SQLITE_TEXTS if connection.dialect.name == "sqlite" else _POSTGRES_TEXTS)[what]


def _json(rows: "np.ndarray[Any, Any]") -> str:
    return orjson.dumps(np.ascontiguousarray(rows), option=orjson.OPT_SERIALIZE_NUMPY).decode()


_SQLITE_TEXTS = {name: sa.text(query) for name, query in _SQLITE.items()}
_POSTGRES_TEXTS = {name: sa.text(query) for name, query in _POSTGRES.items()}
