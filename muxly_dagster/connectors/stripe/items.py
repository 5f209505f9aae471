"""Items of subscriptions: they come within their subscriptions, and so do the events that tell of them."""

from collections.abc import Iterator, Sequence

import msgspec

from muxly_dagster.connectors.stripe.api import Api, ListPage, Missing, id_of, read_as
from muxly_dagster.connectors.stripe.changes import Change, undecided

_PATH = "subscription_items"


class _Subscription(msgspec.Struct, frozen=True):
    id: str
    items: ListPage | None = None


class _Before(msgspec.Struct, frozen=True):
    items: ListPage | None = None


def items_of_list(api: Api, subscriptions: Sequence[msgspec.Raw]) -> list[msgspec.Raw | bytes]:
    """All items of these subscriptions."""
    found: list[msgspec.Raw | bytes] = []
    for raw in subscriptions:
        subscription = read_as(raw, _Subscription)
        if subscription.items is None or subscription.items.has_more:  # only the first few come with it
            found += _items(api, subscription.id)
        else:
            found += subscription.items.data
    return found


def items_of_changes(api: Api, changes: Sequence[Change], settled: set[str], version: str) -> tuple[list[msgspec.Raw | bytes], set[str]]:
    """The items of subscriptions that these events tell of first, and the ids of those that are gone.

    An item that any of the events knows, in its subscription or among what was changed, and that the subscription has no more, is gone.
    `settled` holds the ids of subscriptions and of items that newer events were about.
    """
    objects: list[msgspec.Raw | bytes] = []
    gone: set[str] = set()
    unclear = undecided(changes)
    for change in changes:
        subscription = read_as(change.data.object, _Subscription)
        if subscription.id not in settled:
            settled.add(subscription.id)
            inside = subscription.items
            whole = inside is not None and not inside.has_more and change.api_version == version and subscription.id not in unclear
            now = list(inside.data) if whole and inside is not None else _items(api, subscription.id)
            objects += now
            settled.update(map(id_of, now))
        gone.update(name for name in _told(change, subscription) if name not in settled)
    settled |= gone
    return objects, gone


def _items(api: Api, subscription: str) -> list[msgspec.Raw | bytes]:
    try:
        return [raw for page in api.pages(_PATH, {"subscription": subscription}) for raw in page.data]
    except Missing:
        return []


def _told(change: Change, subscription: _Subscription) -> Iterator[str]:
    before = change.data.previous_attributes
    earlier = read_as(before, _Before).items if bytes(before) not in (b"", b"null") else None
    for page in (subscription.items, earlier):
        if page is not None:
            yield from map(id_of, page.data)
