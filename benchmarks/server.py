"""A loopback API that is not the bottleneck: HubSpot-like contacts of about 740 bytes, pages made of ready bytes.

usage: server.py COUNT [--size 100] [--delay SECONDS]      prints its port, serves until standard input closes
GET /contacts?after=N&limit=M   cursor paging: {"results": [...], "paging": {"next": {"after": "..."}}}
GET /offset?offset=N&limit=M    offset paging: {"results": [...], "total": COUNT}
"""

import argparse
import asyncio
import json
import re
import sys
from collections.abc import Sequence

_WORDS = ["Ada", "Grace", "Linus", "Barbara", "Edsger", "Donald", "Margaret", "Alan", "Katherine", "Dennis", "Radia"]
_QUERY = re.compile(rb"GET /(contacts|offset)\?(\S*) HTTP")


def tail(number: int) -> bytes:
    """A record behind its id; 997 different ones, taken in turn."""
    first, last, day = _WORDS[number % 11], _WORDS[number % 7], number % 28 + 1
    properties = {
        "email": f"{first.lower()}.{last.lower()}{number}@example{number % 97}.com",
        "firstname": first,
        "lastname": f"{last}son",
        "phone": f"+49 30 {number * 7919 % 10**8:08d}",
        "company": f"Company {number * 31 % 499} GmbH",
        "jobtitle": f"Director of Operations {number % 23}",
        "lifecyclestage": ["lead", "customer", "opportunity"][number % 3],
        "hs_lead_status": "OPEN",
        "city": "Berlin",
        "country": "Germany",
        "website": f"https://www.example{number % 97}.com/about/team",
        "annualrevenue": str(number * 13 % 10**6),
        "numemployees": str(number % 500),
        "createdate": f"2025-03-{day:02d}T12:00:00.000Z",
        "lastmodifieddate": f"2026-01-{day:02d}T12:00:00.000Z",
        "industry": "COMPUTER_SOFTWARE",
        "notes": f"Met at the fair in hall {number % 50}, wants a call back in spring; prefers e-mail to calls, decides with the board.",
    }
    created, updated = properties["createdate"], properties["lastmodifieddate"]
    rest = {"properties": properties, "createdAt": created, "updatedAt": updated, "archived": False}
    return b'",' + json.dumps(rest, separators=(",", ":")).encode()[1:]


class Server(asyncio.Protocol):
    """One connection."""

    count = 0
    delay = 0.0
    tails: Sequence[bytes] = ()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        found = _QUERY.search(data)
        query = dict(part.split(b"=", 1) for part in found[2].split(b"&")) if found and found[2] else {}
        start, size = int(query.get(b"after") or query.get(b"offset") or 0), int(query.get(b"limit") or 100)
        end = min(start + size, self.count)
        body = b",".join(b'{"id":"%d%s' % (10_000_000 + n, self.tails[n % 997]) for n in range(start, end))
        if found and found[1] == b"offset":
            page = b'{"results":[%s],"total":%d}' % (body, self.count)
        elif end < self.count:
            page = b'{"results":[%s],"paging":{"next":{"after":"%d"}}}' % (body, end)
        else:
            page = b'{"results":[%s]}' % body
        answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(page), page)
        if self.delay:
            asyncio.get_running_loop().call_later(self.delay, self.transport.write, answer)
        else:
            self.transport.write(answer)


async def main() -> None:
    """Serve until standard input closes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int)
    parser.add_argument("--delay", type=float, default=0.0)
    arguments = parser.parse_args()
    Server.count, Server.delay, Server.tails = arguments.count, arguments.delay, [tail(n) for n in range(997)]
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Server, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(main())
