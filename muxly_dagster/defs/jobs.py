"""A project's jobs, each with its schedule."""

import dagster as dg

from muxly_dagster.assembly import Assembly, select
from muxly_dagster.assembly.tags import JOB
from muxly_dagster.defs.checks import all_standing
from muxly_dagster.defs.metadata import asset_key
from muxly_dagster.defs.schedules import job_schedule


def project_jobs(assembly: Assembly) -> dg.Definitions:
    """All jobs, and a schedule for each that says when it runs."""
    # All standing checks are one step: a job that has it drags in every asset it looks at, and 20 such jobs over 1,000 pulls take
    # seconds to load. The sensor sees to them.
    elsewhere = dg.AssetSelection.checks(*(check.key for check in all_standing(assembly)))
    jobs = {
        name: dg.define_asset_job(
            name,
            selection=dg.AssetSelection.assets(*(asset_key(asset) for asset in select(assembly, spec.select))) - elsewhere,
            description=spec.description or f"Runs {', '.join(spec.select)}.",
            tags={JOB: name},
            # One process for all of a job's steps: a process for each would cost seconds of CPU where most pulls take less.
            executor_def=dg.in_process_executor,
        )
        for name, spec in assembly.jobs.items()
    }
    schedules = [job_schedule(name, spec, jobs[name]) for name, spec in assembly.jobs.items() if spec.cron]
    return dg.Definitions(jobs=list(jobs.values()), schedules=schedules)
