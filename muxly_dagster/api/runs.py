"""What Dagster ran and runs: list, show, cancel, retry, follow."""

import datetime as dt
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

import anyio
from fastapi import APIRouter, Header, Path, Query, Request
from pydantic import BaseModel, Field
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from muxly_dagster import orchestrator
from muxly_dagster.api.answers import Read
from muxly_dagster.api.paging import After, Limit, Page, read_cursor, write_cursor
from muxly_dagster.api.problems import ApiError, not_found, of_error
from muxly_dagster.api.service import Service, service_of
from muxly_dagster.errors import ConfigurationError, MuxlyError
from muxly_dagster.orchestrator import Lines, RunEvent, Status
from muxly_dagster.state import START
from muxly_dagster.state.starts import Start

router = APIRouter(tags=["Runs"])

Cause = Literal["webhook", "cron", "api", "sensor", "retry", "hand"]
RunId = Annotated[str, Path(description="The run.", examples=["5a4b9b52-6d0c-5d0a-8a46-5a1bb13c62d7"], max_length=64)]

EVENT_STREAM = "text/event-stream"
_END = "end"
_SECONDS_BETWEEN_LOOKS = 0.3
_SECONDS_BETWEEN_COMMENTS = 10
_LINES_AT_ONCE = 500
_LINE = {"at": "2026-03-01T06:00:04.112000Z", "level": "info", "step": "crm__deals", "message": "crm.deals: 240 read, 3 changed"}
_STREAM_EXAMPLE = (
    f'id: 118\nevent: line\ndata: {{"at": "{_LINE["at"]}", "level": "info", ...}}\n\n: still running\n\n'
    'id: end\nevent: end\ndata: {"status": "success", ...}\n\n'
)


class Run(Read):
    """A run of a job, or of assets that somebody chose."""

    id: str = Field(description="Its id, here and in Dagster.", examples=["5a4b9b52-6d0c-5d0a-8a46-5a1bb13c62d7"])
    job: str = Field(description="The job; empty where assets were chosen by hand.", examples=["quarter_hour"])
    cause: Cause = Field(description="What started it; `hand` is somebody at Dagster's UI.", examples=["webhook"])
    status: Status = Field(description="Where it stands.", examples=["success"])
    created_at: dt.datetime = Field(description="When it was asked for.", examples=["2026-03-01T06:00:00.020Z"])
    started_at: dt.datetime | None = Field(description="When its first step could begin.", examples=["2026-03-01T06:00:01.480Z"])
    ended_at: dt.datetime | None = Field(description="When it ended.", examples=["2026-03-01T06:00:04.112Z"])
    assets: list[str] = Field(description="What it runs.", examples=[["crm.deals", "big_deals.warehouse"]])
    retry_of: str = Field(description="The run that it does again; empty for a first one.", examples=[""])
    instead: str = Field(description="The run that did its work, where this one died before it had begun; else empty.", examples=[""])
    tags: dict[str, str] = Field(description="Its tags in Dagster.", examples=[{"muxly/job": "quarter_hour"}])


class Result(Read):
    """What a run made of one asset."""

    asset: str = Field(description="The asset.", examples=["crm.deals"])
    at: dt.datetime = Field(description="When it was through.", examples=["2026-03-01T06:00:03.900Z"])
    counts: dict[str, float] = Field(description="The numbers of its receipt.", examples=[{"read": 240, "changed": 3, "seconds": 0.8}])


class RunDetail(Run):
    """A run, with what it has made so far."""

    results: list[Result] = Field(description="What it made of each asset, in order.")


class Asked(BaseModel):
    """A run that was asked for."""

    id: str = Field(description="The id of the new run.", examples=["7f3c2d9e-58a1-4a7e-9b0e-0d3c1f6a2b11"])


class Line(Read):
    """One line of a run's log."""

    at: dt.datetime = Field(description="When.", examples=[_LINE["at"]])
    level: str = Field(description="debug, info, warning or error.", examples=["info"])
    step: str = Field(description="The step that says it; empty for the run itself.", examples=[_LINE["step"]])
    asset: str = Field(description="The asset that it is about, if any.", examples=["crm.deals"])
    kind: str = Field(description="`log`, or Dagster's type of event.", examples=["asset_materialization"])
    message: str = Field(description="What happened.", examples=[_LINE["message"]])
    error: str = Field(description="A stack trace, where the message does not say it all.", examples=[""])


@router.get("/v1/runs", operation_id="list_runs", summary="List runs", response_model=Page[Run])
def list_runs(
    request: Request,
    job: Annotated[str, Query(description="Runs of this job only.", max_length=255, examples=["quarter_hour"])] = "",
    status: Annotated[list[Status] | None, Query(description="Runs that stand there only; may be given several times.")] = None,
    limit: Limit = 100,
    cursor: After = "",
) -> Page[Run]:
    """Runs, the newest first: those of jobs and those that somebody launched in Dagster."""
    service = service_of(request)
    after = read_cursor(cursor)
    if not isinstance(after, str | None) or (after is not None and service.orchestrator.run(after) is None):
        raise ApiError(400, "The cursor leads nowhere", "its run is not there", do="begin again without a cursor")
    found = service.orchestrator.runs(job=job, statuses=status or (), after=after or "", limit=limit + 1)
    runs = [_run(service, run) for run in found[:limit]]
    return Page(items=runs, next=write_cursor(runs[-1].id) if len(found) > limit else "")


@router.get("/v1/runs/{id}", operation_id="get_run", summary="Show a run", response_model=RunDetail)
def get_run(request: Request, id: RunId) -> RunDetail:
    """One run, with the counts of what it has pulled, transformed and delivered so far."""
    service = service_of(request)
    run = _known(service, id)
    results = [Result.model_validate(made) for made in service.orchestrator.materializations(run.id)]
    return RunDetail(results=results, **_run(service, run).model_dump())


@router.post("/v1/runs/{id}/cancel", operation_id="cancel_run", summary="Cancel a run", status_code=202, response_model=Run)
def cancel_run(request: Request, id: RunId) -> Run:
    """Ask a run to end. What it has stored stays; it ends behind the answer, so look at its status."""
    service = service_of(request)
    run = _known(service, id)
    if run.ended:
        raise ApiError(409, "It has ended", f"the run has ended already: {run.status}")
    try:
        service.orchestrator.cancel(run.id)
    except ConfigurationError as error:  # It ended, or was deleted, since it was looked at.
        raise ApiError(409, "It has ended", error.problems[0].what) from None
    return _run(service, _known(service, run.id))


@router.post("/v1/runs/{id}/retry", operation_id="retry_run", summary="Retry a run", status_code=202, response_model=Asked)
def retry_run(request: Request, id: RunId) -> Asked:
    """Run again what failed or was canceled, and what was to come behind it, as a new run with the same tags."""
    service = service_of(request)
    run = _known(service, id)
    if not run.ended or run.status == "success":
        what = "nothing of it failed" if run.ended else f"it has not ended: {run.status}"
        raise ApiError(409, "Nothing to retry", what, do="start its job again" if run.ended else "cancel it first, or wait")
    return Asked(id=service.orchestrator.retry(run.id))


@router.get(
    "/v1/runs/{id}/logs",
    operation_id="get_run_logs",
    summary="Read or follow the log of a run",
    response_model=Page[Line],
    responses={
        200: {"content": {EVENT_STREAM: {"schema": {"type": "string"}, "example": _STREAM_EXAMPLE}}},
        204: {"description": "The event stream has been read to its end: do not come again."},
    },
)
async def get_run_logs(
    request: Request,
    id: RunId,
    limit: Limit = 100,
    cursor: After = "",
    last_event_id: Annotated[str, Header(description="Where an event stream broke off.", max_length=64, examples=["118"])] = "",
) -> Any:
    """A page of lines, or all lines as they come: server-sent events where `Accept: text/event-stream` asks for them.

    The `next` of a page is empty once the run has ended and all was read; before, ask again with it for what came since. A stream has
    `line` events, comments while nothing happens, and the event `end` with the run when it has ended. It resumes by `Last-Event-ID`.
    """
    service = service_of(request)
    after = read_cursor(cursor)
    if not isinstance(after, str | None):
        raise ApiError(400, "The cursor is of another list", do="use `next` of the page before as it stands, or leave it out")
    id = (await run_in_threadpool(_known, service, id)).id
    if EVENT_STREAM in request.headers.get("accept", ""):
        if last_event_id == _END:
            return Response(status_code=204)
        first = await _lines(service, id, last_event_id or after or "")
        comment = lambda: ServerSentEvent(comment="still running")  # noqa: E731
        return EventSourceResponse(_events(service, id, first), ping=_SECONDS_BETWEEN_COMMENTS, ping_message_factory=comment, sep="\n")
    lines = await run_in_threadpool(service.orchestrator.lines, id, after or "", limit)
    items = [Line.model_validate(event) for event in lines.events]
    return Page[Line](items=items, next=write_cursor(lines.cursor) if lines.more else "")


async def _events(service: Service, id: str, lines: Lines) -> AsyncIterator[ServerSentEvent]:
    """The rest of a log, from the lines that were read already. Between looks nothing is held but this frame."""
    try:
        while True:
            for event in lines.events:
                yield _event(event)
            if not lines.more:
                break
            if not lines.events:
                await anyio.sleep(_SECONDS_BETWEEN_LOOKS)
            lines = await _lines(service, id, lines.cursor)
        run = await run_in_threadpool(service.orchestrator.run, id)
        yield ServerSentEvent(_run(service, run).model_dump_json() if run else "{}", event=_END, id=_END)
    except MuxlyError as error:
        yield ServerSentEvent(of_error(error)[0].model_dump_json(exclude_defaults=True), event="problem")


async def _lines(service: Service, id: str, after: str) -> Lines:
    return await run_in_threadpool(service.orchestrator.lines, id, after, _LINES_AT_ONCE)


def _event(event: RunEvent) -> ServerSentEvent:
    return ServerSentEvent(Line.model_validate(event).model_dump_json(), event="line", id=event.cursor)


def _known(service: Service, id: str) -> orchestrator.Run:
    """The run of an id, or the one that began the start of that id: where Dagster was down, that is another one."""
    run = service.orchestrator.run(id)
    start = service.state.starts.find(id) if run is None else None
    if start is not None and start.run_id is not None:
        run = service.orchestrator.run(start.run_id)
    if run is None:
        waits = start is not None and start.ended is None
        raise not_found(f"there is no run {id}", "it waits to begin; ask again" if waits else "list them with GET /v1/runs")
    return run


def _run(service: Service, run: orchestrator.Run) -> Run:
    start = service.state.starts.find(run.tags[START]) if START in run.tags else None
    began = start.run_id if start is not None and not run.retry_of else None
    return Run(
        id=run.id,
        job=run.job,
        cause=_cause(run, start),
        status=run.status,
        created_at=run.created_at,
        started_at=run.started_at,
        ended_at=run.ended_at,
        assets=list(run.assets),
        retry_of=run.retry_of,
        instead=began if began is not None and began != run.id else "",
        tags=dict(run.tags),
    )


def _cause(run: orchestrator.Run, start: Start | None) -> Cause:
    """What started a run, by its tags and the start that it was to begin."""
    if run.retry_of:
        return "retry"
    if start is not None:
        return start.cause
    if "dagster/schedule_name" in run.tags:
        return "cron"
    return "sensor" if "dagster/sensor_name" in run.tags else "hand"
