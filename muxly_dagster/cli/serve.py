"""`muxly serve`: the processes of a Muxly in production, each in the foreground, or all of them under one supervisor."""

import os
import signal
from pathlib import Path
from typing import Annotated

import typer

from muxly_dagster.cli import terminal
from muxly_dagster.errors import ConfigurationError
from muxly_dagster.serving import addresses, processes
from muxly_dagster.settings import Settings

app = typer.Typer(help="Serve the project: API, Dagster's UI, daemon and code server; one by one, or all together.", no_args_is_help=True)

Host = Annotated[str, typer.Option(help="The address it listens on.")]
Proxies = Annotated[
    str, typer.Option("--behind", help="Addresses of proxies whose X-Forwarded headers are believed, separated by commas; * for all.")
]
AccessLog = Annotated[bool, typer.Option("--access-log", help="Log every request.")]
LogFormat = Annotated[str, typer.Option("--log-format", help="Dagster's lines: colored, json or rich.")]
_LOOPBACK = "127.0.0.1"


@app.callback()
def _group() -> None:
    """Serve the project."""


@app.command("all")
def everything(
    host: Host = _LOOPBACK,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The port of the Dagster UI; 0 takes a free one.")
    ] = processes.DEFAULT_WEB_PORT,
    api_port: Annotated[int, typer.Option(min=0, max=65535, help="The port of the API; 0 takes a free one.")] = processes.DEFAULT_API_PORT,
    web: Annotated[bool, typer.Option(help="Whether to serve the Dagster UI.")] = True,
    behind: Proxies = "",
    access_log: AccessLog = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show everything that the processes print.")] = False,
) -> None:
    """Serve everything under one supervisor: API, Dagster's UI, daemon and code server."""
    from muxly_dagster.cli import together

    options = (["--behind", behind] if behind else []) + (["--access-log"] if access_log else [])
    together.run(together.Plan(host, port, api_port, web=web, verbose=verbose, api_options=options, command="muxly serve all"))


@app.command()
def api(
    host: Host = _LOOPBACK,
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 takes a free one.")] = processes.DEFAULT_API_PORT,
    workers: Annotated[int, typer.Option(min=1, max=64, help="How many processes share the port.")] = 1,
    behind: Proxies = "",
    access_log: AccessLog = False,
    fd: Annotated[int, typer.Option("--fd", help="A socket that listens already, by its number, in place of host and port.")] = -1,
) -> None:
    """Serve the API."""
    from muxly_dagster.cli import answering
    from muxly_dagster.serving.lines import Lines
    from muxly_dagster.serving.supervisor import Supervisor

    if fd >= 0:
        answering.serve(answering.inherited(fd), os.environ, proxies=behind, access_log=access_log, quiet=True)
        return
    guarded = answering.is_guarded(os.environ)
    addresses.check_guarded(host, guarded=guarded)
    with addresses.listening(host, port, do="take another one: `muxly serve api --port 8001`") as listener:
        if not guarded:
            terminal.say("there is neither an admin token nor a write key: the API answers this machine only")
        if workers == 1:
            answering.serve(listener, os.environ, proxies=behind, access_log=access_log)
            return
        options = (["--behind", behind] if behind else []) + (["--access-log"] if access_log else [])
        port = listener.getsockname()[1]
        several = [processes.api(f"api-{number}", host, port, listener.fileno(), os.environ, options) for number in range(1, workers + 1)]
        lines = Lines()
        supervisor = Supervisor(several, lines)
        supervisor.when_ready = lambda: lines.say(f"API: {addresses.url(host, port)}   ({workers} processes; Ctrl-C stops)")
        supervisor.run()


@app.command()
def code(
    host: Host = _LOOPBACK,
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port.")] = processes.DEFAULT_CODE_PORT,
    log_format: LogFormat = "colored",
) -> None:
    """Serve the project to Dagster: its code server, which also starts the processes of runs."""
    from muxly_dagster.serving import home, orphans

    settings, folder = _ready()
    addresses.free_port(host, port, do="take another one: `muxly serve code --port 4001`, and set MUXLY_CODE_SERVER for the others")
    with home.opened(folder) as instance:
        # Nobody listens at this address, so what was started from here has ended with the server before.
        for run in orphans.fail_orphans(instance, lambda _host, started_by: started_by == port):
            terminal.say(f"run {run} was marked as failed: its process was killed")
    _become(processes.code_command(host, port, log_format=log_format), settings, folder)


@app.command()
def web(
    host: Host = _LOOPBACK,
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port.")] = processes.DEFAULT_WEB_PORT,
    log_format: LogFormat = "colored",
) -> None:
    """Serve Dagster's web UI. It has no sign-in of its own: keep it on this machine, or behind a proxy that has one."""
    settings, folder = _ready()
    addresses.free_port(host, port, do="take another one: `muxly serve web --port 3001`")
    _become(processes.web_command(host, port, _workspace(folder), log_format=log_format), settings, folder)


@app.command()
def daemon(log_format: LogFormat = "colored") -> None:
    """Run Dagster's daemon: schedules, sensors, the queue of runs. One for each Dagster storage."""
    settings, folder = _ready()
    _become(processes.daemon_command(_workspace(folder), log_format=log_format), settings, folder)


@app.command()
def prepare(
    json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
    reload: Annotated[bool, typer.Option("--reload", help="Have the code server load the project as it stands now.")] = False,
) -> None:
    """Check the project, make or migrate the databases of Muxly and Dagster; to be run once before the others start."""
    from muxly_dagster.cli import preparing

    preparing.prepare(reload=reload, json=json)


@app.command()
def metrics(
    host: Host = _LOOPBACK,
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 takes a free one.")] = 9464,
) -> None:
    """Serve /metrics, what the project's prometheus destinations hold, until Ctrl-C."""
    import uvicorn

    from muxly_dagster.api.metrics import metrics_app
    from muxly_dagster.cli import opening

    with opening.runtime() as runtime:
        served = metrics_app(runtime)
        with addresses.listening(host, port, do="take another one: `muxly serve metrics --port 9465`") as listener:
            shown = f"[{host}]" if ":" in host else host
            terminal.say(f"metrics: http://{shown}:{listener.getsockname()[1]}/metrics   (Ctrl-C stops)")
            server = uvicorn.Server(uvicorn.Config(served, log_level="warning", access_log=False, lifespan="off"))
            server.run(sockets=[listener])


def _ready() -> tuple[Settings, Path]:
    """Settings and Dagster's home, its storage made and migrated."""
    from muxly_dagster.serving import home  # brings SQLAlchemy along

    settings = Settings.from_environ(os.environ)
    folder = home.dagster_home(settings.home, os.environ)
    home.prepare(folder)
    return settings, folder


def _workspace(folder: Path) -> Path:
    from muxly_dagster.serving import home

    said = os.environ.get("MUXLY_CODE_SERVER") or f"{_LOOPBACK}:{processes.DEFAULT_CODE_PORT}"
    return home.write_workspace(folder, *addresses.split(said, processes.DEFAULT_CODE_PORT))


def _become(command: list[str], settings: Settings, folder: Path) -> None:
    """Let Dagster take the place of this process, so that signals and exit codes are its own."""
    environ = os.environ | {"DAGSTER_HOME": str(folder), "MUXLY_PROJECT": str(settings.project), "MUXLY_HOME": str(settings.home)}
    # A shell's background job inherits SIGINT as ignored, and Dagster would treat SIGTERM as it treats SIGINT.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        os.execve(command[0], command, environ)
    except OSError as error:
        raise ConfigurationError(f"{command[0]} cannot be started: {error.strerror}", do="set up the environment anew") from None
