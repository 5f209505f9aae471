"""A supervisor in a process of its own, for tests: its processes are shell commands by name, as JSON in the first argument."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from muxly_dagster.errors import MuxlyError
from muxly_dagster.serving.lines import Lines
from muxly_dagster.serving.processes import Process
from muxly_dagster.serving.supervisor import Supervisor

PATIENCE = 60.0
"""Seconds until a condition that does not come true fails its test: far more than it ever takes."""


def main() -> int:
    """Run what was asked for; the exit code."""
    lines = Lines()
    said = json.loads(sys.argv[1])
    processes = [
        Process(name, ["/bin/sh", "-c", command], os.environ, after=said["after"].get(name, ())) for name, command in said["run"].items()
    ]
    supervisor = Supervisor(processes, lines, when_ready=lambda: lines.say("all ready"), patient=said["patient"])
    signal.signal(signal.SIGUSR1, lambda *_: supervisor.released())
    try:
        supervisor.run()
    except MuxlyError as error:
        lines.say(f"ended: {error}")
        return error.exit_code
    return 0


@dataclass
class Supervised:
    """A supervisor that a test started, and all it wrote."""

    process: "subprocess.Popen[bytes]"
    log: Path
    mark: str

    @property
    def said(self) -> str:
        return self.log.read_text("utf-8")

    def until(self, condition: Callable[[], object], what: str = "") -> None:
        """Wait for something to come true."""
        until(condition, lambda: f"{what}: {self.said}")

    def until_said(self, text: str, times: int = 1) -> None:
        self.until(lambda: self.said.count(text) >= times, f"{text!r} is not said {times} times")

    def left(self) -> list[int]:
        """Processes that bear this supervisor's mark in their environment, it and its sweeper aside."""
        return [pid for pid in marked(self.mark) if pid != self.process.pid and "sweeper.py" not in command_of(pid)]


@contextmanager
def supervised(
    folder: Path, run: Mapping[str, str], *, patient: bool = False, after: Mapping[str, list[str]] | None = None
) -> Iterator[Supervised]:
    """The supervisor, ended with the block."""
    mark = f"MARK={folder}"
    said = json.dumps({"run": run, "patient": patient, "after": after or {}})
    environ = {**os.environ, "MARK": str(folder), "PYTHONPATH": str(Path(__file__).parents[2])}
    with (folder / "log").open("wb") as log:
        command = [sys.executable, "-m", "muxly_dagster_tests.serving.supervise", said]
        process = subprocess.Popen(
            command, env=environ, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    found = Supervised(process, folder / "log", mark)
    try:
        yield found
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


def until(condition: Callable[[], object], what: Callable[[], str]) -> None:
    """Wait for something to come true."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.05)


def marked(mark: str) -> list[int]:
    """The processes that have this variable in their environment."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (place / "environ").read_bytes().split(b"\0"):
                found.append(int(place.name))
        except OSError:
            continue
    return found


def command_of(pid: int) -> str:
    try:
        return (Path("/proc") / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


if __name__ == "__main__":
    sys.exit(main())
