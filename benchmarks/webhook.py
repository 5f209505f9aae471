"""Records delivered to a webhook one by one, with receipts stored; beside what its sink alone takes and what the old way costs.

    python -m benchmarks.webhook [--records 10000] [--concurrency 50]

The sink is a process of its own that reads each request and answers `200 {}`. What it takes by itself is measured first, by a load
generator that writes requests of the same bytes on as many connections and waits for each answer. Then a lake with that many records
is delivered by `muxly_dagster.delivery.deliver` with its state in SQLite, everything as in a run. Sink, generator and Muxly share the
machine's processors. Every figure is the best of three.
"""

import argparse
import asyncio
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pyarrow as pa

from muxly_dagster import delivery
from muxly_dagster.assembly import Target
from muxly_dagster.destinations.webhook import Webhook
from muxly_dagster.http import Http, Request
from muxly_dagster.lake import Lake
from muxly_dagster.project.models import RouteSpec
from muxly_dagster.records import to_json
from muxly_dagster.routing import Router, Rule
from muxly_dagster.state import State
from muxly_dagster.testing import delivery as stretch

RECORDS = 10_000
CONCURRENCY = 50
ROUNDS = 3
ALONE, THREADS, WHOLE = "the sink alone", "Http.each, a thread for each request", "webhook, lake to receipts"
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


@dataclass(frozen=True)
class Figure:
    """Requests per second, and the processor seconds of this process for each thousand of them."""

    rate: float
    cpu: float


class Sink(asyncio.Protocol):
    """Reads requests to their end and answers each."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self._held = cast(asyncio.Transport, transport), b""

    def data_received(self, data: bytes) -> None:
        held, answers = self._held + data, 0
        while (head := held.find(b"\r\n\r\n")) >= 0:
            found = _LENGTH.search(held, 0, head)
            end = head + 4 + (int(found[1]) if found else 0)
            if len(held) < end:
                break
            held, answers = held[end:], answers + 1
        self._held = held
        if answers:
            self._transport.write(_ANSWER * answers)


class Generator(asyncio.Protocol):
    """One connection that writes a request, waits for its answer, and writes the next while there are any left."""

    def __init__(self, request: bytes, left: Iterator[int], over: "asyncio.Future[None]") -> None:
        self._request, self._left, self._over, self._got = request, left, over, 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none of asyncio's own
        self._send()

    def data_received(self, data: bytes) -> None:
        self._got += len(data)
        if self._got >= len(_ANSWER):
            self._got = 0
            self._send()

    def _send(self) -> None:
        if next(self._left, None) is None:
            self._transport.close()
            self._over.set_result(None)
        else:
            self._transport.write(self._request)


def _loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Sink, "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


@contextmanager
def served() -> Iterator[int]:
    """The sink in a process of its own; yields its port."""
    command = [sys.executable, "-m", "benchmarks.webhook", "--serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None and server.stdout is not None
        yield int(server.stdout.readline())
        server.stdin.close()


def rows(count: int) -> pa.Table:
    """Deals of five columns."""
    numbers = range(count)
    return pa.table(
        {
            "id": pa.array(numbers, pa.int64()),
            "name": [f"Deal number {n}" for n in numbers],
            "amount": [n * 1.25 for n in numbers],
            "stage": ["closedwon" if n % 3 else "open" for n in numbers],
            "city": ["Berlin"] * count,
        }
    )


def sink_alone(port: int, count: int, concurrency: int) -> Figure:
    """What the sink takes from a load generator."""
    record = to_json(stretch(rows(1).to_pylist()).records()[0])
    head = (
        f"POST /hook HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUser-Agent: generator\r\nContent-Type: application/json\r\n"
        f"Idempotency-Key: crm.deals:0b8e1f9c:1\r\nContent-Length: {len(record)}\r\n\r\n"
    )

    async def generate() -> None:
        loop, left = asyncio.get_running_loop(), iter(range(count))
        over = [loop.create_future() for _ in range(concurrency)]
        for each in over:
            await loop.create_connection(lambda each=each: Generator(head.encode() + record, left, each), "127.0.0.1", port)  # type: ignore[misc]
        await asyncio.gather(*over)

    started, cpu = time.perf_counter(), time.process_time()
    with asyncio.Runner(loop_factory=_loop) as runner:
        runner.run(generate())
    return Figure(count / (time.perf_counter() - started), (time.process_time() - cpu) / count * 1000)


def each_in_a_thread(port: int, count: int, concurrency: int) -> Figure:
    """The same requests by `Http.each`, a thread for each that is under way."""
    body = to_json(stretch(rows(1).to_pylist()).records()[0])
    headers = {"Content-Type": "application/json", "Idempotency-Key": "crm.deals:0b8e1f9c:1"}
    with Http(f"http://127.0.0.1:{port}/hook", concurrency=concurrency) as http:
        started, cpu = time.perf_counter(), time.process_time()
        for _ in http.each((Request("POST", "", headers=headers, content=body) for _ in range(count)), concurrency):
            pass
        return Figure(count / (time.perf_counter() - started), (time.process_time() - cpu) / count * 1000)


def delivered(port: int, count: int, concurrency: int) -> Figure:
    """The whole road from the lake: rules asked, records sent one by one, receipts and offset stored."""
    hook = Webhook(url=f"http://127.0.0.1:{port}/hook", concurrency=concurrency, allow=["127.0.0.1"])
    spec = RouteSpec.model_validate({"from": "crm.deals", "to": "hook"})
    target = Target("out.hook", "out", spec, "crm.deals", ("id",), "hubspot", "hook", hook, Router([Rule(None, ("hook",))]))
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake(f"{folder}/lake")
        with lake.writer("crm.deals", key=("id",), run_id="pull") as writer:
            writer.add(rows(count))
            writer.finish(whole=False)
        state = State.open(f"sqlite:///{folder}/state.db", Path(folder))
        try:
            started, cpu = time.perf_counter(), time.process_time()
            outcome = delivery.deliver(lake, state, target, run_id="run")
            took, cost = time.perf_counter() - started, time.process_time() - cpu
        finally:
            state.close()
    assert outcome.accepted == count, outcome
    return Figure(count / took, cost / count * 1000)


def measured(count: int = RECORDS, concurrency: int = CONCURRENCY) -> dict[str, Figure]:
    """Every figure by its name, the best of three rounds."""
    ways = {ALONE: sink_alone, THREADS: each_in_a_thread, WHOLE: delivered}
    with served() as port:
        return {name: max((way(port, count, concurrency) for _ in range(ROUNDS)), key=lambda f: f.rate) for name, way in ways.items()}


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=RECORDS)
    parser.add_argument("--concurrency", type=int, default=CONCURRENCY)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        with asyncio.Runner(loop_factory=_loop) as runner:
            runner.run(_serve())
        return
    for name, figure in measured(arguments.records, arguments.concurrency).items():
        print(f"{name:38} {figure.rate:8,.0f} a second, {figure.cpu:6.3f} CPU s per 1,000", flush=True)


if __name__ == "__main__":
    main()
