"""Runs a command in a process of its own and tells what it cost."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
MUXLY = [sys.executable, "-m", "muxly_dagster"]


@dataclass(frozen=True)
class Cost:
    """What a whole process took: wall and processor seconds, peak memory in MiB, and what it printed."""

    wall: float
    cpu: float
    peak: float
    output: str


def run(command: Sequence[str], *, fails: bool = False, **environ: str) -> Cost:
    """Run to the end. Raises RuntimeError with its errors if it fails, unless it should."""
    started = time.monotonic()
    process = subprocess.Popen(list(command), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=_environment(environ))
    assert process.stdout is not None and process.stderr is not None
    output, errors = process.stdout.read(), process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode and not fails:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}:\n{output}\n{errors[-3000:]}")
    return Cost(time.monotonic() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, output)


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MUXLY", "DAGSTER"))}
    return inherited | {"PYTHONDONTWRITEBYTECODE": "", "DO_NOT_TRACK": "1", "RUNTIME__DLTHUB_TELEMETRY": "false"} | dict(more)


@contextmanager
def api(count: int, *, delay: float = 0.0) -> Iterator[str]:
    """The loopback API with so many contacts; yields its address."""
    command = [sys.executable, str(HERE / "server.py"), str(count), "--delay", str(delay)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None and server.stdout is not None
        yield f"http://127.0.0.1:{server.stdout.readline().strip()}"
        server.stdin.close()
