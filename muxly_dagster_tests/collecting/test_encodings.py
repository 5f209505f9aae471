"""Content codings: undone as senders' libraries make them; cut, damaged and overlarge bodies are told while they are read."""

import contextlib
import gzip
import tracemalloc
import zlib
from collections.abc import Callable

import cramjam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muxly_dagster.collecting import TooLarge, UnknownType, Unreadable
from muxly_dagster.collecting.encodings import decoded

TEXT = b'{"id":"a","text":"what is sent is sent again and again"}' * 50


def raw(body: bytes) -> bytes:
    """Deflate without zlib's frame."""
    stream = zlib.compressobj(wbits=-15)
    return stream.compress(body) + stream.flush()


def zstd(body: bytes) -> bytes:
    return bytes(cramjam.zstd.compress(body))


def streamed_zstd(body: bytes) -> bytes:
    """A frame that does not say how much is in it."""
    stream = cramjam.zstd.Compressor()
    stream.compress(body)
    return bytes(stream.finish())


CODINGS: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("gzip", gzip.compress),
    ("x-gzip", gzip.compress),
    ("deflate", zlib.compress),
    ("deflate", raw),
    ("zstd", zstd),
    ("zstd", streamed_zstd),
]
each_coding = pytest.mark.parametrize(("name", "compress"), CODINGS, ids=["gzip", "x-gzip", "zlib", "deflate", "zstd", "zstd-streamed"])


@each_coding
def test_a_body_is_what_it_was(name: str, compress: Callable[[bytes], bytes]) -> None:
    assert decoded(compress(TEXT), name, len(TEXT)) == TEXT
    assert decoded(compress(b""), name.upper(), 10) == b""
    assert decoded(b"", name, 10) == b""


@each_coding
def test_one_byte_too_many_is_too_large(name: str, compress: Callable[[bytes], bytes]) -> None:
    with pytest.raises(TooLarge, match="2,799 bytes"):
        decoded(compress(TEXT), name, len(TEXT) - 1)


@each_coding
def test_a_bomb_goes_off_outside(name: str, compress: Callable[[bytes], bytes]) -> None:
    """64 MiB in some kilobytes: what is allowed is all that is ever held."""
    bomb = compress(bytes(64 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge):
            decoded(bomb, name, 1 << 20)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20


@each_coding
def test_a_body_that_is_cut_off_is_unreadable(name: str, compress: Callable[[bytes], bytes]) -> None:
    whole = compress(TEXT)
    for length in {1, 3, 5, 8, len(whole) // 2, len(whole) - 5, len(whole) - 1} - {0}:
        with pytest.raises(Unreadable):
            decoded(whole[:length], name, len(TEXT))


def test_several_members_are_one_body() -> None:
    assert decoded(gzip.compress(b"[1,") + gzip.compress(b"2]") + b"\0\0", "gzip", 100) == b"[1,2]"
    assert decoded(zstd(b"[1,") + zstd(b"2]"), "zstd", 100) == b"[1,2]"
    with pytest.raises(TooLarge):
        decoded(gzip.compress(b"x" * 60) + gzip.compress(b"x" * 60), "gzip", 100)
    for body in (gzip.compress(b"x") + b"rest", zlib.compress(b"x") + b"rest"):
        with pytest.raises(Unreadable):
            decoded(body, "gzip" if body[0] == 0x1F else "deflate", 100)


def test_a_window_that_takes_much_memory_is_refused() -> None:
    frame = b"\x28\xb5\x2f\xfd" + b"\x00" + bytes([20 << 3]) + b"\x01\x00\x00"  # 1 GiB, and an empty block
    with pytest.raises(TooLarge, match="window"):
        decoded(frame, "zstd", 1 << 20)


@pytest.mark.parametrize("name", ["", "identity", "Identity", " , identity"])
def test_no_coding_is_none(name: str) -> None:
    assert decoded(b"as it is", name, 1) == b"as it is"


@pytest.mark.parametrize("name", ["br", "compress", "gzip, gzip", "nonsense", "snappy"])
def test_other_codings_are_told_which_there_are(name: str) -> None:
    with pytest.raises(UnknownType, match="gzip, deflate, zstd"):
        decoded(b"x", name, 10)


@given(st.binary(max_size=200), st.sampled_from(["gzip", "deflate", "zstd"]))
def test_rubbish_is_never_more_than_unreadable(body: bytes, name: str) -> None:
    for content in (body, gzip.compress(b"x")[:4] + body, b"\x28\xb5\x2f\xfd" + body):
        with contextlib.suppress(Unreadable):
            assert len(decoded(content, name, 1000)) <= 1000
