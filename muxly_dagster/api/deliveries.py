"""Where each delivery stands, and the receipts of what it delivered."""

import datetime as dt
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from pydantic import Field

from muxly_dagster.api.answers import Read, unknown
from muxly_dagster.api.destinations import Breaker
from muxly_dagster.api.paging import After, Limit, Page, page_of, place_cursor, place_of
from muxly_dagster.api.service import service_of
from muxly_dagster.assembly import Assembly

router = APIRouter(tags=["Deliveries"])

DeliveryName = Annotated[str, Path(description="A delivery: `route.destination`.", examples=["big_deals.warehouse"], max_length=512)]


class Wait(Read):
    """What a delivery waits for."""

    target: str = Field(description="The delivery.", examples=["big_deals.warehouse"])
    until: dt.datetime = Field(description="The moment that it waits for.", examples=["2026-03-01T06:05:00Z"])
    why: str = Field(description="What for.", examples=["connection refused"])
    failures: int = Field(description="Failures in a row; 0 where it waits for another reason.", examples=[2])


class Receipt(Read):
    """What became of the changes with seq in (after, upto]; read = accepted + refused + unrouted."""

    id: str = Field(description="The same delivery has the same receipt, however often it is made.", examples=["5a1e07c2b94d3f80"])
    target: str = Field(description="The delivery.", examples=["big_deals.warehouse"])
    table_id: str = Field(description="The lake table's id.", examples=["8f3a2c11"])
    after: int = Field(description="The last change before it.", examples=[0])
    upto: int = Field(description="The last change in it.", examples=[1204])
    read: int = Field(description="Changes read.", examples=[1204])
    accepted: int = Field(description="Changes that the destination took.", examples=[17])
    refused: int = Field(description="Changes that it refused; each is a dead letter.", examples=[1])
    unrouted: int = Field(description="Changes that the rules sent elsewhere.", examples=[1186])
    seconds: float = Field(description="How long the destination took.", examples=[0.42])
    detail: dict[str, Any] = Field(description="What the destination says of it.", examples=[{"table": "big_deals"}])
    run_id: str = Field(description="The run that delivered.", examples=["0b1f3c52-8a3e-4f0e-9d0c-54d1e4a2b7aa"])
    at: str = Field(description="When.", examples=["2026-03-01T06:00:05.120000Z"])
    ruleset: str | None = Field(description="The rules of then, as they are kept.", examples=["c0ffee0123456789"])


class Standing(Read):
    """Where a delivery is."""

    target: str = Field(description="The delivery.", examples=["big_deals.warehouse"])
    destination: str = Field(description="Where it delivers to.", examples=["warehouse"])
    lag: int = Field(description="Changes that it has not dealt with.", examples=[3])
    oldest: dt.datetime | None = Field(description="When the oldest of them was read.", examples=["2026-03-01T06:00:04.112Z"])
    wait: Wait | None = Field(description="What it waits for.")
    breaker: Breaker = Field(description="Whether deliveries to its destination are let through.")
    dead_letters: int = Field(description="Open dead letters.", examples=[1])
    last: Receipt | None = Field(description="The newest receipt.")


@router.get("/v1/deliveries", operation_id="list_deliveries", summary="List deliveries", response_model=Page[Standing])
def list_deliveries(
    request: Request,
    limit: Limit = 100,
    cursor: After = "",
    route: Annotated[str, Query(description="Only those of this route.", examples=["big_deals"], max_length=255)] = "",
) -> Page[Any]:
    """Where every delivery stands: what has not been delivered and since when, what it waits for, and its newest receipt."""
    runtime = service_of(request).runtime
    targets = runtime.assembly.targets
    page = page_of(sorted(name for name, target in targets.items() if route in ("", target.route)), limit, cursor, str)
    return Page(items=[Standing.model_validate(runtime.standing(name)) for name in page.items], next=page.next)


@router.get("/v1/deliveries/{name}", operation_id="get_delivery", summary="Show a delivery", response_model=Standing)
def get_delivery(request: Request, name: DeliveryName) -> Standing:
    """Where one delivery stands."""
    runtime = service_of(request).runtime
    _check(runtime.assembly, name)
    return Standing.model_validate(runtime.standing(name))


@router.get("/v1/deliveries/{name}/receipts", operation_id="list_receipts", summary="List receipts", response_model=Page[Receipt])
def list_receipts(request: Request, name: DeliveryName, limit: Limit = 100, cursor: After = "") -> Page[Receipt]:
    """The receipts of a delivery, the newest first. Those that come meanwhile stand before the first page and disturb none behind it."""
    runtime = service_of(request).runtime
    _check(runtime.assembly, name)
    before = place_of(cursor, "receipts", str, str)
    found = runtime.state.ledger.receipts(name, limit=limit + 1, before=(before[0], before[1]) if before else None)
    shown = [Receipt.model_validate(receipt) for receipt in found[:limit]]
    return Page(items=shown, next=place_cursor("receipts", shown[-1].at, shown[-1].id) if len(found) > limit else "")


def _check(assembly: Assembly, name: str) -> None:
    if name not in assembly.targets:
        raise unknown("delivery", name, assembly.targets, "list them with GET /v1/deliveries")
