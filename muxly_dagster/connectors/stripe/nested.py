"""Lists within objects: an object shows the first few of its lines, items or refunds, and the rest is asked for."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

import msgspec

from muxly_dagster.connectors.stripe.api import Api, Missing, id_of, read_as

_MORE = re.compile(rb'"has_more"\s*:\s*true')


class _List(msgspec.Struct, frozen=True):
    data: list[msgspec.Raw] = []
    has_more: bool = False
    url: str = ""


@dataclass(frozen=True)
class _Gap:
    """A field that holds a list with more to come."""

    field: str
    list: _List


def is_cut(raw: msgspec.Raw | bytes) -> bool:
    """Whether the object seems to hold a list that is not whole."""
    return _MORE.search(bytes(raw)) is not None


def completed(api: Api, objects: Sequence[msgspec.Raw | bytes]) -> list[msgspec.Raw | bytes]:
    """The objects with every list that is one of their own fields whole. All other text stays as it came."""
    return [_completed(api, raw) if is_cut(raw) else raw for raw in objects]


def _completed(api: Api, raw: msgspec.Raw | bytes) -> msgspec.Raw | bytes:
    fields = read_as(raw, dict[str, msgspec.Raw])
    for gap in _gaps(fields):
        address = urlsplit(gap.list.url)
        rows = list(gap.list.data)
        try:
            for page in api.pages(address.path.removeprefix("/v1/"), dict(parse_qsl(address.query)), id_of(rows[-1])):
                rows += page.data
        except Missing:
            return raw  # the object was deleted meanwhile, as its next event says
        whole = read_as(fields[gap.field], dict[str, msgspec.Raw])
        whole |= {"data": msgspec.Raw(msgspec.json.encode(rows)), "has_more": msgspec.Raw(b"false")}
        fields[gap.field] = msgspec.Raw(msgspec.json.encode(whole))
    return msgspec.json.encode(fields)


def _gaps(fields: dict[str, msgspec.Raw]) -> Iterator[_Gap]:
    for name, value in list(fields.items()):
        if bytes(value).startswith(b"{") and is_cut(value):
            try:
                found = msgspec.json.decode(value, type=_List)
            except msgspec.DecodeError:  # an object with fields of these names, such as metadata
                continue
            if found.has_more and found.data and found.url.startswith("/v1/"):
                yield _Gap(name, found)
