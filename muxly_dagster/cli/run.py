"""`muxly run`: the selected assets in one Dagster run in this process, with progress, a table, and Dagster's history."""

import dataclasses
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from muxly_dagster.assembly import Assembly, load_assembly, select
from muxly_dagster.cli import opening, terminal
from muxly_dagster.cli.dev import dagster_home
from muxly_dagster.outcome import Progress, Watch
from muxly_dagster.settings import Settings

if TYPE_CHECKING:
    import dagster as dg

COUNTS = ("read", "changed", "accepted", "refused", "unrouted")
_SECONDS_BETWEEN_LINES = 5.0


def run(patterns: Sequence[str], *, from_start: bool, json: bool) -> None:
    """Run what the patterns select, tell what happened, exit with 1 if anything failed."""
    settings = opening.settings()
    assembly = load_assembly(settings.project, os.environ)
    reports = run_selected(settings, assembly, expand_jobs(assembly, patterns), environ=os.environ, from_start=from_start, quiet=json)
    if json:
        terminal.print_json(reports)
    else:
        tell(reports)
    if any(report["status"] != "ok" for report in reports):
        raise typer.Exit(1)


def expand_jobs(assembly: Assembly, patterns: Sequence[str]) -> list[str]:
    """The patterns with each job's name replaced by what the job selects."""
    return [part for pattern in patterns for part in (assembly.jobs[pattern].select if pattern in assembly.jobs else [pattern])]


def run_selected(
    settings: Settings, assembly: Assembly, patterns: Sequence[str], *, environ: Mapping[str, str], from_start: bool = False, quiet: bool = False
) -> list[dict[str, Any]]:
    """Run in one Dagster run; a report per asset: asset, read, changed, accepted, refused, unrouted, seconds, status, and error if any.

    An asset that fails does not stop those that do not depend on it.
    """
    names = select(assembly, patterns)
    os.environ["DAGSTER_HOME"] = str(dagster_home(settings.home, environ))
    import dagster as dg

    from muxly_dagster.defs.metadata import asset_key
    from muxly_dagster.defs.project import assembly_definitions

    chosen = dataclasses.replace(
        assembly,
        pulls={name: pull for name, pull in assembly.pulls.items() if name in names},
        transforms={name: transform for name, transform in assembly.transforms.items() if name in names},
        targets={name: target for name, target in assembly.targets.items() if name in names},
        jobs={},
    )
    with _shown_progress(quiet=quiet) as progress, dg.DagsterInstance.get() as instance:
        watch = Watch(progress=progress, from_start=from_start, patient=False)
        definitions = assembly_definitions(chosen, settings, watch=watch)
        job = definitions.resolve_implicit_global_asset_job_def()
        result = job.execute_in_process(
            instance=instance,
            asset_selection=[asset_key(name) for name in names],
            raise_on_error=False,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            tags={"muxly/run": " ".join(patterns)},
        )
    return _reports(names, watch, result)


def _reports(names: Sequence[str], watch: Watch, result: "dg.ExecuteInProcessResult") -> list[dict[str, Any]]:
    done = {outcome.asset: outcome for outcome in watch.outcomes}
    errors: dict[str, str] = {}
    for event in result.all_events:
        if event.is_step_failure and event.step_key:
            failure = event.step_failure_data
            told = failure.user_failure_data
            errors[event.step_key] = (told.description if told and told.description else None) or (failure.error.message if failure.error else "")
    reports = []
    for name in names:
        outcome, error = done.get(name), errors.get(name.replace(".", "__"))
        counts = {count: getattr(outcome, count) if outcome else 0 for count in COUNTS}
        report = {"asset": name} | counts | {"seconds": round(outcome.seconds, 3) if outcome else 0.0}
        status = "failed" if error is not None else "ok" if outcome else "skipped"
        reports.append(report | {"status": status} | ({"error": error.strip()} if error is not None else {}))
    return reports


def tell(reports: Sequence[dict[str, Any]]) -> None:
    """The table, then what went wrong."""
    columns = ("asset", *COUNTS, "seconds", "status")
    rows = [[f"{r[c]:.2f}" if c == "seconds" else r[c] for c in columns] for r in reports]
    terminal.print_table(columns, rows, numbers=columns[1:-1])
    for report in reports:
        if "error" in report:
            terminal.say(f"\n{report['asset']} failed: {report['error']}")
    skipped = [report["asset"] for report in reports if report["status"] == "skipped"]
    if skipped:
        terminal.say(f"\nskipped, because something before them failed: {', '.join(skipped)}")


@contextmanager
def _shown_progress(*, quiet: bool) -> Iterator[Progress | None]:
    """A bar per asset on a terminal; a line now and then without one; nothing when quiet."""
    if quiet:
        yield None
    elif terminal.err.is_terminal:
        from rich.progress import Progress as Bars
        from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

        with Bars(SpinnerColumn(), TextColumn("{task.description}"), TextColumn("{task.completed:,.0f} records"), TimeElapsedColumn(), console=terminal.err) as bars:
            tasks: dict[str, Any] = {}

            def show(asset: str, count: int) -> None:
                if asset not in tasks:
                    tasks[asset] = bars.add_task(asset, total=None)
                bars.update(tasks[asset], completed=count)

            yield show
    else:
        last = time.monotonic()

        def line(asset: str, count: int) -> None:
            nonlocal last
            if time.monotonic() - last >= _SECONDS_BETWEEN_LINES:
                last = time.monotonic()
                print(f"{asset}: {count:,} records so far", file=sys.stderr)

        yield line
