"""Where records come from, and their streams."""

import datetime as dt
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Request
from pydantic import Field

from muxly_dagster import browsing, trying
from muxly_dagster.api.answers import Check, Read, unknown
from muxly_dagster.api.paging import After, Limit, Page, page_of
from muxly_dagster.api.service import service_of
from muxly_dagster.assembly import Assembly, Pull
from muxly_dagster.connector import Connector
from muxly_dagster.runtime import Runtime
from muxly_dagster.sheet import stream_sheet

router = APIRouter(tags=["Sources"])

SourceName = Annotated[str, Path(description="A source, as it is named in muxly.yaml.", examples=["crm"], max_length=255)]
Sync = Literal["full", "cursor", "delta"]

_COLUMNS = {"id": "int64", "email": "string", "properties": "json"}


class Source(Read):
    """A connector with its settings and credentials, of which nothing is told."""

    name: str = Field(description="Its name in muxly.yaml.", examples=["crm"])
    connector: str = Field(description="The connector's id.", examples=["hubspot"])
    title: str = Field(description="What the connector is called.", examples=["HubSpot"])
    pulls: list[str] = Field(description="The pulls that read it.", examples=[["crm.contacts", "crm.deals"]])


class SourceStream(Read):
    """A stream that the provider offers."""

    name: str = Field(description="Its name at the provider.", examples=["contacts"])
    key: list[str] = Field(description="Columns that identify a record; none: each record stands for itself.", examples=[["id"]])
    sync: Sync = Field(description="How news is found: by reading all, what came since, or what the provider tells.", examples=["cursor"])
    deletes: bool = Field(description="Whether pulls hear of deletions.", examples=[True])
    columns: dict[str, str] = Field(description="Columns that are known, with their types.", examples=[_COLUMNS])
    description: str = Field("", description="What it holds.", examples=["People, by their last change."])


class Stream(SourceStream):
    """A pull of the project: a stream on its way into the lake."""

    name: str = Field(description="The pull, and the lake's table.", examples=["crm.contacts"])
    source: str = Field(description="The source that it reads.", examples=["crm"])
    stream: str = Field(description="The stream's name at the provider.", examples=["contacts"])
    contract: Literal["evolve", "freeze", "discard"] = Field(description="What happens when fields change.", examples=["evolve"])
    freshness: str = Field(description="The age at which a check warns; empty: never.", examples=["2h"])
    last_success: dt.datetime | None = Field(description="When it last read everything there was.", examples=["2026-03-01T06:00:04.112Z"])
    rows: int = Field(description="Current rows of the table.", examples=[1204])


class Account(Read):
    """What the provider says of the account."""

    account: str = Field(description="Which account it is.", examples=["4711 (Fjordkit)"])
    api_version: str = Field(description="The version of the provider's API that is spoken.", examples=["2026-03"])
    sunset: dt.date | None = Field(description="The day on which that version ends.", examples=["2027-09-30"])
    limits: list[str] = Field(description="Limits, in words.", examples=[["100 requests per 10 s"]])
    details: dict[str, Any] = Field(description="What else helps.", examples=[{"time zone": "Europe/Oslo"}])


class SourceTest(Read):
    """How trying a source ended. `status` is failed where one of the checks is."""

    status: Literal["ok", "failed"] = Field(description="How it ended.", examples=["ok"])
    checks: list[Check] = Field(description="What was looked at.")
    metadata: Account = Field(description="What the provider says of the account.")


@router.get("/v1/sources", operation_id="list_sources", summary="List sources", response_model=Page[Source])
def list_sources(request: Request, limit: Limit = 100, cursor: After = "") -> Page[Source]:
    """All sources of the project by name, with the pulls that read them."""
    assembly = service_of(request).runtime.assembly
    sources = [_source(assembly, name) for name in sorted(assembly.sources)]
    return page_of(sources, limit, cursor, lambda source: source.name)


@router.get("/v1/sources/{name}", operation_id="get_source", summary="Show a source", response_model=Source)
def get_source(request: Request, name: SourceName) -> Source:
    """One source of the project."""
    assembly = service_of(request).runtime.assembly
    _connector(assembly, name)
    return _source(assembly, name)


@router.post("/v1/sources/{name}/test", operation_id="test_source", summary="Test a source", response_model=SourceTest)
def test_source(request: Request, name: SourceName) -> dict[str, Any]:
    """Sign in, ask about the account and look at every pull of the source. No record is read; a source that fails is told, not an error."""
    assembly = service_of(request).runtime.assembly
    _connector(assembly, name)
    checks, found = trying.try_source(assembly, name)
    return trying.plain(checks) | {"metadata": trying.plain_metadata(found)}


@router.get(
    "/v1/sources/{name}/streams", operation_id="list_source_streams", summary="List a source's streams", response_model=Page[SourceStream]
)
def list_source_streams(request: Request, name: SourceName, limit: Limit = 100, cursor: After = "") -> Page[SourceStream]:
    """The streams that the provider says it has, whether or not the project pulls them. Answers 502 where it cannot be asked."""
    connector = _connector(service_of(request).runtime.assembly, name)
    found = [SourceStream.model_validate(stream_sheet(stream)) for stream in connector.streams()]
    return page_of(sorted(found, key=lambda stream: stream.name), limit, cursor, lambda stream: stream.name)


@router.get("/v1/streams", operation_id="list_streams", summary="List pulls", response_model=Page[Stream])
def list_streams(request: Request, limit: Limit = 100, cursor: After = "") -> Page[Stream]:
    """All pulls of the project by name: how they find news, what they know of their columns, when they last succeeded, how many rows."""
    runtime = service_of(request).runtime
    page = page_of(sorted(runtime.assembly.pulls), limit, cursor, str)
    return Page(items=[_stream(runtime, runtime.assembly.pulls[name]) for name in page.items], next=page.next)


def _connector(assembly: Assembly, name: str) -> Connector:
    if name not in assembly.sources:
        raise unknown("source", name, assembly.sources, "declare one in muxly.yaml")
    return assembly.sources[name]


def _source(assembly: Assembly, name: str) -> Source:
    connector = assembly.sources[name]
    pulls = [pull.name for pull in assembly.pulls.values() if pull.source == name]
    return Source(name=name, connector=connector.id, title=connector.title, pulls=pulls)


def _stream(runtime: Runtime, pull: Pull) -> Stream:
    table = runtime.lake.table(pull.name)
    sheet = stream_sheet(pull.stream)
    return Stream(
        name=pull.name,
        source=pull.source,
        stream=pull.settings.stream or pull.stream.name,
        key=list(sheet.key),
        sync=pull.stream.sync,
        deletes=sheet.deletes,
        columns=browsing.columns(table) if table is not None else dict(sheet.columns),
        contract=pull.stream.contract,
        description=pull.settings.description or sheet.description,
        freshness=pull.settings.freshness,
        last_success=runtime.last_pull(pull.name),
        rows=browsing.count(table) if table is not None else 0,
    )
