"""Errors as problem details (RFC 9457): what happened, and what to do about it."""

import math
from collections.abc import Mapping
from typing import Any

import orjson
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from muxly_dagster.api import addresses
from muxly_dagster.errors import (
    BusyError,
    ConfigurationError,
    GoneError,
    MuxlyError,
    RecordRefused,
    RetryLater,
    SignInError,
    SourceError,
)

MEDIA_TYPE = "application/problem+json"

_TITLES: Mapping[int, str] = {400: "Bad request", 404: "Not found", 413: "Content too large"}

_STATUS: Mapping[type[MuxlyError], tuple[int, str]] = {
    BusyError: (409, "Somebody else is doing this right now"),
    RetryLater: (503, "Try again later"),
    SignInError: (502, "The other side refuses our credentials"),
    SourceError: (502, "The other side gave an answer that cannot be used"),
    GoneError: (410, "Gone"),
    RecordRefused: (422, "Refused"),
    ConfigurationError: (422, "This cannot work"),
}


class Problem(BaseModel):
    """A problem detail (RFC 9457). `do` says what to do next, `errors` where several things are wrong, `request_id` finds it in the log."""

    type: str = Field("about:blank", examples=["about:blank"])
    title: str = Field(examples=["Not found"])
    status: int = Field(examples=[404])
    detail: str = Field("", examples=["there is no job nightly"])
    do: str = Field("", examples=["list them with GET /v1/jobs"])
    errors: list[dict[str, Any]] = Field([], examples=[[{"at": "body.cron", "what": "is not a cron line"}]])
    request_id: str = Field("", examples=["0192f6a0c1e87d3e"])


class ApiError(Exception):
    """A refusal that a route decides on; answered as a problem detail."""

    def __init__(
        self, status: int, title: str, detail: str = "", *, do: str = "", errors: list[dict[str, Any]] | None = None, **headers: str
    ) -> None:
        super().__init__(detail or title)
        self.problem = Problem(title=title, status=status, detail=detail, do=do, errors=errors or [])
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


_CONTENT = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
RESPONSES: dict[int | str, dict[str, Any]] = {
    "4XX": {"description": "The request cannot be answered.", "content": _CONTENT},
    "5XX": {"description": "Muxly cannot answer now.", "content": _CONTENT},
}
"""How the reference shows errors."""


def not_found(what: str, do: str = "") -> ApiError:
    """A 404 about something that is named in the address."""
    return ApiError(404, "Not found", what, do=do)


def answer(problem: Problem, request_id: str = "", headers: Mapping[str, str] | None = None) -> Response:
    """The problem as a response."""
    content = problem.model_dump(exclude_defaults=True) | {"type": problem.type, "title": problem.title, "status": problem.status}
    if request_id:
        content["request_id"] = request_id
    return Response(orjson.dumps(content), problem.status, dict(headers or {}), MEDIA_TYPE)


def of_error(error: MuxlyError) -> tuple[Problem, dict[str, str]]:
    """One of Muxly's own errors as a problem, and the headers that go with it."""
    status, title = next((found for kind, found in _STATUS.items() if isinstance(error, kind)), (500, "This did not work"))
    what, do, errors = error.what, error.do, []
    if isinstance(error, ConfigurationError):
        do = do or next((problem.do for problem in error.problems if problem.do), "")
        what = error.problems[0].what if len(error.problems) == 1 else f"{len(error.problems)} things are wrong"
        errors = [
            {name: value for name, value in (("at", p.path), ("what", p.what), ("do", p.do)) if value}
            for p in error.problems
            if len(error.problems) > 1 or p.path
        ]
    detail = f"{error.where}: {what}" if error.where else what
    headers = {}
    if isinstance(error, RetryLater):
        headers["retry-after"] = str(max(1, math.ceil(error.after or 1)))
    return Problem(title=title, status=status, detail=detail, do=do, errors=errors), headers


def install(app: FastAPI) -> None:
    """Answer every error of the app as a problem."""

    @app.exception_handler(ApiError)
    async def refused(request: Request, error: ApiError) -> Response:
        return answer(error.problem, request_id(request), error.headers)

    @app.exception_handler(MuxlyError)
    async def muxly(request: Request, error: MuxlyError) -> Response:
        problem, headers = of_error(error)
        return answer(problem, request_id(request), headers)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        if error.status_code == 405:
            return _not_allowed(request)
        title = _TITLES.get(error.status_code, str(error.detail))
        problem = Problem(title=title, status=error.status_code, detail=str(error.detail) if str(error.detail) != title else "")
        if error.status_code == 404:
            problem.detail, problem.do = _nowhere(request)
        return answer(problem, request_id(request), error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        errors = [{"at": ".".join(str(part) for part in each["loc"]), "what": each["msg"]} for each in error.errors()]
        problem = Problem(title="The request is not valid", status=422, detail=f"{errors[0]['at']}: {errors[0]['what']}", errors=errors)
        return answer(problem, request_id(request))


def unexpected(request_id: str) -> Response:
    """The answer where something failed that nobody expected; what it was stands in the log."""
    do = "the log of the API has more under this request id; please report it"
    return answer(Problem(title="Something went wrong here", status=500, do=do), request_id)


def _nowhere(request: Request) -> tuple[str, str]:
    """What to say of an address that leads nowhere."""
    path = request.url.path
    known = addresses.of(request.app)
    if path != "/" and path.endswith("/") and known.methods(path.rstrip("/")):
        return f"there is nothing at {path}", f"leave the slash at the end out: {path.rstrip('/')}"
    return f"there is nothing at {path}", known.nearest(path) or "see /docs for what there is"


def _not_allowed(request: Request) -> Response:
    """What to say of a method that an address does not know; OPTIONS asks for nothing else (RFC 9110, 9.3.7)."""
    known = addresses.of(request.app).methods(request.url.path)
    allow = {"allow": ", ".join(known)}
    if request.method == "OPTIONS":
        return Response(status_code=204, headers=allow)
    problem = Problem(
        title="Method not allowed", status=405, detail=f"{request.method} is not possible here", do=f"use {' or '.join(known[:-1])}"
    )
    return answer(problem, request_id(request), allow)


def request_id(request: Request) -> str:
    """The id that the request goes by."""
    return str(request.scope.get("state", {}).get("request_id", ""))
