"""Everything Dagster knows of one project, built from what it declares: nothing is opened, nothing is asked."""

from collections.abc import Mapping

import dagster as dg

from muxly_dagster.assembly import Assembly, load_assembly
from muxly_dagster.defs.checks import freshness_checks, freshness_limits, freshness_sensor
from muxly_dagster.defs.jobs import project_jobs
from muxly_dagster.defs.maintenance import MAINTENANCE, Ours, maintenance_job, maintenance_schedule
from muxly_dagster.defs.metadata import asset_key
from muxly_dagster.defs.pulls import pull_asset
from muxly_dagster.defs.resources import project_resources
from muxly_dagster.defs.routes import target_asset
from muxly_dagster.defs.transforms import transform_asset
from muxly_dagster.settings import Settings


def project_definitions(settings: Settings, environ: Mapping[str, str]) -> dg.Definitions:
    """Load, check and build the project that the settings name. Raises ConfigurationError with everything that is wrong."""
    return assembly_definitions(load_assembly(settings.project, environ), settings)


def assembly_definitions(assembly: Assembly, settings: Settings) -> dg.Definitions:
    """The definitions of a project that is assembled already."""
    assets = [
        *(pull_asset(pull) for pull in assembly.pulls.values()),
        *(transform_asset(transform) for transform in assembly.transforms.values()),
        *(target_asset(target) for target in assembly.targets.values()),
    ]
    limits = freshness_limits(assembly)
    names = [*assembly.pulls, *assembly.transforms, *assembly.targets]
    ours = Ours(frozenset({*assembly.jobs, MAINTENANCE}), frozenset(asset_key(name) for name in names))
    maintenance = maintenance_job(ours, assembly.project.retention_days)
    everything = dg.Definitions(
        assets=assets,
        asset_checks=[freshness_checks(limits)] if limits else [],
        sensors=[freshness_sensor(limits)] if limits else [],
        jobs=[maintenance],
        schedules=[maintenance_schedule(maintenance)],
        resources=project_resources(settings, assembly),
        executor=dg.in_process_executor,
    )
    return dg.Definitions.merge(everything, project_jobs(assembly))
