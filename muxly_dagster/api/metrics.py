"""GET /metrics: Muxly's own figures, and with them what the project's prometheus destinations hold in exposition mode."""

import hmac
import logging
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Request
from fastapi.security import HTTPBearer
from fastapi.security.http import HTTPAuthorizationCredentials
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request as PlainRequest
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from muxly_dagster import observing
from muxly_dagster.api.guard import admin, credentials
from muxly_dagster.api.middleware import Requests
from muxly_dagster.api.service import service_of
from muxly_dagster.destinations.prometheus import Prometheus, exposing
from muxly_dagster.errors import ConfigurationError, MuxlyError
from muxly_dagster.runtime import Runtime

router = APIRouter(tags=["Metrics"])

OWN = "muxly_"
"""How the names of Muxly's own metrics begin."""

_BEARER = HTTPBearer(auto_error=False, scheme_name="metrics", description="The value of MUXLY_METRICS_TOKEN, or the admin token.")

_EXAMPLE = """# HELP muxly_delivery_lag_records Changes that a delivery has not dealt with.
# TYPE muxly_delivery_lag_records gauge
muxly_delivery_lag_records{delivery="big_deals.warehouse"} 3.0
"""

_log = logging.getLogger("muxly.api")


def scraper(request: Request, _shown: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)] = None) -> None:
    """Let whoever may read metrics pass: the MUXLY_METRICS_TOKEN, if there is one, and administrators. Raises ApiError (401, 403)."""
    token = service_of(request).environ.get("MUXLY_METRICS_TOKEN", "")
    if not token or not hmac.compare_digest(credentials(request).encode(), token.encode()):
        admin(request)


@router.get(
    "/metrics",
    operation_id="get_metrics",
    summary="Scrape metrics",
    dependencies=[Depends(scraper)],
    response_class=PlainTextResponse,
    responses={
        200: {
            "description": "Prometheus' text format, or OpenMetrics 1.0 where it is asked for.",
            "content": {
                "text/plain": {"schema": {"type": "string"}, "example": _EXAMPLE},
                "application/openmetrics-text": {"schema": {"type": "string"}, "example": _EXAMPLE + "# EOF\n"},
            },
        }
    },
)
def get_metrics(request: Request, accept: Annotated[str, Header(description="The format.", examples=["text/plain"])] = "") -> Response:
    """Muxly's own figures, whose names begin with `muxly_`, and the metrics of the project's prometheus destinations.

    Asks for MUXLY_METRICS_TOKEN or the admin token; with no admin token set, this machine may scrape without one.
    """
    service = service_of(request)
    requests: Requests = request.app.state.requests
    content_type = exposing.negotiated(accept)
    runtime, created = service.runtime, content_type != exposing.TEXT
    projects, up = _of_project(runtime, created=created)
    own = [*observing.families(runtime.lake, runtime.state, runtime.assembly), *requests.families(created=created), up]
    content = exposing.page([*own, *projects], content_type)
    return Response(content, headers={"content-type": content_type, "vary": "Accept"})


def _of_project(runtime: Runtime, *, created: bool) -> tuple[list[Metric], Metric]:
    """What the project's destinations show, and whether it could be shown: trouble with it must not hide Muxly's own figures."""
    up = GaugeMetricFamily("muxly_exposition_up", "Whether the metrics of the project's prometheus destinations could be shown.")
    try:
        parts = [destination.shown(name, name) for name, destination in exposed(runtime).items()]
        shown = [(metric, series) for metric, series in exposing.merged(parts) if series]
    except MuxlyError as error:
        _log.warning("the metrics of the project's prometheus destinations cannot be shown: %s", error)
        up.add_metric([], 0)
        return [], up
    up.add_metric([], 1)
    return [exposing.family(metric, series, created=created) for metric, series in shown if not metric.family.startswith(OWN)], up


def metrics_app(runtime: Runtime) -> Starlette:
    """An app with nothing but the destinations' metrics. Raises ConfigurationError where the project has nothing to show, or two metrics of
    one name that do not go together.
    """
    if not exposed(runtime):
        raise ConfigurationError(
            "the project has no route to a destination of `type: prometheus` with `mode: exposition`",
            do="declare one, then start this again",
        )
    exposing.check([exposing.Part(name, destination.metrics, ()) for name, destination in exposed(runtime).items()])

    def metrics(request: PlainRequest) -> Response:
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
