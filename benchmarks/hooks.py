"""From a signed call of a webhook to its 202, which says that it is durable: one caller after the other, and several at once.

    python -m benchmarks.hooks [--seconds 5] [--connections 16] [--only sqlite|postgres]

The API is `muxly serve api`, a process of its own on the same processors. The job is paused: the figures are those of the API, and not of
the runs that it would start. How soon a run begins is measured by `benchmarks.starting`.
"""

import argparse
import asyncio
import contextlib
import hashlib
import hmac
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.collect import Connection, Load, cpu, postgres, served
from muxly_dagster.settings import Settings
from muxly_dagster.state import State

SECONDS, CONNECTIONS = 5.0, 16

_SECRET = "benchmark-secret-of-nobody"
_PROJECT = f"""
sources: {{hooks: {{connector: webhook, pulls: [on_deal]}}}}
jobs: {{on_deal: {{select: [hooks], webhook: {{scheme: github, secret: {_SECRET}}}}}}}
"""
_EVENT = b'{"action":"edited","deal":{"id":"%b","name":"A deal of some size","amount":129.50,"stage":"won"},"changes":["amount","stage"]}'


@dataclass(frozen=True)
class Figure:
    """Calls per second, milliseconds to the answer, and processor seconds of the API for each thousand calls."""

    calls: float
    median: float
    p99: float
    cpu: float


class Caller(Connection):
    """Signs each call anew, under an id of its own."""

    def _send(self) -> None:
        if time.perf_counter() > self._load.until:
            self._transport.close()
            return
        identity = os.urandom(16).hex().encode()
        body = _EVENT % identity
        signed = hmac.new(_SECRET.encode(), body, hashlib.sha256).hexdigest().encode()
        request = self._load.head % (identity, signed, len(body)) + body
        self._sent = time.perf_counter()
        self._transport.write(request)


@contextlib.contextmanager
def called(database: str = "") -> Iterator[tuple[int, int]]:
    """An API with a job that may be called; yields its port and process id."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "muxly.yaml").write_text(_PROJECT)
        environ = {"MUXLY_PROJECT": folder, "MUXLY_HOME": f"{folder}/home", "MUXLY_DATABASE_URL": database}
        settings = Settings.from_environ(environ)
        state = State.open(settings.database_url, settings.home)
        state.jobs.pause("on_deal", paused=True)
        state.close()
        with served(**environ, MUXLY_RATE_LIMIT="off") as process:
            yield process


def measured(port: int, pid: int, seconds: float = SECONDS, connections: int = 1) -> Figure:
    """What one API takes. Raises RuntimeError where it refused anything."""
    head = (
        f"POST /v1/hooks/on_deal HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUser-Agent: generator\r\nContent-Type: application/json\r\n"
        "X-GitHub-Event: deal\r\nX-GitHub-Delivery: %b\r\nX-Hub-Signature-256: sha256=%b\r\nContent-Length: %d\r\n\r\n"
    ).encode()

    async def run(for_seconds: float) -> tuple[Load, float]:
        loop = asyncio.get_running_loop()
        began = time.perf_counter()
        load = Load(began + for_seconds, bytes, head)
        over = [loop.create_future() for _ in range(connections)]
        for each in over:
            await loop.create_connection(lambda each=each: Caller(load, each), "127.0.0.1", port)  # type: ignore[misc]
        await asyncio.gather(*over)
        return load, time.perf_counter() - began

    asyncio.run(run(1.0))  # connections, caches and pages are warm from here on
    before = cpu(pid)
    load, took = asyncio.run(run(seconds))
    if load.refused:
        raise RuntimeError(f"{len(load.refused)} calls were refused, such as {load.refused[0]!r}")
    found = sorted(load.latencies)
    used = cpu(pid) - before
    return Figure(len(found) / took, found[len(found) // 2] * 1000, found[int(len(found) * 0.99)] * 1000, used / len(found) * 1000)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--connections", type=int, default=CONNECTIONS)
    parser.add_argument("--only", choices=["sqlite", "postgres"])
    arguments = parser.parse_args()
    for name in ("sqlite", "postgres"):
        if arguments.only not in (None, name):
            continue
        with postgres() if name == "postgres" else contextlib.nullcontext("") as url:
            for connections in (1, arguments.connections):
                with called(url) as (port, pid):
                    figure = measured(port, pid, arguments.seconds, connections)
                print(
                    f"{name:9} {connections:3} at once: {figure.calls:6,.0f} calls/s, median {figure.median:5.1f} ms, "
                    f"p99 {figure.p99:5.1f} ms, {figure.cpu:.3f} CPU s per 1,000",
                    flush=True,
                )


if __name__ == "__main__":
    main()
