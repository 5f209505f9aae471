"""The HTTP face: one FastAPI app out of the routers beside this file. Any number of processes may run it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import Depends, FastAPI
from starlette.requests import Request
from starlette.types import Scope

from muxly_dagster.api import openapi, problems
from muxly_dagster.api.guard import admin, credentials, is_admin
from muxly_dagster.api.middleware import Edge, Requests, allowed_origins, rate_limit
from muxly_dagster.api.routes import ADMIN, OPEN, SENDERS
from muxly_dagster.api.service import Service

DESCRIPTION = """Collect events, start jobs, see where everything stands. Errors are problem details (RFC 9457) that say what to do."""
RATE_LIMIT = "600/minute"
"""What one client may ask, unless MUXLY_RATE_LIMIT says otherwise."""


class Api(FastAPI):
    """FastAPI, with a document in which nothing is left without an example."""

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document, made once."""
        if self.openapi_schema is None:
            self.openapi_schema = openapi.completed(super().openapi())
        return self.openapi_schema


def create_app(service: Service) -> FastAPI:
    """The app. It closes the service when it ends. Raises ConfigurationError for a MUXLY_RATE_LIMIT or MUXLY_ALLOW_ORIGINS that
    is none."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    # Pages that FastAPI brings load their scripts from elsewhere, and its document is made while nobody else is answered: see `reference`.
    app = Api(
        title="Muxly",
        version=version("muxly-dagster"),
        description=DESCRIPTION,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    app.state.service, app.state.requests = service, Requests()
    problems.install(app)
    for router in OPEN:
        app.include_router(router, responses=problems.RESPONSES)
    for router in ADMIN:
        app.include_router(router, dependencies=[Depends(admin)], responses=problems.RESPONSES)
    app.add_middleware(
        Edge,
        requests=app.state.requests,
        limit=rate_limit(service.environ.get("MUXLY_RATE_LIMIT", "") or RATE_LIMIT),
        who=lambda scope: _who(service, scope),
        senders=_beginnings(),
        origins=allowed_origins(service.environ.get("MUXLY_ALLOW_ORIGINS", "")),
    )
    return app


def _who(service: Service, scope: Scope) -> str:
    """Whom a rate limit counts: the administrator, or an address."""
    if is_admin(service, credentials(Request(scope))):
        return "admin"
    client = scope.get("client")
    return f"address {client[0]}" if client else "address"


def _beginnings() -> list[str]:
    """How the addresses begin that senders use."""
    paths = (getattr(route, "path", "") for router in SENDERS for route in router.routes)
    return sorted({path.partition("{")[0] for path in paths} - {"", "/"})
