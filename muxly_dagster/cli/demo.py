"""`muxly demo`: the sample project, run once more against its API a day later."""

from collections.abc import Mapping
from pathlib import Path

import typer

from muxly_dagster.assembly import load_assembly
from muxly_dagster.cli import run as running
from muxly_dagster.cli import terminal
from muxly_dagster.demo import run_demo
from muxly_dagster.settings import Settings


def demo(folder: Path) -> None:
    """Run everything in the demo's project and say where to look."""
    code = run_demo(folder, terminal.out, _run_everything)
    if code:
        raise typer.Exit(code)


def _run_everything(environ: Mapping[str, str]) -> int:
    settings = Settings.from_environ(environ)
    assembly = load_assembly(settings.project, environ, home=settings.home)
    everything = [*assembly.pulls, *assembly.transforms, *assembly.targets]
    reports = running.run_selected(settings, assembly, everything, environ=environ)
    running.tell(reports)
    return 0 if all(report["status"] == "ok" for report in reports) else 1
