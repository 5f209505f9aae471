"""Events posted to one API process, acknowledged after a durable commit: one by one and in hundreds; on SQLite and on Postgres.

    python -m benchmarks.collect [--seconds 6] [--only sqlite|postgres] [--memory SECONDS]

The API is `muxly serve api`, a process of its own on the same processors; before it, uvicorn with an app that does nothing is measured, as
a limit. The load generator opens connections that each send a request, wait for its receipt, and send the next. Every event has an id of
its own, a random one: what a known id costs is in the figures.
"""

import argparse
import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from benchmarks.measure import MUXLY, free_port
from muxly_dagster.state import State

SECONDS = 6.0
SINGLE, HUNDREDS = 1, 100
CONNECTIONS = {SINGLE: 128, HUNDREDS: 24}

_PROJECT = "sources:\n  app: {connector: collector, pulls: {signups: {}}}\n"
_EVENT = (
    b'{"id":"%b","event":"signup","at":"2026-11-27T09:30:00.000Z","user":{"name":"Ada Lovelace","email":"ada@example.com","plan":"pro"},'
    b'"amount":129.50,"currency":"EUR","campaign":"autumn","referrer":"https://example.com/pricing?from=newsletter","visits":17}'
)


@dataclass
class Figure:
    """Requests and events per second, latencies in milliseconds, processor seconds of the API for each thousand requests, and the most
    memory it held, in MiB."""

    requests: float
    events: float
    median: float
    p99: float
    cpu: float
    peak: float


@dataclass
class Load:
    """What all connections share: where to stop, and what was seen."""

    until: float
    body: Callable[[], bytes]
    head: bytes
    latencies: list[float] = field(default_factory=list)
    refused: list[bytes] = field(default_factory=list)


class Connection(asyncio.Protocol):
    """Sends, waits for the answer, and sends the next."""

    def __init__(self, load: Load, over: "asyncio.Future[None]") -> None:
        self._load, self._over, self._got = load, over, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        self._got += data
        head = self._got.find(b"\r\n\r\n")
        if head < 0:
            return
        at = self._got.lower().find(b"content-length:", 0, head)
        if len(self._got) < head + 4 + int(self._got[at + 15 : self._got.find(b"\r\n", at)]):
            return
        if not self._got.startswith(b"HTTP/1.1 202"):
            self._load.refused.append(self._got)
        self._got = b""
        self._load.latencies.append(time.perf_counter() - self._sent)
        self._send()

    def connection_lost(self, _error: Exception | None) -> None:
        if not self._over.done():
            self._over.set_result(None)

    def _send(self) -> None:
        if time.perf_counter() > self._load.until:
            self._transport.close()
            return
        body = self._load.body()
        self._sent = time.perf_counter()
        self._transport.write(self._load.head % len(body) + body)


def bodies(events: int) -> Callable[[], bytes]:
    """Makes bodies of so many events whose ids nobody has sent before."""
    # The generator shares the processors with what it measures, so it does little: half of an id is random, the other its place.
    random = b"-" * 16
    made = [_EVENT % (random + b"%016x" % number) for number in range(events)]
    template = made[0] if events == 1 else b"[" + b",".join(made) + b"]"
    return lambda: template.replace(random, os.urandom(8).hex().encode())


@contextlib.contextmanager
def served(database: str = "", **environ: str) -> Iterator[tuple[int, int, Path]]:
    """An API with an empty inbox; yields its port, process id and folder."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "muxly.yaml").write_text(_PROJECT)
        port = free_port()
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MUXLY", "DAGSTER"))}
        said = inherited | {"MUXLY_PROJECT": folder, "MUXLY_HOME": f"{folder}/home", "MUXLY_DATABASE_URL": database} | environ
        process = subprocess.Popen([*MUXLY, "serve", "api", "--port", str(port)], env=said, stderr=subprocess.DEVNULL)
        try:
            _ready(process, port)
            yield port, process.pid, Path(folder)
        finally:
            process.terminate()
            process.wait()


@contextlib.contextmanager
def bare() -> Iterator[tuple[int, int]]:
    """uvicorn with an app that does nothing, set up as the API is; yields its port and process id."""
    port = free_port()
    quiet = ["--log-level", "warning", "--no-access-log", "--no-server-header", "--no-proxy-headers", "--lifespan", "off"]
    process = subprocess.Popen([sys.executable, "-m", "uvicorn", "benchmarks.bare:app", "--port", str(port), *quiet])
    try:
        _ready(process, port)
        yield port, process.pid
    finally:
        process.terminate()
        process.wait()


def _ready(process: "subprocess.Popen[bytes]", port: int) -> None:
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=10):
            return
        time.sleep(0.1)
    raise RuntimeError("the API did not start")


def measured(port: int, pid: int, events: int, seconds: float = SECONDS, connections: int = 0) -> Figure:
    """What one API takes. Raises RuntimeError where it refused anything."""
    import uvloop

    head = (
        f"POST /v1/collect/app/signups HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUser-Agent: generator\r\n"
        "Content-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    ).encode()

    async def run(for_seconds: float) -> tuple[Load, float]:
        loop = asyncio.get_running_loop()
        began = time.perf_counter()
        load = Load(began + for_seconds, bodies(events), head)
        over = [loop.create_future() for _ in range(connections or CONNECTIONS[events])]
        for each in over:
            await loop.create_connection(lambda each=each: Connection(load, each), "127.0.0.1", port)  # type: ignore[misc]
        await asyncio.gather(*over)
        return load, time.perf_counter() - began

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(1.0))  # connections, caches and pages are warm from here on
        before = cpu(pid)
        load, took = runner.run(run(seconds))
        used = cpu(pid) - before
    if load.refused:
        raise RuntimeError(f"{len(load.refused)} requests were refused, such as {load.refused[0]!r}")
    found = sorted(load.latencies)
    rate = len(found) / took
    return Figure(
        rate, rate * events, found[len(found) // 2] * 1000, found[int(len(found) * 0.99)] * 1000, used / len(found) * 1000, peak(pid)
    )


def cpu(pid: int) -> float:
    """The processor seconds that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak(pid: int) -> float:
    """The most memory a process has held, in MiB."""
    return _memory(pid, "VmHWM:")


def held(pid: int) -> float:
    """The memory that a process holds now, in MiB."""
    return _memory(pid, "VmRSS:")


def _memory(pid: int, name: str) -> float:
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith(name)]
    return int(line.split()[1]) / 1024


def steady(seconds: float, rounds: int = 6) -> tuple[list[float], float]:
    """What the API holds after each part of a long load in hundreds, while somebody lets go of what it stores, in MiB; and the events."""
    found, events = [], 0.0
    with served() as (port, pid, folder):
        state = State.open(f"sqlite:///{folder}/home/state.db", folder / "home")
        try:
            for _ in range(rounds):
                events += measured(port, pid, HUNDREDS, seconds / rounds).events * seconds / rounds
                state.inbox.let_go("app", "signups", 1 << 60)
                found.append(held(pid))
        finally:
            state.close()
    return found, events


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """An empty database of a Postgres of its own, which syncs what it commits."""
    from muxly_dagster_tests.peers import postgres as server

    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        address = server.shared(Path(folder), buffers="128MB")
        stack.callback(server.stop, Path(folder))
        yield stack.enter_context(server.fresh_database(address))


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--memory", type=float, default=0.0, help="watch the memory for so many seconds instead")
    parser.add_argument("--only", choices=["sqlite", "postgres"])
    arguments = parser.parse_args()
    if arguments.memory:
        each, count = steady(arguments.memory)
        print(f"MiB held: {', '.join(f'{size:.0f}' for size in each)}; {count / 1e6:.0f} million events")
        return
    with bare() as (port, pid):
        for events in (SINGLE, HUNDREDS):
            _print("uvicorn", events, measured(port, pid, events, arguments.seconds))
    for name in ("sqlite", "postgres"):
        if arguments.only not in (None, name):
            continue
        with postgres() if name == "postgres" else contextlib.nullcontext("") as url:
            for events in (SINGLE, HUNDREDS):
                with served(url) as (port, pid, _):
                    _print(name, events, measured(port, pid, events, arguments.seconds))


def _print(name: str, events: int, figure: Figure) -> None:
    print(
        f"{name:9} {events:4} a request: {figure.requests:8,.0f} requests/s {figure.events:9,.0f} events/s, "
        f"median {figure.median:5.1f} ms, p99 {figure.p99:5.1f} ms, {figure.cpu:.3f} CPU s per 1,000 requests, "
        f"peak {figure.peak:.0f} MiB",
        flush=True,
    )


if __name__ == "__main__":
    main()
