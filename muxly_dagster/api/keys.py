"""Keys that let services collect."""

import datetime as dt
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, Field

from muxly_dagster.api.collecting.known import check_scope
from muxly_dagster.api.collecting.rates import read_rate
from muxly_dagster.api.paging import After, Limit, Page, page_of
from muxly_dagster.api.problems import not_found
from muxly_dagster.api.service import service_of
from muxly_dagster.state.keys import WriteKey

router = APIRouter(tags=["Write keys"])


class KeyWanted(BaseModel, extra="forbid"):
    """A key to be made."""

    source: str = Field(examples=["app"], min_length=1, max_length=255, description="The source it opens: one with `connector: collector`.")
    streams: list[Annotated[str, Field(min_length=1, max_length=255)]] = Field(
        [], examples=[["signups"]], max_length=1000, description="The streams it opens; empty for all of the source."
    )
    name: str = Field("", examples=["website"], max_length=255, pattern=r"^[^\x00]*$", description="Who uses it, for people.")
    rate: str = Field("", examples=["100/second"], max_length=64, description="The most requests, by each API process; empty: no limit.")


class KeyShown(BaseModel):
    """A key as it is kept: its text was shown once, and only a hash of it is left."""

    id: str = Field(examples=["3f2a9c1d40b7"], description="How it is named, and the beginning of its text behind `mwk_`.")
    source: str = Field(examples=["app"])
    streams: list[str] = Field(examples=[["signups"]], description="Empty: all of the source.")
    name: str = Field(examples=["website"])
    rate: str = Field(examples=["100/second"])
    created_at: dt.datetime = Field(examples=["2026-11-27T09:30:00Z"])
    revoked_at: dt.datetime | None = Field(examples=[None], description="Since when it opens nothing any more.")


class KeyMade(KeyShown):
    """A key that was made. `key` is its text, shown now and never again."""

    key: str = Field(examples=["mwk_3f2a9c1d40b7_shown-once"])


@router.get("/v1/keys", operation_id="list_keys", summary="List write keys")
def list_keys(
    request: Request,
    source: Annotated[str, Query(max_length=255, description="Only those of this source.", examples=["app"])] = "",
    limit: Limit = 100,
    cursor: After = "",
) -> Page[KeyShown]:
    """All write keys, those that were revoked too, the oldest first."""
    keys = [_shown(key) for key in service_of(request).state.keys.all(source)]
    return page_of(keys, limit, cursor, lambda key: f"{key.created_at.isoformat()} {key.id}")


@router.post("/v1/keys", operation_id="create_key", summary="Make a write key", status_code=201)
def create_key(request: Request, wanted: KeyWanted) -> KeyMade:
    """A new key for a source. Keep its text: only a hash of it stays here."""
    service = service_of(request)
    check_scope(service.project.assembly, wanted.source, wanted.streams)
    if wanted.rate:
        read_rate(wanted.rate)
    key, text = service.state.keys.create(wanted.source, wanted.streams, wanted.name, wanted.rate)
    return KeyMade(**_shown(key).model_dump(), key=text)


@router.delete("/v1/keys/{id}", operation_id="revoke_key", summary="Revoke a write key")
def revoke_key(
    request: Request, id: Annotated[str, Path(max_length=64, description="The key's id.", examples=["3f2a9c1d40b7"])]
) -> KeyShown:
    """Let a key open nothing any more. Every API process knows of it within seconds."""
    key = service_of(request).state.keys.revoke(id)
    if key is None:
        raise not_found(f"there is no write key {id}", "list them with GET /v1/keys")
    return _shown(key)


def _shown(key: WriteKey) -> KeyShown:
    return KeyShown(
        id=key.id,
        source=key.source,
        streams=list(key.streams),
        name=key.name,
        rate=key.rate,
        created_at=key.created_at,
        revoked_at=key.revoked_at,
    )
