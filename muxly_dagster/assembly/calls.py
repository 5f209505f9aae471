"""Whether there is somebody to call for every pull of webhooks' calls."""

from collections.abc import Iterator, Mapping

from muxly_dagster.assembly.parts import Pull
from muxly_dagster.errors import Problem
from muxly_dagster.project.checks import did_you_mean
from muxly_dagster.project.models import JobSpec, Project

WEBHOOK = "webhook"
"""The id of the connector that reads calls."""


def unheard(project: Project, pulls: Mapping[str, Pull], jobs: Mapping[str, JobSpec]) -> Iterator[Problem]:
    """A warning for every pull that reads the calls of a job without a webhook: such a job may still be made."""
    called = [name for name, job in jobs.items() if job.webhook is not None]
    for name, pull in pulls.items():
        if pull.connector.id == WEBHOOK and pull.stream.name not in called:
            what = f"reads the calls of the job {pull.stream.name}, and no job of this name has a webhook"
            do = did_you_mean(pull.stream.name, called) or "give a job a `webhook`, and name it by `job`"
            yield project.problem(("sources", pull.source, "pulls", name.partition(".")[2]), what, do)
