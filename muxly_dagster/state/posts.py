"""What one request brings to the inbox, and what became of it."""

import functools
import hashlib
import random
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import xxhash

from muxly_dagster.collecting import Gathered, Lines

MARK = 16
"""The bytes of a mark."""

_OWN = 10  # of which so many are the id's
_MARKS = struct.Struct(f"{MARK}s{16 - _OWN}x")  # a mark, and the rest of the 16 bytes of a digest
_LEAST = tuple(f"{number:03x}" for number in range(0x1000))  # the last digits of ids that are made together


@dataclass(slots=True)
class Part:
    """Events of one stream of a request. `marks` tell the sender's ids apart; b"" for an event without one, whose id is of our making.

    `refused` are pairs of text and reason, for quarantine.
    """

    stream: str
    lines: Lines
    ids: Sequence[str]
    marks: Sequence[bytes]
    refused: Sequence[tuple[str, str]] = ()

    @classmethod
    def of(cls, source: str, gathered: Gathered, refused: Sequence[tuple[str, str]] = ()) -> "Part":
        """Give ids to events that came without."""
        given, scope = gathered.ids, _scope(source, gathered.stream)
        if "" not in given:
            return cls(gathered.stream, gathered.lines, given, _marks(scope, given), refused)
        own, marks = new_ids(given.count("")), [b""] * len(given)
        if len(own) == len(given):
            return cls(gathered.stream, gathered.lines, own, marks, refused)
        theirs, ours = iter(_marks(scope, [id for id in given if id])), iter(own)
        marks = [next(theirs) if id else b"" for id in given]
        return cls(gathered.stream, gathered.lines, [id or next(ours) for id in given], marks, refused)


@dataclass(slots=True)
class Kept:
    """What became of one part: how many of its events are stored and were known already, and the seq of the parcel (0: there is none)."""

    accepted: int = 0
    duplicate: int = 0
    quarantined: int = 0
    seq: int = 0


@dataclass(slots=True)
class Post:
    """One request: events of one source. `key` is the mark of its Idempotency-Key, b"" without one; `fingerprint` of what was sent with it;
    `receipt` writes what is kept under the key.

    Once it is put, `kept` says what became of each part; where the key was known, `earlier` holds the fingerprint and receipt of then,
    and nothing was stored.
    """

    source: str
    parts: Sequence[Part]
    key: bytes = b""
    fingerprint: bytes = b""
    receipt: Callable[["Post"], str] = lambda _: ""
    kept: list[Kept] = field(default_factory=list)
    earlier: tuple[bytes, str] | None = None

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        size = 0
        for part in self.parts:
            size += part.lines.size + 64 * len(part.ids)
            if part.refused:
                size += sum(len(text) for text, _ in part.refused)
        return size


@functools.lru_cache(10_000)
def _scope(source: str, stream: str) -> bytes:
    """What stands for a stream in its marks: no sender can find an id that meets the mark of another stream's."""
    return hashlib.sha256(f"{source}\0{stream}".encode()).digest()[: MARK - _OWN]


def _marks(scope: bytes, ids: Sequence[str]) -> list[bytes]:
    """A mark for each id: its scope, and the beginning of the id's digest."""
    if not ids:
        return []
    # Digests with the scope before each are cut in one go: that takes half the time of cutting and joining one by one.
    together = scope + scope.join(map(xxhash.xxh3_128_digest, map(str.encode, ids)))
    return [mark for (mark,) in _MARKS.iter_unpack(together)]


def pieces(content: bytes, size: int) -> list[bytes]:
    """What lies one behind the other."""
    return [content[at : at + size] for at in range(0, len(content), size)]


def request_mark(source: str, stream: str, key: str) -> bytes:
    """What an Idempotency-Key is remembered by."""
    return hashlib.blake2b("\0".join((source, stream, key)).encode(), digest_size=16).digest()


def new_ids(count: int) -> list[str]:
    """So many ids that nobody has: UUIDs of version 7 (RFC 9562, 5.7), in order of time, and those of one call in order."""
    at, bits = time.time_ns() // 1_000_000, random.getrandbits(64)
    # Not from the system: a call that leaves the interpreter costs a busy process more than everything else here.
    begin = f"{at >> 16:08x}-{at & 0xFFFF:04x}-7{bits & 0xFFF:03x}-{0x8000 | bits >> 12 & 0x3FFF:04x}-"
    number = (bits >> 26 & 0x7FFFFFF) << 8
    ids: list[str] = []
    while len(ids) < count:
        most = f"{begin}{number:09x}"
        ids += [most + least for least in _LEAST[: count - len(ids)]]
        number += 1
    return ids
