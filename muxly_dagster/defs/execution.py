"""Runs one asset inside a Dagster run, and reports how far it has come."""

import time

import dagster as dg

from muxly_dagster.assembly.tags import FROM_START, PAST_GUARD, is_set, read_parameters
from muxly_dagster.defs.failures import dagster_errors
from muxly_dagster.defs.resources import OpenProject
from muxly_dagster.delivery import Leave
from muxly_dagster.intake import started_by
from muxly_dagster.outcome import Outcome, Progress, Watch
from muxly_dagster.runtime import Runtime

_SECONDS_BETWEEN_REPORTS = 10.0


def run_asset(context: dg.AssetExecutionContext, name: str) -> tuple[Runtime, Outcome]:
    """Run a pull, transform or target; answers the open runtime too, for what else there is to tell about it.

    Raises dagster.Failure or dagster.RetryRequested where Muxly raises one of its own errors.
    """
    project: OpenProject = context.resources.muxly
    watch = project.watch or Watch(progress=_reports(context))
    # A delivery that fails is due again later, also after a restart: it does not hold its place in the queue until then.
    waits = watch.patient and name not in project.assembly.targets
    tags = context.run.tags
    # What was forgotten once stays forgotten: a step that is tried again goes on from where it has come to.
    from_start = watch.from_start or (is_set(tags, FROM_START) and context.retry_number == 0)
    with dagster_errors(context.retry_number if waits else None):
        begin_run(context, project)
        runtime = project.runtime
        with started_by(lambda: project.calls(context.run)):
            outcome = runtime.run(
                name,
                run_id=context.run.run_id,
                progress=watch.progress,
                from_start=from_start,
                leave=Leave(by_hand=not watch.patient, past_guard=watch.past_guard or is_set(tags, PAST_GUARD)),
                parameters=read_parameters(tags),
            )
        watch.outcomes.append(outcome)
        return runtime, outcome


def begin_run(context: dg.AssetExecutionContext, project: OpenProject) -> None:
    """Let the run begin the start it was requested for. One whose start another run has begun ends here, cancelled and not failed."""
    why_not = project.begin(context.run)
    if why_not:
        context.instance.report_run_canceling(context.run, message=why_not)
        raise dg.DagsterExecutionInterruptedError(why_not)


def _reports(context: dg.AssetExecutionContext) -> Progress:
    """Log how far a long run has come, now and then: every line is an event that Dagster stores."""
    last = time.monotonic()

    def report(asset: str, count: int) -> None:
        nonlocal last
        if time.monotonic() - last >= _SECONDS_BETWEEN_REPORTS:
            last = time.monotonic()
            context.log.info(f"{asset}: {count:,} records so far")

    return report
