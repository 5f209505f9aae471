"""What `muxly jobs` does."""

import datetime as dt
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from muxly_dagster.assembly import select
from muxly_dagster.assembly.parts import Told
from muxly_dagster.assembly.starting import start_tags
from muxly_dagster.assembly.ticks import upcoming
from muxly_dagster.cli import opening, terminal
from muxly_dagster.errors import ConfigurationError
from muxly_dagster.project.checks import did_you_mean
from muxly_dagster.project.models import JobSpec
from muxly_dagster.runtime import Runtime
from muxly_dagster.state.starts import Start


def list_jobs(*, json: bool) -> None:
    """Every job, one line each."""
    with opening.runtime() as runtime:
        found = [_told(runtime, name) for name in _names(runtime)]
    if json:
        terminal.print_json(found)
    elif not found:
        terminal.say("there are no jobs: declare one under `jobs:` in muxly.yaml")
    else:
        rows = [[each["name"], each["cron"], each["timezone"], each["next_run_at"], each["status"], each["at"]] for each in found]
        terminal.print_table(["job", "cron", "time zone", "next run", "status", "made in"], rows)
        _tell_problems(found)


def show(name: str, *, json: bool) -> None:
    """One job."""
    with opening.runtime() as runtime:
        found = _told(runtime, _known(runtime, name))
    if json:
        terminal.print_json(found)
        return
    facts = {key.replace("_", " "): _text(value) for key, value in found.items() if key not in ("name", "problems") and value}
    terminal.out.print(name, style="bold", markup=False)
    terminal.print_grid([[key, value] for key, value in facts.items()])
    _tell_problems([found])


def pause(name: str, *, paused: bool, json: bool) -> None:
    """Pause or resume a job."""
    with opening.runtime() as runtime:
        runtime.state.jobs.pause(_known(runtime, name), paused=paused)
        found = _told(runtime, name)
    if json:
        terminal.print_json(found)
    elif paused:
        terminal.say(f"{name} is paused: its schedule and webhook start nothing; `muxly jobs resume {name}` ends that")
    else:
        then = found["next_run_at"]
        terminal.say(f"{name} runs again" + (f"; its next run is due at {then}" if then else ""))


def start(name: str, patterns: Sequence[str], *, from_start: bool, past_guard: bool, parameters: Sequence[str], json: bool) -> None:
    """Write a start down, which the sensor `muxly_starts` finds."""
    given = {}
    for each in parameters:
        key, equals, value = each.partition("=")
        if not key or not equals:
            raise ConfigurationError(f"{each!r} is no parameter", do="write it as NAME=VALUE")
        given[key] = _value(value)
    with opening.runtime() as runtime:
        if _known(runtime, name) not in runtime.assembly.jobs:
            raise ConfigurationError(f"the job {name} no longer fits into the project", do=f"see `muxly jobs show {name}`")
        tags = start_tags(runtime.assembly, name, patterns, given, from_start=from_start, past_guard=past_guard)
        start = Start(str(uuid.uuid4()), name, "api", dt.datetime.now(dt.UTC), tags)
        runtime.state.starts.put(start)
    if json:
        terminal.print_json({"id": start.id, "job": name})
    else:
        terminal.say(f"{name} begins as the run {start.id} within seconds, or when Dagster's daemon runs again (`muxly dev`)")


def _names(runtime: Runtime) -> list[str]:
    return [*runtime.assembly.jobs, *(name for name in runtime.assembly.unfit if name not in runtime.assembly.jobs)]


def _known(runtime: Runtime, name: str) -> str:
    if name not in _names(runtime):
        raise ConfigurationError(f"there is no job named {name}", do=did_you_mean(name, _names(runtime)))
    return name


def _told(runtime: Runtime, name: str) -> dict[str, Any]:
    assembly, stored = runtime.assembly, runtime.state.jobs.read(name)
    spec = assembly.jobs.get(name)
    at = assembly.project.problem(("jobs", name), "")
    paused, problems = stored is not None and stored.paused, assembly.unfit.get(name, ())
    status = "does not fit" if problems else "paused" if paused else "on" if spec and spec.enabled else "off"
    told = assembly.told.get(name, Told())
    return {
        "name": name,
        "status": status,
        "at": f"{at.file}:{at.line}" if name in assembly.project.jobs else "the API",
        "description": spec.description if spec else "",
        "select": list(spec.select) if spec else [],
        "assets": select(assembly, spec.select) if spec else [],
        "cron": spec.cron if spec else "",
        "timezone": spec.timezone if spec and spec.cron else "",
        "catch_up": spec.catch_up if spec and spec.cron else "",
        "jitter": spec.jitter if spec else "",
        "next_run_at": _next(spec, dt.datetime.now(dt.UTC)) if spec and status == "on" else None,
        "webhook": f"/v1/hooks/{name}" if spec and spec.webhook else "",
        "on_failure": list(told.failure),
        "on_recovery": list(told.recovery),
        "problems": [{"path": each.path, "what": each.what, "do": each.do} for each in problems],
    }


def _next(spec: JobSpec, now: dt.datetime) -> str | None:
    moment = next(upcoming(spec, now), None)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ") if moment else None


def _tell_problems(found: Sequence[Mapping[str, Any]]) -> None:
    for each in found:
        for problem in each["problems"]:
            terminal.say(f"{problem['path']}: {problem['what']}" + (f"; {problem['do']}" if problem["do"] else ""))


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _value(text: str) -> Any:
    """JSON where it is some, else the text itself: `5`, `true`, `[1]`, `abc`."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
