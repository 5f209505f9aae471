"""One pull of an object: everything the first time, then what was changed or deleted since.

The cursor is one of
    {"asked", "began", "after"}                     in the middle of the first query; `after` is the last id that is stored
    {"asked", "began", "job", "columns", "locator"} in the middle of a bulk job; with `modified` where it is for news
    {"asked", "modified"}                           at rest: what was changed before `modified` is stored
Times are ISO 8601 by Salesforce's clock; `columns` stands for the fields that the job was asked for. `again` says that everything is
read anew over records of which no query will tell that they are gone: only what was read in one go says that, so there is no `after`
and no `locator` then.
"""

import datetime as dt
import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal
from urllib.parse import quote

import msgspec
import pyarrow as pa

from muxly_dagster.connector import Batch, Cursor, Span
from muxly_dagster.connectors.salesforce import bulk
from muxly_dagster.connectors.salesforce.api import Api, Missing, NoBulk, Refused, TooSlow
from muxly_dagster.connectors.salesforce.deletions import logged_deletions
from muxly_dagster.connectors.salesforce.objects import DELETED, Described, Field, Query, types_of
from muxly_dagster.connectors.salesforce.rows import EMPTY, Batches, Records, deletes_of
from muxly_dagster.errors import ConfigurationError, SourceError

_log = logging.getLogger("muxly.salesforce")

_BIN = dt.timedelta(days=14)  # deleted records stay in the bin for 15 days
_LONGEST = 15_000  # characters of a query in an address: with everything else and the headers, there may be 16,384
_MOST_ROWS, _FEWEST_ROWS, _VALUES = 50_000, 2_000, 1_000_000  # of one piece of a bulk result, which is held in memory

Mode = Literal["auto", "rest", "bulk"]


@dataclass(frozen=True)
class Plan:
    """How a pull reads. `asked` says in short what was asked for, `overlap` how far back each pull reads again; bulk jobs are used
    above `bulk_from` records and waited for so many seconds."""

    described: Described
    fields: tuple[Field, ...]
    asked: str
    mode: Mode = "auto"
    bulk_from: int = 50_000
    bulk_seconds: float = 7_200
    overlap: dt.timedelta = dt.timedelta(minutes=10)

    @property
    def columns(self) -> str:
        """A short text that stands for the fields, in their order."""
        return hashlib.sha256(",".join(each.name for each in self.fields).encode()).hexdigest()[:16]

    def query(self, since: dt.datetime | None, after: str = "") -> Query:
        """What was changed since a time; without one, all that there is. Archived activities are told with the deleted records alone."""
        names = tuple(each.name for each in self.fields)
        return Query(self.described.name, names, self.described.stamp, since, after, self.described.hears_deletes)


def read(api: Api, plan: Plan, cursor: Cursor | None, known: pa.Schema | None) -> Iterator[Batch]:
    """The object's news in batches."""
    now = api.now()
    at = _begin(plan, cursor, now)
    batches = Batches(types_of(plan.fields), known)
    if "job" in at:
        try:
            if at.get("columns") != plan.columns:
                raise bulk.JobFailed("its fields are not those of the object any more")
            yield from _by_job(api, plan, at, batches, now)
            return
        except (Missing, Refused, bulk.JobFailed) as error:
            _log.warning(
                "salesforce: the last run's bulk job for %s is of no use any more (%s); another starts", plan.described.name, error
            )
            at = {name: at[name] for name in ("asked", "modified", "again") if name in at}
    at = {"began": now.isoformat(), **at}
    query = plan.query(_since(plan, at), at.get("after", ""))
    if "after" not in at and _in_bulk(api, plan, query):
        try:
            at |= {"job": bulk.start_job(api, query), "columns": plan.columns}
        except NoBulk:
            if plan.mode == "bulk":
                raise
            if _is_long(query):
                raise _too_long(query) from None
        else:
            yield Batch(EMPTY, at)  # the next run goes on with the job
            yield from _by_job(api, plan, at, batches, now)
            return
    yield from batches.of(_by_rest(api, query, at))
    yield from _end(api, plan, at, batches, now, whole="after" not in at)


def _begin(plan: Plan, cursor: Cursor | None, now: dt.datetime) -> dict[str, Any]:
    """Where to go on: at the cursor, unless it is one of other fields, or from before what the recycle bin still knows."""
    at: dict[str, Any] = {"asked": plan.asked}
    if cursor is None:
        return at
    if not isinstance(cursor, dict) or cursor.get("asked") != plan.asked:
        return {**at, "again": True}
    hears = plan.described.hears_deletes or plan.described.logs_deletes
    if "modified" in cursor and hears and now - dt.datetime.fromisoformat(cursor["modified"]) > _BIN:
        _log.warning("salesforce: %s was pulled too long ago to know what was deleted; everything is read again", plan.described.name)
        return {**at, "again": True}
    return cursor


def _since(plan: Plan, at: dict[str, Any]) -> dt.datetime | None:
    """Transactions that took long show records with an old time: each pull reads a little further back than the last one came."""
    return dt.datetime.fromisoformat(at["modified"]) - plan.overlap if "modified" in at else None


def _end(api: Api, plan: Plan, at: dict[str, Any], batches: Batches, now: dt.datetime, *, whole: bool) -> Iterator[Batch]:
    """What was deleted past the bin, and the cursor at rest. What was read as a whole says what is not there any more."""
    since = _since(plan, at)
    if since is not None and plan.described.logs_deletes:
        yield from map(deletes_of, logged_deletions(api, plan.described, since, now, batches.gone))
    rest = {"asked": plan.asked, "modified": at["began"]} if plan.described.stamp else {"asked": plan.asked}
    yield Batch(EMPTY, rest, complete=(Span(),) if whole and since is None else ())


def _is_long(query: Query) -> bool:
    return len(quote(query.soql(sorted_by=query.stamp or "Id"), safe="")) > _LONGEST


def _too_long(query: Query) -> ConfigurationError:
    do = "name fewer `fields`, or set `mode: auto` where Bulk API 2.0 knows the object"
    return ConfigurationError(f"salesforce: {query.table} has more fields than one REST query can name", do=do)


def _in_bulk(api: Api, plan: Plan, query: Query) -> bool:
    long = _is_long(query)
    if plan.mode == "rest" and long:
        raise _too_long(query)
    if plan.mode != "auto" or long:
        return plan.mode == "bulk" or long
    try:
        return api.count(query.counting, every=query.every) > plan.bulk_from
    except TooSlow:
        return True


# ---- REST -------------------------------------------------------------------------------------------------------------


class _Answer(msgspec.Struct, frozen=True):
    records: list[msgspec.Raw]
    done: bool = True
    next: str = msgspec.field(default="", name="nextRecordsUrl")


def _by_rest(api: Api, query: Query, at: dict[str, Any]) -> Iterator[Records]:
    """Pages of a query in an order in which it can go on: the news by time, everything by id."""
    news = query.since is not None
    path, params = api.path("queryAll" if query.every else "query"), {"q": query.soql(sorted_by=query.stamp if news else "Id")}
    row: Any = msgspec.defstruct(
        "Row",
        [("id", str), ("deleted", bool, False), ("stamp", str | None, None)],
        rename={"id": "Id", "deleted": DELETED, "stamp": query.stamp or "none"},
    )
    while True:
        response = api.get(path, params)
        try:
            answer = msgspec.json.decode(response.content, type=_Answer)
            rows = [msgspec.json.decode(raw, type=row) for raw in answer.records]
        except (msgspec.DecodeError, ValueError):
            raise SourceError("the answer is none of a query", do="check instance_url and api_version", where=response.where) from None
        alive = [raw for raw, each in zip(answer.records, rows, strict=True) if not each.deleted]
        gone = [each.id for each in rows if each.deleted]
        yield Records(alive, gone, _place(at, rows, news=news) if rows else None)
        if answer.done or not answer.next:
            return
        if not answer.next.startswith("/services/data/"):
            raise SourceError(f"the next page lies elsewhere ({answer.next[:100]})", do="check instance_url", where=response.where)
        path, params = answer.next, {}


def _place(at: dict[str, Any], rows: Sequence[Any], *, news: bool) -> Cursor | None:
    if not news:
        return {**at, "after": rows[-1].id} if "again" not in at else None
    # A record that changes while the pages are read keeps its place among them and may show its new time: what lies before that
    # time has not been read. More records of the last time may follow, but the next pull reads a little further back anyway.
    began = dt.datetime.fromisoformat(at["began"])
    times = [dt.datetime.fromisoformat(row.stamp) for row in rows if row.stamp is not None]
    reached = max([dt.datetime.fromisoformat(at["modified"]), *(time for time in times if time <= began)])
    return {"asked": at["asked"], "modified": reached.isoformat()}


# ---- bulk -------------------------------------------------------------------------------------------------------------


def _by_job(api: Api, plan: Plan, at: dict[str, Any], batches: Batches, now: dt.datetime) -> Iterator[Batch]:
    """The result of the job that the cursor names, from its locator on. Raises Missing where the job or its result is gone."""
    job, locator = at["job"], at.get("locator", "")
    query = plan.query(_since(plan, at))
    bulk.wait_for(api, job, plan.bulk_seconds)
    size = max(_FEWEST_ROWS, min(_MOST_ROWS, _VALUES // len(query.fields)))
    pieces = bulk.results(api, job, query, locator, at, size)
    yield from batches.of(replace(piece, cursor=None) if "again" in at else piece for piece in pieces)
    yield from _end(api, plan, at, batches, now, whole=not locator)
    bulk.end_job(api, job)
