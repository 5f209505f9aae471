"""Who may start when: the arithmetic of rate budgets that several processes hold together. Values in, values out, no clock of its own.

Times are seconds of one clock that all processes share. What was reserved is a list of turns; a budget is its list and its limit.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from muxly_dagster.services import Rate

STRETCH = 0.25
"""Seconds for which starts are reserved at a time, so that the database is asked a few times a second and not for every request."""

LATE = 0.05
"""Least seconds in which reserved starts can be made: a thread that wakes up a little late should still find its turn."""

CATCH_UP = 0.02
"""Seconds a late reservation of evenly spaced starts may be made up for, as in `http.limits`."""

HORIZON = 10.0
"""Seconds ahead for which starts are reserved, first come, first served. Whoever would have to wait longer asks again then."""

_MANY = 200
_GATHER = 0.02
"""Part of a window by which a reservation may be later to be of more starts; at most LATE seconds."""


class Turn(NamedTuple):
    """So many starts, reserved from `begins` to `ends`."""

    id: str
    begins: float
    ends: float
    starts: int


class Plan(NamedTuple):
    """What a reservation gets: starts from `begins` to `ends`, `spacing` apart; none says to ask again at `begins`."""

    starts: int
    begins: float
    ends: float
    spacing: float


def plan(budgets: Sequence[tuple[Rate, Sequence[Turn]]], wanted: int, now: float, paused_until: float = 0.0) -> Plan:
    """The earliest reservation of up to `wanted` starts that keeps every budget."""
    spacing = max((rate.spacing for rate, _ in budgets), default=0.0)
    least = 1
    if spacing:
        least = math.ceil(LATE / spacing)
        wanted = min(max(wanted, least), max(1, int(STRETCH / spacing)))
    for rate, _ in budgets:
        if rate.requests:
            wanted = min(wanted, rate.requests)
    begins = max(now - CATCH_UP if spacing else now, paused_until)
    count, settled = wanted, False
    while not settled:
        settled = True
        for rate, turns in budgets:
            if rate.spacing:
                found = _gap(turns, begins, max(count * spacing, LATE))
                settled = settled and found == begins
                begins = found
            if rate.requests:
                found, room = _room(rate, turns, begins, count)
                settled = settled and found == begins and room == count
                begins, count = found, room
    if begins > now + HORIZON:
        return Plan(0, now + HORIZON, now + HORIZON, spacing)
    return Plan(count, begins, begins + (max(count * spacing, LATE) if spacing else STRETCH), spacing)


def reserved(rate: Rate, turns: Sequence[Turn], id: str, plan: Plan) -> list[Turn]:
    """The budget's turns with the reservation among them."""
    if rate.spacing and rate.spacing < plan.spacing:
        # Evenly spaced by another budget's larger step: between two of its starts this budget is free for others.
        steps = [plan.begins + number * plan.spacing for number in range(plan.starts)]
        added = [Turn(id, step, step + rate.spacing, 1) for step in steps]
    else:
        added = [Turn(id, plan.begins, plan.ends, plan.starts)]
    return sorted([*turns, *added], key=lambda turn: turn.ends)


def settled(rate: Rate, turns: Sequence[Turn], id: str, count: int, last: float) -> list[Turn]:
    """The turns, where of one reservation only `count` starts were made, the last of them at `last`."""
    kept: list[Turn] = []
    for turn in turns:
        if turn.id != id:
            kept.append(turn)
        elif count > 0:
            mine = min(turn.starts, count)
            count -= mine
            kept.append(Turn("", turn.begins, max(turn.begins, min(turn.ends, last + rate.spacing)), mine))
    return sorted(kept, key=lambda turn: turn.ends)


def current(turns: Iterable[Turn], window: float, now: float) -> list[Turn]:
    """The turns that still count; those of a clock that was ahead do not.

    Very many past ones are put together, as if they had been made later rather than earlier.
    """
    kept = [turn for turn in turns if turn.ends > now - window - CATCH_UP and turn.begins <= now + 2 * HORIZON]
    past = [turn for turn in kept if turn.ends <= now]
    if len(past) <= _MANY:
        return kept
    pairs = [(past[i], past[i + 1]) for i in range(0, len(past) - 1, 2)]
    joined = [Turn("", a.begins, b.ends, a.starts + b.starts) for a, b in pairs]
    return [*joined, *past[2 * len(pairs) :], *kept[len(past) :]]


def _gap(turns: Sequence[Turn], begins: float, length: float) -> float:
    """The first moment from `begins` on that is followed by so many seconds that belong to nobody."""
    for turn in sorted(turns, key=lambda turn: turn.begins):
        if begins + length > turn.begins + 1e-9 and begins < turn.ends:
            begins = turn.ends
    return begins


def _room(rate: Rate, turns: Sequence[Turn], begins: float, wanted: int) -> tuple[float, int]:
    """The first moment from `begins` on at which the window has room, and for how many of the wanted starts."""
    counted = [turn for turn in turns if turn.ends > begins - rate.window]
    left = rate.requests - sum(turn.starts for turn in counted)
    gather = begins
    for turn in sorted(counted, key=lambda turn: turn.ends):
        frees = turn.ends + rate.window
        if left >= wanted or (left >= 1 and frees > gather):
            break
        if left < 1:
            begins = frees
            gather = frees + min(LATE, _GATHER * rate.window)
        else:
            begins = frees
        left += turn.starts
    return begins, min(wanted, max(1, left))


@dataclass(frozen=True, slots=True)
class Places:
    """What one holder has of the places for requests under way. `since` is when it got or began to wait for them, `until` its lease."""

    count: int
    wants: int
    since: float
    until: float


def share(
    held: Mapping[str, Places], me: str, running: int, wanted: int, most: int, now: float, lease: float
) -> tuple[int, dict[str, Places]]:
    """How many of `most` places this holder may fill, and what is held then.

    Holders that want more than their equal part give places back to those who have less than theirs; where there are more holders
    than places, they take turns of four STRETCHes.
    """
    # A lease that ends later than any can was given by a clock that was ahead: whoever still lives asks again in a moment.
    others = {name: places for name, places in held.items() if name != me and now < places.until <= now + 2 * lease}
    mine = held.get(me) or Places(0, wanted, now, now)
    if wanted < 1 and running < 1:
        return 0, others
    free = most - sum(places.count for places in others.values())
    equal = max(1, most // (len(others) + 1))
    hungry = [places for places in others.values() if places.count < min(places.wants, equal)]
    may = min(wanted, free, equal) if hungry else min(wanted, free)
    waiting = [places for places in hungry if places.count == 0]
    if mine.count == 0:
        may = min(may, free - sum(places.since < mine.since for places in waiting))
    elif waiting and len(others) + 1 > most and now - mine.since > 4 * STRETCH:
        may = 0
    may = max(0, may)
    count = max(running, may)
    since = mine.since if (mine.count > 0) == (count > 0) and me in held else now
    return may, {**others, me: Places(count, min(wanted, most), since, now + lease)}
