"""One pull of an object type: everything the first time, then what was modified, then what was archived.

The cursor is one of
    {"asked", "since", "after"}                    in the middle of the first list; `after` is its token
    {"asked", "modified", "until", "id", "swept"}  in the middle of a stretch of time that ends at `until`; ids up to `id` are stored
    {"asked", "modified", "swept"}                 at rest: everything modified until `modified` is stored, `swept` is the last sweep
"""

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from muxly_dagster.connector import Batch, Cursor, Span
from muxly_dagster.connectors.hubspot.api import Api
from muxly_dagster.connectors.hubspot.objects import Records, Wanted, fingerprint, knows, listed_ids
from muxly_dagster.connectors.hubspot.search import modified_ids

_SWEPT_AT_ONCE = 5_000


@dataclass(frozen=True)
class Plan:
    """How a pull reads. `now` is HubSpot's own time; `lag` how long its search takes to know of a change, `every` the time between sweeps
    of the archive (None: no sweeps)."""

    wanted: Wanted
    asked: tuple[tuple[str, ...], ...]
    now: dt.datetime
    lag: dt.timedelta
    every: dt.timedelta | None


def read(api: Api, plan: Plan, cursor: Cursor | None, known: pa.Schema | None) -> Iterator[Batch]:
    """The object type's news in batches."""
    asked = fingerprint(*plan.asked)
    at: dict[str, Any] = cursor if isinstance(cursor, dict) and cursor.get("asked") == asked else {"asked": asked}
    records = Records(api, plan.wanted, known)
    if "modified" not in at:
        if "after" in at and not knows(api, plan.wanted.object_type, at["after"]):
            at = {"asked": asked}
        whole = "after" not in at
        at = {"since": (plan.now - plan.lag).isoformat(), **at}
        yield from records.batches(_listing(api, records, plan, at))
        at = {"asked": asked, "modified": at["since"]}
        # Only a list that was read in one go says what is not there any more.
        yield Batch(pa.table({}), at, complete=(Span(),) if whole else ())
    while (until := _until(plan, at)) is not None:
        at = {**at, "until": until.isoformat()}
        yield from records.batches(_news(api, records, plan, at, until))
        at = {"asked": asked, "modified": at["until"], **_kept(at)}
        yield Batch(pa.table({}), at)
    if plan.every is not None and ("swept" not in at or dt.datetime.fromisoformat(at["swept"]) + plan.every <= plan.now):
        yield from _sweep(api, plan.wanted.object_type)
        yield Batch(pa.table({}), {**at, "swept": plan.now.isoformat()})


def _until(plan: Plan, at: dict[str, Any]) -> dt.datetime | None:
    """The end of the next stretch of time: of one that broke off, else what the search knows by now; None: there is nothing new to know."""
    if "until" in at:
        return dt.datetime.fromisoformat(at["until"])
    until = plan.now - plan.lag
    return until if until > dt.datetime.fromisoformat(at["modified"]) else None


def _kept(at: dict[str, Any]) -> dict[str, Any]:
    return {"swept": at["swept"]} if "swept" in at else {}


def _listing(api: Api, records: Records, plan: Plan, at: dict[str, Any]) -> Iterator[Cursor | None]:
    after = at.get("after")
    tokens = records.listed(after) if plan.wanted.by_list else records.by_id(listed_ids(api, plan.wanted.object_type, after))
    for token in tokens:
        yield None if token is None else {**at, "after": token}


def _news(api: Api, records: Records, plan: Plan, at: dict[str, Any], until: dt.datetime) -> Iterator[Cursor | None]:
    start = dt.datetime.fromisoformat(at["modified"])
    found = modified_ids(api, plan.wanted.object_type, start, until, at.get("id", ""))
    for last in records.by_id((ids, ids[-1]) for ids in found):
        yield None if last is None else {**at, "id": last}


def _sweep(api: Api, object_type: str) -> Iterator[Batch]:
    """Deletes for all archived records: search does not know them, and no list gives only the latest."""
    ids: list[str] = []
    for page, _ in listed_ids(api, object_type, None, archived=True):
        ids += page
        if len(ids) >= _SWEPT_AT_ONCE:
            yield _deletes(ids)
            ids = []
    if ids:
        yield _deletes(ids)


def _deletes(ids: list[str]) -> Batch:
    return Batch(pa.table({}), deletes=pa.table({"id": pa.array(ids, pa.string())}))
