"""Places side by side: the first request of each is sent while those before it are being read."""

from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import TypeVar, cast

from muxly_dagster.http import Http, Request, Response
from muxly_dagster.manifest.reading.places import Place

T = TypeVar("T")


def side_by_side(
    http: Http, found: Iterator[Place], begin: Callable[[Place], tuple[T, Request | None]], in_flight: int
) -> Iterator[tuple[T, Response | None]]:
    """What `begin` makes of each place, in their order, with the answer to the request that it says; None where it says none.

    Up to `in_flight` places are begun before they are read. What finding, beginning or asking raises is raised at its place, behind all
    that came before: what was read until then counts. Most places take one request, so that this is what makes them fast; what
    a place needs besides is asked for when it is read.
    """
    if in_flight < 2:
        for place in found:
            yield begin(place)[0], None
        return
    begun: deque[tuple[T, bool]] = deque()

    def requests() -> Iterator[Request]:
        for place in found:
            made, request = begin(place)
            begun.append((made, request is not None))
            if request is not None:
                yield request

    with closing(cast(Generator[Response, None, None], http.each(requests(), in_flight))) as responses:
        for response in responses:
            while not begun[0][1]:
                yield begun.popleft()[0], None
            yield begun.popleft()[0], response
    while begun:
        yield begun.popleft()[0], None
