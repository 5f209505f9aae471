"""How bytes travel: one request sent, one answer read in full, by pyreqwest or, where that cannot be loaded, by httpx.

pyreqwest is called directly: measured by benchmarks/http_transport.py, its own client answers about three times as many
small pages per CPU second as httpx does on top of it. Both take certificates from the system or from SSL_CERT_FILE and
SSL_CERT_DIR, and proxies from the environment; neither follows redirects, keeps cookies or retries here.
"""

import http.cookiejar
import logging
import os
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from pydantic import BaseModel, ConfigDict, Field

from muxly_dagster.http import native
from muxly_dagster.http.messages import Headers
from muxly_dagster.http.redaction import Redaction

HAS_PYREQWEST = native.load()
if HAS_PYREQWEST:
    from pyreqwest import exceptions
    from pyreqwest.client import SyncClientBuilder

if TYPE_CHECKING:
    from pyreqwest.client import SyncClient
    from pyreqwest.response import SyncResponse

_IDLE = 30
"""Seconds an unused connection is kept: less than the usual server keeps it, so that none is found closed when needed."""

_LOGGERS = ("httpx", "httpcore.connection", "httpcore.http11", "httpcore.proxy")
"""The loggers of httpx that tell whole URLs and the headers of answers."""


class Timeouts(BaseModel):
    """How long to wait, in seconds: for a connection, for the next bytes, and for one attempt as a whole."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    connect: float = Field(10.0, gt=0, description="For the connection.")
    read: float = Field(60.0, gt=0, description="For the next bytes of an answer.")
    total: float = Field(300.0, gt=0, description="For one attempt, from connecting to the last byte.")


class Answer(NamedTuple):
    """What came back, decompressed."""

    status: int
    headers: Headers
    content: bytes


Taker = Callable[[int, Headers], Callable[[bytes], None] | None]
"""Sees status and headers of an answer, and says where the pieces of its body go; None: it does not want the body."""

PIECE = 512 * 1024
"""Most bytes of one piece of a body that is handed on as it comes: neither library's own buffer holds more."""

_BEGINNING = 64 * 1024
"""Bytes of a body that nobody takes which are read all the same: an error page says what is wrong in fewer."""


Kind = Literal["connect", "timeout", "broken", "garbled", "certificate", "too_large", "invalid", "closed"]


class Trouble(Exception):
    """No usable answer came. `sent` says whether the other side may have acted on the request; the text may hold secrets."""

    def __init__(self, kind: Kind, text: str, *, sent: bool = True) -> None:
        super().__init__(text)
        self.kind, self.text, self.sent = kind, text, sent


class Transport(Protocol):
    """Sends requests from any thread over connections it keeps."""

    def send(self, method: str, url: str, headers: Mapping[str, str], content: bytes | None, max_body: int) -> Answer:
        """Send one request and read its answer, at most `max_body` bytes of it. Raises Trouble."""

    def receive(self, method: str, url: str, headers: Mapping[str, str], content: bytes | None, take: Taker) -> Answer:
        """Send one request and hand its answer's body on in pieces, as it stands on the wire and however long it takes as a whole.

        The answer holds the beginning of a body that is not taken. Raises Trouble, and what the taker raises.
        """

    def close(self) -> None:
        """Close all connections; requests under way fail with Trouble."""


def open_transport(timeouts: Timeouts, redaction: Redaction) -> Transport:
    """The fastest transport that can be had here."""
    return PyreqwestTransport(timeouts) if HAS_PYREQWEST else HttpxTransport(timeouts, redaction)


class PyreqwestTransport:
    """reqwest and rustls, called without the GIL."""

    def __init__(self, timeouts: Timeouts) -> None:
        self._timeouts = timeouts
        self._client = _client(timeouts).timeout(timedelta(seconds=timeouts.total)).build()
        self._receiving: SyncClient | None = None
        self._lock = threading.Lock()

    def send(self, method: str, url: str, headers: Mapping[str, str], content: bytes | None, max_body: int) -> Answer:
        """See Transport."""
        try:
            builder = self._client.request(method, url).headers(headers)
            if content is not None:
                builder = builder.body_bytes(content)
            with builder.build_streamed() as response:
                received = _headers(response)
                return Answer(response.status, received, b"" if method == "HEAD" else _read(response, received, max_body))
        except exceptions.PyreqwestError as error:
            raise _trouble(error) from None
        except ValueError as error:
            raise Trouble("invalid", str(error), sent=False) from None

    def receive(self, method: str, url: str, headers: Mapping[str, str], content: bytes | None, take: Taker) -> Answer:
        """See Transport."""
        try:
            builder = self._receiver().request(method, url).headers(headers)
            if content is not None:
                builder = builder.body_bytes(content)
            # Without a buffer of its own: it would swallow head and beginning of an answer that breaks off early.
            with builder.streamed_read_buffer_limit(0).build_streamed() as response:
                received, reader = _headers(response), response.body_reader
                write = take(response.status, received)
                if write is None:
                    return Answer(response.status, received, bytes(reader.read(_BEGINNING) or b""))
                while (piece := reader.read_chunk()) is not None:  # read() would lose what came last before a connection broke
                    write(bytes(piece))
                return Answer(response.status, received, b"")
        except exceptions.PyreqwestError as error:
            raise _trouble(error) from None
        except ValueError as error:
            raise Trouble("invalid", str(error), sent=False) from None

    def _receiver(self) -> "SyncClient":
        """The client for bodies that are handed on: a total timeout and decompression belong to a client as a whole."""
        with self._lock:
            if self._receiving is None:
                plain = _client(self._timeouts).gzip(False).brotli(False).zstd(False).deflate(False)
                self._receiving = plain.build()
            return self._receiving

    def close(self) -> None:
        """See Transport."""
        self._client.close()
        with self._lock:
            if self._receiving is not None:
                self._receiving.close()


def _client(timeouts: Timeouts) -> "SyncClientBuilder":
    builder = (
        SyncClientBuilder()
        .follow_redirects(False)
        .referer(False)
        .connect_timeout(timedelta(seconds=timeouts.connect))
        .read_timeout(timedelta(seconds=timeouts.read))
        .pool_idle_timeout(timedelta(seconds=_IDLE))
    )
    if _has_system_certificates():
        return builder
    import certifi

    return builder.add_root_certificate_pem(certifi.contents().encode())


def _headers(response: "SyncResponse") -> Headers:
    try:
        return Headers(response.headers.items())
    except ValueError:  # a value that is not ASCII: leave that field out, keep the others
        pairs: list[tuple[str, str]] = []
        for name in set(response.headers):
            with suppress(ValueError):
                pairs.extend((name, value) for value in response.headers.getall(name))
        return Headers(pairs)


def _read(response: "SyncResponse", headers: Headers, max_body: int) -> bytes:
    # Content-Length is gone from a body that gets decompressed, so where it stands it bounds what will come.
    length = headers.get("content-length", "")
    if length.isdecimal() and "transfer-encoding" not in headers:
        if int(length) > max_body:
            raise Trouble("too_large", f"{length} bytes announced")
        return response.bytes().to_bytes()
    reader, parts, size = response.body_reader, [], 0
    while (part := reader.read()) is not None:
        size += len(part)
        if size > max_body:
            raise Trouble("too_large", "more bytes than that came")
        parts.append(part)
    return b"".join(parts)


def _trouble(error: "exceptions.PyreqwestError") -> Trouble:
    """The error by what it means. Its class misleads (a timeout of the answer is a ConnectTimeoutError): the causes tell."""
    details = getattr(error, "details", None) or {}
    causes = [cause["message"] for cause in details.get("causes") or []]
    text = causes[-1] if causes else error.message
    sent = "client error (Connect)" not in causes
    if isinstance(error, exceptions.ClientClosedError):
        return Trouble("closed", text)
    if isinstance(error, exceptions.BuilderError):
        return Trouble("invalid", text, sent=False)
    if "certificate" in text:
        return Trouble("certificate", text, sent=False)
    if isinstance(error, TimeoutError):
        return Trouble("timeout", text, sent=sent)
    if not sent:
        return Trouble("connect", text, sent=False)
    if isinstance(error, exceptions.DecodeError) and not isinstance(error, exceptions.BodyDecodeError):
        return Trouble("garbled", text)
    return Trouble("broken", text)


def _has_system_certificates() -> bool:
    """Whether the system (or SSL_CERT_FILE, SSL_CERT_DIR) names certificates; a slim container has none."""
    paths = ssl.get_default_verify_paths()
    if paths.cafile:
        return True
    with suppress(OSError):
        return bool(paths.capath and os.listdir(paths.capath))
    return False


class HttpxTransport:
    """httpx with its own connections: slower, and everywhere."""

    def __init__(self, timeouts: Timeouts, redaction: Redaction) -> None:
        import httpx

        self._httpx = httpx
        self._total = timeouts.total
        no_cookies = http.cookiejar.CookieJar(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
        self._client = httpx.Client(
            timeout=httpx.Timeout(timeouts.read, connect=timeouts.connect, pool=None),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=64, keepalive_expiry=_IDLE),
            cookies=no_cookies,
            headers={"Accept-Encoding": "gzip, deflate"},
        )
        self._log_filter = _RedactingFilter(redaction)
        for name in _LOGGERS:
            logging.getLogger(name).addFilter(self._log_filter)

    def send(self, method: str, url: str, headers: Mapping[str, str], content: bytes | None, max_body: int) -> Answer:
        """See Transport."""
        deadline = time.monotonic() + self._total
        with self._troubles(), self._client.stream(method, url, headers=dict(headers), content=content) as response:
            parts, size = [], 0
            for part in response.iter_bytes():
                size += len(part)
                if size > max_body:
                    raise Trouble("too_large", "more bytes than that came")
                if time.monotonic() > deadline:
                    raise Trouble("timeout", "the whole answer took too long")
                parts.append(part)
            return Answer(response.status_code, Headers(response.headers.multi_items()), b"".join(parts))

    def receive(self, method: str, url: str, headers: Mapping[str, str], content: bytes | None, take: Taker) -> Answer:
        """See Transport."""
        with self._troubles(), self._client.stream(method, url, headers=dict(headers), content=content) as response:
            received = Headers(response.headers.multi_items())
            write = take(response.status_code, received)
            if write is None:
                return Answer(response.status_code, received, next(response.iter_raw(_BEGINNING), b""))
            for piece in response.iter_raw():
                write(piece)
            return Answer(response.status_code, received, b"")

    @contextmanager
    def _troubles(self) -> Iterator[None]:
        """What goes wrong within, as Trouble."""
        httpx = self._httpx
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
            raise Trouble("certificate" if "CERTIFICATE" in str(error) else "connect", str(error), sent=False) from None
        except httpx.TimeoutException as error:
            raise Trouble("timeout", str(error)) from None
        except httpx.LocalProtocolError as error:
            raise Trouble("invalid", str(error), sent=False) from None
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, ValueError) as error:
            raise Trouble("invalid", str(error), sent=False) from None
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise Trouble("garbled" if "illegal" in str(error) else "broken", str(error)) from None

    def close(self) -> None:
        """See Transport."""
        for name in _LOGGERS:
            logging.getLogger(name).removeFilter(self._log_filter)
        self._client.close()


class _RedactingFilter(logging.Filter):
    def __init__(self, redaction: Redaction) -> None:
        super().__init__()
        self._redaction = redaction

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = self._redaction(record.getMessage()), None
        return True
