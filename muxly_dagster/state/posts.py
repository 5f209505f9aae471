"""What one request brings to the inbox, and what became of it."""

import functools
import hashlib
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import xxhash

from muxly_dagster.collecting import Gathered, Lines

MARK = 16
"""The bytes of a mark."""

UNMARKED = bytes(MARK)
"""Stands where an event has no mark."""

_OWN = 10  # of which so many are the id's
_FEW = 8  # ids, for which arrays are not worth their while
_LEAST = tuple(f"{number:03x}" for number in range(0x1000))  # the last digits of ids that are made together


@dataclass(slots=True)
class Part:
    """Events of one stream of a request. `marks` tell the sender's ids apart, one behind the other: UNMARKED for an event without one,
    whose id is of our making; none at all where no event has one.

    `refused` are pairs of text and reason, for quarantine.
    """

    stream: str
    lines: Lines
    ids: Sequence[str]
    marks: bytes = b""
    refused: Sequence[tuple[str, str]] = ()

    @classmethod
    def of(cls, source: str, gathered: Gathered, refused: Sequence[tuple[str, str]] = ()) -> "Part":
        """Give ids to events that came without."""
        given, scope = gathered.ids, _scope(source, gathered.stream)
        if "" not in given:
            return cls(gathered.stream, gathered.lines, given, _marks(scope, given), refused)
        own = new_ids(given.count(""))
        if len(own) == len(given):
            return cls(gathered.stream, gathered.lines, own, refused=refused)
        theirs, ours = iter(pieces(_marks(scope, [id for id in given if id]), MARK)), iter(own)
        marks = b"".join(next(theirs) if id else UNMARKED for id in given)
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


def _marks(scope: bytes, ids: Sequence[str]) -> bytes:
    """A mark for each id: its scope, and the beginning of the id's digest."""
    digests = map(xxhash.xxh3_128_digest, map(str.encode, ids))
    if len(ids) < _FEW:
        return b"".join([scope + digest[:_OWN] for digest in digests])
    # Cut in one go: that takes a third of the time of cutting them one by one.
    whole = np.frombuffer(scope + scope.join(digests), np.uint8).reshape(-1, len(scope) + 16)
    return whole[:, :MARK].tobytes()


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
