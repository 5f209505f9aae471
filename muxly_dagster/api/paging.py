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
After = Annotated[str, Query(description="Where the page begins: `next` of the page before.", max_length=2000)]


class Page(BaseModel, Generic[Item]):
    """One page of a list. `next` is the cursor of the page behind it; empty on the last one."""

    items: list[Item]
    next: str = Field("", examples=["eyJhZnRlciI6MTAwfQ"])


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


def page_of(items: Sequence[Item], limit: int, cursor: str, place: Callable[[Item], str | int]) -> Page[Item]:
    """A page of a list that is at hand whole, sorted by `place`, which tells its items apart."""
    after = read_cursor(cursor)
    if after is not None and items and not isinstance(after, type(place(items[0]))):
        raise ApiError(400, "The cursor is of another list", do="use `next` of the page before as it stands, or leave it out")
    left = [item for item in items if after is None or place(item) > after]
    return Page(items=left[:limit], next=write_cursor(place(left[limit - 1])) if len(left) > limit else "")
