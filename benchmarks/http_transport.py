"""Which HTTP transport costs least: requests per CPU second of this process, one at a time and 16 in flight.

    python benchmarks/http_transport.py [--bytes 500] [--requests 4000]

The server runs in a process of its own (its CPU time does not count) and answers every request with the same JSON page. Compared are
httpx alone, httpx on pyreqwest's transport, pyreqwest's own client, and Muxly's client over its default transport and over httpx.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
from pyreqwest.client import SyncClientBuilder
from pyreqwest.compatibility.httpx import SyncHttpxTransport

from muxly_dagster.http import Http, Request, Timeouts, transport

IN_FLIGHT = 16
HEADERS = {"Authorization": "Bearer token", "Accept": "application/json"}


class Page(asyncio.Protocol):
    """Answers every request on a connection with one page."""

    def __init__(self, size: int) -> None:
        body = json.dumps({"results": ["x" * max(0, size - 16)]}).encode()
        self._answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        *requests, self._rest = (self._rest + data).split(b"\r\n\r\n")
        self._transport.write(self._answer * len(requests))


async def serve(size: int) -> None:
    """Serve on a free port and print it."""
    server = await asyncio.get_running_loop().create_server(lambda: Page(size), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextmanager
def served(size: int) -> Iterator[str]:
    """The base URL of a server in a child process."""
    with subprocess.Popen([sys.executable, __file__, "--serve", "--bytes", str(size)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout
        try:
            yield f"http://127.0.0.1:{child.stdout.readline().strip()}"
        finally:
            child.terminate()


def measure(run: Callable[[int], object], requests: int) -> tuple[float, float]:
    """Requests per CPU second and per second."""
    run(IN_FLIGHT)  # connections and threads
    cpu, wall = time.process_time(), time.perf_counter()
    run(requests)
    return requests / (time.process_time() - cpu), requests / (time.perf_counter() - wall)


def one_by_one(get: Callable[[], object]) -> Callable[[int], object]:
    """Requests one after the other."""
    return lambda count: [get() for _ in range(count)]


def together(get: Callable[[], object]) -> Callable[[int], object]:
    """Requests on 16 threads, each sending its share one after the other: as cheap as threads can be."""

    def run(count: int) -> None:
        with ThreadPoolExecutor(IN_FLIGHT) as threads:
            list(threads.map(lambda _: [get() for _ in range(count // IN_FLIGHT)], range(IN_FLIGHT)))

    return run


def compare(url: str, requests: int) -> None:
    """Print one line per transport."""

    def report(name: str, alone: Callable[[int], object], many: Callable[[int], object]) -> None:
        a, b = measure(alone, requests), measure(many, requests)
        print(f"{name:28}  one by one {a[0]:7,.0f}/CPU s {a[1]:7,.0f}/s    {IN_FLIGHT} in flight {b[0]:7,.0f}/CPU s {b[1]:7,.0f}/s")

    with httpx.Client(headers=HEADERS, limits=httpx.Limits(max_keepalive_connections=IN_FLIGHT)) as plain:
        report("httpx", one_by_one(lambda: plain.get(url).content), together(lambda: plain.get(url).content))
    with httpx.Client(headers=HEADERS, transport=SyncHttpxTransport()) as mixed:
        report("httpx on pyreqwest", one_by_one(lambda: mixed.get(url).content), together(lambda: mixed.get(url).content))
    with SyncClientBuilder().build() as direct:

        def get() -> bytes:
            with direct.get(url).headers(HEADERS).build_streamed() as response:
                return response.bytes().to_bytes()

        report("pyreqwest", one_by_one(get), together(get))
    for fast in (True, False):
        transport.HAS_PYREQWEST = fast
        with Http(url, headers=HEADERS, timeouts=Timeouts(), concurrency=IN_FLIGHT) as muxly:

            def each(count: int, muxly: Http = muxly) -> None:
                for _ in muxly.each((Request("GET", "") for _ in range(count)), IN_FLIGHT):
                    pass

            report(f"Muxly on {'pyreqwest' if fast else 'httpx'}", one_by_one(lambda muxly=muxly: muxly.get("")), each)  # type: ignore[misc]


def main() -> None:
    """Serve or compare."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--bytes", type=int, default=500, help="size of a page")
    arguments.add_argument("--requests", type=int, default=4000, help="requests per measurement")
    arguments.add_argument("--serve", action="store_true", help="be the server")
    options = arguments.parse_args()
    if options.serve:
        asyncio.run(serve(options.bytes))
        return
    with served(options.bytes) as url:
        compare(url, options.requests)


if __name__ == "__main__":
    main()
