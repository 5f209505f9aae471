"""`muxly serve api`: the API in this process, or in several that share one port."""

import contextlib
import gc
import logging
import signal
import socket
from collections.abc import Mapping
from types import FrameType

import uvicorn

from muxly_dagster.api.app import create_app
from muxly_dagster.api.senders.straight import Straight
from muxly_dagster.api.service import Service
from muxly_dagster.cli import terminal
from muxly_dagster.errors import ConfigurationError
from muxly_dagster.orchestrator import Orchestrator
from muxly_dagster.serving import addresses, home
from muxly_dagster.serving.processes import DEFAULT_CODE_PORT
from muxly_dagster.settings import Settings
from muxly_dagster.state import State

SECONDS_TO_FINISH = 10
"""For requests that are under way when the API is asked to end."""

_SECONDS_KEPT_ALIVE = 75  # longer than proxies keep their connections: else they send a request into one that is just being closed


def serve(listener: socket.socket, environ: Mapping[str, str], *, proxies: str, access_log: bool, quiet: bool = False) -> None:
    """Answer on a socket until a signal comes; requests under way are finished. Raises ConfigurationError for an unsound project."""
    if access_log:
        _log_requests()
    settings = Settings.from_environ(environ)
    host, port = listener.getsockname()[:2]
    code_server = environ.get("MUXLY_CODE_SERVER") or f"127.0.0.1:{DEFAULT_CODE_PORT}"
    orchestrator = Orchestrator(home.dagster_home(settings.home, environ), code_server)
    # Behind a proxy, what comes from this machine may come from anywhere.
    service = Service.open(settings, environ, orchestrator, loopback=addresses.is_loopback(host) and not proxies)
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(service),
            loop="uvloop",
            http=Straight,
            ws="none",
            lifespan="on",
            log_level="warning",
            access_log=False,  # uvicorn's has the query in it
            server_header=False,
            proxy_headers=bool(proxies),
            forwarded_allow_ips=proxies or None,
            timeout_keep_alive=_SECONDS_KEPT_ALIVE,
            timeout_graceful_shutdown=SECONDS_TO_FINISH,
        )
    )

    def ended(_number: int, _frame: FrameType | None) -> None:
        server.should_exit = True

    # uvicorn has handlers of its own while it runs, and raises what came once more behind it: it has been heard by then.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, ended)
    if not quiet:
        terminal.say(f"API: {addresses.url(host, port)}   (reference at /docs; Ctrl-C stops)")
    # What is loaded now stays: the collector of garbage need not look at it again in the middle of a request.
    gc.collect()
    gc.freeze()
    try:
        server.run(sockets=[listener])
    finally:
        gc.unfreeze()


def is_guarded(environ: Mapping[str, str]) -> bool:
    """Whether there is something to sign in with: the admin token, or a write key. Raises MuxlyError where the state cannot be read."""
    if environ.get("MUXLY_ADMIN_TOKEN"):
        return True
    settings = Settings.from_environ(environ)
    state = State.open(settings.database_url, settings.home)
    try:
        return any(key.revoked_at is None for key in state.keys.all())
    finally:
        state.close()


def inherited(fd: int) -> socket.socket:
    """The socket that a supervisor opened. Raises ConfigurationError where there is none."""
    with contextlib.suppress(OSError):
        return socket.socket(fileno=fd)
    raise ConfigurationError(f"there is no socket {fd}", do="leave --fd out: it is what a supervisor hands over")


def _log_requests() -> None:
    """Write the lines of `muxly.access`, one of JSON for each request, on standard error."""
    lines = logging.StreamHandler()
    lines.setFormatter(logging.Formatter("%(message)s"))
    log = logging.getLogger("muxly.access")
    log.addHandler(lines)
    log.setLevel(logging.INFO)
    log.propagate = False
