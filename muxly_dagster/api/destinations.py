"""Where records go."""

import datetime as dt
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Request
from pydantic import Field

from muxly_dagster import trying
from muxly_dagster.api.answers import Check, Read, unknown
from muxly_dagster.api.paging import After, Limit, Page, page_of
from muxly_dagster.api.service import service_of
from muxly_dagster.assembly import Assembly
from muxly_dagster.runtime import Runtime
from muxly_dagster.state import BreakerState

router = APIRouter(tags=["Destinations"])

DestinationName = Annotated[str, Path(description="A destination, as it is named in muxly.yaml.", examples=["warehouse"], max_length=255)]
Status = Literal["closed", "open", "probing", "disabled"]


class Breaker(Read):
    """Whether deliveries to a destination are let through; after failures in a row it is left alone for a while."""

    destination: str = Field(description="The destination.", examples=["warehouse"])
    status: Status = Field(
        description="closed: all is well; open: left alone; probing: being tried; disabled: it said that it is gone.",
        examples=["open"],
    )
    failures: int = Field(description="Failures in a row.", examples=[5])
    times: int = Field(description="How often it opened in a row.", examples=[1])
    until: dt.datetime | None = Field(description="When it may be tried.", examples=["2026-03-01T06:05:00Z"])
    reason: str = Field(description="The last failure.", examples=["connection refused"])
    since: str = Field(description="When it came to stand so; empty where nothing ever failed.", examples=["2026-03-01T06:00:00.000000Z"])


class Destination(Read):
    """Where records can be delivered to, without settings or credentials."""

    name: str = Field(description="Its name in muxly.yaml.", examples=["warehouse"])
    type: str = Field(description="What kind of destination it is.", examples=["database"])
    title: str = Field(description="What that kind is called.", examples=["SQL database"])
    guarantee: str = Field(description="How often a record arrives.", examples=["exactly once"])
    deliveries: list[str] = Field(description="The deliveries that go to it.", examples=[["big_deals.warehouse"]])
    breaker: Breaker = Field(description="Whether deliveries are let through.")


class DestinationTest(Read):
    """How trying a destination ended. `status` is failed where one of the checks is."""

    status: Literal["ok", "failed"] = Field(description="How it ended.", examples=["ok"])
    checks: list[Check] = Field(description="The destination as it is declared, and as routes have it that say something else.")


class Resumed(Read):
    """How a destination's breaker stood before it was closed by hand."""

    destination: str = Field(description="The destination.", examples=["warehouse"])
    was: Status = Field(description="How the breaker stood.", examples=["open"])
    reason: str = Field(description="The failure that it stood so for.", examples=["connection refused"])


@router.get("/v1/destinations", operation_id="list_destinations", summary="List destinations", response_model=Page[Destination])
def list_destinations(request: Request, limit: Limit = 100, cursor: After = "") -> Page[Destination]:
    """All destinations of the project by name."""
    runtime = service_of(request).runtime
    page = page_of(sorted(runtime.assembly.destinations), limit, cursor, str)
    return Page(items=[_destination(runtime, name) for name in page.items], next=page.next)


@router.get("/v1/destinations/{name}", operation_id="get_destination", summary="Show a destination", response_model=Destination)
def get_destination(request: Request, name: DestinationName) -> Destination:
    """One destination of the project, and whether deliveries to it are let through."""
    runtime = service_of(request).runtime
    _check(runtime.assembly, name)
    return _destination(runtime, name)


@router.post("/v1/destinations/{name}/test", operation_id="test_destination", summary="Test a destination", response_model=DestinationTest)
def test_destination(request: Request, name: DestinationName) -> dict[str, Any]:
    """Try the destination, and every route's form of it. Nothing is delivered; one that fails is told, not an error."""
    assembly = service_of(request).runtime.assembly
    _check(assembly, name)
    return trying.plain(trying.try_destination(assembly, name))


@router.post("/v1/destinations/{name}/resume", operation_id="resume_destination", summary="Resume a destination", response_model=Resumed)
def resume_destination(request: Request, name: DestinationName) -> dict[str, Any]:
    """Deliver again to a destination that is left alone after failures, or that was switched off because it said that it is gone."""
    runtime = service_of(request).runtime
    _check(runtime.assembly, name)
    stood: BreakerState = runtime.resume(name)
    return {"destination": name, "was": stood.status, "reason": stood.reason}


def _check(assembly: Assembly, name: str) -> None:
    if name not in assembly.destinations:
        raise unknown("destination", name, assembly.destinations, "declare one in muxly.yaml")


def _destination(runtime: Runtime, name: str) -> Destination:
    destination = runtime.assembly.destinations[name]
    return Destination(
        name=name,
        type=destination.type,
        title=destination.title,
        guarantee=destination.guarantee,
        deliveries=[target.name for target in runtime.assembly.targets.values() if target.destination_name == name],
        breaker=Breaker.model_validate(runtime.state.breakers.read(name)),
    )
