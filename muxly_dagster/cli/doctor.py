"""`muxly doctor`: what a person would check by hand, and what to do about what is wrong."""

import os
import platform
import shutil
from collections.abc import Callable
from importlib.metadata import version

import typer

from muxly_dagster.cli import opening, terminal
from muxly_dagster.cli.dev import dagster_home
from muxly_dagster.errors import ConfigurationError, MuxlyError
from muxly_dagster.lake import Lake
from muxly_dagster.settings import Settings
from muxly_dagster.state import State

_LEAST_FREE = 1 << 30


def doctor(*, json: bool) -> None:
    """Run every check, print all results, exit with 1 if one failed."""
    results = [_checked("python and packages", _versions)]
    try:
        settings = opening.settings()
    except MuxlyError as error:
        results.append(_failed("project", error))
    else:
        results += [
            _checked("project", lambda: _project(settings)),
            _checked("home", lambda: _home(settings)),
            _checked("state database", lambda: _state(settings)),
            _checked("lake", lambda: _lake(settings)),
            _checked("dagster home", lambda: str(dagster_home(settings.home, os.environ))),
        ]
    if json:
        terminal.print_json(results)
    else:
        terminal.print_checks((result["check"], result["status"], result["what"], result["do"]) for result in results)
    if any(result["status"] == "failed" for result in results):
        raise typer.Exit(1)


def _checked(name: str, check: Callable[[], str]) -> dict[str, str]:
    try:
        return {"check": name, "status": "ok", "what": check(), "do": ""}
    except MuxlyError as error:
        return _failed(name, error)
    except OSError as error:
        return {"check": name, "status": "failed", "what": str(error), "do": "check the folder's permissions and free space"}


def _failed(name: str, error: MuxlyError) -> dict[str, str]:
    what, do = error.what, error.do
    if isinstance(error, ConfigurationError):
        first = error.problems[0]
        what, do = (first.what, first.do) if len(error.problems) == 1 and not first.file else (what, do or "correct what it says")
    return {"check": name, "status": "failed", "what": what, "do": do}


def _versions() -> str:
    packages = ("muxly-dagster", "dagster", "duckdb", "deltalake", "pyarrow")
    return ", ".join([f"python {platform.python_version()}", *(f"{package} {version(package)}" for package in packages)])


def _project(settings: Settings) -> str:
    with opening.runtime() as runtime:
        found = runtime.assembly
        return f"{settings.project}: {len(found.pulls)} pulls, {len(found.transforms)} transforms, {len(found.targets)} deliveries"


def _home(settings: Settings) -> str:
    settings.home.mkdir(parents=True, exist_ok=True)
    probe = settings.home / ".doctor"
    probe.write_bytes(b"x")
    probe.unlink()
    free = shutil.disk_usage(settings.home).free
    if free < _LEAST_FREE:
        raise MuxlyError(f"only {free >> 20} MiB are free for {settings.home}", do="free some space")
    return f"{settings.home}, {free >> 30} GiB free"


def _state(settings: Settings) -> str:
    state = State.open(settings.database_url, settings.home)
    try:
        return f"{state.engine.url.render_as_string(hide_password=True)}, {len(state.ledger.dead_letters())} open dead letters"
    finally:
        state.close()


def _lake(settings: Settings) -> str:
    lake = Lake(settings.lake_url)
    names = lake.names()
    for name in names:
        lake.table(name)
    return f"{settings.lake_url}, {len(names)} tables"
