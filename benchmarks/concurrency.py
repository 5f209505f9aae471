"""How much of what an API allows the paths of a manifest use, against a loopback server that takes 50 ms for each answer.

    python -m benchmarks.concurrency [PATH...]

Each path sends some hundred requests within `limits`: 8 requests at a time allow 160 answers a second, 40 requests a second allow 40. The
figure is the share of that, from the first request of its kind to the last answer, as the server sees it: start-up does not count.
"""

import argparse
import asyncio
import json
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.measure import MUXLY, run

DELAY = 0.05
REQUESTS = 240
_PAGE = 120
_REQUEST = re.compile(rb"GET /(?P<kind>\w+)(?:/(?P<name>\w+))?(?:\?(?P<query>\S*))? HTTP")

LIMITS = {"8 at a time": ({"concurrency": 8}, 8 / DELAY), "40 a second": ({"per_second": 40}, 40.0)}
"""The manifest's `limits`, and how many requests a second they allow."""

_LISTED: dict[str, Any] = {"records": "$.results", "key": ["id"]}
_THINGS: dict[str, Any] = {"path": "/things"}
_PAGED: dict[str, Any] = {"kind": "offset", "into": "query.offset", "total": "$.total"}
STREAMS: dict[str, dict[str, Any]] = {
    "offset": {**_LISTED, "request": {"path": "/offset"}, "paging": {**_PAGED, "size": ["query.limit", 1]}},
    "enrich": {
        **_LISTED,
        "request": _THINGS,
        "paging": {**_PAGED, "size": ["query.limit", _PAGE]},
        "enrich": [{"request": {"path": "/enrich/${key}"}, "key": "id"}],
    },
    "values": {**_LISTED, "for_each": "config.places as place", "request": {"path": "/values/${place}"}},
    "parents": {
        **_LISTED,
        "for_each": {"in": "streams.things", "as": "thing", "add": {"thing_id": "${thing.id}"}},
        "request": {"path": "/parents/${thing.id}"},
        "key": ["thing_id", "id"],
    },
    "since": {
        **_LISTED,
        "for_each": "config.places as place",
        "request": {"path": "/since/${place}", "query": {"since": "${cursor}"}},
        "sync": {"kind": "cursor", "field": "id"},
    },
    "downloads": {
        **_LISTED,
        "request": _THINGS,
        "paging": {**_PAGED, "size": ["query.limit", _PAGE]},
        "file": {"request": {"path": "/downloads/${record.id}"}},
    },
    "things": {**_LISTED, "request": _THINGS, "paging": {**_PAGED, "size": ["query.limit", _PAGE]}},
}
PATHS = {
    "offset": "offset paging",
    "enrich": "a request for each record",
    "values": "for_each over values",
    "parents": "for_each over a stream's records",
    "since": "for_each with a cursor of each place",
    "downloads": "file downloads",
}


class Server(asyncio.Protocol):
    """One connection to the API; `seen` holds the times at which requests of each kind came and were answered."""

    seen: ClassVar[dict[str, list[float]]] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        found = _REQUEST.match(data)
        if found is None:
            self._transport.close()
            return
        kind = found["kind"].decode()
        if kind == "seen":
            self._write(json.dumps(self.seen).encode())
            self.seen.clear()
            return
        self.seen.setdefault(kind, []).append(time.monotonic())
        query = dict(part.split(b"=", 1) for part in (found["query"] or b"").split(b"&") if b"=" in part)
        page = self._answer(kind, found["name"] or b"", int(query.get(b"offset", 0)), int(query.get(b"limit", 1)))
        asyncio.get_running_loop().call_later(DELAY, self._finish, kind, page)

    def _answer(self, kind: str, name: bytes, start: int, size: int) -> bytes:
        if kind in ("offset", "things"):
            records = ",".join(f'{{"id":{number}}}' for number in range(start, min(start + size, REQUESTS)))
            return f'{{"results":[{records}],"total":{REQUESTS}}}'.encode()
        if kind == "downloads":
            return b"the file %s" % name
        return b'{"more":"about %s"}' % name if kind == "enrich" else b'{"results":[{"id":%s}]}' % name

    def _finish(self, kind: str, page: bytes) -> None:
        self.seen[kind].append(time.monotonic())
        self._write(page)

    def _write(self, body: bytes) -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
        self._transport.write(head + body)


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Server, "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


@contextmanager
def served() -> Iterator[str]:
    """The API in a process of its own; yields its address."""
    command = [sys.executable, "-m", "benchmarks.concurrency", "--serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None and server.stdout is not None
        yield f"http://127.0.0.1:{server.stdout.readline().strip()}"
        server.stdin.close()


def share(url: str, path: str, limits: str) -> float:
    """The share of its budget that one path of the manifest uses."""
    allowed, ideal = LIMITS[limits]
    manifest = {
        "muxly": 1,
        "id": "bench",
        "version": "1.0.0",
        "title": "Bench",
        "hosts": ["127.0.0.1"],
        "base_url": url,
        "limits": [allowed],
        "config": {"places": {"type": "list", "default": [str(number) for number in range(REQUESTS)]}},
        "streams": STREAMS,
    }
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "bench.yaml").write_text(json.dumps(manifest))
        project = Path(folder, "muxly.yaml")
        project.write_text(json.dumps({"sources": {"bench": {"connector": "./bench.yaml", "pulls": [path]}}}))
        report = json.loads(run([*MUXLY, "run", f"bench.{path}", "--json"], MUXLY_PROJECT=str(project)).output)[0]
    assert report["changed"] == REQUESTS, report
    with urllib.request.urlopen(f"{url}/seen") as answer:
        times: list[float] = json.loads(answer.read())[path]
    sent = len(times) // 2
    assert sent == REQUESTS, f"{path}: {sent} requests"
    return sent / (max(times) - min(times)) / ideal


def main() -> None:
    """Print each path's share of each budget."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", metavar="PATH", help=f"one of {', '.join(PATHS)}; all unless told otherwise")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        asyncio.run(_serve())
        return
    if unknown := [path for path in arguments.paths if path not in PATHS]:
        parser.error(f"no path {', '.join(unknown)}; there are {', '.join(PATHS)}")
    with served() as url:
        for path in arguments.paths or PATHS:
            shares = [f"{share(url, path, limits):6.1%} of {limits}" for limits in LIMITS]
            print(f"{PATHS[path]:38}", *shares, flush=True)


if __name__ == "__main__":
    main()
