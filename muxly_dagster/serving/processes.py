"""The processes of one Muxly, as commands: Dagster's code server, web UI and daemon, and the API."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from muxly_dagster.serving import addresses

DEFAULT_WEB_PORT = 3000
DEFAULT_API_PORT = 8000
DEFAULT_CODE_PORT = 4000

LOCATION = "muxly"
"""What the code location is called in Dagster, wherever it is served."""


@dataclass(frozen=True, slots=True)
class Process:
    """What a supervisor runs.

    `answers` says whether it is ready; where there is none it is ready once it was started. `after` are names of processes that must be
    ready first; what stands behind others is stopped before them. `fds` are open files that it inherits. `again` is a command to run
    to its end before the process is started once more.
    """

    name: str
    command: Sequence[str]
    environ: Mapping[str, str] = field(repr=False)
    answers: Callable[[], bool] | None = None
    after: Sequence[str] = ()
    fds: Sequence[int] = ()
    again: Sequence[str] = ()


def muxly(*arguments: str) -> list[str]:
    """A command of ours, run by this Python."""
    return [sys.executable, "-m", "muxly_dagster", *arguments]


def code_command(host: str, port: int, *, log_format: str = "json") -> list[str]:
    """Dagster's code server on the project; it can be told to load the project anew."""
    return [
        *(sys.executable, "-m", "muxly_dagster.serving.code_server", "code-server", "start", "--module-name", "muxly_dagster.definitions"),
        *("--host", host, "--port", str(port), "--location-name", LOCATION, "--log-format", log_format),
        "--use-python-environment-entry-point",
    ]


def web_command(host: str, port: int, workspace: Path, *, log_format: str = "json") -> list[str]:
    """Dagster's web UI."""
    return [
        *(sys.executable, "-m", "dagster_webserver", "--host", host, "--port", str(port), "--workspace", str(workspace)),
        *("--log-format", log_format),
    ]


def daemon_command(workspace: Path, *, log_format: str = "json") -> list[str]:
    """Dagster's daemon: schedules, sensors, the queue of runs."""
    return [sys.executable, "-m", "dagster._daemon", "run", "--workspace", str(workspace), "--log-format", log_format]


def code_server(host: str, port: int, environ: Mapping[str, str], log_format: str = "json") -> Process:
    """The code server. It listens once the project is loaded."""
    ready = partial(addresses.connects, host, port)
    # Its runs ended with it, and nobody else would say so.
    return Process("code", code_command(host, port, log_format=log_format), environ, ready, again=muxly("serve", "prepare"))


def web(host: str, port: int, workspace: Path, environ: Mapping[str, str], log_format: str = "json") -> Process:
    """The web UI."""
    ready = partial(addresses.answers, f"{addresses.url(host, port)}/server_info")
    return Process("web", web_command(host, port, workspace, log_format=log_format), environ, ready, after=("code",))


def daemon(workspace: Path, environ: Mapping[str, str], log_format: str = "json") -> Process:
    """The daemon."""
    return Process("daemon", daemon_command(workspace, log_format=log_format), environ, after=("code",))


def api(name: str, host: str, port: int, fd: int, environ: Mapping[str, str], options: Sequence[str] = ()) -> Process:
    """The API on a socket that listens already, so that callers wait while it is started again instead of being refused."""
    ready = partial(addresses.answers, f"{addresses.url(host, port)}/healthz")
    return Process(name, muxly("serve", "api", "--fd", str(fd), *options), environ, ready, fds=(fd,))
