"""Jobs listed, made, changed, deleted, paused and resumed. Those of muxly.yaml can only be paused and resumed."""

import contextlib
import json
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response
from pydantic import GetJsonSchemaHandler, RootModel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from muxly_dagster.api.jobs.shown import SPEC, Job, JobName, all_jobs, etag, of_file, one_job, refused
from muxly_dagster.api.paging import After, Limit, Page, page_of
from muxly_dagster.api.problems import RESPONSES, ApiError, not_found
from muxly_dagster.api.service import Service, service_of
from muxly_dagster.assembly.jobs import check_secrets, read_job
from muxly_dagster.errors import ConfigurationError, MuxlyError, Problem
from muxly_dagster.project.models import JobSpec, Name
from muxly_dagster.state.jobs import StoredJob

router = APIRouter()

IfMatch = Annotated[str, Header(description="The job's ETag, as it was when you looked at it.", examples=['"1-5d41402a"'], max_length=200)]
_LONGEST = 65_536
_LONGEST_NAME = 255
_TAKEN: dict[int | str, dict[str, Any]] = {409: RESPONSES["4XX"]}
_CONFLICTS: dict[int | str, dict[str, Any]] = {409: RESPONSES["4XX"], 412: RESPONSES["4XX"], 428: RESPONSES["4XX"]}
_EXAMPLE: Any = SPEC


_TARGETS: Any = {
    "anyOf": [
        {"type": "string"},
        {"type": "object", "additionalProperties": {"type": "object"}},
        {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "object", "additionalProperties": {"type": "object"}}]}},
    ]
}
"""Destinations in all the forms of muxly.yaml, where the model has but the one that they are read into."""


class _NewJob(JobSpec):
    name: Name


def _as_written(schema: JsonSchemaValue, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
    for name in ("on_failure", "on_recovery"):
        field = handler.resolve_ref_schema(schema)["properties"][name]
        field |= _TARGETS
        field.pop("items", None)
        field.pop("type", None)
    return schema


class Spec(RootModel[dict[str, Any]]):
    """What would stand under `jobs: NAME:` of muxly.yaml; it is checked in the same way. `${NAME}` stands for a variable of the
    environment that Muxly runs in, and is kept as it is: secrets are written so."""

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return _as_written(handler(JobSpec.__pydantic_core_schema__), handler) | {"examples": [_EXAMPLE]}


class NewJob(Spec):
    """A job's name and its spec."""

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return _as_written(handler(_NewJob.__pydantic_core_schema__), handler) | {"examples": [{"name": "nightly", **_EXAMPLE}]}


class SpecPatch(RootModel[dict[str, Any]]):
    """A merge patch (RFC 7396): what it names is replaced, `null` removes, the rest stays."""

    model_config = {"json_schema_extra": {"examples": [{"cron": "30 2 * * *", "description": None}]}}


@router.get("/v1/jobs", operation_id="list_jobs", summary="List jobs")
def list_jobs(request: Request, limit: Limit = 100, cursor: After = "") -> Page[Job]:
    """All jobs, by name: those of muxly.yaml and those that were made here."""
    return page_of(all_jobs(service_of(request)), limit, cursor, lambda job: job.name)


@router.post("/v1/jobs", operation_id="create_job", summary="Make a job", status_code=201, responses=_TAKEN)
def create_job(request: Request, body: NewJob, response: Response) -> Job:
    """Make a job. It lies in the state, beside those of muxly.yaml; Dagster knows it a moment later."""
    service = service_of(request)
    spec = dict(body.root)
    name = spec.pop("name", None)
    if not isinstance(name, str):
        raise refused("", [Problem("name", "is missing" if name is None else "must be text", "add it: what the job is called")])
    if len(name) > _LONGEST_NAME:
        raise refused("", [Problem("name", f"has more than {_LONGEST_NAME} characters", "take a shorter one")])
    taken = of_file(service, name)
    if taken or (name.isidentifier() and name.isascii() and _made(service, name)):
        where = f"it stands at {taken}" if taken else "it was made by the API"
        raise ApiError(409, "The name is taken", f"there is a job {name}: {where}", do="take another name, or change that job")
    _check(service, name, spec)
    stored = service.state.jobs.create(name, spec)
    if stored is None:
        raise ApiError(409, "The name is taken", f"there is a job {name}", do="take another name, or change that job")
    _changed(service)
    response.headers["location"] = f"/v1/jobs/{name}"
    return _answer(service, stored, response)


@router.get("/v1/jobs/{name}", operation_id="get_job", summary="Show a job")
def get_job(request: Request, name: JobName, response: Response) -> Job:
    """One job, with what it runs and when it runs next. The header ETag is what a change wants for `If-Match`."""
    service = service_of(request)
    response.headers["etag"] = etag(service.state.jobs.read(name))
    return one_job(service, name)


@router.put("/v1/jobs/{name}", operation_id="replace_job", summary="Replace a job", responses=_CONFLICTS)
def replace_job(request: Request, name: JobName, body: Spec, response: Response, if_match: IfMatch = "") -> Job:
    """Give a job that was made here another spec."""
    service = service_of(request)
    return _change(service, _changeable(service, name, if_match), body.root, response)


@router.patch("/v1/jobs/{name}", operation_id="change_job", summary="Change a job", responses=_CONFLICTS)
def change_job(request: Request, name: JobName, body: SpecPatch, response: Response, if_match: IfMatch = "") -> Job:
    """Change a part of a job that was made here, by a merge patch (`application/merge-patch+json` or `application/json`)."""
    service = service_of(request)
    held = _changeable(service, name, if_match)
    return _change(service, held, _merged(held.spec or {}, body.root), response)


@router.delete("/v1/jobs/{name}", operation_id="delete_job", summary="Delete a job", status_code=204, responses=_CONFLICTS)
def delete_job(request: Request, name: JobName, if_match: IfMatch = "") -> None:
    """Delete a job that was made here. What its runs have stored and delivered stays; runs that have not begun never will. Where the
    file has a job of this name too, that one stays as it is."""
    service = service_of(request)
    held = _changeable(service, name, if_match or "*", beside_the_file=True)
    if not service.state.jobs.delete(name, held.version if if_match not in ("", "*") else None):
        raise _stale(name)
    if of_file(service, name):
        service.state.jobs.pause(name, paused=held.paused)
    else:
        for start in service.state.starts.open(name):
            service.state.starts.cancel(start.id)
    _changed(service)


@router.post("/v1/jobs/{name}/pause", operation_id="pause_job", summary="Pause a job")
def pause_job(request: Request, name: JobName, response: Response) -> Job:
    """Let a job's schedule and webhook start nothing until it is resumed. Calls of its webhook are kept meanwhile; it can still be
    started by hand."""
    return _pause(service_of(request), name, response, paused=True)


@router.post("/v1/jobs/{name}/resume", operation_id="resume_job", summary="Resume a job")
def resume_job(request: Request, name: JobName, response: Response) -> Job:
    """Let a paused job run again: by its schedule from its next moment on, and for the calls of its webhook that were kept."""
    return _pause(service_of(request), name, response, paused=False)


# ---- how


def _made(service: Service, name: str) -> StoredJob | None:
    held = service.state.jobs.read(name)
    return held if held is not None and held.spec is not None else None


def _changeable(service: Service, name: str, if_match: str, *, beside_the_file: bool = False) -> StoredJob:
    """A job that was made by the API, as the caller has seen it. Raises ApiError (404, 409, 412, 428); also where the file has a job of
    its name, unless that does not matter."""
    at, held = of_file(service, name), _made(service, name)
    if held is None:
        one_job(service, name)
    if held is None or (at and not beside_the_file):
        raise ApiError(409, "It stands in the file", f"the job {name} stands at {at}", do=f"change it there; {_PAUSE}")
    if not if_match:
        do = "look at the job, and send its ETag as `If-Match`, so that nobody's change is lost"
        raise ApiError(428, "Say which version you change", "the header If-Match is missing", do=do)
    seen = [each.strip() for each in if_match.split(",")]
    if "*" not in seen and etag(held) not in seen:
        raise _stale(name)
    return held


_PAUSE = "here it can only be paused and resumed"


def _stale(name: str) -> ApiError:
    do = f"look at it again with GET /v1/jobs/{name}, and send the new ETag"
    return ApiError(412, "It was changed meanwhile", f"the job {name} is not the version that If-Match names", do=do)


def _change(service: Service, held: StoredJob, spec: Mapping[str, Any], response: Response) -> Job:
    _check(service, held.name, spec)
    stored = service.state.jobs.change(held.name, spec, held.version)
    if stored is None:
        raise _stale(held.name)
    _changed(service)
    return _answer(service, stored, response)


def _check(service: Service, name: str, spec: Mapping[str, Any]) -> None:
    """Raise ApiError (422) for a spec that would not do in muxly.yaml, and for one with a secret in it that would lie open."""
    assembly = service.runtime.assembly
    problems: list[Problem] = []
    try:
        if len(json.dumps(spec, allow_nan=False, ensure_ascii=False).encode()) > _LONGEST:
            raise ApiError(413, "Too large", "a job's spec has 64 KiB at the most", do="select sources and routes in place of assets")
        check_secrets(spec, assembly.destinations)
        read_job(assembly.project, assembly.destinations, assembly.told[""], name, spec, service.environ, problems)
    except ConfigurationError as error:
        problems += error.problems
    except RecursionError:
        problems.append(Problem("", "is nested too deeply", "write it flatter"))
    except ValueError:  # not a number, infinite, or half a character
        problems.append(Problem("", "holds what JSON and UTF-8 have no word for", "leave it out"))
    if not problems and "\\u0000" in json.dumps(spec):
        problems.append(Problem("", "holds the character NUL", "leave it out"))
    if problems:
        raise refused(name, problems)


def _merged(spec: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """RFC 7396, 2."""
    merged = dict(spec)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping):
            held = merged.get(key)
            merged[key] = _merged(held if isinstance(held, Mapping) else {}, value)
        else:
            merged[key] = value
    return merged


def _pause(service: Service, name: str, response: Response, *, paused: bool) -> Job:
    one_job(service, name)
    stored = service.state.jobs.pause(name, paused=paused)
    job = _answer(service, stored, response)
    if not paused:
        for start in service.state.starts.open(name):
            if start.cause == "webhook":
                service.starting.soon(start)
    return job


def _changed(service: Service) -> None:
    """Let this process and Dagster know; other processes look for themselves."""
    with contextlib.suppress(MuxlyError):  # the file is not sound at the moment, which is no fault of the job
        service.project.reload()
    service.reloading.soon()


def _answer(service: Service, stored: StoredJob, response: Response) -> Job:
    response.headers["etag"] = etag(stored)
    try:
        return one_job(service, stored.name)
    except ApiError:
        raise not_found(f"the job {stored.name} was deleted meanwhile") from None
