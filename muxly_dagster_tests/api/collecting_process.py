"""An API that collects in a process of its own, to be killed: `python -m muxly_dagster_tests.api.collecting_process FOLDER`.

Prints its port once it answers; the environment says where its state is.
"""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import uvicorn

from muxly_dagster.api.app import create_app
from muxly_dagster.api.senders.straight import Straight
from muxly_dagster.api.service import Service
from muxly_dagster.settings import Settings
from muxly_dagster_tests.api.shop import QuietOrchestrator

ROOT = Path(__file__).parents[2]


class Announced(uvicorn.Server):
    """Says its port when it has begun."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        assert sockets is not None
        print(sockets[0].getsockname()[1], flush=True)


@contextlib.contextmanager
def process(folder: Path, database: str = "") -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """A process, and the address of its API; killed at the end if it lives."""
    said = {**os.environ, "MUXLY_HOME": str(folder / "home"), "MUXLY_DATABASE_URL": database, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "muxly_dagster_tests.api.collecting_process", str(folder)]
    with subprocess.Popen(command, env=said, cwd=ROOT, stdout=subprocess.PIPE, text=True) as started:
        try:
            assert started.stdout is not None
            yield started, f"http://127.0.0.1:{int(started.stdout.readline())}"
        finally:
            started.kill()


def main(folder: Path) -> None:
    """Serve until killed."""
    service = Service.open(Settings.from_environ(os.environ, folder), os.environ, QuietOrchestrator())
    server = Announced(uvicorn.Config(create_app(service), log_level="error", ws="none", loop="uvloop", http=Straight))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server.run([listening])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
