"""The project itself: its routes, and the schema of muxly.yaml."""

from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Request
from pydantic import Field
from starlette.responses import Response

from muxly_dagster import catalog
from muxly_dagster.api.answers import Read, json_answer, unknown
from muxly_dagster.api.paging import After, Limit, Page, page_of
from muxly_dagster.api.service import service_of
from muxly_dagster.assembly import Assembly, Target
from muxly_dagster.plugins import seconds_from
from muxly_dagster.routing import describe

router = APIRouter(tags=["Routes"])

RouteName = Annotated[str, Path(description="A route, as it is named in muxly.yaml.", examples=["big_deals"], max_length=255)]
RouteOrDelivery = Annotated[str, Path(description="A route, or one delivery of it.", examples=["big_deals"], max_length=512)]


class RouteRule(Read):
    """Which records go where."""

    rule: str = Field(description="Its name, or its number.", examples=["rule 1"])
    when: str | None = Field(description="Its condition; null: all records.", examples=["amount > 10000"])
    to: list[str] = Field(description="Where they go.", examples=[["sales_slack", "warehouse"]])
    sample: float | None = Field(description="The share of keys that is meant; null: all of them.", examples=[None])


class Route(Read):
    """Which changed records of one table go where."""

    name: str = Field(description="Its name in muxly.yaml.", examples=["big_deals"])
    table: str = Field(description="The table whose changes are routed.", examples=["crm.deals"])
    key: list[str] = Field(description="The table's key.", examples=[["id"]])
    match: Literal["first", "all"] = Field(description="Whether the first rule that matches decides, or all that do.", examples=["first"])
    rules: list[RouteRule] = Field(description="The rules, in their order.")
    otherwise: list[str] = Field(description="Where records go that no rule matches.", examples=[["archive"]])
    deliveries: list[str] = Field(
        description="Its deliveries.", examples=[["big_deals.sales_slack", "big_deals.warehouse", "big_deals.archive"]]
    )
    description: str = Field(description="What muxly.yaml says of it.", examples=["Deals worth a word."])


class Counts(Read):
    """What a delivery would do at its destination."""

    inserted: int = Field(description="Rows that are new.", examples=[3])
    updated: int = Field(description="Rows that change.", examples=[1])
    deleted: int = Field(description="Rows that go.", examples=[0])
    refused: int = Field(description="Records that would be refused.", examples=[0])
    notes: list[str] = Field(description="What else is worth knowing.", examples=[["creates the table big_deals"]])


class Planned(Read):
    """What the next run of a delivery would do."""

    target: str = Field(description="The delivery.", examples=["big_deals.warehouse"])
    destination: str = Field(description="Where it delivers to, in words.", examples=["postgresql: big_deals"])
    waiting: int = Field(description="Changes that it has not dealt with.", examples=[12])
    sent: int = Field(description="Those of them that would be sent.", examples=[4])
    plan: Counts = Field(description="What that would do.")
    warning: str = Field(description="Why a guard would stop it; empty where none would.", examples=[""])


class Plans(Read):
    """What the next runs would do."""

    items: list[Planned] = Field(description="One entry for each delivery.")


class Resynced(Read):
    """Deliveries that send all current records again with their next run."""

    targets: list[str] = Field(description="The deliveries.", examples=[["big_deals.warehouse"]])


@router.get("/v1/routes", operation_id="list_routes", summary="List routes", response_model=Page[Route])
def list_routes(request: Request, limit: Limit = 100, cursor: After = "") -> Page[Route]:
    """All routes of the project by name."""
    assembly = service_of(request).runtime.assembly
    page = page_of(sorted(assembly.project.routes), limit, cursor, str)
    return Page(items=[_route(assembly, name) for name in page.items], next=page.next)


@router.get("/v1/routes/{name}", operation_id="get_route", summary="Show a route", response_model=Route)
def get_route(request: Request, name: RouteName) -> Route:
    """One route with its rules and deliveries."""
    assembly = service_of(request).runtime.assembly
    if name not in assembly.project.routes:
        raise unknown("route", name, assembly.project.routes, "declare one in muxly.yaml")
    return _route(assembly, name)


@router.post("/v1/routes/{name}/plan", operation_id="plan_route", summary="Plan a route", response_model=Plans)
def plan_route(request: Request, name: RouteOrDelivery) -> dict[str, Any]:
    """What the next run would do at each destination, with nothing changed."""
    runtime = service_of(request).runtime
    _check(runtime.assembly, name)
    return {"items": [asdict(each) for each in runtime.plan(name)]}


@router.post("/v1/routes/{name}/resync", operation_id="resync_route", summary="Resync a route", response_model=Resynced)
def resync_route(request: Request, name: RouteOrDelivery) -> dict[str, Any]:
    """Let all current records be delivered again, by the next runs of the deliveries. Answers 409 while one of them is going on."""
    runtime = service_of(request).runtime
    _check(runtime.assembly, name)
    return {"targets": runtime.resync(name)}


@router.get(
    "/v1/schema",
    operation_id="get_schema",
    summary="Show the schema of muxly.yaml",
    tags=["Project"],
    responses={
        200: {"content": {"application/schema+json": {"schema": {"type": "object"}, "example": {"type": "object", "properties": {}}}}}
    },
    response_class=Response,
)
def get_schema(request: Request) -> Response:
    """The JSON Schema of muxly.yaml, with what plugins of the project bring; editors complete and check by it."""
    service = service_of(request)
    project = service.runtime.assembly.project
    enabled = catalog.enable_plugins(project.plugins, project.folder, seconds_from(service.environ))
    answer = json_answer(catalog.schema(enabled))
    answer.headers["content-type"] = "application/schema+json"
    return answer


def _check(assembly: Assembly, name: str) -> None:
    known = {*assembly.targets, *assembly.project.routes}
    if name not in known:
        raise unknown("route or delivery", name, known, "list them with GET /v1/routes")


def _route(assembly: Assembly, name: str) -> Route:
    targets: list[Target] = [target for target in assembly.targets.values() if target.route == name]
    router_, spec = targets[0].router, assembly.project.routes[name]
    rules = [
        RouteRule(rule=describe(index, rule), when=rule.when, to=list(rule.to), sample=rule.sample)
        for index, rule in enumerate(router_.rules)
    ]
    return Route(
        name=name,
        table=targets[0].table,
        key=list(targets[0].key),
        match=router_.match,
        rules=rules,
        otherwise=list(router_.otherwise),
        deliveries=[target.name for target in targets],
        description=spec.description,
    )
