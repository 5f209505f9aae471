"""How bytes travel: one request sent, one answer read in full, by pyreqwest or, where that cannot be loaded, by httpx.

pyreqwest is called directly: measured by benchmarks/http_transport.py, its own client answers about three times as many
small pages per CPU second as httpx does on top of it. Both take certificates from the system or from SSL_CERT_FILE and
SSL_CERT_DIR, and proxies from the environment; neither follows redirects, keeps cookies or retries here.
"""

import http.cookiejar
import logging
import os
import ssl
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from pydantic import BaseModel, ConfigDict, Field

from muxly_dagster.http.messages import Headers
from muxly_dagster.http.redaction import Redaction

try:
    from pyreqwest import exceptions
    from pyreqwest.client import SyncClientBuilder
except ImportError:  # no wheel for this platform
    HAS_PYREQWEST = False
else:
    HAS_PYREQWEST = True

if TYPE_CHECKING:
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

    def close(self) -> None:
        """Close all connections; requests under way fail with Trouble."""


def open_transport(timeouts: Timeouts, redaction: Redaction) -> Transport:
    """The fastest transport that can be had here."""
    return PyreqwestTransport(timeouts) if HAS_PYREQWEST else HttpxTransport(timeouts, redaction)


class PyreqwestTransport:
    """reqwest and rustls, called without the GIL."""

    def __init__(self, timeouts: Timeouts) -> None:
        builder = (
            SyncClientBuilder()
            .follow_redirects(False)
            .referer(False)
            .connect_timeout(timedelta(seconds=timeouts.connect))
            .read_timeout(timedelta(seconds=timeouts.read))
            .timeout(timedelta(seconds=timeouts.total))
            .pool_idle_timeout(timedelta(seconds=_IDLE))
        )
        if not _has_system_certificates():
            import certifi

            builder = builder.add_root_certificate_pem(certifi.contents().encode())
        self._client = builder.build()

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

    def close(self) -> None:
        """See Transport."""
        self._client.close()


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
        httpx, deadline = self._httpx, time.monotonic() + self._total
        try:
            with self._client.stream(method, url, headers=dict(headers), content=content) as response:
                parts, size = [], 0
                for part in response.iter_bytes():
                    size += len(part)
                    if size > max_body:
                        raise Trouble("too_large", "more bytes than that came")
                    if time.monotonic() > deadline:
                        raise Trouble("timeout", "the whole answer took too long")
                    parts.append(part)
                return Answer(response.status_code, Headers(response.headers.multi_items()), b"".join(parts))
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
