"""Dagster: its home and storage, whether it can load the project, its daemon, what is switched off, and runs that hang."""

import datetime as dt
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import dagster as dg

from muxly_dagster.diagnosing.finding import Finding, Subject
from muxly_dagster.serving import addresses, home

_SECONDS_TO_LOAD = 90
_MOST_SILENCE = dt.timedelta(minutes=2)
_LATE = dt.timedelta(minutes=15)
_LONG = dt.timedelta(hours=24)
_DO_START = "start `muxly dev`, or `muxly serve daemon` (`muxly serve all` has it)"
_LOAD = "import muxly_dagster.definitions as found; found.defs.get_repository_def()"


def dagster_home(subject: Subject) -> Sequence[Finding]:
    """Whether Dagster's storage can be opened, and stands at its newest migration."""
    name = "dagster home"
    folder = subject.dagster_home
    done = home.prepare(folder)
    with home.opened(folder) as instance:
        storage = type(instance.run_storage).__name__
    return [Finding(name, "ok", f"{folder} ({done.partition(' ')[0]} now)" if done else f"{folder}, {storage}")]


def code_location(subject: Subject) -> Sequence[Finding]:
    """Whether the project becomes what Dagster can load, tried in a process of its own."""
    name = "code location"
    settings = subject.settings
    environ = {**subject.environ, "MUXLY_PROJECT": str(settings.project), "MUXLY_HOME": str(settings.home)}
    environ["DAGSTER_HOME"] = str(subject.dagster_home)
    try:
        done = subprocess.run(
            [sys.executable, "-c", _LOAD],
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS_TO_LOAD,
            check=False,
        )
    except subprocess.TimeoutExpired:
        do = "see what the project's plugins do when they are imported"
        return [Finding(name, "failed", f"the project was not loaded within {_SECONDS_TO_LOAD} seconds", do)]
    if done.returncode:
        # The first line behind the traceback; what follows says the same of further mistakes.
        lines = [line for line in done.stderr.splitlines() if line and not line.startswith((" ", "Traceback"))]
        what = lines[0].removeprefix("muxly_dagster.errors.") if lines else f"it ended with code {done.returncode}"
        return [Finding(name, "failed", what, "run `muxly check`, and set right what it says")]
    return [Finding(name, "ok", "Dagster can load the project")]


def code_server(subject: Subject) -> Sequence[Finding]:
    """Whether the code server listens, without which nothing can be started."""
    name = "code server"
    said = subject.code_server or subject.environ.get("MUXLY_CODE_SERVER", "")
    address = addresses.split(said, 4000) if said else _running(subject.dagster_home)
    if address is None:
        return [Finding(name, "warning", "none runs here", "start `muxly dev`, or `muxly serve code` (`muxly serve all` has it)")]
    shown = f"{address[0]}:{address[1]}"
    if addresses.connects(*address):
        return [Finding(name, "ok", f"{shown} listens")]
    return [Finding(name, "failed", f"nobody listens on {shown}", "start `muxly serve code`, or correct MUXLY_CODE_SERVER")]


def daemon(subject: Subject) -> Sequence[Finding]:
    """Whether each part of the daemon has said lately that it lives."""
    name = "daemon"
    with home.opened(subject.dagster_home) as instance:
        beats = instance.get_daemon_heartbeats()
        wanted = instance.get_required_daemon_types()
    now = dt.datetime.now(dt.UTC)
    ages = {kind: now - dt.datetime.fromtimestamp(beat.timestamp, dt.UTC) for kind, beat in beats.items() if kind in wanted}
    if not ages:
        return [Finding(name, "warning", "it has not run here yet: no schedule and no sensor works", _DO_START)]
    silent = sorted(kind.lower() for kind in wanted if ages.get(kind, dt.timedelta.max) > _MOST_SILENCE)
    if len(silent) == len(wanted):
        what = f"it has been silent for {_spoken(min(ages.values()))}: no schedule and no sensor works"
        return [Finding(name, "warning", what, _DO_START)]
    if silent:
        return [Finding(name, "failed", f"parts of it are silent: {', '.join(silent)}", "read its log, and start it again")]
    errors = sorted({kind.lower() for kind, beat in beats.items() if beat.errors})
    if errors:
        return [Finding(name, "warning", f"it lives, with errors in {', '.join(errors)}", "see Deployment, Daemons in the Dagster UI")]
    return [Finding(name, "ok", f"it lives, last heard of {_spoken(min(ages.values()))} ago")]


def switches(subject: Subject) -> Sequence[Finding]:
    """Which sensors and schedules somebody has switched off."""
    name = "sensors and schedules"
    from dagster._core.scheduler.instigation import InstigatorStatus  # no public name for it (1.13)

    with home.opened(subject.dagster_home) as instance:
        off = sorted(each.instigator_name for each in instance.all_instigator_state() if each.status == InstigatorStatus.STOPPED)
    ours = [each for each in off if each.startswith("muxly_")]
    if ours:
        do = "switch them on in the Dagster UI, under Automation: Muxly needs them"
        return [Finding(name, "warning", f"switched off: {', '.join(ours)}", do)]
    return [Finding(name, "ok", f"switched off by hand: {', '.join(off)}" if off else "none is switched off by hand")]


def runs(subject: Subject) -> Sequence[Finding]:
    """Which runs hang: not begun for long, or going on for more than a day."""
    name = "runs"
    under_way = {
        dg.DagsterRunStatus.QUEUED: _LATE,
        dg.DagsterRunStatus.NOT_STARTED: _LATE,
        dg.DagsterRunStatus.STARTING: _LATE,
        dg.DagsterRunStatus.CANCELING: _LATE,
        dg.DagsterRunStatus.STARTED: _LONG,
    }
    now = dt.datetime.now(dt.UTC)
    with home.opened(subject.dagster_home) as instance:
        found = instance.get_run_records(filters=dg.RunsFilter(statuses=list(under_way)), limit=500)
    stuck = [record.dagster_run.run_id for record in found if now - _aware(record.update_timestamp) > under_way[record.dagster_run.status]]
    if stuck:
        do = "look at them in the Dagster UI, under Runs, and terminate what hangs"
        return [Finding(name, "warning", f"{len(stuck)} hang: {', '.join(stuck[:3])}{' ...' if len(stuck) > 3 else ''}", do)]
    return [Finding(name, "ok", f"{len(found)} under way, none hangs")]


def ports(subject: Subject) -> Sequence[Finding]:
    """Whether the ports are Muxly's own or free."""
    findings = []
    for what, port in subject.ports.items():
        url = addresses.url("127.0.0.1", port)
        if not addresses.connects("127.0.0.1", port):
            findings.append(f"{port} is free for the {what}")
        elif addresses.answers(url):
            findings.append(f"a web server answers on {port} ({what})")
        else:
            do = f"end it, or give the {what} another port"
            return [Finding("ports", "warning", f"{port} is taken by something that is no web server", do)]
    return [Finding("ports", "ok", ", ".join(findings))] if findings else []


def _running(folder: Path) -> tuple[str, int] | None:
    """The code server of a supervisor that runs on this home: it keeps a workspace of its name there."""
    for workspace in sorted(folder.glob("workspace-*.yaml")):
        port = workspace.stem.partition("-")[2]
        if port.isdecimal() and addresses.connects("127.0.0.1", int(port)):
            return "127.0.0.1", int(port)
    return None


def _aware(moment: dt.datetime) -> dt.datetime:
    return moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment


def _spoken(age: dt.timedelta) -> str:
    seconds = int(age.total_seconds())
    if seconds < 120:
        return f"{seconds} seconds"
    return f"{seconds // 60} minutes" if seconds < 7200 else f"{seconds // 3600} hours"
