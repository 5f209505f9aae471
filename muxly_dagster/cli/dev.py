"""`muxly dev`: the Dagster UI and daemon on this project, stopped together."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

from muxly_dagster.cli import opening, terminal
from muxly_dagster.errors import ConfigurationError
from muxly_dagster.state.troubles import usable_folder

_SECONDS_TO_STOP = 20.0


def dagster_home(home: Path, environ: Mapping[str, str]) -> Path:
    """Dagster's own home: DAGSTER_HOME where it is set, else a folder in Muxly's, with a dagster.yaml that suits Muxly.

    Raises ConfigurationError where it cannot be made.
    """
    folder = Path(environ.get("DAGSTER_HOME") or home / "dagster").absolute()
    config = folder / "dagster.yaml"
    with usable_folder(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if not config.exists():
            config.write_text("telemetry:\n  enabled: false\nrun_queue:\n  dequeue_interval_seconds: 1\n", encoding="utf-8")
    return folder


def dev(host: str, port: int) -> None:
    """Run `dagster dev` until it ends or Ctrl-C."""
    settings = opening.settings()
    opening.runtime().__exit__()  # a mistake in muxly.yaml is said here, in our words, before anything starts
    port = _free_port(host, port)
    home = dagster_home(settings.home, os.environ)
    environment = os.environ | {"DAGSTER_HOME": str(home), "MUXLY_PROJECT": str(settings.project), "MUXLY_HOME": str(settings.home)}
    command = [sys.executable, "-m", "dagster", "dev", "-m", "muxly_dagster.definitions", "-h", host, "-p", str(port)]
    terminal.say(f"Dagster UI: http://{host}:{port}   (project {settings.project}, Ctrl-C stops)")
    # SIGINT too: a shell's background job inherits it as ignored, and Dagster would ignore it as well.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    # In a session of its own: Ctrl-C then reaches Dagster once, by way of us, and what it leaves behind can be ended as a group.
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        code = process.wait()
    except KeyboardInterrupt:
        code = 0
    finally:
        _stop(process)
    if code:
        raise ConfigurationError(f"Dagster ended with code {code}", do="read its output above; `muxly doctor` checks the rest")


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """Let Dagster end its own processes; end those that are still there when it is gone, or when Ctrl-C comes again."""
    with contextlib.suppress(KeyboardInterrupt, subprocess.TimeoutExpired):
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=_SECONDS_TO_STOP)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _free_port(host: str, port: int) -> int:
    """The port, or any free one for 0. Raises ConfigurationError where somebody else listens on it."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            reason = error.strerror if isinstance(error, OSError) else "there is no such port"
            raise ConfigurationError(
                f"cannot listen on {host}:{port}: {str(reason).lower()}", do="take another one: `muxly dev --port 3001`"
            ) from None
        number: int = probe.getsockname()[1]
        return number
