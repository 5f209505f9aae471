"""Associations: which other records a record belongs to, and by what labels."""

from collections.abc import Iterator, Sequence

import msgspec
import orjson
import pyarrow as pa

from muxly_dagster.connectors.hubspot.api import Api, in_chunks, parsed, whole
from muxly_dagster.http import Request, Response
from muxly_dagster.records import JSON_FIELD

_AT_ONCE = 1000  # https://developers.hubspot.com/docs/api-reference/latest/crm/associations/associate-records/guide
_IN_FLIGHT = 4


class _From(msgspec.Struct):
    id: str | int


class _Kind(msgspec.Struct):
    label: str | None = None


class _To(msgspec.Struct, rename="camel"):
    to_object_id: str | int
    association_types: list[_Kind] = []


class _Next(msgspec.Struct):
    after: str


class _Paging(msgspec.Struct):
    next: _Next | None = None


class _Result(msgspec.Struct, rename={"source": "from"}):
    source: _From
    to: list[_To] = []
    paging: _Paging | None = None


class _Answer(msgspec.Struct):
    results: list[_Result] = []


def association_field(to_type: str) -> pa.Field:
    """The column for associations with an object type: JSON text `[{"id": ..., "labels": [...]}]`, in the order of the ids."""
    return pa.field(f"associations_{to_type}", pa.string(), metadata=JSON_FIELD)


def associated(api: Api, from_type: str, to_types: Sequence[str], ids: Sequence[str]) -> list[pa.Array]:
    """For every object type, the associations of the records with these ids."""
    found: dict[str, dict[str, dict[str, list[str]]]] = {to_type: {} for to_type in to_types}
    requests = [_request(api, from_type, to_type, [{"id": i} for i in chunk]) for to_type in to_types for chunk in in_chunks(ids, _AT_ONCE)]
    while requests:
        more: list[Request] = []
        for response in api.each(requests, _IN_FLIGHT):
            to_type = response.request.tag
            rest = [{"id": i, "after": after} for i, after in _take(response, found[to_type])]
            more += [_request(api, from_type, to_type, rest[n : n + _AT_ONCE]) for n in range(0, len(rest), _AT_ONCE)]
        requests = more
    return [pa.array([_text(found[to_type].get(i, {})) for i in ids], pa.string()) for to_type in to_types]


def _request(api: Api, from_type: str, to_type: str, inputs: list[dict[str, str]]) -> Request:
    return api.reading("crm/associations", from_type, to_type, "batch", "read", json={"inputs": inputs}, tag=to_type)


def _take(response: Response, found: dict[str, dict[str, list[str]]]) -> Iterator[tuple[str, str]]:
    """Note what an answer says; what remains are ids of records that have more, with the place to go on."""
    whole(response, "the associations of some records", "run the pull again; if it stays, leave out `associations`")
    for result in parsed(response, _Answer).results:
        mine = found.setdefault(str(result.source.id), {})
        for to in result.to:
            mine.setdefault(str(to.to_object_id), []).extend(kind.label for kind in to.association_types if kind.label)
        if result.paging and result.paging.next:
            yield str(result.source.id), result.paging.next.after


def _text(others: dict[str, list[str]]) -> str:
    # In a fixed order, so that the same associations never look like a change.
    ordered = sorted(others.items(), key=lambda item: (len(item[0]), item[0]))
    return orjson.dumps([{"id": i, "labels": sorted(set(labels))} for i, labels in ordered]).decode()
