"""Ways to come to the next page."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from muxly_dagster.manifest.schema.base import JsonPath, Model, Place, Size
from muxly_dagster.manifest.schema.requests import RequestSpec


class NoPaging(Model):
    """Everything comes in one answer."""

    kind: Literal["none"] = "none"


class CursorPaging(Model):
    """Each answer names the next page; no name, or `more` false, ends it."""

    kind: Literal["cursor"]
    next: JsonPath
    into: Place | None = Field(None, description="Where the next request says it; or `then` names it.")
    then: RequestSpec | None = Field(None, description="The request for the next pages, where it is another one; it names ${page}.")
    size: Size | None = None
    more: JsonPath | None = Field(None, description="Where an answer says whether there is more.")

    @model_validator(mode="after")
    def _has_a_place(self) -> Self:
        if self.into is None and self.then is None:
            raise ValueError("the next request does not say which page it wants; add `into`, or `then` with a request that names ${page}")
        return self


class OffsetPaging(Model):
    """Each request says how many records to leave out. Without `size` the pages are asked for one by one."""

    kind: Literal["offset"]
    into: Place
    size: Size | None = None
    total: JsonPath | None = Field(None, description="Where the answer says how many records there are.")


class PageNumberPaging(Model):
    """Each request names a page's number. Without `size` the pages are asked for one by one, up to an empty one."""

    kind: Literal["page"]
    into: Place
    first: int = 1
    size: Size | None = None
    total: JsonPath | None = Field(None, description="Where the answer says how many records there are.")


class LinkPaging(Model):
    """Each answer holds the next page's address: in its Link header (RFC 8288), or at `next` in the body."""

    kind: Literal["link"]
    next: JsonPath | None = None
    size: Size | None = None


class KeysetPaging(Model):
    """Each request asks for what lies behind the last record by a field that the answers are sorted by. Ends with a page that is not full.

    Not bound by an API's cap on results, and records that come or go meanwhile are not passed over.
    """

    kind: Literal["keyset"]
    by: str = Field(description="The record's field.")
    into: Place | Literal["keyset"] = Field("keyset", description="Where the request says it; `keyset`: it names ${keyset} itself.")
    start: Any = Field(None, description="The value before the first record, where the API needs one.")
    size: Size
    sorted: bool = Field(False, description="The API sorts by this field without being asked.")


Paging = Annotated[NoPaging | CursorPaging | OffsetPaging | PageNumberPaging | LinkPaging | KeysetPaging, Field(discriminator="kind")]
