"""How bytes travel: one request sent, one answer read in full, by pyreqwest or, where that cannot be loaded, by httpx.

pyreqwest is called directly: measured by benchmarks/http_transport.py, its own client answers about three times as many
small pages per CPU second as httpx does on top of it. Both take certificates from the system or from SSL_CERT_FILE and
SSL_CERT_DIR, and proxies from the environment; neither follows redirects, keeps cookies or retries here.
"""

import os
import ssl
import threading
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from muxly_dagster.http import native
from muxly_dagster.http.guard import Pins
from muxly_dagster.http.messages import Headers
from muxly_dagster.http.over_httpx import HttpxTransport
from muxly_dagster.http.redaction import Redaction
from muxly_dagster.http.wire import BEGINNING, IDLE, Answer, Taker, Timeouts, Transport, Trouble

HAS_PYREQWEST = native.load()
if HAS_PYREQWEST:
    from pyreqwest import exceptions
    from pyreqwest.client import ClientBuilder, SyncClientBuilder

if TYPE_CHECKING:
    from pyreqwest.client import BaseClientBuilder, Client, SyncClient
    from pyreqwest.response import BaseResponse, SyncResponse


def open_transport(timeouts: Timeouts, redaction: Redaction, pins: Pins | None = None) -> Transport:
    """The fastest transport that can be had here; with `pins`, one that connects to the addresses that were checked."""
    return PyreqwestTransport(timeouts, pins) if HAS_PYREQWEST else HttpxTransport(timeouts, redaction, pins)


class PyreqwestTransport:
    """reqwest and rustls, called without the GIL."""

    def __init__(self, timeouts: Timeouts, pins: Pins | None = None) -> None:
        self._timeouts, self._pins = timeouts, pins
        self._clients: dict[str | None, SyncClient] = {}
        self._receiving: SyncClient | None = None
        self._lock = threading.Lock()
        if pins is None:
            self._client(None)

    def send(self, method: str, url: str, headers: Mapping[str, str], content: bytes | None, max_body: int) -> Answer:
        """See Transport."""
        if self._pins is None:
            return self._send(None, method, url, headers, content, max_body)
        address = self._pins.current()
        try:
            return self._send(address, method, url, headers, content, max_body)
        except Trouble as trouble:
            if not trouble.sent:
                self._pins.failed(address)
            raise

    def _send(self, address: str | None, method: str, url: str, headers: Mapping[str, str], content: bytes | None, max_body: int) -> Answer:
        try:
            builder = self._client(address).request(method, url).headers(headers)
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
                    return Answer(response.status, received, bytes(reader.read(BEGINNING) or b""))
                while (piece := reader.read_chunk()) is not None:  # read() would lose what came last before a connection broke
                    write(bytes(piece))
                return Answer(response.status, received, b"")
        except exceptions.PyreqwestError as error:
            raise _trouble(error) from None
        except ValueError as error:
            raise Trouble("invalid", str(error), sent=False) from None

    def _client(self, address: str | None) -> "SyncClient":
        """The client whose connections go to this address; None: wherever the name leads."""
        client = self._clients.get(address)
        if client is None:
            with self._lock:
                client = self._clients.get(address)
                if client is None:
                    client = _configured(SyncClientBuilder(), self._timeouts, self._pins, address).build()
                    self._clients[address] = client
        return client

    def _receiver(self) -> "SyncClient":
        """The client for bodies that are handed on: a total timeout and decompression belong to a client as a whole."""
        with self._lock:
            if self._receiving is None:
                address = self._pins.current() if self._pins is not None else None
                plain = _configured(SyncClientBuilder(), self._timeouts, self._pins, address, total=False)
                self._receiving = plain.gzip(False).brotli(False).zstd(False).deflate(False).build()
            return self._receiving

    def close(self) -> None:
        """See Transport."""
        with self._lock:
            for client in [*self._clients.values(), *([self._receiving] if self._receiving is not None else [])]:
                client.close()


def open_async(timeouts: Timeouts, pins: Pins | None, address: str | None) -> "Client":
    """A client for requests that one thread has under way by the dozen; otherwise the same. Needs pyreqwest."""
    return _configured(ClientBuilder(), timeouts, pins, address).build()


async def send_async(client: "Client", method: str, url: str, headers: Mapping[str, str], content: bytes | None, max_body: int) -> Answer:
    """See Transport.send."""
    try:
        builder = client.request(method, url).headers(headers)
        if content is not None:
            builder = builder.body_bytes(content)
        async with builder.build_streamed() as response:
            received = _headers(response)
            if method == "HEAD":
                return Answer(response.status, received, b"")
            if _announced(received, max_body):
                return Answer(response.status, received, (await response.bytes()).to_bytes())
            reader, parts, size = response.body_reader, [], 0
            while (part := await reader.read()) is not None:
                size += len(part)
                if size > max_body:
                    raise Trouble("too_large", "more bytes than that came")
                parts.append(part)
            return Answer(response.status, received, b"".join(parts))
    except exceptions.PyreqwestError as error:
        raise _trouble(error) from None
    except ValueError as error:
        raise Trouble("invalid", str(error), sent=False) from None


_Builder = TypeVar("_Builder", bound="BaseClientBuilder")


def _configured(builder: _Builder, timeouts: Timeouts, pins: Pins | None, address: str | None, *, total: bool = True) -> _Builder:
    builder = (
        builder.follow_redirects(False)
        .referer(False)
        .connect_timeout(timedelta(seconds=timeouts.connect))
        .read_timeout(timedelta(seconds=timeouts.read))
        .pool_idle_timeout(timedelta(seconds=IDLE))
    )
    if total:
        builder = builder.timeout(timedelta(seconds=timeouts.total))
    if pins is not None and address is not None:
        builder = builder.resolve(pins.host, address, pins.port)
    if pins is not None and not pins.proxied:
        builder = builder.no_proxy()  # the two ways to read NO_PROXY differ, and a pin is nothing to a proxy
    if _has_system_certificates():
        return builder
    import certifi

    return builder.add_root_certificate_pem(certifi.contents().encode())


def _headers(response: "BaseResponse") -> Headers:
    try:
        return Headers(response.headers.items())
    except ValueError:  # a value that is not ASCII: leave that field out, keep the others
        pairs: list[tuple[str, str]] = []
        for name in set(response.headers):
            with suppress(ValueError):
                pairs.extend((name, value) for value in response.headers.getall(name))
        return Headers(pairs)


def _read(response: "SyncResponse", headers: Headers, max_body: int) -> bytes:
    if _announced(headers, max_body):
        return response.bytes().to_bytes()
    reader, parts, size = response.body_reader, [], 0
    while (part := reader.read()) is not None:
        size += len(part)
        if size > max_body:
            raise Trouble("too_large", "more bytes than that came")
        parts.append(part)
    return b"".join(parts)


def _announced(headers: Headers, max_body: int) -> bool:
    """Whether the body's length is known before it comes. Raises Trouble for one that is too large."""
    # Content-Length is gone from a body that gets decompressed, so where it stands it bounds what will come.
    length = headers.get("content-length", "")
    if not length.isdecimal() or "transfer-encoding" in headers:
        return False
    if int(length) > max_body:
        raise Trouble("too_large", f"{length} bytes announced")
    return True


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
