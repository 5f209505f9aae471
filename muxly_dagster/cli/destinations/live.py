"""Whether a destination of the project takes records: test."""

import os

import typer

from muxly_dagster import trying
from muxly_dagster.assembly import load_assembly
from muxly_dagster.cli import opening, terminal


def test(name: str, *, json: bool) -> None:
    """Try the destination, as it is declared and as routes have it; exit with 1 if one of these failed."""
    settings = opening.settings()
    assembly = load_assembly(settings.project, os.environ, home=settings.home)
    checks = trying.try_destination(assembly, name)
    told = trying.plain(checks)
    if json:
        terminal.print_json(told)
    else:
        terminal.print_checks((what, r.status, f"{r.tried}: {r.what}" if r.what else r.tried, r.do) for what, r in checks.items())
    if told["status"] == "failed":
        raise typer.Exit(1)


def resume(name: str, *, json: bool) -> None:
    """Close the destination's breaker."""
    with opening.runtime() as runtime:
        stood = runtime.resume(name)
    if json:
        terminal.print_json({"destination": name, "was": stood.status, "reason": stood.reason})
    elif stood.status == "closed":
        terminal.say(f"{name} was not held up")
    else:
        terminal.say(f"{name} was {stood.status} ({stood.reason}); the next run delivers to it again")
