"""GET /metrics: what all prometheus destinations of a project hold in exposition mode, as text."""

from fastapi import APIRouter
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from muxly_dagster.destinations.prometheus import Prometheus, exposing
from muxly_dagster.errors import ConfigurationError, MuxlyError
from muxly_dagster.runtime import Runtime

router = APIRouter(tags=["Metrics"])


def metrics_app(runtime: Runtime) -> Starlette:
    """The ASGI app. Raises ConfigurationError where the project has nothing to show, or two metrics of one name that do not go together."""
    if not exposed(runtime):
        raise ConfigurationError(
            "the project has no route to a destination of `type: prometheus` with `mode: exposition`",
            do="declare one, then start this again",
        )
    exposing.check([exposing.Part(name, destination.metrics, ()) for name, destination in exposed(runtime).items()])

    def metrics(request: Request) -> Response:
        """Read anew for every scrape; runs in a thread."""
        try:
            parts = [destination.shown(name, name) for name, destination in exposed(runtime).items()]
            content_type = exposing.negotiated(request.headers.get("accept", ""))
            content = exposing.text(exposing.merged(parts), content_type)
        except MuxlyError as error:
            return PlainTextResponse(f"{error}\n", status_code=503)
        return Response(content, headers={"content-type": content_type, "vary": "Accept"})

    return Starlette(routes=[Route("/metrics", metrics, methods=["GET"])], middleware=[Middleware(GZipMiddleware)])


def exposed(runtime: Runtime) -> dict[str, Prometheus]:
    """The deliveries whose values are shown, by name."""
    targets = {name: target.destination for name, target in runtime.assembly.targets.items()}
    return {name: each for name, each in targets.items() if isinstance(each, Prometheus) and each.mode == "exposition"}
