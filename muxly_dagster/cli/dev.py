"""`muxly dev`: the Dagster UI and daemon on this project, stopped together."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from muxly_dagster.cli import opening, terminal
from muxly_dagster.errors import ConfigurationError


def dagster_home(home: Path, environ: Mapping[str, str]) -> Path:
    """Dagster's own home: DAGSTER_HOME where it is set, else a folder in Muxly's, with a dagster.yaml that suits Muxly."""
    folder = Path(environ.get("DAGSTER_HOME") or home / "dagster").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "dagster.yaml"
    if not config.exists():
        config.write_text("telemetry:\n  enabled: false\nrun_queue:\n  dequeue_interval_seconds: 1\n", encoding="utf-8")
    return folder


def dev(host: str, port: int) -> None:
    """Run `dagster dev` until it ends or Ctrl-C."""
    settings = opening.settings()
    opening.runtime().__exit__()  # a mistake in muxly.yaml is said here, in our words, before anything starts
    home = dagster_home(settings.home, os.environ)
    environment = os.environ | {"DAGSTER_HOME": str(home), "MUXLY_PROJECT": str(settings.project), "MUXLY_HOME": str(settings.home)}
    command = [sys.executable, "-m", "dagster", "dev", "-m", "muxly_dagster.definitions", "-h", host, "-p", str(port)]
    terminal.say(f"Dagster UI: http://{host}:{port}   (project {settings.project}, Ctrl-C stops)")
    process = subprocess.Popen(command, env=environment)
    try:
        code = process.wait()
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        code = 0 if process.wait(timeout=30) in (0, 130, -signal.SIGINT) else 1
    if code:
        raise ConfigurationError(f"Dagster ended with code {code}", do=f"read its output above; is port {port} taken? Try `muxly dev --port 3001`")
