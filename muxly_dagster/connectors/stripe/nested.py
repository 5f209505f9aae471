"""Lists within objects: an object shows the first few of its lines, items or refunds, and the rest is asked for."""

import re
from collections.abc import Iterator, Sequence
from urllib.parse import parse_qsl, urlsplit

import msgspec

from muxly_dagster.connectors.stripe.api import Api, Missing, id_of, read_as

_MORE = re.compile(rb'"has_more"\s*:\s*true')


class _List(msgspec.Struct, frozen=True):
    data: list[msgspec.Raw] = []
    has_more: bool = False
    url: str = ""


def is_cut(raw: msgspec.Raw | bytes) -> bool:
    """Whether the object seems to hold a list that is not whole."""
    return _MORE.search(bytes(raw)) is not None


def completed(api: Api, objects: Sequence[msgspec.Raw | bytes]) -> list[msgspec.Raw | bytes]:
    """The objects with every list that is one of their own fields whole. All other text stays as it came."""
    return [_completed(api, raw) if is_cut(raw) else raw for raw in objects]


def _completed(api: Api, raw: msgspec.Raw | bytes) -> msgspec.Raw | bytes:
    fields = read_as(raw, dict[str, msgspec.Raw])
    for name, begun in _cut_lists(fields):
        address = urlsplit(begun.url)  # some lists are told from others by a query: /v1/subscription_items?subscription=...
        rows = list(begun.data)
        try:
            for page in api.pages(address.path.removeprefix("/v1/"), dict(parse_qsl(address.query)), id_of(rows[-1])):
                rows += page.data
        except Missing:
            return raw  # the object was deleted meanwhile, as its next event says
        whole = read_as(fields[name], dict[str, msgspec.Raw])
        whole |= {"data": msgspec.Raw(msgspec.json.encode(rows)), "has_more": msgspec.Raw(b"false")}
        fields[name] = msgspec.Raw(msgspec.json.encode(whole))
    return msgspec.json.encode(fields)


def _cut_lists(fields: dict[str, msgspec.Raw]) -> Iterator[tuple[str, _List]]:
    for name, value in list(fields.items()):
        if bytes(value).startswith(b"{") and is_cut(value):
            try:
                found = msgspec.json.decode(value, type=_List)
            except msgspec.DecodeError:  # an object with fields of these names, which is no list
                continue
            if found.has_more and found.data and found.url.startswith("/v1/"):
                yield name, found
