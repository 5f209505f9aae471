"""Signed calls of other services, which start jobs."""

import datetime as dt
import logging
import time
import uuid
from typing import Annotated

import orjson
from fastapi import APIRouter, Path
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from muxly_dagster.api import callers
from muxly_dagster.api.problems import RESPONSES, ApiError, not_found, request_id
from muxly_dagster.api.receiving import received
from muxly_dagster.api.service import Service, service_of
from muxly_dagster.intake import Call
from muxly_dagster.measures import parse_size
from muxly_dagster.project.webhooks import Basic, Bearer, WebhookSpec
from muxly_dagster.signature import SignatureRefused, Slack
from muxly_dagster.state import Start

router = APIRouter(tags=["Webhooks"])

_log = logging.getLogger("muxly.api")

_CALLS = uuid.UUID("8c1f6f0e-9a0f-5c55-9e1d-6f2f5f0c7a11")
"""The namespace (RFC 9562, 5.5) of the ids of calls; a start's id is made of the id of the call that opened it."""
_LARGER = "raise `max_size` of the job's webhook"


class Taken(BaseModel):
    """A call that is safe. `start` is what it opened; empty where an open one takes it along, or the call was known already."""

    id: str = Field(examples=["0c3cb9a6-2a83-5c11-a3b4-7b7a5c0f9d55"], description="Muxly's id of the call.")
    delivery_id: str = Field(examples=["72d3162e-cc78-11e3-81ab-4c9367dc0958"], description="The sender's own id of it, or a hash.")
    known: bool = Field(examples=[False], description="Whether it came before; nothing is started then.")
    start: str = Field("", examples=["5a4b9b52-6d0c-5d0a-8a46-5a1bb13c62d7"], description="The id of the run that it starts.")


_BODY = {"content": {"*/*": {"schema": {}, "example": {"event": "deal.changed", "id": 7}}}, "required": False}
_SAID = {"application/json": {"schema": {"$ref": "#/components/schemas/Taken"}}}


@router.post(
    "/v1/hooks/{job}",
    operation_id="call_webhook",
    summary="Call a job's webhook",
    status_code=202,
    response_model=Taken,
    openapi_extra={"requestBody": _BODY},
    responses={200: {"description": "Known already, or what Slack wants to be answered.", "content": _SAID}, 401: RESPONSES["4XX"]},
)
async def call_webhook(
    request: Request, job: Annotated[str, Path(max_length=255, description="The job.", examples=["on_deal"])]
) -> Response:
    """Start a job by a call that is signed as its `webhook` says. Answered once the call is durable; the run starts right behind.

    Calls that come while a run is waiting to begin are taken along by it. A repetition, by the sender's own id of the call, starts nothing.
    """
    service = service_of(request)
    webhook = _webhook(service, job)
    with service.collecting.hold(proven=False) as hold:
        # As it came: what was signed is its bytes.
        body = await received(request, hold, parse_size(webhook.max_size), _LARGER)
    headers: dict[str, str] = {}
    for name, value in request.headers.items():
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    said = callers.Request(request.method, _address(service, request), headers, body, time.time())
    try:
        callers.prove(webhook, said)
    except SignatureRefused as error:
        _log.warning("webhook of %s, request %s: %s", job, request_id(request), error)
        raise _refused(webhook) from None
    asked = callers.challenge(webhook, body)
    if asked is not None:
        return Response(orjson.dumps({"challenge": asked}), media_type="application/json")
    taken, status = await run_in_threadpool(_take, service, job, webhook, said, request.url.query)
    if isinstance(webhook.scheme, Slack):
        return Response(status_code=200)  # Slack shows a slash command's user whatever stands in the answer
    return Response(taken.model_dump_json(), status, media_type="application/json")


def _webhook(service: Service, job: str) -> WebhookSpec:
    spec = service.runtime.assembly.jobs.get(job)
    if spec is None or spec.webhook is None or not spec.enabled:
        raise not_found(
            "there is no webhook of this name", "check the address; the job has to say `webhook:`, and must not be switched off"
        )
    return spec.webhook


def _address(service: Service, request: Request) -> str:
    """The address as the caller wrote it, which some schemes sign."""
    if not service.public_url:
        return str(request.url)
    query = f"?{request.url.query}" if request.url.query else ""
    return f"{service.public_url}{request.url.path}{query}"


def _refused(webhook: WebhookSpec) -> ApiError:
    """The same for whatever is wrong: what exactly it is stands in the log."""
    do = "sign it with the webhook's secret, and check this machine's clock; the log of the API says more under this request id"
    error = ApiError(401, "Not proven", "the call does not prove where it comes from", do=do)
    if isinstance(webhook.scheme, Bearer | Basic):
        error.headers["www-authenticate"] = f'{webhook.scheme.kind.capitalize()} realm="muxly"'
    return error


def _take(service: Service, job: str, webhook: WebhookSpec, said: callers.Request, query: str) -> tuple[Taken, int]:
    now = dt.datetime.fromtimestamp(said.now, dt.UTC)
    delivery = callers.delivery_id(webhook, said)
    id = uuid.uuid5(_CALLS, f"{job}\0{delivery}")
    call = Call(0, str(id), job, delivery, now, callers.kept_headers(webhook, said.headers), query, said.body)
    start = Start(str(uuid.uuid5(_CALLS, str(id))), job, "webhook", now)
    kept = service.state.calls.put(call, start)
    if kept.opened is not None and not kept.paused:
        service.starting.soon(kept.opened)
    taken = Taken(id=call.id, delivery_id=delivery, known=kept.known, start=kept.opened.id if kept.opened else "")
    return taken, 200 if kept.known else 202
