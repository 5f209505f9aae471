"""Heads of ordinary posts to collect, read at one go: a parser that meets every case costs more than all else such a post needs.

Whatever is out of the ordinary is none here, and left to the server's own parser, which decides what it is (RFC 9112).
"""

import functools
import re
from dataclasses import dataclass

from muxly_dagster.api.guard import comes_from_here, credentials_in
from muxly_dagster.collecting import cloudevents
from muxly_dagster.state.keys import key_hash

PREFIX = b"POST /v1/collect/"
END = b"\r\n\r\n"

LONGEST = 4096  # bytes
_KEPT = 4096  # heads: a sender's are mostly alike

_HEAD = re.compile(
    rb"POST /v1/collect/([A-Za-z0-9_.~-]+)/([A-Za-z0-9_.~-]+) HTTP/1\.1\r\n"
    rb"((?:[A-Za-z][A-Za-z0-9-]*: ?[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?\r\n)+)\r\n"
)
_LENGTH = re.compile(r"[0-9]{1,9}")
_OTHERWISE = frozenset(
    {
        "transfer-encoding",
        "content-encoding",
        "expect",
        "upgrade",
        "te",
        "trailer",
        "origin",
        "idempotency-key",
        "proxy-connection",
        "http2-settings",
    }
)
"""What makes a request one that is read or answered in another way."""


@dataclass(frozen=True, slots=True)
class Head:
    """What an ordinary post says before its body of `length` bytes: where to, of what kind (Content-Type), and who it is from.

    `key` is the hash of the write key it gives, "" without one; `from_here` says that it was sent on this machine, and by no foreign page.
    """

    source: str
    stream: str
    kind: str
    length: int
    key: str
    from_here: bool
    request_id: bytes


@functools.lru_cache(_KEPT)
def read(head: bytes, client: str) -> Head | None:
    """A head up to the empty line, sent from a client's address; None for one that is not ordinary."""
    found = _HEAD.fullmatch(head)
    if found is None:
        return None
    source, stream, lines = (part.decode("ascii") for part in found.groups())
    fields = [line.partition(":") for line in lines.split("\r\n")[:-1]]
    headers = {name.lower(): value.removeprefix(" ") for name, _, value in fields}
    if len(headers) < len(fields) or not _OTHERWISE.isdisjoint(headers) or headers.get("connection", "keep-alive").lower() != "keep-alive":
        return None
    kind, length = headers.get("content-type", ""), headers.get("content-length", "")
    if not _LENGTH.fullmatch(length) or cloudevents.speaks(kind, headers):
        return None
    given = headers.get("x-write-key", "") or credentials_in("POST", headers)
    request_id = headers.get("x-request-id", "").encode()
    return Head(source, stream, kind, int(length), key_hash(given) if given else "", comes_from_here(client, headers), request_id)
