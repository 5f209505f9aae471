"""What can be a source."""

from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request
from pydantic import Field
from starlette.responses import Response

from muxly_dagster import catalog
from muxly_dagster.api.answers import Read, json_answer, unknown
from muxly_dagster.api.paging import After, Limit, Page, page_of
from muxly_dagster.api.service import Service, service_of
from muxly_dagster.api.sources import SourceStream, Sync
from muxly_dagster.plugins import seconds_from
from muxly_dagster.sheet import sheet_of, summary

router = APIRouter(tags=["Connectors"])

Kind = Literal["python", "manifest", "plugin"]
_TEMPLATE = 'sources:\n  crm:\n    connector: hubspot\n    auth: {kind: bearer, token: "${CRM_TOKEN}"}\n    pulls: [contacts]\n'


class ConnectorSummary(Read):
    """What lists tell of a connector."""

    id: str = Field(description="What a source names under `connector:`.", examples=["hubspot"])
    title: str = Field(description="What it is called.", examples=["HubSpot"])
    kind: Kind = Field(description="How it is written, or that a plugin brings it.", examples=["python"])
    auth: list[str] = Field(description="Ways to sign in, or the secret fields in their place.", examples=[["bearer", "oauth2"]])
    streams: int | None = Field(description="How many streams every account has; null where that depends on it.", examples=[42])


class Setting(Read):
    """A field in muxly.yaml."""

    name: str = Field(description="Its name.", examples=["auth"])
    type: str = Field(description="Its type, in words.", examples=["bearer | oauth2"])
    required: bool = Field(description="Whether it must be given.", examples=[True])
    default: Any = Field(description="What it is unless given; null where it has no default, or is a secret.", examples=[None])
    description: str = Field(description="What it means.", examples=["How to sign in."])


class ConnectorSheet(Read):
    """All that is known of a connector without asking anybody."""

    id: str = Field(description="What a source names under `connector:`.", examples=["hubspot"])
    title: str = Field(description="What it is called.", examples=["HubSpot"])
    description: str = Field(description="What it is.", examples=["HubSpot's CRM."])
    kind: Kind = Field(description="How it is written, or that a plugin brings it.", examples=["python"])
    auth: list[str] = Field(description="Ways to sign in, or the secret fields in their place.", examples=[["bearer", "oauth2"]])
    fields: list[Setting] = Field(description="Fields of a source.")
    pull: list[Setting] = Field(description="Fields of a pull, beside those of every pull.")
    streams: list[SourceStream] = Field(description="Streams that every account has.")
    syncs: list[Sync] = Field(description="How its pulls find news.", examples=[["cursor", "full"]])
    deletes: str = Field(description="Which pulls hear of deletions, in words.", examples=["some streams"])
    actions: dict[str, str] = Field(description="What it can do besides being read: titles by name.", examples=[{"send": "Send a mail"}])
    limits: list[str] = Field(description="Limits, in words.", examples=[["100 requests per 10 s"]])
    api_version: str = Field(description="The version of the provider's API that is spoken.", examples=["2026-03"])
    sunset: str = Field(description="The day on which that version ends; empty where none is announced.", examples=["2027-09-30"])
    docs: str = Field(description="The provider's documentation.", examples=["https://developers.hubspot.com/docs"])
    template: str = Field(description="A commented muxly.yaml with a source of this connector.", examples=[_TEMPLATE])


@router.get("/v1/connectors", operation_id="list_connectors", summary="List connectors", response_model=Page[ConnectorSummary])
def list_connectors(request: Request, limit: Limit = 100, cursor: After = "") -> Page[ConnectorSummary]:
    """Everything that can be a source: what comes with Muxly, and what plugins of the project bring."""
    known = _known(service_of(request))
    page = page_of(sorted(known.connector_names()), limit, cursor, str)
    return Page(items=[ConnectorSummary.model_validate(summary(sheet_of(known.connector_class(n)))) for n in page.items], next=page.next)


@router.get("/v1/connectors/{connector_id}", operation_id="get_connector", summary="Show a connector", response_model=ConnectorSheet)
def get_connector(
    request: Request,
    connector_id: Annotated[str, Path(description="A connector's id.", examples=["hubspot"], max_length=255)],
    source: Annotated[
        str, Query(description="What the source is called in the template.", examples=["crm"], pattern="^[a-z][a-z0-9_]{0,62}$|^$")
    ] = "",
) -> Response:
    """What a connector takes and offers: fields, ways to sign in, streams, actions, limits; and a muxly.yaml to begin with."""
    known = _known(service_of(request))
    if connector_id not in known.connector_names():
        raise unknown("connector", connector_id, known.connector_names(), "list them with GET /v1/connectors")
    kind = known.connector_class(connector_id)
    return json_answer(asdict(sheet_of(kind)) | {"template": kind.config_template(source or kind.id, connector_id)})


def _known(service: Service) -> catalog.Extended:
    project = service.runtime.assembly.project
    return catalog.Extended(catalog, catalog.enable_plugins(project.plugins, project.folder, seconds_from(service.environ)))
