"""Where a Muxly keeps its things: project, home, state database, lake, secrets; and whether its clock is right."""

import datetime as dt
import re
import shutil
import stat
import uuid
from collections.abc import Iterator, Sequence
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx
from pydantic import BaseModel

from muxly_dagster.diagnosing.finding import Finding, Subject, failed
from muxly_dagster.lake.files import LakeFiles
from muxly_dagster.project.load import project_files
from muxly_dagster.state import State
from muxly_dagster.state.clock import database_time, migration
from muxly_dagster.state.state import HEAD

_LEAST_FREE = 1 << 30
_SCARCE = 5 << 30
_MOST_SECONDS_APART = 30
_SHORTEST_TOKEN = 16
_SECONDS_TO_ANSWER = 5.0
_VARIABLE = re.compile(r"(?<!\$)\$\{([A-Za-z_][A-Za-z0-9_]*)(:-)?")


def project(subject: Subject) -> Sequence[Finding]:
    """Whether it is sound; where an older version goes on, what is wrong with the newest."""
    name = "project"
    if subject.trouble is not None:
        found = failed(name, subject.trouble)
        return [found] if subject.runtime is None else [Finding(name, "failed", f"{found.what}; the version before goes on", found.do)]
    assembly = subject.assembly
    if assembly is None:
        return [Finding(name, "skipped", "it was not loaded")]
    counts = (
        f"{len(assembly.pulls)} pulls, {len(assembly.transforms)} transforms, {len(assembly.targets)} deliveries, {len(assembly.jobs)} jobs"
    )
    findings = [Finding(name, "ok", f"{subject.settings.project}: {counts}")]
    return [*findings, *(Finding(name, "warning", warning.what, warning.do) for warning in assembly.warnings)]


def home(subject: Subject) -> Sequence[Finding]:
    """Whether Muxly's home may be written, and has room."""
    folder = subject.settings.home
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / f".probe-{uuid.uuid4().hex}"
    probe.write_bytes(b"x")
    probe.unlink()
    free = shutil.disk_usage(folder).free
    if free < _LEAST_FREE:
        return [Finding("home", "failed", f"only {free >> 20} MiB are free for {folder}", "free some space")]
    status, do = ("warning", "make room before it is full") if free < _SCARCE else ("ok", "")
    return [Finding("home", "warning" if status == "warning" else "ok", f"{folder}, {free >> 30} GiB free", do)]


def state(subject: Subject) -> Sequence[Finding]:
    """Whether the state database can be reached, and stands at the newest migration: where it does not, it is migrated."""
    name = "state database"
    opened = State.open(subject.settings.database_url, subject.settings.home)
    try:
        stands = {migration(engine) for engine in (opened.engine, opened.inbox_engine)}
        shown = opened.engine.url.render_as_string(hide_password=True)
        if stands != {HEAD}:
            return [
                Finding(
                    name, "failed", f"{shown} stands at migration {', '.join(sorted(stands))}, not at {HEAD}", "run `muxly serve prepare`"
                )
            ]
        return [Finding(name, "ok", f"{shown}, migration {HEAD}")]
    finally:
        opened.close()


def lake(subject: Subject) -> Sequence[Finding]:
    """Whether the lake can be written, and its tables read."""
    from muxly_dagster.lake import Lake

    found = Lake(subject.settings.lake_url)
    LakeFiles(found.url, found.options, subject.settings.home / "partials").probe()
    assembly = subject.assembly
    names = found.names() or ([*assembly.pulls, *assembly.transforms] if assembly else [])
    tables = sum(found.table(name) is not None for name in names)
    return [Finding("lake", "ok", f"{subject.settings.lake_url}, {tables} tables")]


def secrets(subject: Subject) -> Sequence[Finding]:
    """Whether the variables that the project names are set, and nobody else may read the files that hold keys."""
    name = "secrets"
    findings: list[Finding] = []
    wanted = _variables(subject)
    missing = sorted(variable for variable, optional in wanted.items() if not optional and variable not in subject.environ)
    if missing:
        findings.append(Finding(name, "failed", f"not set: {', '.join(missing)}", "set them where Muxly is started"))
    for path in sorted(set(_key_files(subject))):
        if path.is_file() and stat.S_IMODE(path.stat().st_mode) & stat.S_IROTH:
            findings.append(Finding(name, "warning", f"everybody on this machine may read {path}", f"run `chmod 600 {path}`"))
    token = subject.environ.get("MUXLY_ADMIN_TOKEN", "")
    if token and len(token) < _SHORTEST_TOKEN:
        what = f"MUXLY_ADMIN_TOKEN has fewer than {_SHORTEST_TOKEN} characters"
        findings.append(Finding(name, "warning", what, "make one with `openssl rand -hex 32`"))
    count = len(wanted)
    return findings or [
        Finding(name, "ok", f"{count} {'variable' if count == 1 else 'variables'} of the project, all set or with a default")
    ]


def clock(subject: Subject) -> Sequence[Finding]:
    """Whether this machine's clock agrees with the database's, or with a provider's: signatures and tokens depend on it."""
    name = "clock"
    theirs, whose = None, "the state database"
    if subject.runtime is not None:
        theirs = database_time(subject.runtime.state.engine)
    if theirs is None and not subject.offline:
        theirs, whose = _time_of_a_provider(subject)
    now = dt.datetime.now(dt.UTC)
    if theirs is None:
        return [Finding(name, "skipped", f"{now:%Y-%m-%d %H:%M:%S} UTC; there is no other clock to compare it with")]
    apart = abs((now - theirs).total_seconds())
    if apart > _MOST_SECONDS_APART:
        what = f"it is {apart:.0f} seconds away from that of {whose}"
        return [Finding(name, "failed", what, "let the machine keep its time by NTP: `timedatectl set-ntp true`")]
    return [Finding(name, "ok", f"{now:%Y-%m-%d %H:%M:%S} UTC, as {whose} has it")]


# ---- what these look at ------------------------------------------------------------------------------------------------


def _variables(subject: Subject) -> dict[str, bool]:
    """The variables that the project's files name, and whether each has a default wherever it stands."""
    found: dict[str, bool] = {}
    for file in project_files(subject.settings.project):
        for line in file.read_text("utf-8", "replace").splitlines():
            if not line.lstrip().startswith(("#", "//")):
                for name, default in _VARIABLE.findall(line):
                    # In a manifest that stands in the project, names in small letters are its own.
                    if name.upper() == name or name in subject.environ:
                        found[name] = found.get(name, True) and bool(default)
    return found


def _key_files(subject: Subject) -> Iterator[Path]:
    project = subject.settings.project
    yield from (project if project.is_dir() else project.parent).glob(".env*")
    assembly = subject.assembly
    if assembly is not None:
        for thing in (*assembly.sources.values(), *assembly.destinations.values()):
            yield from _named_files(thing)


def _named_files(model: BaseModel) -> Iterator[Path]:
    """What fields called `..._file` name, at any depth."""
    for name, value in model:
        if isinstance(value, BaseModel):
            yield from _named_files(value)
        elif name.endswith("_file") and isinstance(value, str) and value:
            yield Path(value)


def _time_of_a_provider(subject: Subject) -> tuple[dt.datetime | None, str]:
    """What time a web server says it is that the project speaks to (RFC 9110, 6.6.1), and whose it is."""
    assembly = subject.assembly
    if assembly is None:
        return None, ""
    for thing in (*assembly.sources.values(), *assembly.destinations.values()):
        for name, value in thing:
            if name in ("base_url", "url", "endpoint") and isinstance(value, str) and value.startswith(("https://", "http://")):
                address = httpx.URL(value)
                try:
                    answer = httpx.head(f"{address.scheme}://{address.netloc.decode()}/", timeout=_SECONDS_TO_ANSWER)
                    return parsedate_to_datetime(answer.headers["date"]), address.host
                except (httpx.HTTPError, KeyError, ValueError):
                    continue
    return None, ""
