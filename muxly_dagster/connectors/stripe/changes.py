"""Events as they tell of changes: which of an object's events is the newest one, and where that cannot be known."""

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from muxly_dagster.connectors.stripe.api import ListPage, id_of, read_as


class Changed(msgspec.Struct, frozen=True):
    """What an event tells: the object as it was then, and what its changed fields held before."""

    object: msgspec.Raw
    previous_attributes: msgspec.Raw = msgspec.Raw()


class Change(msgspec.Struct, frozen=True):
    """An event, as far as reading changes goes. `created` is in seconds since 1970."""

    id: str
    type: str
    created: int
    data: Changed
    api_version: str | None = None


def in_whole_seconds(pages: Iterable[ListPage]) -> Iterator[list[Change]]:
    """The events of pages, newest first, in portions that never part the events of one second."""
    held: list[Change] = []
    for page in pages:
        held += [read_as(raw, Change) for raw in page.data]
        last = held[-1].created if held else 0
        ready, held = [each for each in held if each.created > last], [each for each in held if each.created <= last]
        if ready:
            yield ready
    if held:
        yield held


def undecided(changes: Sequence[Change], gone: Sequence[str] = ()) -> set[str]:
    """The ids of objects whose newest events are of one second and differ: Stripe does not say which of them came last.

    `gone` are the types of events that tell of a deletion.
    """
    newest: dict[str, Change] = {}
    found: set[str] = set()
    for change in changes:
        name = id_of(change.data.object)
        other = newest.setdefault(name, change)
        if other is change or other.created != change.created:
            continue
        if bytes(other.data.object) != bytes(change.data.object) or (other.type in gone) != (change.type in gone):
            found.add(name)
    return found
