"""Answers that are compressed files, made plain: gzip and zip, never more of them than is allowed."""

import io
import zipfile
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from typing import Literal

from muxly_dagster.errors import SourceError
from muxly_dagster.http.inflating import inflate

_PIECE = 256 * 1024
_MOST_FILES = 100_000
_ENTRY = b"PK\x01\x02"  # how each file is listed (APPNOTE.TXT, 4.3.12)
_LONGEST = 80  # characters of a name in a message
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the others cannot be unpacked in pieces that are bounded


def unpack(content: bytes, compression: Literal["none", "gzip", "zip", "auto"], members: str, most: int) -> list[bytes]:
    """The files within: one, or those of a zip whose name matches the pattern `members`, in the order of the zip.

    Raises SourceError for what cannot be unpacked, and as soon as there is more than `most` bytes: before it takes up memory.
    """
    form = _form_of(content) if compression == "auto" else compression
    if form == "none":
        return [content]
    try:
        if form == "gzip":
            return [_joined(inflate([content], "gzip"), most)]
        return list(_members(content, members, most))
    except SourceError:
        raise
    except Exception as error:  # a damaged zip makes zipfile fail in ways that it does not name (IndexError, struct.error)
        what = f"the answer cannot be unpacked as {form}: {error}"
        raise SourceError(what, do="look at what the address answers, and correct `response.compression`") from None


def _form_of(content: bytes) -> Literal["none", "gzip", "zip"]:
    if content.startswith(b"\x1f\x8b"):
        return "gzip"
    return "zip" if content.startswith((b"PK\x03\x04", b"PK\x05\x06")) else "none"


def _members(content: bytes, pattern: str, most: int) -> Iterator[bytes]:
    if content.count(_ENTRY) > _MOST_FILES:
        raise SourceError(f"the zip lists more than {_MOST_FILES:,} files", do="ask for less at a time")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        files = [info for info in archive.infolist() if not info.is_dir() and not info.filename.startswith("__MACOSX/")]
        wanted = [info for info in files if fnmatchcase(info.filename, pattern)]
        if files and not wanted:
            names = ", ".join(_shown(info.filename) for info in files[:5])
            raise SourceError(f"the zip has no file that matches {pattern!r}: it holds {names}", do="correct `response.members`")
        for info in wanted:
            if info.flag_bits & 1:
                raise SourceError(f"{_shown(info.filename)} in the zip is encrypted", do="ask for it without a password")
            if info.compress_type not in _METHODS:
                what = f"{_shown(info.filename)} in the zip is compressed by method {info.compress_type}"
                raise SourceError(what, do="ask for a zip that uses deflate, which is method 8")
            # What a zip says of its members' sizes may be a lie: what comes is counted.
            with archive.open(info) as file:
                plain = _joined(iter(lambda file=file: file.read(_PIECE), b""), most)  # type: ignore[misc]
            most -= len(plain)
            yield plain


def _shown(name: str) -> str:
    """A name that somebody else gave, as it may stand in a message."""
    text = "".join(each if each.isprintable() else "?" for each in name[: _LONGEST + 1])
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _joined(pieces: Iterable[bytes], most: int) -> bytes:
    found = bytearray()
    for piece in pieces:
        if len(found) + len(piece) > most:
            raise SourceError(
                "the answer unpacks to more bytes than are allowed", do="ask for less at a time, or raise the manifest's max_answer"
            )
        found += piece
    return bytes(found)
