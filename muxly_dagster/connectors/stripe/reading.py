"""One pull of a collection: everything the first time, then the objects that events tell of.

The cursor is one of
    {"asked", "began", "after"}  in the middle of the first list; `after` is the last id that is stored
    {"asked", "seen"}            at rest: every event before `seen` was read
Times are seconds since 1970 by Stripe's clock. A list that is read again because events are missing has no cursor on the way:
only a list that was read in one go says what was deleted meanwhile.
"""

import contextlib
import datetime as dt
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import pyarrow as pa

from muxly_dagster.connector import Batch, Cursor, Span, Unreadable
from muxly_dagster.connectors.stripe.api import Api, Missing, id_of, read_as
from muxly_dagster.connectors.stripe.changes import Change, in_whole_seconds, undecided
from muxly_dagster.connectors.stripe.collections import SECRET, TYPES, Collection
from muxly_dagster.connectors.stripe.items import items_of_changes, items_of_list
from muxly_dagster.connectors.stripe.nested import completed, is_cut
from muxly_dagster.decoding import PageDecoder
from muxly_dagster.errors import MuxlyError

_log = logging.getLogger("muxly.stripe")

EMPTY = pa.table({})
_KEPT = int(dt.timedelta(days=29).total_seconds())  # events are kept for 30 days
_STRETCH = int(dt.timedelta(days=1).total_seconds())
_OVERLAP = 300  # an event may be seen later than it was stamped
_ROWS, _BYTES = 3_000, 8 * 2**20


@dataclass(frozen=True)
class Plan:
    """How a pull reads: `asked` says in short what was asked for, `version` is the API's, `items` that subscriptions' items are wanted."""

    collection: Collection
    asked: str
    version: str
    expand: tuple[str, ...] = ()
    items: bool = False


class Rows:
    """Takes objects as JSON and gives batches."""

    def __init__(self, known: pa.Schema | None) -> None:
        self._decoder = PageDecoder("$", types=TYPES, known=known)

    def batches(self, places: Iterable[tuple[Sequence[bytes | msgspec.Raw], Cursor | None]]) -> Iterator[Batch]:
        """Batches of the objects; each place is the cursor for all objects so far, None where there is no way to go on from there."""
        place: Cursor | None = None
        try:
            for objects, reached in places:
                self._decoder.decode(b"[" + b",".join(bytes(each) for each in objects) + b"]")
                place = reached
                while self._decoder.buffered_rows >= _ROWS or self._decoder.buffered_bytes >= _BYTES:
                    yield self._batch(place)
        except MuxlyError as error:
            with contextlib.suppress(MuxlyError):  # what was read before the trouble is kept
                yield from self._rest(place)
            raise error
        yield from self._rest(place)

    def _rest(self, place: Cursor | None) -> Iterator[Batch]:
        while self._decoder.buffered_rows:
            yield self._batch(place)
        last = self._batch(place)
        if last.unreadable or last.cursor is not None:
            yield last

    def _batch(self, place: Cursor | None) -> Batch:
        rows, unread = self._decoder.flush(_BYTES)
        if SECRET in rows.column_names:
            rows = rows.drop_columns([SECRET])
        return Batch(rows, place if not self._decoder.buffered_rows else None, tuple(Unreadable(*each) for each in unread))


def read_changes(api: Api, plan: Plan, cursor: Cursor | None, known: pa.Schema | None) -> Iterator[Batch]:
    """The news of a collection that events tell of."""
    at: dict[str, Any] = cursor if isinstance(cursor, dict) and cursor.get("asked") == plan.asked else {"asked": plan.asked}
    again = cursor is not None and at is not cursor
    rows, now = Rows(known), int(api.now().timestamp())
    if now - at.get("seen", at.get("began", now)) > _KEPT:
        _log.warning("stripe: the last pull of %s is longer ago than Stripe keeps events; everything is read again", plan.collection.path)
        at, again = {"asked": plan.asked}, True
    if "seen" not in at:
        at = {"began": now, **at}
        yield from _everything(api, plan, at, rows, again=again)
        at = {"asked": plan.asked, "seen": at["began"]}
    while at["seen"] < now:
        until = min(at["seen"] + _STRETCH, now)
        # The last stretch is open: what came since the pull began may as well be read.
        yield from _news(api, plan, at["seen"] - _OVERLAP, until if until < now else None, rows)
        at = {"asked": plan.asked, "seen": until}
        yield Batch(EMPTY, at)


def _everything(api: Api, plan: Plan, at: dict[str, Any], rows: Rows, *, again: bool) -> Iterator[Batch]:
    """The whole list, or the rest of it; `again`: the lake knows objects of which no event will tell that they are gone."""
    whole = "after" not in at
    try:
        yield from rows.batches(_listed(api, plan, at, again=again))
    except Missing:
        if whole:
            raise
        at = {name: value for name, value in at.items() if name != "after"}  # the object to go on behind was deleted meanwhile
        whole = True
        yield from rows.batches(_listed(api, plan, at, again=again))
    # Only a list that was read in one go says what is not there any more.
    yield Batch(EMPTY, {"asked": plan.asked, "seen": at["began"]}, complete=(Span(),) if whole else ())


def _listed(api: Api, plan: Plan, at: dict[str, Any], *, again: bool) -> Iterator[tuple[Sequence[bytes | msgspec.Raw], Cursor | None]]:
    params = {**plan.collection.params, "expand[]": [f"data.{name}" for name in plan.expand] or None}
    for page in api.pages(plan.collection.path, params, at.get("after", "")):
        objects = items_of_list(api, page.data) if plan.items else completed(api, page.data)
        yield objects, {**at, "after": id_of(page.data[-1])} if page.data and not again else None


def _news(api: Api, plan: Plan, start: int, end: int | None, rows: Rows) -> Iterator[Batch]:
    """What events of this stretch tell of. They come newest first, so the first one of an object is the one that counts."""
    kind, settled = plan.collection, set[str]()
    params: dict[str, Any] = {"types[]": [*kind.changed, *kind.gone], "created[gte]": start, "created[lt]": end}
    if kind.created_apart:
        new = ((completed(api, page.data), None) for page in api.pages(kind.path, _since(plan, start)))
        for batch in rows.batches(new):
            settled.update(batch.rows["id"].to_pylist() if len(batch.rows) else ())
            yield batch
    for changes in in_whole_seconds(api.pages("events", params)):
        if plan.items:
            objects, gone = items_of_changes(api, changes, settled, plan.version)
        else:
            objects, gone = _newest(api, plan, changes, settled)
        yield from rows.batches([(objects, None)])
        if gone:
            yield Batch(EMPTY, deletes=pa.table({"id": pa.array(sorted(gone), pa.string())}))


def _since(plan: Plan, start: int) -> dict[str, Any]:
    return {**plan.collection.params, "created[gte]": start, "expand[]": [f"data.{name}" for name in plan.expand] or None}


def _newest(api: Api, plan: Plan, changes: Sequence[Change], settled: set[str]) -> tuple[list[bytes | msgspec.Raw], set[str]]:
    """The newest state of the objects that these events tell of first, and the ids of those that are gone.

    An event holds its object as the API version of its own time rendered it, without anything expanded and with the beginnings of
    its lists: where that is not what is asked for, the object itself is read. So it is where nobody knows which event was the last.
    """
    objects: list[bytes | msgspec.Raw] = []
    gone: set[str] = set()
    apart: list[str] = []
    unclear = undecided(changes, plan.collection.gone)
    for change in changes:
        name = id_of(change.data.object)
        if name in settled:
            continue
        settled.add(name)
        as_asked = change.api_version == plan.version and not plan.expand and not is_cut(change.data.object)
        if name in unclear or (change.type not in plan.collection.gone and not as_asked):
            apart.append(name)
        elif change.type in plan.collection.gone:
            gone.add(name)
        else:
            objects.append(change.data.object)
    for name, content in api.each(plan.collection.path, apart, {"expand[]": list(plan.expand) or None}):
        if content is None:
            gone.add(name)
        else:
            objects += completed(api, [content])
    return objects, gone


class _Settling(msgspec.Struct):
    created: int
    status: str = ""


def read_ledger(api: Api, plan: Plan, cursor: Cursor | None, known: pa.Schema | None) -> Iterator[Batch]:
    """What was created since the last pull, of a collection whose objects stay as they are; from the oldest that was still pending on.

    In the middle of the first list, the cursor is {"asked", "began", "oldest", "after"}.
    """
    at: dict[str, Any] = cursor if isinstance(cursor, dict) and cursor.get("asked") == plan.asked else {"asked": plan.asked}
    rows, now = Rows(known), int(api.now().timestamp())
    if "seen" not in at:
        at = {"began": now, "oldest": now, **at}
    try:
        yield from rows.batches(_entries(api, plan, at, now))
    except Missing:  # the event to go on behind is older than 30 days by now
        at = {"asked": plan.asked, "began": now, "oldest": now}
        yield from rows.batches(_entries(api, plan, at, now))


def _entries(api: Api, plan: Plan, at: dict[str, Any], now: int) -> Iterator[tuple[Sequence[msgspec.Raw], Cursor | None]]:
    oldest = at.get("oldest", now)
    params: dict[str, Any] = {"expand[]": [f"data.{name}" for name in plan.expand] or None}
    if "seen" in at:
        params["created[gte]"] = at["seen"] - _OVERLAP
    for page in api.pages(plan.collection.path, params, at.get("after", "")):
        for raw in page.data:
            found = read_as(raw, _Settling)
            if found.status == "pending":
                oldest = min(oldest, found.created)
        yield page.data, {**at, "oldest": oldest, "after": id_of(page.data[-1])} if page.data and "seen" not in at else None
    yield (), {"asked": plan.asked, "seen": min(oldest, at.get("began", now))}
