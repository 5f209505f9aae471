"""How refusals are told to senders that know no problem details: in their protocol's form, which they write to their logs."""

from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from muxly_dagster.api.problems import ApiError, of_error
from muxly_dagster.errors import MuxlyError

_REFUSALS = {
    "400": "The body, or something in it, cannot be read; the text says what.",
    "401": "No write key, or one that is not known.",
    "403": "The write key is for other streams.",
    "404": "No pull reads the stream; the text says what to add to muxly.yaml.",
    "413": "The body is too large, or holds too many events.",
    "415": "The body is of a kind that is not read here.",
    "429": "The write key may not send so much; `Retry-After` says when to come again.",
    "4XX": "Any other request that cannot be answered.",
    "5XX": "Nothing can be stored now; `Retry-After` says when to come again.",
}

Tell = Callable[[Request, int, str], Response]
"""Makes the answer to a request from a status and a text."""


def route_that_tells(tell: Tell) -> type[APIRoute]:
    """A kind of route that answers every refusal in a protocol's form. Headers such as Retry-After stay."""

    class Route(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handler = super().get_route_handler()

            async def told(request: Request) -> Response:
                try:
                    return await handler(request)
                except (ApiError, MuxlyError, HTTPException, RequestValidationError) as error:
                    status, text, headers = _said(error)
                    answer = tell(request, status, text)
                    answer.headers.update(headers)
                    return answer

            return told

    return Route


def refusals(content: Mapping[str, Any]) -> dict[int | str, dict[str, Any]]:
    """How the reference shows the refusals of a protocol: what each is for, all of one form (by media type)."""
    return {status: {"description": why, "content": dict(content)} for status, why in _REFUSALS.items()}


def _said(error: ApiError | MuxlyError | HTTPException | RequestValidationError) -> tuple[int, str, Mapping[str, str]]:
    if isinstance(error, HTTPException):
        return error.status_code, str(error.detail), error.headers or {}
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        return 400, f"{'.'.join(str(part) for part in first['loc'][1:])}: {first['msg']}", {}
    problem, headers = (error.problem, error.headers) if isinstance(error, ApiError) else of_error(error)
    # Some clients show the first line only.
    text = "; ".join(part.rstrip(".") for part in (problem.detail or problem.title, problem.do) if part)
    return problem.status, " ".join(text.split()), headers
