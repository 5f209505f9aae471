"""The inbox: collected events, each stored once, until they are in the lake."""

import datetime as dt
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import cramjam
import orjson
import sqlalchemy as sa

from muxly_dagster.collecting import Lines
from muxly_dagster.intake import Parcel
from muxly_dagster.state import tables
from muxly_dagster.state.marks import Lock, MarkIndex, Marks, take_turn
from muxly_dagster.state.posts import Kept, Part, Post
from muxly_dagster.state.reading import reading

_SLICE = 8 << 20  # bytes that are deleted in one transaction: whoever stores events waits that long
_ROWS = 500

_SMALL = 1 << 10  # bytes of events that are kept as they came
_ZSTD = b"\x28\xb5\x2f\xfd"
"""How what zstd has compressed begins (RFC 8878, 3.1.1); an event begins with a brace."""

_INSERT = sa.insert(tables.inbox)


@dataclass(frozen=True, slots=True)
class Depth:
    """What of one stream waits: parcels, events in them, bytes, and when the oldest was received."""

    source: str
    stream: str
    parcels: int
    events: int
    bytes: int
    oldest: dt.datetime


class SharedInbox:
    """See `intake.Inbox`. Every method is safe in any thread; raises RetryLater where the database cannot be used."""

    def __init__(self, engine: sa.Engine, lock: Lock, beside: Callable[[], sa.Engine] | None = None) -> None:
        """`beside` opens the database where the index of marks lies, if that is another one."""
        self._engine = engine
        self._index = MarkIndex(engine, lock, beside)
        self._marks = Marks(engine, self._index)
        self._turn = threading.Lock()

    # ---- storing ------------------------------------------------------------------------------------------------------

    def put(self, posts: Sequence[Post]) -> None:
        """Store requests in one transaction, in order: durable when this returns, and each says what became of it. Else nothing is stored.

        Events whose id is known in their stream are left out. Events of one stream become one parcel.
        """
        self._index.open()
        with self._turn:
            with self._engine.begin() as connection:
                take_turn(connection)
                fresh, repeated = _known(connection, posts)
                self._store(connection, fresh)
                _remember(connection, fresh)
            self._marks.committed()
        for post, first in repeated:
            post.earlier = first.fingerprint, first.receipt(first)

    def tidy(self, before: dt.datetime, stop: Callable[[], bool] = lambda: False) -> None:
        """Do what is due behind the scenes, while events are stored: index marks, forget those and Idempotency-Keys from before a time.

        What of that takes long is left for the next time once `stop` says so.
        """
        seconds, requests = int(before.timestamp()), tables.inbox_requests
        with self._turn, self._engine.begin() as connection:
            connection.execute(sa.delete(requests).where(requests.c.at < seconds))
            self._marks.look(connection, seconds)
        self._index.forget(seconds)
        is_work = True
        try:
            while is_work and not stop():
                # What waits comes first: it is kept in memory, and the rest can be left and begun anew.
                if self._marks.full:
                    self._marks.settle(self._turn)
                else:
                    is_work = self._index.work()
        finally:
            self._index.rest()

    def close(self) -> None:
        """Give back what it opened itself."""
        self._index.close()

    @property
    def untidy(self) -> bool:
        """Whether so much has come in that this process should `tidy` soon."""
        return self._marks.full or self._index.is_asked_much

    def _store(self, connection: sa.Connection, posts: Sequence[Post]) -> None:
        by_stream: dict[tuple[str, str], _Parcel] = {}
        known = iter(self._marks.known(connection, [part.marks for post in posts for part in post.parts]))
        for post in posts:
            post.kept = []
            for part in post.parts:
                parcel = by_stream.setdefault((post.source, part.stream), _Parcel())
                post.kept.append(parcel.add(part, next(known)))
        self._marks.write(connection)
        received_at = tables.now()
        for (source, stream), parcel in by_stream.items():
            if parcel.lines or parcel.refused:
                row = {"source": source, "stream": stream, "received_at": received_at, **parcel.row()}
                result = connection.execute(_INSERT, row)
                parcel.stored(int(result.inserted_primary_key[0]) if result.inserted_primary_key else 0)

    # ---- what waits ---------------------------------------------------------------------------------------------------

    def parcels(self, source: str, stream: str, after: int, limit: int) -> Sequence[Parcel]:
        """The next parcels behind a seq: about `limit` bytes of them, at least one if there is any. None turns up later below them."""
        table, last, size, more = tables.inbox, after, 0, True
        with reading(self._engine) as connection:
            while more and size < limit:
                rows = connection.execute(self._places(source, stream).where(table.c.seq > last).limit(_ROWS)).all()
                for seq, each in rows:
                    if size >= limit:
                        break
                    last, size = seq, size + each
                more = len(rows) == _ROWS
            query = sa.select(table).where(_of(source, stream), table.c.seq > after, table.c.seq <= last).order_by(table.c.seq)
            return [_parcel(row) for row in connection.execute(query).mappings()] if last > after else []

    def let_go(self, source: str, stream: str, upto: int) -> None:
        """Delete the parcels up to a seq, some at a time: a process that is killed between goes on with the next call."""
        table, more = tables.inbox, True
        while more:
            last, size = 0, 0
            with self._engine.begin() as connection:
                rows = connection.execute(self._places(source, stream).where(table.c.seq <= upto).limit(_ROWS)).all()
                for seq, each in rows:
                    if size >= _SLICE:
                        break
                    last, size = seq, size + each
                if last:
                    connection.execute(sa.delete(table).where(_of(source, stream), table.c.seq <= last))
            more = bool(rows) and (len(rows) == _ROWS or last < rows[-1][0])

    def waiting(self, source: str) -> Mapping[str, int]:
        """How many events of each stream of a source wait."""
        table = tables.inbox
        query = sa.select(table.c.stream, sa.func.sum(table.c.count)).where(table.c.source == source).group_by(table.c.stream)
        with reading(self._engine) as connection:
            return {stream: int(count) for stream, count in connection.execute(query.order_by(table.c.stream))}

    def depth(self) -> list[Depth]:
        """What waits, by source and stream."""
        table = tables.inbox
        groups = (
            sa.select(
                table.c.source,
                table.c.stream,
                sa.func.count().label("parcels"),
                sa.func.sum(table.c.count).label("events"),
                sa.func.sum(table.c.size).label("bytes"),
                sa.func.min(table.c.seq).label("first"),
            )
            .group_by(table.c.source, table.c.stream)
            .subquery()
        )
        query = sa.select(groups, table.c.received_at).join(table, table.c.seq == groups.c.first)
        with reading(self._engine) as connection:
            rows = connection.execute(query.order_by(groups.c.source, groups.c.stream)).all()
        return [
            Depth(row.source, row.stream, row.parcels, int(row.events), int(row.bytes), dt.datetime.fromisoformat(row.received_at))
            for row in rows
        ]

    def size(self) -> int:
        """The bytes of all that waits."""
        with reading(self._engine) as connection:
            return int(connection.scalar(sa.select(sa.func.sum(tables.inbox.c.size))) or 0)

    def ends(self, streams: Iterable[tuple[str, str]]) -> dict[tuple[str, str], tuple[int, int]]:
        """The lowest and highest seq of what waits in these streams; those in which nothing does are left out."""
        table, found = tables.inbox, {}
        with reading(self._engine) as connection:
            for source, stream in streams:
                query = sa.select(sa.func.min(table.c.seq), sa.func.max(table.c.seq)).where(_of(source, stream))
                low, high = connection.execute(query).one()
                if low is not None:
                    found[source, stream] = (int(low), int(high))
        return found

    def _places(self, source: str, stream: str) -> sa.Select[int, int]:
        table = tables.inbox
        return sa.select(table.c.seq, table.c.size).where(_of(source, stream)).order_by(table.c.seq)


@dataclass(slots=True)
class _Parcel:
    """What one transaction stores in a stream."""

    lines: Lines = field(default_factory=Lines)
    ids: list[str] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)

    def add(self, part: Part, known: frozenset[int]) -> Kept:
        """Take a part of a request, without the events that are known."""
        if known:
            self.lines.extend(part.lines.without(known))
            self.ids += [id for at, id in enumerate(part.ids) if at not in known]
        else:
            self.lines.extend(part.lines)
            self.ids += part.ids
        self.refused += part.refused
        kept = Kept(len(part.lines) - len(known), len(known), len(part.refused))
        self.kept.append(kept)
        return kept

    def row(self) -> dict[str, object]:
        """As the table has it."""
        body, ids = self.lines.text, "\n".join(self.ids)
        refused = orjson.dumps(self.refused).decode() if self.refused else ""
        size = len(body) + len(ids) + len(refused)
        return {"count": len(self.lines) + len(self.refused), "size": size, "ids": ids, "body": _packed(body), "refused": refused}

    def stored(self, seq: int) -> None:
        """Tell those whose events are in it."""
        for kept in self.kept:
            if kept.accepted or kept.quarantined:
                kept.seq = seq


def _of(source: str, stream: str) -> sa.ColumnElement[bool]:
    return sa.and_(tables.inbox.c.source == source, tables.inbox.c.stream == stream)


def _parcel(row: sa.RowMapping) -> Parcel:
    ids = tuple(row["ids"].split("\n")) if row["body"] else ()
    refused = tuple((text, reason) for text, reason in orjson.loads(row["refused"])) if row["refused"] else ()
    return Parcel(row["seq"], dt.datetime.fromisoformat(row["received_at"]), ids, _unpacked(bytes(row["body"])), refused)


def _packed(body: bytes) -> bytes:
    """A body as it is kept: events are much alike, and to write them whole takes longer than to compress them."""
    return bytes(cramjam.zstd.compress(body, level=1)) if len(body) > _SMALL else body


def _unpacked(kept: bytes) -> bytes:
    return bytes(cramjam.zstd.decompress(kept)) if kept.startswith(_ZSTD) else kept


def _known(connection: sa.Connection, posts: Sequence[Post]) -> tuple[list[Post], list[tuple[Post, Post]]]:
    """The requests that are new, and those that repeat another one of them. Those that were answered before are told so."""
    table = tables.inbox_requests
    keys = [post.key for post in posts if post.key]
    rows = connection.execute(sa.select(table).where(table.c.mark.in_(keys))).all() if keys else []
    earlier = {bytes(row.mark): (bytes(row.fingerprint), row.receipt) for row in rows}
    fresh: list[Post] = []
    repeated: list[tuple[Post, Post]] = []
    first: dict[bytes, Post] = {}
    for post in posts:
        if not post.key:
            fresh.append(post)
        elif post.key in earlier:
            post.earlier = earlier[post.key]
        elif post.key in first:
            repeated.append((post, first[post.key]))
        else:
            first[post.key] = post
            fresh.append(post)
    return fresh, repeated


def _remember(connection: sa.Connection, posts: Sequence[Post]) -> None:
    at = int(time.time())
    rows = [{"mark": post.key, "fingerprint": post.fingerprint, "receipt": post.receipt(post), "at": at} for post in posts if post.key]
    if rows:
        connection.execute(sa.insert(tables.inbox_requests), rows)
