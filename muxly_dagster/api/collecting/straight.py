"""The straight way to `POST /v1/collect/...`, past the router: it is asked thousands of times a second, and the router costs more than it.

What answers is the route's own function, and the document shows the route; nothing is different but the time it takes.
"""

from collections.abc import Awaitable, Callable, Mapping
from functools import cached_property
from types import SimpleNamespace

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from muxly_dagster.api.middleware import Requests
from muxly_dagster.api.middleware.watching import Watched
from muxly_dagster.api.problems import ApiError, answer, of_error, request_id
from muxly_dagster.errors import MuxlyError


class PlainRequest(Request):
    """A request whose headers are read once: by lower-case name, the last of each name."""

    @cached_property
    def headers(self) -> Mapping[str, str]:  # type: ignore[override]
        return {name.decode("latin-1"): value.decode("latin-1") for name, value in self.scope["headers"]}


class Straight:
    """Answers posts to `PREFIX SOURCE / STREAM` by a function, watched as all requests are; everything else goes on to the app."""

    def __init__(self, app: ASGIApp, requests: Requests, *, prefix: str, endpoint: Callable[[Request], Awaitable[Response]]) -> None:
        self._app, self._prefix, self._endpoint = app, prefix, endpoint
        self._route = SimpleNamespace(path=f"{prefix}{{source}}/{{stream}}")  # the name under which requests are counted
        self._watched = Watched(self._answered, requests, log_all=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"].startswith(self._prefix):
            parts = scope["path"][len(self._prefix) :].split("/")
            if len(parts) == 2 and all(parts):
                scope["path_params"], scope["route"] = {"source": parts[0], "stream": parts[1]}, self._route
                await self._watched(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _answered(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = PlainRequest(scope, receive)
        try:
            response = await self._endpoint(request)
        except ApiError as error:
            response = answer(error.problem, request_id(request), error.headers)
        except MuxlyError as error:
            problem, headers = of_error(error)
            response = answer(problem, request_id(request), headers)
        await response(scope, receive, send)
