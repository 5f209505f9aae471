"""Deletions that no query shows: records past the recycle bin, which Salesforce's log of deletions still names.

https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/dome_get_deleted.htm
"""

import datetime as dt
import logging
from collections.abc import Iterator, Set

import msgspec

from muxly_dagster.connectors.salesforce.api import Api
from muxly_dagster.connectors.salesforce.objects import DELETED, Described
from muxly_dagster.errors import ConfigurationError, SourceError

_log = logging.getLogger("muxly.salesforce")

_KEPT = dt.timedelta(days=14)  # the log goes back 15 days
_LEAST = dt.timedelta(minutes=2)  # seconds are ignored, and the two times have to be more than a minute apart
_LOOKED_FOR = 200  # ids of one query, which has to fit an address


class _Deletion(msgspec.Struct, frozen=True):
    id: str


class _Log(msgspec.Struct, frozen=True):
    deletions: list[_Deletion] = msgspec.field(default_factory=list, name="deletedRecords")


class _Id(msgspec.Struct, frozen=True):
    id: str = msgspec.field(name="Id")


class _Found(msgspec.Struct, frozen=True):
    records: list[_Id]


def logged_deletions(api: Api, described: Described, since: dt.datetime, now: dt.datetime, heard: Set[str]) -> Iterator[list[str]]:
    """The ids of records that were deleted since then and are not there any more, but for those in `heard`.

    The log does not say which of them were restored or created anew, so each is looked for. Where it cannot tell (it was purged, or
    holds more than 600,000 deletions), that is logged, and the deletions of queries are all there are.
    """
    start = min(max(since, now - _KEPT), now - _LEAST)
    path = api.path("sobjects", described.name, "deleted", "")
    try:
        answer = api.get(path, {"start": _minute(start), "end": _minute(now)})
        found = msgspec.json.decode(answer.content, type=_Log)
    except (SourceError, ConfigurationError, msgspec.DecodeError) as error:
        advice = "records deleted past the recycle bin are found by --from-start alone"
        _log.warning("salesforce: the log of deletions of %s cannot be read (%s); %s", described.name, error, advice)
        return
    names = sorted({each.id for each in found.deletions if each.id.isalnum()} - heard)
    for first in range(0, len(names), _LOOKED_FOR):
        some = names[first : first + _LOOKED_FOR]
        there = _there(api, described, some)
        gone = [name for name in some if name not in there]
        if gone:
            yield gone


def _there(api: Api, described: Described, names: list[str]) -> set[str]:
    """Those of these records that exist, archived ones too."""
    wanted = ",".join(f"'{name}'" for name in names)
    every = described.hears_deletes
    soql = f"SELECT Id FROM {described.name} WHERE Id IN ({wanted}){f' AND {DELETED} = false' if every else ''}"
    answer = api.get(api.path("queryAll" if every else "query"), {"q": soql})
    return {each.id for each in msgspec.json.decode(answer.content, type=_Found).records}


def _minute(time: dt.datetime) -> str:
    return time.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:00+00:00")
