"""What a sender is told of the events that it posted."""

import functools
from collections.abc import Sequence
from typing import Any

import orjson
from pydantic import BaseModel, Field

from muxly_dagster.collecting import Gathered
from muxly_dagster.state.posts import Kept

MOST_ERRORS = 100
"""Reasons in one answer."""


class ItemError(BaseModel):
    """An item that was not taken, or that went to quarantine: its place in the request, from 0 (in NDJSON: its line), and why."""

    index: int = Field(examples=[2])
    reason: str = Field(examples=["is no JSON object"])


class CollectReceipt(BaseModel):
    """What became of a request's events, each of which is in one of the four counts. What was accepted is durable."""

    accepted: int = Field(examples=[98], description="Stored, and on their way into the lake.")
    duplicate: int = Field(examples=[1], description="Known by their ids: stored before, and not again.")
    rejected: int = Field(examples=[1], description="No events, or beyond a limit: not kept.")
    quarantined: int = Field(examples=[0], description="Against the stream's JSON Schema: kept as dead letters of its pull.")
    errors: list[ItemError] = Field(
        [], examples=[[{"index": 2, "reason": "is no JSON object"}]], description=f"Why, for the first {MOST_ERRORS}."
    )
    ids: list[str] | None = Field(
        None, examples=[["s-1", "s-2"]], description="With `ids=true`: the ids of the events that were accepted or known, in their order."
    )
    stored: bool | None = Field(None, examples=[True], description="With `wait=stored`: whether they are in the lake.")


def write(kept: Sequence[Kept], gathered: Sequence[Gathered], errors: Sequence[tuple[int, str]]) -> dict[str, Any]:
    """A receipt as plain values. `errors` are place and reason of what went to quarantine."""
    rejected = sum(len(each.rejected) for each in gathered)
    said: dict[str, Any] = {
        "accepted": sum(each.accepted for each in kept),
        "duplicate": sum(each.duplicate for each in kept),
        "rejected": rejected,
        "quarantined": sum(each.quarantined for each in kept),
    }
    if rejected or errors:
        said["errors"] = told([(each.index, each.reason) for part in gathered for each in part.rejected] + list(errors))
    return said


@functools.lru_cache(1000)
def ordinary(accepted: int, duplicate: int) -> bytes:
    """The receipt of a request that holds nothing but events, as it is sent."""
    return to_json(write([Kept(accepted, duplicate)], (), ()))


def told(errors: Sequence[tuple[int, str]]) -> list[dict[str, Any]]:
    """The first of these reasons."""
    return [{"index": index, "reason": reason} for index, reason in sorted(errors)[:MOST_ERRORS]]


def to_json(said: dict[str, Any]) -> bytes:
    """The receipt as it is sent and kept."""
    return orjson.dumps(said)
