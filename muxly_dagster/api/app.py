"""The HTTP face: one FastAPI app out of the routers beside this file. Any number of processes may run it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import Depends, FastAPI

from muxly_dagster.api import problems
from muxly_dagster.api.guard import admin
from muxly_dagster.api.routes import ADMIN, OPEN
from muxly_dagster.api.service import Service

DESCRIPTION = """Collect events, start jobs, see where everything stands. Errors are problem details (RFC 9457) that say what to do."""


def create_app(service: Service) -> FastAPI:
    """The app. It closes the service when it ends."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    app = FastAPI(title="Muxly", version=version("muxly-dagster"), description=DESCRIPTION, openapi_url="/openapi.json", lifespan=lifespan)
    app.state.service = service
    problems.install(app)
    for router in OPEN:
        app.include_router(router, responses=problems.RESPONSES)
    for router in ADMIN:
        app.include_router(router, dependencies=[Depends(admin)], responses=problems.RESPONSES)
    return app
