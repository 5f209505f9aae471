"""Incremental reading: the ids of records that were modified in a stretch of time, found by search.

A search gives at most 10,000 results, however it is paged, and thousands of records can have one modified date (an import, a workflow). So
no search is ever paged: each asks for the next ids in ascending order, behind the last one it got.
"""

import datetime as dt
import itertools
from collections.abc import Iterator
from typing import Any

import msgspec

from muxly_dagster.connectors.hubspot.api import Api, checked, parsed
from muxly_dagster.connectors.hubspot.properties import ID
from muxly_dagster.errors import SourceError

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_AT_ONCE = 200  # https://developers.hubspot.com/docs/api-reference/latest/crm/search-the-crm


class _Found(msgspec.Struct):
    id: str


class _Answer(msgspec.Struct):
    results: list[_Found]
    paging: Any = None


def modified_property(object_type: str) -> str:
    """The property that says when a record was last modified; for contacts, it has a name of its own."""
    return "lastmodifieddate" if object_type in ("contacts", "contact", "0-1") else "hs_lastmodifieddate"


def modified_ids(api: Api, object_type: str, start: dt.datetime, end: dt.datetime, after: str) -> Iterator[list[str]]:
    """The ids of records whose modified date lies in [start, end], in ascending order, behind the id `after` (empty: all)."""
    within = {
        "propertyName": modified_property(object_type),
        "operator": "BETWEEN",
        "value": str(_milliseconds(start)),
        "highValue": str(_milliseconds(end)),
    }
    last = after
    while True:
        behind = [{"propertyName": ID, "operator": "GT", "value": last}] if last else []
        body = {
            "filterGroups": [{"filters": [within, *behind]}],
            "sorts": [{"propertyName": ID, "direction": "ASCENDING"}],
            "properties": [ID],
            "limit": _AT_ONCE,
        }
        response = checked(api.http.request(api.reading("crm/objects", object_type, "search", json=body)))
        answer = parsed(response, _Answer)
        ids = [found.id for found in answer.results]
        if not ids and answer.paging:
            do = "run the pull again later: taken for the end, it would leave records out"
            raise SourceError("the search gives an empty page and says that there is more", do=do, where=response.where)
        if not ids:
            return
        if (last and int(ids[0]) <= int(last)) or any(int(a) >= int(b) for a, b in itertools.pairwise(ids)):
            do = "run the pull again; if it stays, report it: reading on would leave records out"
            raise SourceError("the search does not give records in the order of their ids", do=do, where=response.where)
        yield ids
        if not answer.paging:
            return
        last = ids[-1]


def _milliseconds(moment: dt.datetime) -> int:
    return (moment - _EPOCH) // dt.timedelta(milliseconds=1)
