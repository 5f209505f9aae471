"""Ways to find what is new, and what was deleted."""

import datetime as dt
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from muxly_dagster.manifest.schema.base import Condition, Duration, JsonPath, Model
from muxly_dagster.manifest.schema.paging import NoPaging, Paging
from muxly_dagster.manifest.schema.requests import RequestSpec


class FullSync(Model):
    """Everything is read every time."""

    kind: Literal["full"] = "full"


class CursorSync(Model):
    """What came since the last pull is read, by a field that grows."""

    kind: Literal["cursor"]
    field: str = Field(description="The record's field, `object.field` within a flattened object.")
    start: str | int | float | dt.datetime | dt.date | None = Field(None, description="Where the first pull begins.")
    lag: Duration | None = Field(None, description="Leave out the newest records for so long: they may not be complete yet.")
    lookback: Duration | None = Field(None, description="Read so much again each time: records that came late.")
    window: Duration | None = Field(None, description="Ask for slices of this length, one after another.")
    ascending: bool = Field(False, description="The API answers in the order of the field, so that a pull can go on where it broke off.")


class MarkedDeletes(Model):
    """Deleted records come among the others, marked by a column."""

    column: str = Field(description="The column that marks a deleted record.")
    equals: Any = Field(None, description="Its value there; without this, any value but null and false.")
    below: str = Field("", description="A separator: with a record goes everything whose key begins with its key and this (a folder).")
    leaf: Any = Field(None, description="The column's value on records that can hold nothing below them (a file): what lay there is gone.")


def _form(value: Any) -> str:
    """Which of the ways to write it this is, so that a mistake is told of that one alone."""
    return "none" if value is None else "text" if isinstance(value, str) else "mapping"


class Seed(Model):
    """Where the first token of changes comes from, asked for before the full pull."""

    request: RequestSpec
    token: JsonPath


class DeltaSync(Model):
    """The API remembers what changed since a token. The first pull is a full one, with the token taken before it began."""

    kind: Literal["delta"]
    seed: Annotated[Annotated[str, Tag("text")] | Annotated[Seed, Tag("mapping")], Discriminator(_form)] = Field(
        description="`check:$.PATH`: in the answer to `check`; `pages`: the full pull's pages carry it at `token`; or an own request."
    )
    token: JsonPath = Field(description="Where an answer names the next token; the last page's counts.")
    request: RequestSpec = Field(description="Asks for the changes since ${token}.")
    paging: Paging = NoPaging()
    records: JsonPath | None = Field(None, description="The changed records in these answers; as in the stream unless told otherwise.")
    deletes: Annotated[
        Annotated[JsonPath, Tag("text")] | Annotated[MarkedDeletes, Tag("mapping")] | Annotated[None, Tag("none")], Discriminator(_form)
    ] = Field(None, description="The keys of deleted records beside them, or the mark they carry.")
    expired: list[int | Condition] = Field([], description="Statuses or conditions that say the token is too old: a full pull follows.")


Sync = Annotated[FullSync | CursorSync | DeltaSync, Field(discriminator="kind")]


class ListedDeletes(Model):
    """Deleted records have a list of their own, read after the others. Its request may name ${cursor} and the window of a cursor sync."""

    request: RequestSpec
    records: JsonPath = "$"
    records_optional: bool = Field(False, description="The API leaves the list out when it is empty.")
    key: list[JsonPath] = Field(min_length=1, description="Where a deleted record names the key columns, in their order.")
    paging: Paging = NoPaging()


def _deletes(value: Any) -> str:
    return "listed" if isinstance(value, ListedDeletes) or (isinstance(value, dict) and "request" in value) else "marked"


Deletes = Annotated[Annotated[MarkedDeletes, Tag("marked")] | Annotated[ListedDeletes, Tag("listed")], Discriminator(_deletes)]
