"""Compressed bytes made plain piece by piece, so that nothing small can fill the memory."""

import zlib
from collections.abc import Iterable, Iterator
from typing import Literal

Form = Literal["gzip", "deflate"]

_WINDOW = {"gzip": 31, "deflate": 15}  # zlib's way to say which header to expect


def inflate(pieces: Iterable[bytes], form: Form, most: int = 256 * 1024) -> Iterator[bytes]:
    """The plain bytes in pieces of at most `most`; gzip (RFC 1952) may have several members, `deflate` is zlib's form (RFC 1950).

    Raises ValueError for what is of another form, damaged or cut short.
    """
    decoder = zlib.decompressobj(_WINDOW[form])
    try:
        for piece in pieces:
            rest = piece
            while rest:
                if decoder.eof:
                    rest = rest.lstrip(b"\0")  # padding, as tapes and some tools leave it
                    if not rest:
                        break
                    decoder = zlib.decompressobj(_WINDOW[form])
                yield (part := decoder.decompress(rest, most))
                while len(part) == most and not decoder.eof:  # more may come of what has been taken in already
                    yield (part := decoder.decompress(decoder.unconsumed_tail, most))
                rest = decoder.unused_data if decoder.eof else decoder.unconsumed_tail
    except zlib.error as error:
        raise ValueError(f"it is damaged or not {form} at all") from error
    if not decoder.eof:
        raise ValueError("it is cut short")
