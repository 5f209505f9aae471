"""Conditional requests: an answer that is kept is asked for again by its validators, and only comes again if it is another one."""

from dataclasses import replace

from muxly_dagster.http import Headers, Http, Request, Response
from muxly_dagster.services import Answers, KeptAnswer

_UNCHANGED = 304


def ask(http: Http, request: Request, answers: Answers) -> Response:
    """The answer to a GET request, new or kept: one that still holds (304) comes back as a 200 with the kept body.

    An answer is kept if it names an ETag or a Last-Modified date and does not forbid it (RFC 9110, 13; RFC 9111, 5.2.2.5). Any other
    method is asked as usual. Raises what `Http.request` raises.
    """
    if request.method.upper() != "GET":
        return http.request(request)
    name = http.name_of(request)
    kept = answers.read(name)
    response = http.request(request if kept is None else with_validators(request, kept.etag, kept.last_modified))
    if kept is not None and response.status == _UNCHANGED:
        headers = {name: value for name, value in response.headers.items() if name != "content-length"}
        return replace(response, status=200, headers=Headers(headers.items()), content=kept.content, request=request)
    etag, modified = validators(response)
    if response.status == 200 and (etag or modified):
        answers.keep(name, KeptAnswer(response.content, etag, modified))
    return replace(response, request=request)


def with_validators(request: Request, etag: str, last_modified: str) -> Request:
    """The request for an answer only if it is another one than that; 304 says that it is not."""
    conditions = {"If-None-Match": etag, "If-Modified-Since": last_modified}
    headers = {**(request.headers or {}), **{name: value for name, value in conditions.items() if value}}
    return replace(request, headers=headers, expected=request.expected | {_UNCHANGED})


def validators(response: Response) -> tuple[str, str]:
    """ETag and Last-Modified of an answer; both empty where it must not be kept."""
    directives = {each.strip().lower() for each in response.headers.get("cache-control", "").split(",")}
    if "no-store" in directives:
        return "", ""
    return response.headers.get("etag", ""), response.headers.get("last-modified", "")
