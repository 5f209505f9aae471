"""The transport where pyreqwest cannot be had: httpx with its own connections."""

import http.cookiejar
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from muxly_dagster.http.guard import Pins
from muxly_dagster.http.messages import Headers
from muxly_dagster.http.redaction import Redaction
from muxly_dagster.http.wire import BEGINNING, IDLE, Answer, Taker, Timeouts, Trouble

if TYPE_CHECKING:
    import httpx

_LOGGERS = ("httpx", "httpcore.connection", "httpcore.http11", "httpcore.proxy")
"""The loggers of httpx that tell whole URLs and the headers of answers."""


class HttpxTransport:
    """httpx with its own connections: slower, and everywhere."""

    def __init__(self, timeouts: Timeouts, redaction: Redaction, pins: Pins | None = None) -> None:
        import httpx

        self._httpx, self._pins = httpx, pins
        self._total = timeouts.total
        no_cookies = http.cookiejar.CookieJar(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=64, keepalive_expiry=IDLE)
        # With a transport of its own it passes by the environment's proxies, to which a checked address would be nothing.
        direct = httpx.HTTPTransport(limits=limits) if pins is not None and not pins.proxied else None
        self._client = httpx.Client(
            timeout=httpx.Timeout(timeouts.read, connect=timeouts.connect, pool=None),
            limits=limits,
            transport=direct,
            cookies=no_cookies,
            headers={"Accept-Encoding": "gzip, deflate"},
        )
        self._log_filter = _RedactingFilter(redaction)
        for name in _LOGGERS:
            logging.getLogger(name).addFilter(self._log_filter)

    def send(self, method: str, url: str, headers: Mapping[str, str], content: bytes | None, max_body: int) -> Answer:
        """See Transport."""
        deadline = time.monotonic() + self._total
        with self._asked(method, url, headers, content) as response:
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
        with self._asked(method, url, headers, content) as response:
            received = Headers(response.headers.multi_items())
            write = take(response.status_code, received)
            if write is None:
                return Answer(response.status_code, received, next(response.iter_raw(BEGINNING), b""))
            for piece in response.iter_raw():
                write(piece)
            return Answer(response.status_code, received, b"")

    @contextmanager
    def _asked(self, method: str, url: str, headers: Mapping[str, str], content: bytes | None) -> "Iterator[httpx.Response]":
        """Send a request, to the checked address where there is one."""
        if self._pins is None or (address := self._pins.current()) is None:
            with self._troubles(), self._client.stream(method, url, headers=dict(headers), content=content) as response:
                yield response
            return
        parts = urlsplit(url)
        place = f"[{address}]" if ":" in address else address
        there = parts._replace(netloc=f"{place}:{parts.port}" if parts.port else place).geturl()
        named = {**headers, "Host": parts.netloc.rpartition("@")[2]}
        # The name goes into TLS, so it is the name that the certificate is checked against.
        named_to_tls = {"sni_hostname": self._pins.host}
        try:
            with (
                self._troubles(),
                self._client.stream(method, there, headers=named, content=content, extensions=named_to_tls) as response,
            ):
                yield response
        except Trouble as trouble:
            if not trouble.sent:
                self._pins.failed(address)
            raise

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
