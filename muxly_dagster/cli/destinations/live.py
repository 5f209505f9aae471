"""Whether a destination of the project takes records: test."""

import os
from dataclasses import asdict

import typer

from muxly_dagster.assembly import Assembly, load_assembly
from muxly_dagster.cli import opening, terminal
from muxly_dagster.cli.project import try_out
from muxly_dagster.destination import Destination
from muxly_dagster.errors import ConfigurationError
from muxly_dagster.project.checks import did_you_mean


def test(name: str, *, json: bool) -> None:
    """Try the destination, as it is declared and as routes have it; exit with 1 if one of these failed."""
    settings = opening.settings()
    assembly = load_assembly(settings.project, os.environ, home=settings.home)
    checks = {what: try_out(destination) for what, destination in _ways(assembly, name).items()}
    failed = any(result.status == "failed" for result in checks.values())
    if json:
        told = [{"name": what} | asdict(result) for what, result in checks.items()]
        terminal.print_json({"status": "failed" if failed else "ok", "checks": told})
    else:
        terminal.print_checks((what, r.status, f"{r.tried}: {r.what}" if r.what else r.tried, r.do) for what, r in checks.items())
    if failed:
        raise typer.Exit(1)


def _ways(assembly: Assembly, name: str) -> dict[str, Destination]:
    """The destination as it is declared, and as each route has it that says something else of it."""
    if name not in assembly.destinations:
        nearest = did_you_mean(name, assembly.destinations)
        raise ConfigurationError(f"there is no destination named {name}", do=nearest or "declare one in muxly.yaml")
    declared = assembly.destinations[name]
    targets = [target for target in assembly.targets.values() if target.destination_name == name]
    # Field by field: two objects that say the same need only one look.
    others = {f"delivery {target.name}": target.destination for target in targets if dict(target.destination) != dict(declared)}
    return {f"destination {name}": declared} | others


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
