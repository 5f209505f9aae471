"""Content codings of requests (RFC 9110, 8.4): gzip, deflate, zstd, identity; undone with an eye on what comes out."""

import re
import zlib
from collections.abc import Callable

from muxly_dagster.collecting.events import TooLarge, UnknownType, Unreadable

ACCEPTED = "gzip, deflate, zstd"

_PIECE = 1 << 20
_FIRST = 1 << 10  # bytes of a gzip member that are looked at first
_MEMBERS = 20_000
_ZEROS = re.compile(rb"\0*")
_WINDOW = 23
"""What a zstd decoder may be asked to remember, as a power of two (RFC 9659: 8 MiB over HTTP)."""


def decoded(body: bytes, encoding: str, most: int) -> bytes:
    """The content of a body, of at most so many bytes.

    Raises TooLarge for more, as soon as it shows; Unreadable for a body that is cut off or damaged; UnknownType for other codings.
    """
    names = [name for part in encoding.lower().split(",") if (name := part.strip()) not in ("", "identity")]
    if not names:
        return body
    if len(names) > 1 or names[0] not in _CODINGS:
        raise UnknownType(f"Content-Encoding: {encoding[:100]} is not read here; there are {ACCEPTED}")
    if not body:
        return b""
    return _CODINGS[names[0]](body, most)


def _gzip(body: bytes, most: int) -> bytes:
    """One member or several (RFC 1952, 2.2)."""
    found, view, place = bytearray(), memoryview(body), 0
    for _ in range(_MEMBERS):
        member, length = zlib.decompressobj(zlib.MAX_WBITS | 16), _FIRST
        while not member.eof and place < len(body):
            # Piece by piece, each larger than the one before: what zlib leaves of one it copies, and a member may be tiny.
            found += _piece(member, view[place : place + length], most - len(found), most)
            place += length
            length *= 2
        if not member.eof:
            raise Unreadable("the compressed body is cut off")
        place = min(place, len(body)) - len(member.unused_data)
        place = _padding(body, place)
        if place == len(body):
            return bytes(found)
    raise Unreadable(f"the body is made of more than {_MEMBERS:,} gzip members")


def _padding(body: bytes, place: int) -> int:
    """Where zeros end that begin here: some pad what they send."""
    found = _ZEROS.match(body, place)
    return found.end() if found else place


def _deflate(body: bytes, most: int) -> bytes:
    """With zlib's frame, as RFC 9110, 8.4.1.2 asks for, or without, as some send it."""
    framed = len(body) > 1 and body[0] & 0x0F == 8 and (body[0] << 8 | body[1]) % 31 == 0
    stream = zlib.decompressobj(zlib.MAX_WBITS if framed else -zlib.MAX_WBITS)
    found = _inflated(stream, body, most, most)
    if stream.unused_data:
        raise Unreadable("the body has something behind its compressed content")
    return found


# zlib's own object has no name that could be said here.
def _inflated(stream: "zlib._Decompress", body: bytes, left: int, most: int) -> bytes:
    found = _piece(stream, body, left, most)
    if not stream.eof:
        raise Unreadable("the compressed body is cut off")
    return found


def _piece(stream: "zlib._Decompress", piece: bytes | memoryview, left: int, most: int) -> bytes:
    try:
        found = stream.decompress(piece, left + 1)
    except zlib.error as error:
        raise Unreadable(f"the body cannot be decompressed: {error}") from None
    if len(found) > left:
        raise _too_large(most)
    return found


def _zstd(body: bytes, most: int) -> bytes:
    import pyarrow as pa  # the decoder that stops where it is told to

    _check_window(body, most)
    found = bytearray()
    try:
        with pa.CompressedInputStream(pa.BufferReader(body), "zstd") as stream:
            while piece := stream.read(min(_PIECE, most + 1 - len(found))):
                found += piece
                if len(found) > most:
                    raise _too_large(most)
    except (OSError, pa.ArrowInvalid) as error:
        raise Unreadable(f"the body cannot be decompressed: {str(error)[:200]}") from None
    return bytes(found)


def _check_window(body: bytes, most: int) -> None:
    """Refuse a frame (RFC 8878, 3.1.1.1) whose decoder would need more memory than a body may have."""
    if len(body) < 6 or body[:4] != b"\x28\xb5\x2f\xfd":
        raise Unreadable("the body is not compressed by zstd")
    single_segment = body[4] & 0x20
    if not single_segment and 10 + (body[5] >> 3) > max(_WINDOW, most.bit_length()):
        raise TooLarge(f"the body is compressed with a window of more than {1 << _WINDOW:,} bytes")
    if single_segment:
        size = 1 << (body[4] >> 6)
        start = 5 + (0, 1, 2, 4)[body[4] & 3]
        if int.from_bytes(body[start : start + size], "little") + (256 if size == 2 else 0) > most:
            raise _too_large(most)


def _too_large(most: int) -> TooLarge:
    return TooLarge(f"the body has more than {most:,} bytes once it is decompressed")


_CODINGS: dict[str, Callable[[bytes, int], bytes]] = {"gzip": _gzip, "x-gzip": _gzip, "deflate": _deflate, "zstd": _zstd}
