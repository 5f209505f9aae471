"""`muxly serve`: what Muxly answers by HTTP."""

import socket
from typing import Annotated

import typer

from muxly_dagster.cli import terminal
from muxly_dagster.errors import ConfigurationError

app = typer.Typer(help="Answer by HTTP: metrics for Prometheus.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Answer by HTTP."""


@app.command()
def metrics(
    host: Annotated[str, typer.Option(help="The address it listens on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 takes a free one.")] = 9464,
) -> None:
    """Serve /metrics, what the project's prometheus destinations hold, until Ctrl-C."""
    import uvicorn

    from muxly_dagster.api.metrics import metrics_app
    from muxly_dagster.cli import opening

    with opening.runtime() as runtime:
        served = metrics_app(runtime)
        with _listening(host, port) as listener:
            shown = f"[{host}]" if ":" in host else host
            terminal.say(f"metrics: http://{shown}:{listener.getsockname()[1]}/metrics   (Ctrl-C stops)")
            server = uvicorn.Server(uvicorn.Config(served, log_level="warning", access_log=False, lifespan="off"))
            server.run(sockets=[listener])


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises ConfigurationError where somebody else has the port, or there is no such address."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        reason = str(error.strerror or error).lower()
        do = "take another one: `muxly serve metrics --port 9465`"
        raise ConfigurationError(f"cannot listen on {host}:{port}: {reason}", do=do) from None
