"""Owners and pipelines: short lists that are read as a whole every time."""

from collections.abc import Iterator, Sequence

import pyarrow as pa

from muxly_dagster.connector import Batch, Unreadable
from muxly_dagster.connectors.hubspot.api import Api
from muxly_dagster.decoding import PageDecoder

_OWNERS_AT_ONCE = 500
_TIMES = {"createdAt": "timestamp", "updatedAt": "timestamp", "archivedAt": "timestamp"}


def read_owners(api: Api, known: pa.Schema | None, *, archived: bool) -> Iterator[Batch]:
    """The account's owners, with those that left it (`archived` true) where they are wanted."""
    decoder = PageDecoder("$.results", types={**_TIMES, "teams": "json"}, known=known, envelope=["$.paging.next.after"])
    for gone in (False, True) if archived else (False,):
        after = None
        while True:
            params = {"limit": _OWNERS_AT_ONCE, "archived": gone, "after": after}
            after = decoder.decode(api.get("crm/owners", params=params).content).envelope[0]
            if after is None:
                break
    yield _batch(decoder, {})


def read_pipelines(api: Api, object_types: Sequence[str], known: pa.Schema | None) -> Iterator[Batch]:
    """The pipelines of every object type, their stages as JSON."""
    for object_type in object_types:
        decoder = PageDecoder("$.results", types={**_TIMES, "stages": "json"}, known=known)
        decoder.decode(api.get("crm/pipelines", object_type).content)
        yield _batch(decoder, {"object_type": object_type})


def _batch(decoder: PageDecoder, more: dict[str, str]) -> Batch:
    rows, unread = decoder.flush()
    if len(rows):
        for name, value in more.items():
            rows = rows.append_column(pa.field(name, pa.string()), pa.array([value] * len(rows), pa.string()))
    return Batch(rows, unreadable=tuple(Unreadable(*u) for u in unread))
