"""Whether the process lives, and whether it can do its work."""

from collections.abc import Callable
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import Response

from muxly_dagster.api.answers import Read, json_answer
from muxly_dagster.api.guard import credentials, is_admin, is_local
from muxly_dagster.api.service import Service, service_of
from muxly_dagster.errors import MuxlyError
from muxly_dagster.state.figures import Figures

router = APIRouter(tags=["Health"])

Part = Literal["state", "lake", "project", "orchestrator"]


class Alive(Read):
    """The process answers."""

    status: Literal["ok"] = Field("ok", description="Always ok.", examples=["ok"])


class Readiness(Read):
    """One thing that the API needs for its work."""

    name: Part = Field(description="What was looked at.", examples=["state"])
    status: Literal["ok", "failed", "skipped"] = Field(description="How it stands; skipped: not needed, or left out.", examples=["ok"])
    what: str = Field("", description="What is wrong; told to administrators only.", examples=[""])
    do: str = Field("", description="What to do about it; told to administrators only.", examples=[""])


class Ready(Read):
    """Whether the API can do its work."""

    status: Literal["ok", "failed"] = Field(description="failed where one of the checks is.", examples=["ok"])
    checks: list[Readiness] = Field(description="What was looked at.")


@router.get("/healthz", operation_id="get_health", summary="Is it alive?", response_model=Alive)
async def get_health() -> Alive:
    """The process lives and answers; nothing else is looked at. For whatever starts a process again that does not."""
    return Alive()


@router.get(
    "/readyz",
    operation_id="get_readiness",
    summary="Is it ready?",
    response_model=Ready,
    responses={503: {"description": "Something that the API needs does not work.", "model": Ready}},
)
def get_readiness(
    request: Request,
    exclude: Annotated[
        list[Part] | None,
        Query(description="A check to leave out; repeat it for more.", examples=[["project", "orchestrator"]], max_length=10),
    ] = None,
) -> Response:
    """Look at the state database, the lake, whether the newest version of the project is sound (until it is, the one before stays in use),
    and whether Dagster can be reached, where the project has jobs.
    """
    service = service_of(request)
    checks = [_look(name, look, service, exclude or []) for name, look in _LOOKS.items()]
    failed = any(check.status == "failed" for check in checks)
    given = credentials(request)
    if not is_admin(service, given) and not (not service.admin_token and is_local(service, request)):
        checks = [check.model_copy(update={"what": "", "do": ""}) for check in checks]
    found = Ready(status="failed" if failed else "ok", checks=checks)
    answer = json_answer(found.model_dump())
    answer.status_code = 503 if failed else 200
    return answer


def _look(name: Part, look: Callable[[Service], bool], service: Service, exclude: list[Part]) -> Readiness:
    if name in exclude:
        return Readiness(name=name, status="skipped")
    try:
        return Readiness(name=name, status="ok" if look(service) else "skipped")
    except MuxlyError as error:
        return Readiness(name=name, status="failed", what=error.what, do=error.do)


def _state(service: Service) -> bool:
    Figures(service.state).ping()
    return True


def _lake(service: Service) -> bool:
    """Open one of its tables, which says whether the folder or bucket can be read."""
    runtime = service.runtime
    for name in (*runtime.assembly.pulls, *runtime.assembly.transforms):
        runtime.lake.table(name)
        return True
    return False


def _project(service: Service) -> bool:
    if service.project.trouble is not None:
        raise service.project.trouble
    return True


def _orchestrator(service: Service) -> bool:
    if not service.runtime.assembly.jobs:
        return False
    service.orchestrator.heartbeats()
    return True


_LOOKS: dict[Part, Callable[[Service], bool]] = {"state": _state, "lake": _lake, "project": _project, "orchestrator": _orchestrator}
