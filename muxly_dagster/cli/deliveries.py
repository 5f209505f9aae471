"""Commands about deliveries: plan, resync, deliveries."""

import datetime as dt
import os
from dataclasses import asdict
from typing import Any

import typer

from muxly_dagster.assembly import load_assembly
from muxly_dagster.cli import opening, terminal
from muxly_dagster.cli import run as running
from muxly_dagster.delivery import Planned, Standing


def plan(name: str, *, json: bool) -> None:
    """Tell what the next delivery would do at each destination; exit with 1 if a guard would stop it."""
    with opening.runtime() as runtime:
        planned = runtime.plan(name)
    if json:
        terminal.print_json([asdict(each) for each in planned])
    else:
        columns = ["delivery", "waiting", "would send", "inserted", "updated", "deleted", "refused", "destination"]
        terminal.print_table(columns, [_planned(each) for each in planned], numbers=columns[1:-1])
        for each in planned:
            for note in (*each.plan.notes, *((each.warning,) if each.warning else ())):
                terminal.say(f"{each.target}: {note}")
    if any(each.warning for each in planned):
        raise typer.Exit(1)


def resync(name: str, *, json: bool) -> None:
    """Deliver the current records of a route (or one delivery) again."""
    settings = opening.settings()
    with opening.runtime() as runtime:
        targets = runtime.resync(name)
    assembly = load_assembly(settings.project, os.environ, home=settings.home)
    reports = running.run_selected(settings, assembly, targets, environ=os.environ, past_guard=True, quiet=json)
    running.report(reports, json=json)


def deliveries(name: str | None, *, json: bool) -> None:
    """Tell where each delivery stands: what waits, until when and why, and whether its destination is left alone."""
    with opening.runtime() as runtime:
        targets = runtime.targets(name) if name else list(runtime.assembly.targets.values())
        found = [runtime.standing(target.name) for target in targets]
    if json:
        terminal.print_json([each.plain() for each in found])
    elif found:
        columns = ["delivery", "changes waiting", "oldest", "dead letters", "breaker", "last receipt", "waits for"]
        terminal.print_table(columns, [_standing(each) for each in found], numbers=["changes waiting", "dead letters"])
    else:
        terminal.say("the project has no routes")


def _planned(each: Planned) -> list[Any]:
    plan = each.plan
    return [each.target, each.waiting, each.sent, plan.inserted, plan.updated, plan.deleted, plan.refused, each.destination]


def _standing(each: Standing) -> list[Any]:
    waits = f"{each.wait.why}; until {_moment(each.wait.until)}" if each.wait else ""
    word = {"closed": "ok", "disabled": "failed"}.get(each.breaker.status, "skipped")
    breaker = terminal.status(word, each.breaker.status)
    last = each.last.at[:19].replace("T", " ") if each.last else ""
    return [each.target, each.lag, _moment(each.oldest) if each.oldest else "", each.dead_letters, breaker, last, waits]


def _moment(moment: dt.datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}"
