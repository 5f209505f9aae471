"""Everything Dagster knows of one project, built from what it declares: nothing is opened, nothing is asked."""

import re
from collections.abc import Mapping

import dagster as dg

from muxly_dagster.assembly import Assembly, load_assembly
from muxly_dagster.defs.checks import all_standing
from muxly_dagster.defs.checks.standing import standing_checks, standing_sensor
from muxly_dagster.defs.inbox import automatic_pulls, inbox_sensor
from muxly_dagster.defs.jobs import project_jobs
from muxly_dagster.defs.maintenance import MAINTENANCE, Ours, maintenance_job, maintenance_schedule
from muxly_dagster.defs.metadata import asset_key
from muxly_dagster.defs.notices import notices_sensor
from muxly_dagster.defs.pulls import pull_asset
from muxly_dagster.defs.redelivery import redelivery_sensor
from muxly_dagster.defs.resources import project_resources
from muxly_dagster.defs.routes import target_asset
from muxly_dagster.defs.starts import starts_sensor
from muxly_dagster.defs.transforms import transform_asset
from muxly_dagster.errors import ConfigurationError
from muxly_dagster.outcome import Watch
from muxly_dagster.settings import Settings
from muxly_dagster.state.jobs import made_jobs

_EMAIL = re.compile(r"[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,7}")
_TEAM = re.compile(r"team:.+")


def project_definitions(settings: Settings, environ: Mapping[str, str]) -> dg.Definitions:
    """Load, check and build the project that the settings name. Raises ConfigurationError with everything that is wrong.

    Jobs that were made by the API are read from the state, which need not be there: nothing is created for it.
    """
    made = made_jobs(settings.database_url, settings.home)
    assembly = load_assembly(settings.project, environ, home=settings.home, made=made)
    return assembly_definitions(assembly, settings, web_url=environ.get("MUXLY_WEB_URL", ""))


def assembly_definitions(assembly: Assembly, settings: Settings, watch: Watch | None = None, web_url: str = "") -> dg.Definitions:
    """The definitions of a project that is assembled already; `watch` looks on while assets run in this process. `web_url` is where people
    find Dagster's UI.
    """
    _check_owners(assembly)
    assets = [
        *(pull_asset(pull) for pull in assembly.pulls.values()),
        *(transform_asset(transform) for transform in assembly.transforms.values()),
        *(target_asset(target) for target in assembly.targets.values()),
    ]
    standing = all_standing(assembly)
    names = [*assembly.pulls, *assembly.transforms, *assembly.targets]
    ours = Ours(frozenset({*assembly.jobs, MAINTENANCE}), frozenset(asset_key(name) for name in names))
    maintenance = maintenance_job(ours, assembly.project.retention_days)
    jobs, notices = project_jobs(assembly), notices_sensor(assembly, ours, web_url)
    everything = dg.Definitions(
        assets=assets,
        asset_checks=[standing_checks(standing)] if standing else [],
        sensors=[
            *([standing_sensor(standing)] if standing else []),
            *([redelivery_sensor(assembly)] if assembly.targets else []),
            *([starts_sensor(assembly, jobs.jobs or ())] if assembly.jobs else []),
            *([inbox_sensor(assembly)] if automatic_pulls(assembly) else []),
            *([notices] if notices is not None else []),
        ],
        jobs=[maintenance],
        schedules=[maintenance_schedule(maintenance)],
        resources=project_resources(settings, assembly, watch),
        executor=dg.in_process_executor,
    )
    return dg.Definitions.merge(everything, jobs)


def _check_owners(assembly: Assembly) -> None:
    """Dagster takes e-mail addresses and teams only; said here with file and line, which it cannot."""
    said: dict[tuple[str, ...], list[str]] = {}
    for pull in assembly.pulls.values():
        said["sources", pull.source, "pulls", pull.name.partition(".")[2], "owners"] = pull.settings.owners
    for name, transform in assembly.transforms.items():
        said["transforms", name, "owners"] = transform.spec.owners
    for target in assembly.targets.values():
        said["routes", target.route, "owners"] = target.spec.owners
    problems = [
        assembly.project.problem((*path, index), f"{owner!r} is not an owner", "write an e-mail address or `team:NAME`")
        for path, owners in said.items()
        for index, owner in enumerate(owners)
        if not (_EMAIL.fullmatch(owner) or _TEAM.fullmatch(owner))
    ]
    if problems:
        raise ConfigurationError(problems)
