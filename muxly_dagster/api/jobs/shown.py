"""Jobs as the API shows them, those of muxly.yaml and those of the state alike."""

import datetime as dt
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import xxhash
from fastapi import Path
from pydantic import BaseModel, Field

from muxly_dagster.api.problems import ApiError, not_found
from muxly_dagster.api.service import Service
from muxly_dagster.assembly import Assembly, select
from muxly_dagster.assembly.ticks import upcoming
from muxly_dagster.errors import Problem
from muxly_dagster.project.checks import did_you_mean
from muxly_dagster.project.models import JobSpec, TargetSpec
from muxly_dagster.state.jobs import StoredJob

JobName = Annotated[str, Path(pattern=r"^[a-z][a-z0-9_]*$", max_length=255, description="The job.", examples=["nightly"])]
SPEC = {"select": ["crm", "customers_out"], "cron": "0 2 * * *", "timezone": "Europe/Berlin", "on_failure": ["ops_slack"]}


class Wrong(BaseModel):
    """Why a job does not fit into the project any more."""

    at: str = Field(examples=["select.0"], description="Where in the spec.")
    what: str = Field(examples=["there is nothing called crm to run"])
    do: str = Field("", examples=["did you mean crm2?"])


class Job(BaseModel):
    """A job. `version` counts its changes through the API; the header ETag stands for it."""

    name: str = Field(examples=["nightly"])
    origin: Literal["file", "api"] = Field(examples=["api"], description="Whether it stands in the project's file, or was made here.")
    at: str = Field("", examples=["muxly.yaml:14:3"], description="Where it stands in the file.")
    spec: dict[str, Any] = Field(examples=[SPEC], description="What it says, as under `jobs: NAME:`. Secrets are masked.")
    assets: list[str] = Field(examples=[["crm.contacts", "customers_out.warehouse"]], description="What it runs, in order.")
    enabled: bool = Field(examples=[True], description="Whether its schedule begins switched on, and its webhook is open.")
    paused: bool = Field(examples=[False], description="Whether its schedule and its webhook start nothing for now.")
    webhook: str = Field("", examples=["/v1/hooks/nightly"], description="Where its webhook is called.")
    next_run_at: dt.datetime | None = Field(
        None, examples=["2026-03-02T01:00:00Z"], description="The next moment of its schedule, where it is neither paused nor switched off."
    )
    problems: list[Wrong] = Field([], description="Why Dagster does not know it: it no longer fits into the project.")
    version: int = Field(examples=[1])
    created_at: dt.datetime | None = Field(None, examples=["2026-03-01T12:00:00Z"])
    updated_at: dt.datetime | None = Field(None, examples=["2026-03-01T12:00:00Z"])


def all_jobs(service: Service) -> list[Job]:
    """Every job, by name."""
    assembly = service.runtime.assembly
    stored = {job.name: job for job in service.state.jobs.all()}
    return [job for name in sorted({*assembly.project.jobs, *stored}) if (job := _shown(service, assembly, name, stored.get(name)))]


def one_job(service: Service, name: str) -> Job:
    """One job. Raises ApiError (404)."""
    assembly = service.runtime.assembly
    job = _shown(service, assembly, name, service.state.jobs.read(name))
    if job is None:
        raise not_found(f"there is no job {name}", did_you_mean(name, assembly.jobs) or "make one with POST /v1/jobs")
    return job


def of_file(service: Service, name: str) -> str:
    """Where a job stands in the project's file; empty where it does not."""
    return _place(service.runtime.assembly, name) if name in service.runtime.assembly.project.jobs else ""


def etag(stored: StoredJob | None) -> str:
    """Stands for a version of a job, also after it was deleted and made anew (RFC 9110, 8.8.3)."""
    if stored is None:
        return '"0"'
    return f'"{stored.version}-{xxhash.xxh3_64_hexdigest(stored.created_at.isoformat().encode())[:8]}"'


def wrong(name: str, problems: Iterator[Problem] | tuple[Problem, ...]) -> Iterator[Wrong]:
    """Problems of a job that stands in no file, each at its place in the spec."""
    for problem in problems:
        yield Wrong(at=problem.path.removeprefix(f"jobs.{name}").removeprefix("."), what=problem.what, do=problem.do)


def refused(name: str, problems: list[Problem]) -> ApiError:
    """The answer to a spec that would not do in muxly.yaml either."""
    found = [Wrong(at=f"body.{each.at}".rstrip("."), what=each.what, do=each.do) for each in wrong(name, tuple(problems))]
    errors = [each.model_dump(exclude_defaults=True) for each in found]
    detail = f"{found[0].at}: {found[0].what}" if len(found) == 1 else f"{len(found)} things are wrong"
    return ApiError(422, "This cannot work", detail, do=found[0].do if len(found) == 1 else "", errors=errors)


def _shown(service: Service, assembly: Assembly, name: str, stored: StoredJob | None) -> Job | None:
    declared = name in assembly.project.jobs
    if not declared and (stored is None or stored.spec is None):
        return None  # paused once, and no longer in the file
    spec = assembly.jobs.get(name)
    paused = stored is not None and stored.paused
    written: Mapping[str, Any] = _of_file(spec) if declared and spec else (stored.spec or {}) if stored else {}
    runs = bool(spec and spec.cron and spec.enabled and not paused)
    return Job(
        name=name,
        origin="file" if declared else "api",
        at=_place(assembly, name) if declared else "",
        spec=dict(written),
        assets=select(assembly, spec.select) if spec else [],
        enabled=spec.enabled if spec else False,
        paused=paused,
        webhook=f"/v1/hooks/{name}" if spec and spec.webhook else "",
        next_run_at=next(upcoming(spec, dt.datetime.now(dt.UTC)), None) if spec and runs else None,
        problems=list(wrong(name, assembly.unfit.get(name, ()))),
        version=stored.version if stored else 0,
        created_at=stored.created_at if stored and not declared else None,
        updated_at=stored.updated_at if stored and not declared else None,
    )


def _of_file(spec: JobSpec) -> dict[str, Any]:
    """What the file says, with secrets masked; what a notice's destination is given beside its name may hold some too."""
    said = spec.model_dump(mode="json", exclude_unset=True, by_alias=True)
    for field in ("on_failure", "on_recovery"):
        if field in said:
            targets: list[TargetSpec] = getattr(spec, field)
            said[field] = [each.destination for each in targets]
    return said


def _place(assembly: Assembly, name: str) -> str:
    at = assembly.project.problem(("jobs", name), "")
    return f"{at.file}:{at.line}:{at.column}" if at.file else str(assembly.project.file.name)
