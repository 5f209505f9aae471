"""One pull of an object: everything the first time, then what was changed or deleted since.

The cursor is one of
    {"asked", "began", "after"}                         in the middle of the first query; `after` is the last id that is stored
    {"asked", "began", "modified", "job", "locator"}    in the middle of a bulk job, for the first query without `modified`
    {"asked", "modified"}                               at rest: what was changed before `modified` is stored
Times are ISO 8601 by Salesforce's clock.
"""

import datetime as dt
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import msgspec
import pyarrow as pa

from muxly_dagster.connector import Batch, Cursor, Span
from muxly_dagster.connectors.salesforce import bulk
from muxly_dagster.connectors.salesforce.api import Api, Missing, NoBulk, TooSlow
from muxly_dagster.connectors.salesforce.objects import DELETED, Described, Field, Query, types_of
from muxly_dagster.connectors.salesforce.rows import EMPTY, Batches, Records
from muxly_dagster.errors import ConfigurationError, SourceError

_log = logging.getLogger("muxly.salesforce")

_BIN = dt.timedelta(days=14)  # deleted records stay in the bin for 15 days
_LONGEST = 12_000  # characters of a query that still travel in an address
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

    def query(self, since: dt.datetime | None, after: str = "") -> Query:
        """What was changed since a time, deleted records too; without one, all that there is."""
        names = tuple(each.name for each in self.fields)
        return Query(self.described.name, names, self.described.stamp, since, after, since is not None and self.described.hears_deletes)


def read(api: Api, plan: Plan, cursor: Cursor | None, known: pa.Schema | None) -> Iterator[Batch]:
    """The object's news in batches."""
    at: dict[str, Any] = cursor if isinstance(cursor, dict) and cursor.get("asked") == plan.asked else {"asked": plan.asked}
    now = api.now()
    if "modified" in at and plan.described.hears_deletes and now - dt.datetime.fromisoformat(at["modified"]) > _BIN:
        _log.warning("salesforce: %s was pulled too long ago to know what was deleted; everything is read again", plan.described.name)
        at = {"asked": plan.asked}
    batches = Batches(types_of(plan.fields), known)
    if "job" in at:
        try:
            yield from _by_job(api, plan, at, batches)
            return
        except (Missing, bulk.JobFailed):
            _log.warning("salesforce: the last run's bulk job for %s is gone or failed; it starts anew", plan.described.name)
            at = {name: at[name] for name in ("asked", "modified") if name in at}
    at = {"began": now.isoformat(), **{name: value for name, value in at.items() if name != "job"}}
    query = plan.query(_since(plan, at), at.get("after", ""))
    if "after" not in at and _in_bulk(api, plan, query):
        try:
            at |= {"job": bulk.start_job(api, query)}
        except NoBulk:
            if plan.mode == "bulk":
                raise
        else:
            yield Batch(EMPTY, at)  # the next run goes on with the job (once the table is there: a cursor needs one)
            yield from _by_job(api, plan, at, batches)
            return
    yield from batches.of(_by_rest(api, query, at))
    yield _end(plan, at, whole="after" not in at)


def _since(plan: Plan, at: dict[str, Any]) -> dt.datetime | None:
    """Transactions that took long show records with an old time: each pull reads a little further back than the last one came."""
    return dt.datetime.fromisoformat(at["modified"]) - plan.overlap if "modified" in at else None


def _end(plan: Plan, at: dict[str, Any], *, whole: bool) -> Batch:
    """At rest. What was read as a whole says what is not there any more."""
    rest = {"asked": plan.asked, "modified": at["began"]} if plan.described.stamp else {"asked": plan.asked}
    return Batch(EMPTY, rest, complete=(Span(),) if whole and "modified" not in at else ())


def _in_bulk(api: Api, plan: Plan, query: Query) -> bool:
    long = len(query.soql()) > _LONGEST
    if plan.mode == "rest" and long:
        do = "name fewer `fields`, or set `mode: auto`"
        raise ConfigurationError(f"salesforce: {query.table} has more fields than one REST query can name", do=do)
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
        yield Records(alive, gone, _place(at, rows[-1], news=news) if rows else None)
        if answer.done or not answer.next:
            return
        if not answer.next.startswith("/services/data/"):
            raise SourceError(f"the next page lies elsewhere ({answer.next[:100]})", do="check instance_url", where=response.where)
        path, params = answer.next, {}


def _place(at: dict[str, Any], last: Any, *, news: bool) -> Cursor | None:
    if not news:
        return {**at, "after": last.id}
    if last.stamp is None:
        return None
    # More records of this time may follow, and the next pull reads a little further back anyway.
    reached = max(dt.datetime.fromisoformat(last.stamp), dt.datetime.fromisoformat(at["modified"]))
    return {"asked": at["asked"], "modified": reached.isoformat()}


# ---- bulk -------------------------------------------------------------------------------------------------------------


def _by_job(api: Api, plan: Plan, at: dict[str, Any], batches: Batches) -> Iterator[Batch]:
    """The result of the job that the cursor names, from its locator on. Raises Missing where the job or its result is gone."""
    job, locator = at["job"], at.get("locator", "")
    query = replace(plan.query(_since(plan, at)), after="")
    bulk.wait_for(api, job, plan.bulk_seconds)
    size = max(_FEWEST_ROWS, min(_MOST_ROWS, _VALUES // len(query.fields)))
    yield from batches.of(bulk.results(api, job, query, locator, at, size))
    yield _end(plan, at, whole=not locator)
    bulk.end_job(api, job)
