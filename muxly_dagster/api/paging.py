"""Lists a page at a time: `?limit=` and the opaque `?cursor=` that the page before gave as `next`."""

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Generic, TypeVar

import orjson
from fastapi import Query
from pydantic import BaseModel, Field

from muxly_dagster.api.problems import ApiError

Item = TypeVar("Item")

Limit = Annotated[int, Query(ge=1, le=1000, description="The most items of one page.", examples=[100])]
After = Annotated[
    str, Query(description="Where the page begins: `next` of the page before.", max_length=4000, examples=["ImNybS5jb250YWN0cyI"])
]


class Page(BaseModel, Generic[Item]):
    """One page of a list. `next` is the cursor of the page behind it; empty on the last one."""

    items: list[Item] = Field(description="The items of this page.")
    next: str = Field("", description="The cursor of the page behind it.", examples=["ImNybS5jb250YWN0cyI"])


def write_cursor(place: Any) -> str:
    """A place in a list, any JSON value, as text for an address."""
    return base64.urlsafe_b64encode(orjson.dumps(place)).rstrip(b"=").decode()


def read_cursor(text: str) -> Any:
    """The place that `write_cursor` wrote; None for no text. Raises ApiError (400) for anything else."""
    if not text:
        return None
    try:
        return orjson.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (binascii.Error, ValueError):
        raise ApiError(400, "The cursor is not one", do="use `next` of the page before as it stands, or leave it out") from None


def place_cursor(kind: str, *place: str | int) -> str:
    """A place in one kind of list, told apart from places in others."""
    return write_cursor([kind, *place])


def place_of(cursor: str, kind: str, *types: type[str] | type[int]) -> list[Any] | None:
    """The place that `place_cursor` wrote for this kind of list; None for no text. Raises ApiError (400) for any other."""
    place = read_cursor(cursor)
    if place is None:
        return None
    fits = isinstance(place, list) and len(place) == len(types) + 1 and place[0] == kind
    if not fits or not all(type(part) is type_ for part, type_ in zip(place[1:], types, strict=True)):
        raise _of_another_list()
    return list(place[1:])


def page_of(items: Sequence[Item], limit: int, cursor: str, place: Callable[[Item], str | int]) -> Page[Item]:
    """A page of a list that is at hand whole, sorted by `place`, which tells its items apart."""
    after = read_cursor(cursor)
    if after is not None and items and not isinstance(after, type(place(items[0]))):
        raise _of_another_list()
    left = [item for item in items if after is None or place(item) > after]
    return Page(items=left[:limit], next=write_cursor(place(left[limit - 1])) if len(left) > limit else "")


def _of_another_list() -> ApiError:
    return ApiError(400, "The cursor is of another list", do="use `next` of the page before as it stands, or leave it out")
