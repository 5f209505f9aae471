"""Answers that are compressed files, made plain: gzip and zip, never more of them than is allowed."""

import io
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from typing import Literal

from muxly_dagster.errors import SourceError
from muxly_dagster.http.inflating import inflate

_PIECE = 256 * 1024


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
    except ValueError as error:
        what = f"the answer cannot be unpacked as gzip: {error}"
        raise SourceError(what, do="look at what the address answers, and correct `response.compression`") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        what = f"the answer cannot be unpacked as zip: {error}"
        raise SourceError(what, do="look at what the address answers, and correct `response.compression`") from None


def _form_of(content: bytes) -> Literal["none", "gzip", "zip"]:
    if content.startswith(b"\x1f\x8b"):
        return "gzip"
    return "zip" if content.startswith((b"PK\x03\x04", b"PK\x05\x06")) else "none"


def _members(content: bytes, pattern: str, most: int) -> Iterator[bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        files = [info for info in archive.infolist() if not info.is_dir() and not info.filename.startswith("__MACOSX/")]
        wanted = [info for info in files if fnmatchcase(info.filename, pattern)]
        if files and not wanted:
            names = ", ".join(info.filename for info in files[:5])
            raise SourceError(f"the zip has no file that matches {pattern!r}: it holds {names}", do="correct `response.members`")
        for info in wanted:
            if info.flag_bits & 1:
                raise SourceError(f"{info.filename} in the zip is encrypted", do="ask for it without a password")
            # What a zip says of its members' sizes may be a lie: what comes is counted.
            with archive.open(info) as file:
                plain = _joined(iter(lambda file=file: file.read(_PIECE), b""), most)  # type: ignore[misc]
            most -= len(plain)
            yield plain


def _joined(pieces: Iterable[bytes], most: int) -> bytes:
    found = bytearray()
    for piece in pieces:
        if len(found) + len(piece) > most:
            raise SourceError(
                "the answer unpacks to more bytes than are allowed", do="ask for less at a time, or raise the manifest's max_answer"
            )
        found += piece
    return bytes(found)
