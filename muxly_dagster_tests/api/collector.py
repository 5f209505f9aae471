"""A real server that collects, in a thread of this process: two sources, their streams, and what its inbox holds."""

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn

from muxly_dagster.api.app import create_app
from muxly_dagster.api.senders.straight import Straight
from muxly_dagster.api.service import Service
from muxly_dagster.settings import Settings
from muxly_dagster_tests.api.shop import QuietOrchestrator
from muxly_dagster_tests.peers.prometheus import until

PROJECT = """
sources:
  telemetry:
    connector: collector
    pulls:
      otlp_metrics: {}
      otlp_traces: {}
      logs: {stream: otlp_logs}
      influx: {}
      prometheus: {}
  web:
    connector: collector
    pulls: [track, identify, page, group, orders]
"""


@dataclass
class Collector:
    """The server, from outside and from within."""

    url: str
    port: int
    service: Service

    keys: Mapping[str, str]
    """Write keys by name: of each source, `narrow` for telemetry's stream influx alone, `slow` for one request a second of it."""

    stop: Callable[[], None] = field(repr=False)
    """Lets the server end, as a signal does."""

    def events(self, source: str, stream: str) -> list[dict[str, Any]]:
        """All events of a stream that wait."""
        parcels = self.service.state.inbox.parcels(source, stream, 0, 1 << 30)
        return [json.loads(line) for parcel in parcels for line in parcel.body.splitlines()]

    def ids(self, source: str, stream: str) -> list[str]:
        """Their ids."""
        return [id for parcel in self.service.state.inbox.parcels(source, stream, 0, 1 << 30) for id in parcel.ids]

    def clear(self) -> None:
        """Let go of all that waits. What was known stays known."""
        inbox = self.service.state.inbox
        for source in ("telemetry", "web"):
            for stream in inbox.waiting(source):
                inbox.let_go(source, stream, 1 << 60)

    def signed(self, key: str = "telemetry") -> dict[str, str]:
        """Headers with a write key."""
        return {"authorization": f"Bearer {self.keys[key]}"}


@contextlib.contextmanager
def collecting(
    folder: Path, environ: Mapping[str, str] | None = None, project: str = PROJECT, *, guarded: bool = True, straight: bool = True
) -> Iterator[Collector]:
    """The project's API on a free port, with write keys or without any, and as it is served or, for comparison, by uvicorn alone."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "muxly.yaml").write_text(project, "utf-8")
    said = {"MUXLY_HOME": str(folder / "home"), **(environ or {})}
    service = Service.open(Settings.from_environ(said, folder), said, QuietOrchestrator())
    made = service.state.keys.create
    keys = (
        {
            "telemetry": made("telemetry")[1],
            "web": made("web")[1],
            "narrow": made("telemetry", ["influx"])[1],
            "slow": made("telemetry", rate="1/second")[1],
        }
        if guarded
        else {}
    )
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(create_app(service), http=Straight if straight else "httptools", log_level="error", ws="none", lifespan="on")
    )
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        until(lambda: server.started or not thread.is_alive(), "the server")
        port = listening.getsockname()[1]
        yield Collector(f"http://127.0.0.1:{port}", port, service, keys, lambda: setattr(server, "should_exit", True))
    finally:
        server.should_exit = True
        thread.join()
        listening.close()
