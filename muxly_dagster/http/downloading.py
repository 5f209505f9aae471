"""Downloads: an answer's body into a file, in bounded memory, taken up again where it broke off."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from threading import Event
from typing import BinaryIO

from muxly_dagster.errors import MuxlyError, SourceError
from muxly_dagster.http.inflating import Form, inflate
from muxly_dagster.http.messages import Headers, Request, Response
from muxly_dagster.http.redaction import Redaction
from muxly_dagster.http.wire import PIECE, Answer, Transport, Trouble

PROGRESS = 2**20
"""Bytes that must have come between two losses of the connection for a download to count its attempts anew."""

_FORMS: dict[str, Form] = {"gzip": "gzip", "x-gzip": "gzip", "deflate": "deflate"}


class FileTooLarge(SourceError):
    """The file has more bytes than are allowed."""


@dataclass(frozen=True)
class Download:
    """A file to be downloaded: to this path, and no more than `max_bytes`. What is known of a file that is incomplete stands beside it."""

    request: Request
    path: Path
    max_bytes: int


@dataclass(frozen=True, repr=False)
class Downloaded:
    """What came of a download. `path` is None for an answer that is no file but was expected, or skipped by the judge."""

    response: Response
    path: Path | None
    size: int

    @property
    def media_type(self) -> str:
        """The media type without its parameters (RFC 9110, 8.3); empty where the answer names none."""
        return self.response.headers.get("content-type", "").partition(";")[0].strip().lower()


@dataclass(frozen=True)
class _Begun:
    """What is known of a file of which a part is here: validators for If-Range (RFC 9110, 13.1.5), size, Content-Encoding."""

    etag: str
    last_modified: str
    length: int | None
    encoding: str

    @classmethod
    def of(cls, headers: Headers, length: int | None) -> "_Begun":
        etag = headers.get("etag", "")
        strong = etag if etag.startswith('"') else ""
        return cls(strong, "" if strong else _strong_date(headers), length, headers.get("content-encoding", "").strip().lower())

    @property
    def validator(self) -> str:
        return self.etag or self.last_modified

    def is_still(self, headers: Headers) -> bool:
        """Whether a part of a file comes from the same version of it."""
        same_tag = not self.etag or headers.get("etag", self.etag) == self.etag
        return same_tag and (not self.last_modified or headers.get("last-modified", self.last_modified) == self.last_modified)


class Receiving:
    """One download under way, over as many attempts as it takes. `furthest` is the most bytes that were ever here."""

    def __init__(self, transport: Transport, download: Download, stop: Event, redaction: Redaction) -> None:
        self._transport, self._download, self._stop, self._redaction = transport, download, stop, redaction
        self._beside = download.path.with_name(download.path.name + ".json")
        self._begun: _Begun | None = None
        self._file: BinaryIO | None = None
        self._size = self.furthest = 0
        self._complete = False
        self._where = ""

    # ---- attempts --------------------------------------------------------------------------------------------------------

    def send(self, method: str, url: str, headers: Mapping[str, str], content: bytes | None) -> Answer:
        """Send the request for what is missing, and write what comes. Raises Trouble, FileTooLarge, SourceError, MuxlyError."""
        self._where = f"{method} {self._redaction(url)}"
        for _ in range(2):
            self._resume()
            wanted = dict(headers)
            if self._begun is not None:
                wanted |= {"Range": f"bytes={self._size}-", "If-Range": self._begun.validator}
            try:
                answer = self._transport.receive(method, url, wanted, content, self._take)
                if self._file is not None:
                    with self._writing():
                        self._file.flush()
            finally:
                self._close()
            if self._begun is None or answer.status not in (206, 416) or self._complete:
                break
            self._forget()  # what is here cannot be continued: from the start, at once
        if self._complete and self._begun is not None and self._begun.length not in (None, self._size):
            self._complete = False
            raise Trouble("broken", f"{self._size:,} of {self._begun.length:,} bytes came")
        return answer

    def _resume(self) -> None:
        """Find out what is here already. A part is only continued if the server can be asked whether it still is of the same file."""
        self._complete = False
        self._begun = self._read_beside()
        try:
            self._size = self._download.path.stat().st_size
        except OSError:
            self._size = 0
        if self._begun is not None and self._begun.length is not None and self._size >= self._begun.length:
            self._size = max(0, self._begun.length - 1)  # its last byte is asked for: whether all of it still holds
        if self._begun is None or not self._size:
            self._begun, self._size = None, 0

    def _take(self, status: int, headers: Headers) -> Callable[[bytes], None] | None:
        length = _number(headers.get("content-length", ""))
        if status == 206 and self._begun is not None:
            start, total = _range(headers.get("content-range", ""))
            if start != self._size or not self._begun.is_still(headers) or (length is not None and total not in (None, start + length)):
                return None
        elif 200 <= status < 300 and status != 206:
            total, self._size = length, 0
            self._begin(_Begun.of(headers, length))
        else:
            return None
        if total is not None and total > self._download.max_bytes:
            raise self._too_large(total)
        with self._writing():
            self._file = self._download.path.open("r+b" if self._size else "wb")
            self._file.truncate(self._size)
            self._file.seek(self._size)
        self._complete = True  # unless writing or reading it fails
        return self._write

    def _begin(self, begun: _Begun) -> None:
        """A file that begins anew: what was known of another one does not count from here on."""
        if begun.encoding not in ("", "identity", *_FORMS):
            raise SourceError(
                f"the file comes compressed as {begun.encoding!r}, which was not asked for",
                do="report it to the service: a request that says Accept-Encoding: identity is answered with the file as it is",
                where=self._where,
            )
        self._forget()
        self._begun = begun
        if begun.validator:
            new = self._beside.with_name(self._beside.name + ".new")
            with self._writing():
                new.write_text(json.dumps({name: getattr(begun, name) for name in _Begun.__dataclass_fields__}))
                os.replace(new, self._beside)

    def _write(self, piece: bytes) -> None:
        if self._stop.is_set():
            raise Trouble("closed", "stopped")
        if self._size + len(piece) > self._download.max_bytes:
            raise self._too_large(None)
        assert self._file is not None
        with self._writing():
            self._file.write(piece)
        self._size += len(piece)
        self.furthest = max(self.furthest, self._size)

    # ---- the end ---------------------------------------------------------------------------------------------------------

    def finish(self, response: Response) -> Downloaded:
        """The file as it is now, in its final form."""
        if not self._complete or self._begun is None:
            if response.status == 206:
                raise SourceError(
                    "answered with a part of the file that was not asked for", do="report it to the service", where=self._where
                )
            return Downloaded(response, None, 0)
        path, form = self._download.path, _FORMS.get(self._begun.encoding)
        if form is not None and self._size:
            unpacked = path.with_name(path.name + ".unpacked")
            self._unpack(path, unpacked, form)
            self._beside.unlink(missing_ok=True)  # first: a part of the one must not be taken for a part of the other
            os.replace(unpacked, path)
        self._beside.unlink(missing_ok=True)
        return Downloaded(response, path, path.stat().st_size)

    def _unpack(self, path: Path, unpacked: Path, form: Form) -> None:
        """A body with Content-Encoding made plain (a server may answer so although it was not asked to)."""
        size = 0
        try:
            with path.open("rb") as packed, unpacked.open("wb") as file:
                for part in inflate(iter(partial(packed.read, PIECE), b""), form):
                    size += len(part)
                    if size > self._download.max_bytes:
                        raise self._too_large(None)
                    with self._writing():
                        file.write(part)
        except ValueError as error:
            unpacked.unlink()
            self._forget()
            what = f"the file cannot be unpacked: {error}"
            raise SourceError(what, do="try again; if it stays, report it to the service", where=self._where) from None
        except BaseException:
            unpacked.unlink(missing_ok=True)
            raise

    def _too_large(self, announced: int | None) -> FileTooLarge:
        self._close()
        self._forget()
        what = f"the file has {announced:,} bytes" if announced is not None else "the file goes on"
        return FileTooLarge(
            f"{what}, where {self._download.max_bytes:,} are allowed", do="raise `max_bytes`, or leave it out", where=self._where
        )

    def _forget(self) -> None:
        """Without the file beside it, what is here is no part of anything."""
        self._beside.unlink(missing_ok=True)
        self._download.path.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
            self._file = None

    def _read_beside(self) -> _Begun | None:
        try:
            return _Begun(**json.loads(self._beside.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            where = str(self._download.path.parent)
            raise MuxlyError(
                f"a download cannot be written ({error.strerror})", do="make room there, and run it again", where=where
            ) from error


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() else None


def _range(text: str) -> tuple[int | None, int | None]:
    """First byte and total size in `Content-Range: bytes 5-9/10` (RFC 9110, 14.4)."""
    unit, _, rest = text.strip().partition(" ")
    span, _, total = rest.partition("/")
    return (_number(span.partition("-")[0]) if unit.lower() == "bytes" else None), _number(total)


def _strong_date(headers: Headers) -> str:
    """Last-Modified, where it tells two versions apart: it is at least a second older than the answer (RFC 9110, 8.8.2.2)."""
    modified, date = headers.get("last-modified", ""), headers.get("date", "")
    try:
        return modified if parsedate_to_datetime(date) - parsedate_to_datetime(modified) >= timedelta(seconds=1) else ""
    except (TypeError, ValueError, IndexError):
        return ""
