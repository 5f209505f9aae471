"""A small shop's project on a real code server of Dagster's: one process, one home, and an API that a test can break or hold up."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

LOCATION = "muxly"

_CONNECTOR = """\
muxly: 1
id: corner_shop
version: 1.0.0
title: Corner shop
hosts: [127.0.0.1]
base_url: {url}
auth: {{user: {{kind: none}}}}
streams:
  orders: {{request: {{path: /orders}}, records: $.rows, key: [id]}}
  returns: {{request: {{path: /returns}}, records: $.rows, key: [id]}}
  stock: {{request: {{path: /stock}}, records: $.rows, key: [id]}}
"""
_PROJECT = """\
sources:
  shop: {connector: ./shop.yaml, pulls: [orders, returns, stock]}
jobs:
  day: {select: [shop.orders, shop.returns]}
  stocktaking: {select: [shop.stock]}
"""
_DAGSTER = """\
telemetry: {enabled: false}
concurrency: {runs: {max_concurrent_runs: 4, tag_concurrency_limits: [{key: shop/till, limit: 1}]}}
"""
_SECONDS = 90.0


@dataclass
class Counter:
    """The shop's API. `broken` paths answer 400, a `held` one nothing until it is let go."""

    broken: set[str] = field(default_factory=set)
    held: dict[str, threading.Event] = field(default_factory=dict)
    reached: dict[str, threading.Event] = field(default_factory=dict)

    def hold(self, path: str) -> Callable[[], None]:
        """Let requests of a path wait; answers what lets them go."""
        self.held[path], self.reached[path] = threading.Event(), threading.Event()
        return self.held[path].set


@dataclass
class Shop:
    """The project, where its code is served, and Dagster's home."""

    folder: Path
    port: int
    counter: Counter
    process: subprocess.Popen[bytes] | None = None

    @property
    def home(self) -> Path:
        """Dagster's home."""
        return self.folder / "dagster"

    @property
    def address(self) -> str:
        """Where the code server listens."""
        return f"127.0.0.1:{self.port}"

    @property
    def environ(self) -> dict[str, str]:
        """What the project and Dagster are told."""
        return {"DAGSTER_HOME": str(self.home), "MUXLY_PROJECT": str(self.folder / "muxly.yaml"), "MUXLY_HOME": str(self.folder / ".muxly")}

    def start(self) -> None:
        """Start the code server, and wait until it has the project."""
        command = [sys.executable, "-m", "dagster", "code-server", "start", "-m", "muxly_dagster.definitions", "--host", "127.0.0.1"]
        command += ["--port", str(self.port), "--location-name", LOCATION, "--use-python-environment-entry-point"]
        log = (self.folder / "code.log").open("ab")
        self.process = subprocess.Popen(
            command, env={**os.environ, **self.environ}, cwd=self.folder, stdout=log, stderr=log, start_new_session=True
        )
        log.close()
        process = self.process

        def listens() -> bool:
            assert process.poll() is None, (self.folder / "code.log").read_text()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return True
            return False

        until(listens)

    def kill(self) -> None:
        """Kill the code server and what it started, without a word."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@contextlib.contextmanager
def shop(folder: Path) -> Iterator[Shop]:
    """A shop whose code server runs."""
    counter = Counter()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(counter))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    (folder / "dagster").mkdir(parents=True)
    (folder / "dagster" / "dagster.yaml").write_text(_DAGSTER)
    (folder / "shop.yaml").write_text(_CONNECTOR.format(url=f"http://127.0.0.1:{server.server_port}"))
    (folder / "muxly.yaml").write_text(_PROJECT)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    made = Shop(folder, port, counter)
    try:
        made.start()
        yield made
    finally:
        made.kill()
        for held in counter.held.values():
            held.set()
        server.shutdown()
        server.server_close()


def until(condition: Callable[[], object]) -> None:
    """Wait for something to become true."""
    end = time.monotonic() + _SECONDS
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.05)


def _handler(counter: Counter) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path in counter.held:
                counter.reached[path].set()
                counter.held[path].wait(_SECONDS)
            rows = [{"id": 1, "amount": 5}, {"id": 2, "amount": 50}]
            body = json.dumps({"error": "no"} if path in counter.broken else {"rows": rows}).encode()
            with contextlib.suppress(ConnectionError):
                self.send_response(400 if path in counter.broken else 200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler
