"""Many small segments become a large one, so that there are few to look into; and what is left of old ones is swept away."""

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager

import sqlalchemy as sa

from muxly_dagster.errors import BusyError
from muxly_dagster.state import tables
from muxly_dagster.state.marks import segments
from muxly_dagster.state.marks.segments import Segment
from muxly_dagster.state.marks.turn import take_turn
from muxly_dagster.state.reading import reading

Lock = Callable[[str], AbstractContextManager[None]]
"""Holds a name alone among all processes. Raises BusyError where another one has it."""

TOGETHER = 8
"""Segments of about the same size are merged once there are so many."""

_GROWING = (1_000_000, 8_000_000, 64_000_000)  # marks of a segment: about the same size are those between two of these. Larger ones stay
_SPAN = 2 * 24 * 3600  # seconds that all marks of a merged segment lie within: it is forgotten with the newest of them
_STEP = 65_536  # marks that are merged at a time
_SWEPT = 1024  # buckets that are deleted at a time

_segments, _buckets = tables.inbox_segments, tables.inbox_buckets


def merging(engine: sa.Engine, lock: Lock) -> Generator[None]:
    """Merge while there is something to merge, unless another process does; step by step.

    The old segments count until the new one is whole. Whoever is killed before leaves an unfinished one behind, which the next one removes.
    """
    if not _due(engine):
        return
    try:
        with lock("inbox-marks"):
            with engine.begin() as connection:
                left = connection.execute(sa.delete(_segments).where(_segments.c.count == 0)).rowcount
            if left:
                yield from sweeping(engine)
            while due := _due(engine):
                yield from _merge(engine, due)
                yield from sweeping(engine)
    except BusyError:
        return


def sweeping(engine: sa.Engine) -> Generator[None]:
    """Delete the buckets of segments that are none any more, step by step."""
    place: int | None = 0
    while place is not None:
        with reading(engine) as connection:
            place = connection.scalar(sa.select(sa.func.min(_buckets.c.place)).where(_buckets.c.place >= place))
            is_left = place is not None and connection.scalar(segments.row_of(segments.number_at(place))) is None
        if place is None:
            return
        if is_left:
            upto = min(place + _SWEPT, segments.behind(place))
            with engine.begin() as connection:
                # Asked again: a segment and its buckets may have come since the look.
                span = sa.and_(_buckets.c.place >= place, _buckets.c.place < upto)
                connection.execute(sa.delete(_buckets).where(span, ~sa.exists(segments.row_of(segments.number_at(place)))))
            yield
        else:
            place = segments.behind(place)


def _due(engine: sa.Engine) -> Sequence[Segment]:
    with reading(engine) as connection:
        there = segments.whole(connection)
    lowest = 0
    for limit in _GROWING:
        alike = sorted((segment for segment in there if lowest <= segment.count < limit), key=lambda segment: segment.since)
        for at, first in enumerate(alike):
            near = [segment for segment in alike[at:] if segment.at <= first.since + _SPAN]
            if len(near) >= TOGETHER:
                return near
        lowest = limit
    return ()


def _merge(engine: sa.Engine, olds: Sequence[Segment]) -> Generator[None]:
    with engine.begin() as connection:
        since, at = min(old.since for old in olds), max(old.at for old in olds)
        new = segments.begin(connection, since, at, sum(old.count for old in olds), [old.number for old in olds])
    parts = segments.parts(new, _STEP)
    for part in range(parts):
        with reading(engine) as connection:
            marks = segments.read(connection, [old.span(part, parts) for old in olds])
        with engine.begin() as connection:
            segments.write(connection, new, segments.only(marks, part, parts))
        yield
    with engine.begin() as connection:
        take_turn(connection)
        segments.finish(connection, new)
