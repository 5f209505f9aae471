"""Runs of a job: started with parameters, and listed."""

import datetime as dt
import re
import uuid
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from muxly_dagster.api import runs
from muxly_dagster.api.jobs.shown import JobName, one_job
from muxly_dagster.api.paging import After, Limit, Page
from muxly_dagster.api.problems import RESPONSES, ApiError
from muxly_dagster.api.service import service_of
from muxly_dagster.assembly import Assembly
from muxly_dagster.assembly.starting import start_tags
from muxly_dagster.errors import ConfigurationError
from muxly_dagster.orchestrator import Status
from muxly_dagster.state.starts import Start

router = APIRouter()

_STARTS = uuid.UUID("4d5f9c1e-7a7b-5f64-8f7e-2f3f0f1f6c2b")
"""The namespace (RFC 9562, 5.5) of the ids of starts that have an Idempotency-Key."""

_TAG = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)?")
_OURS = ("muxly/", "dagster/", ".dagster/")
_ALLOWED = ("dagster/priority", "dagster/max_runtime")


class Parameters(BaseModel):
    """How a job is to run this time."""

    model_config = ConfigDict(extra="forbid")

    select: list[str] = Field([], max_length=1000, description="Run only these of its assets.", examples=[["crm.contacts"]])
    from_start: bool = Field(False, description="Forget cursors and offsets: read or deliver everything again.")
    past_guard: bool = Field(False, description="Let deliveries delete or change more than their guards allow.")
    parameters: dict[str, Any] = Field({}, description="What Python transforms are given.", examples=[{"since": "2026-01-01"}])
    tags: dict[str, str] = Field({}, max_length=20, description="Tags of the run in Dagster.", examples=[{"team": "sales"}])


class Started(BaseModel):
    """A run that is going to begin."""

    id: str = Field(examples=["5a4b9b52-6d0c-5d0a-8a46-5a1bb13c62d7"], description="The run's id, here and in Dagster.")
    job: str = Field(examples=["nightly"])
    known: bool = Field(False, examples=[False], description="Whether the same Idempotency-Key has asked for it before.")


@router.post("/v1/jobs/{name}/runs", operation_id="start_job", summary="Start a job", status_code=202, responses={422: RESPONSES["4XX"]})
def start_job(
    request: Request,
    name: JobName,
    response: Response,
    body: Parameters | None = None,
    idempotency_key: Annotated[
        str, Header(description="The same key starts the same run, however often it is sent.", max_length=255, examples=["8e03978e-40d5"])
    ] = "",
) -> Started:
    """Start a run, paused or not. Answered at once: it begins a moment later, or when Dagster is up again."""
    service, wanted = service_of(request), body or Parameters()
    assembly = service.runtime.assembly
    if name not in assembly.jobs:
        one_job(service, name)
        do = f"see what is wrong with GET /v1/jobs/{name}"
        raise ApiError(409, "It does not fit", f"the job {name} no longer fits into the project, so Dagster does not know it", do=do)
    tags = _tags(assembly, name, wanted)
    id = uuid.uuid5(_STARTS, f"{name}\0{idempotency_key}") if idempotency_key else uuid.uuid4()
    start = Start(str(id), name, "api", dt.datetime.now(dt.UTC), tags)
    new = service.state.starts.put(start)
    if not new and (held := service.state.starts.find(start.id)) is not None and dict(held.tags) != tags:
        do = "take another key for another run"
        raise ApiError(422, "The key was used before", "this Idempotency-Key has started a run with other parameters", do=do)
    if new:
        service.starting.soon(start)
    response.headers["location"] = f"/v1/runs/{start.id}"
    return Started(id=start.id, job=name, known=not new)


@router.get("/v1/jobs/{name}/runs", operation_id="list_job_runs", summary="List runs of a job", response_model=Page[runs.Run])
def list_job_runs(
    request: Request,
    name: JobName,
    status: Annotated[list[Status] | None, Query(description="Runs that stand there only; may be given several times.")] = None,
    limit: Limit = 100,
    cursor: After = "",
) -> Page[runs.Run]:
    """Runs of a job that Dagster remembers, the newest first."""
    one_job(service_of(request), name)
    return runs.list_runs(request, job=name, status=status, limit=limit, cursor=cursor)


def _tags(assembly: Assembly, name: str, wanted: Parameters) -> dict[str, str]:
    """The tags that a run has for what is wanted. Raises ApiError (422)."""
    for tag, value in wanted.tags.items():
        if not _TAG.fullmatch(tag) or len(tag) > 63:
            raise _wrong("tags", f"{tag[:80]!r} is no tag", "a tag has up to 63 letters, digits, `_`, `.`, `-`, and one `/` at most")
        if tag.startswith(_OURS) and tag not in _ALLOWED:
            raise _wrong("tags", f"{tag} is a tag that Muxly or Dagster keeps for itself", "give it another name")
        if len(value) > 500 or not _storable(value):
            raise _wrong("tags", f"the value of {tag} is no text of up to 500 characters", "shorten it")
    try:
        ours = start_tags(assembly, name, wanted.select, wanted.parameters, from_start=wanted.from_start, past_guard=wanted.past_guard)
    except ConfigurationError as error:
        [problem] = error.problems
        raise _wrong(problem.path or "select", problem.what, problem.do or error.do) from None
    return wanted.tags | ours


def _storable(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def _wrong(field: str, what: str, do: str) -> ApiError:
    return ApiError(422, "This cannot work", f"body.{field}: {what}", do=do, errors=[{"at": f"body.{field}", "what": what, "do": do}])
