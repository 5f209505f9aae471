"""How fast HubSpot is pulled: 200,000 contacts with 20 properties from a loopback process into the lake, beside airbyte-cdk.

    python -m benchmarks.hubspot [--records N] [--rounds N]

The server runs in a process of its own and answers with ready bytes. Both read the list of contacts, 100 a page, and make typed values of
text. Muxly's figure is that of the whole command `muxly run`: start-up, the search for changes and storing included. airbyte-cdk's is that
of a declarative source read to its messages, before anything is stored; it takes `.venv-airbyte` (`make .venv-airbyte/.ready`).
"""

import argparse
import asyncio
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.measure import HERE, MUXLY, Cost, run

TARGET = 8.0
_FEW = 100
RIVAL = Path(".venv-airbyte/bin/python").absolute()

_TEXTS = (
    "email",
    "firstname",
    "lastname",
    "phone",
    "company",
    "jobtitle",
    "lifecyclestage",
    "hs_lead_status",
    "city",
    "country",
    "website",
)
_TYPES = {
    **dict.fromkeys((*_TEXTS, "industry"), "string"),
    **dict.fromkeys(("annualrevenue", "numemployees", "hs_object_id"), "number"),
    **dict.fromkeys(("createdate", "lastmodifieddate", "notes_last_contacted"), "datetime"),
    "date_of_birth": "date",
    "is_customer": "bool",
}
PROPERTIES = tuple(_TYPES)
_REQUEST = re.compile(rb"(GET|POST) (/\S*?)(?:\?(\S*))? HTTP")


def _tail(number: int) -> bytes:
    """A contact behind its ids; 997 different ones, taken in turn."""
    day = number % 28 + 1
    values = {name: f"{name} of contact {number}" for name in _TEXTS} | {
        "industry": "COMPUTER_SOFTWARE",
        "annualrevenue": f"{number * 13 % 10**6}.5",
        "numemployees": str(number % 500),
        "createdate": f"2025-03-{day:02d}T12:00:00.000Z",
        "lastmodifieddate": f"2026-01-{day:02d}T12:00:00.000Z",
        "notes_last_contacted": f"2026-01-{day:02d}T09:30:00.123Z",
        "date_of_birth": f"1980-05-{day:02d}",
        "is_customer": "true" if number % 3 else "false",
    }
    created, updated = values["createdate"], values["lastmodifieddate"]
    inner = json.dumps(values, separators=(",", ":")).encode()[1:]
    rest = json.dumps({"createdAt": created, "updatedAt": updated, "archived": False}, separators=(",", ":")).encode()[1:]
    return inner + b"," + rest


class _Api(asyncio.Protocol):
    """One connection to HubSpot's API, as far as a first pull needs it."""

    count = 0
    tails: tuple[bytes, ...] = ()
    properties = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        found = _REQUEST.search(data)
        path, query = (found[2], found[3] or b"") if found else (b"", b"")
        page = self._page(path, dict(part.split(b"=", 1) for part in query.split(b"&") if b"=" in part))
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(page)
        self._transport.write(head + page)

    def _page(self, path: bytes, query: dict[bytes, bytes]) -> bytes:
        if b"/properties/" in path:
            return self.properties
        if query.get(b"archived") == b"true":
            return b'{"results":[]}'
        start = int(query.get(b"after") or 0)
        end = min(start + int(query.get(b"limit") or 100), self.count)
        body = b",".join(
            b'{"id":"%d","properties":{"hs_object_id":"%d",%s' % (10**7 + n, 10**7 + n, self.tails[n % 997]) for n in range(start, end)
        )
        paging = b',"paging":{"next":{"after":"%d"}}' % end if end < self.count else b""
        return b'{"results":[%s]%s}' % (body, paging)


async def _serve(count: int) -> None:
    _Api.count, _Api.tails = count, tuple(map(_tail, range(997)))
    listed = [{"name": name, "type": kind, "hidden": False} for name, kind in _TYPES.items()]
    _Api.properties = json.dumps({"results": listed}).encode()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Api, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


@contextmanager
def _served(count: int) -> Iterator[str]:
    command = [sys.executable, "-m", "benchmarks.hubspot", "--serve", "--records", str(count)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None and server.stdout is not None
        yield f"http://127.0.0.1:{server.stdout.readline().strip()}"
        server.stdin.close()


def _pull(url: str, records: int) -> Cost:
    source = {
        "connector": "hubspot",
        "base_url": url,
        "auth": {"kind": "bearer", "token": "benchmark"},
        "requests_per_10s": 1_000_000,
        "pulls": {"contacts": {"properties": list(PROPERTIES)}},
    }
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / "muxly.yaml"
        project.write_text(json.dumps({"sources": {"crm": source}}))
        cost = run([*MUXLY, "run", "crm.contacts", "--json"], MUXLY_PROJECT=str(project))
    assert json.loads(cost.output)[0]["changed"] == records
    return cost


def _rival(url: str, records: int) -> Cost:
    cost = run([str(RIVAL), str(HERE / "rivals" / "airbyte_pull.py"), url, ",".join(f"{n}:{t}" for n, t in _TYPES.items())])
    assert int(cost.output.splitlines()[-1]) == records  # behind its log
    return cost


def _measure(name: str, pull: Callable[[str, int], Cost], records: int, rounds: int) -> tuple[float, float]:
    """Records per CPU second of the whole process, and without its start-up (what a pull of one page costs)."""
    with _served(_FEW) as url:
        start = min((pull(url, _FEW) for _ in range(rounds)), key=lambda cost: cost.cpu)
    with _served(records) as url:
        cost = min((pull(url, records) for _ in range(rounds)), key=lambda cost: cost.cpu)
    whole, alone = records / cost.cpu, (records - _FEW) / (cost.cpu - start.cpu)
    print(
        f"{name:12} {whole:9,.0f} records per CPU second, {alone:9,.0f} without start-up "
        f"({cost.cpu:.2f} and {start.cpu:.2f} CPU s, {cost.wall:.2f} s, peak {cost.peak:.0f} MiB)",
        file=sys.stderr,
    )
    return whole, alone


def compared(records: int = 200_000, rounds: int = 3) -> list[tuple[str, float]]:
    """How many times airbyte-cdk's records per CPU second Muxly makes, of whole processes and without start-up; best of the rounds."""
    ours = _measure("muxly", _pull, records, rounds)
    if not RIVAL.exists():
        print(f"airbyte-cdk  not measured: there is no {RIVAL}", file=sys.stderr)
        return []
    theirs = _measure("airbyte-cdk", _rival, records, rounds)
    return [(what, mine / other) for what, mine, other in zip(("whole processes", "without start-up"), ours, theirs, strict=True)]


def main() -> None:
    """Print both figures, and how they stand to each other. Of several rounds the best counts: the machine is shared."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        asyncio.run(_serve(arguments.records))
        return
    for what, figure in compared(arguments.records, arguments.rounds):
        print(f"{what}: {figure:.1f} times; at least {TARGET:g}: {'met' if figure >= TARGET else 'MISSED'}")


if __name__ == "__main__":
    main()
