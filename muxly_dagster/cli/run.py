"""`muxly run`: the selected assets in one Dagster run in this process, with progress, a table, and Dagster's history."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import typer

from muxly_dagster.assembly import Assembly, load_assembly, select
from muxly_dagster.cli import opening, progress, terminal
from muxly_dagster.cli.dev import dagster_home
from muxly_dagster.errors import ConfigurationError
from muxly_dagster.outcome import Watch
from muxly_dagster.settings import Settings
from muxly_dagster.state.jobs import made_jobs

if TYPE_CHECKING:
    import dagster as dg

COUNTS = ("read", "changed", "accepted", "refused", "unrouted")


def run(patterns: Sequence[str], *, from_start: bool, past_guard: bool, json: bool) -> None:
    """Run what the patterns select, tell what happened, exit with 1 if anything failed."""
    pa.set_memory_pool(pa.system_memory_pool())  # gives back what a batch took, which Arrow's own keeps: 40 MiB less at the peak
    settings = opening.settings()
    made = made_jobs(settings.database_url, settings.home)
    assembly = load_assembly(settings.project, os.environ, home=settings.home, made=made)
    if not patterns:
        raise ConfigurationError("say what to run", do=_choices(assembly))
    reports = run_selected(settings, assembly, patterns, environ=os.environ, from_start=from_start, past_guard=past_guard, quiet=json)
    report(reports, json=json)


def report(reports: Sequence[dict[str, Any]], *, json: bool) -> None:
    """Tell what happened; exit with 1 if anything failed."""
    if json:
        terminal.print_json(reports)
    else:
        tell(reports)
    if any(each["status"] != "ok" for each in reports):
        raise typer.Exit(1)


def run_selected(
    settings: Settings,
    assembly: Assembly,
    patterns: Sequence[str],
    *,
    environ: Mapping[str, str],
    from_start: bool = False,
    past_guard: bool = False,
    quiet: bool = False,
) -> list[dict[str, Any]]:
    """Run in one Dagster run; a report per asset: asset, read, changed, accepted, refused, unrouted, seconds, status, and error if any.

    An asset that fails does not stop those that do not depend on it.
    """
    names = select(assembly, patterns)
    chosen = dataclasses.replace(
        assembly,
        pulls={name: pull for name, pull in assembly.pulls.items() if name in names},
        transforms={name: transform for name, transform in assembly.transforms.items() if name in names},
        targets={name: target for name, target in assembly.targets.items() if name in names},
        jobs={},
    )
    watch = Watch(from_start=from_start, patient=False, past_guard=past_guard)
    os.environ["DAGSTER_HOME"] = str(dagster_home(settings.home, environ))
    with nullcontext() if quiet else progress.shown(watch, len(names)):
        import dagster as dg

        from muxly_dagster.defs.metadata import asset_key
        from muxly_dagster.defs.project import assembly_definitions

        job = assembly_definitions(chosen, settings, watch=watch).resolve_implicit_global_asset_job_def()
        with dg.DagsterInstance.get() as instance:
            result = job.execute_in_process(
                instance=instance,
                asset_selection=[asset_key(name) for name in names],
                raise_on_error=False,
                run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
                tags={"muxly/run": " ".join(patterns)},
            )
    return _reports(names, watch, result)


def _choices(assembly: Assembly) -> str:
    routes = dict.fromkeys(target.route for target in assembly.targets.values())
    kinds = {"jobs": assembly.jobs, "sources": assembly.sources, "transforms": assembly.transforms, "routes": routes}
    shown = [f"{kind} {', '.join(list(names)[:8])}{' ...' if len(names) > 8 else ''}" for kind, names in kinds.items() if names]
    return "name one or more of " + "; ".join([*shown, "or '*' for everything"])


def _reports(names: Sequence[str], watch: Watch, result: "dg.ExecuteInProcessResult") -> list[dict[str, Any]]:
    done = {outcome.asset: outcome for outcome in watch.outcomes}
    errors: dict[str, str] = {}
    for event in result.all_events:
        if event.is_step_failure and event.step_key:
            failure = event.step_failure_data
            told = failure.user_failure_data
            unexpected = failure.error.message if failure.error else ""
            if failure.error and failure.error.cls_name == "DagsterExecutionInterruptedError":
                unexpected = "it was interrupted; what was stored until then stays, and the next run goes on from there"
            errors[event.step_key] = (told.description if told and told.description else None) or unexpected
    reports = []
    for name in names:
        outcome, error = done.get(name), errors.get(name.replace(".", "__"))
        counts = {count: getattr(outcome, count) if outcome else 0 for count in COUNTS}
        report = {"asset": name} | counts | {"seconds": round(outcome.seconds, 3) if outcome else 0.0}
        report |= {word: outcome.metadata[word] for word in ("waits", "waits_until") if outcome and word in outcome.metadata}
        status = "failed" if error is not None else "ok" if outcome else "skipped"
        reports.append(report | {"status": status} | ({"error": error.strip()} if error is not None else {}))
    return reports


def tell(reports: Sequence[dict[str, Any]]) -> None:
    """The table, then what went wrong."""
    columns = ("asset", *COUNTS, "seconds", "status")
    rows = [[r["asset"], *(r[c] for c in COUNTS), f"{r['seconds']:.2f}", terminal.status(r["status"])] for r in reports]
    terminal.print_table(columns, rows, numbers=columns[1:-1])
    for report in reports:
        if "error" in report:
            terminal.say(f"\n{report['asset']} failed: {report['error']}")
    for each in reports:
        if "waits" in each:
            terminal.say(f"{each['asset']} waits until {each['waits_until']}: {each['waits']}")
    skipped = [report["asset"] for report in reports if report["status"] == "skipped"]
    if skipped:
        terminal.say(f"\nskipped, because something before them failed: {', '.join(skipped)}")
