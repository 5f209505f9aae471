"""A small HTTP server whose answers are raw bytes, so that it can also answer what no proper server would."""

import json
import socket
import socketserver
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit


@dataclass
class Asked:
    """One request as it arrived. `number` counts from 1 on this server, `at` is when it came (monotonic seconds)."""

    number: int
    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    at: float = field(default_factory=time.monotonic)

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> list[tuple[str, str]]:
        return parse_qsl(urlsplit(self.target).query, keep_blank_values=True)


def answer(status: int = 200, body: bytes | str = b"", **headers: str) -> bytes:
    """An answer with a Content-Length; `Content_Type="text/html"` names a header. A body that is None sends `headers` only."""
    content = body.encode() if isinstance(body, str) else body
    fields = {"Content-Length": str(len(content)), **{name.replace("_", "-"): value for name, value in headers.items()}}
    return f"HTTP/1.1 {status} X\r\n".encode() + b"".join(f"{n}: {v}\r\n".encode() for n, v in fields.items()) + b"\r\n" + content


def json_answer(value: Any, status: int = 200, **headers: str) -> bytes:
    """A JSON answer."""
    return answer(status, json.dumps(value), Content_Type="application/json", **headers)


class Server:
    """Serves on a free loopback port. `reply` gives the bytes for a request; `cut` as their last part closes the connection."""

    cut = b"\0cut"

    def __init__(self, reply: Callable[[Asked], bytes | list[bytes]]) -> None:
        self.asked: list[Asked] = []
        self.connections = 0
        self.running = self.most_at_once = 0
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        outer = self

        class Connection(socketserver.StreamRequestHandler):
            disable_nagle_algorithm = True

            def handle(self) -> None:
                with outer._lock:
                    outer.connections += 1
                    outer._open.add(self.connection)
                try:
                    while outer._serve(self, reply):
                        pass
                except OSError:
                    pass
                finally:
                    with outer._lock:
                        outer._open.discard(self.connection)

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Connection, bind_and_activate=False)
        self._server.daemon_threads = True
        self._server.request_queue_size = 128
        self._server.server_bind()
        self._server.server_activate()
        self.port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def _serve(self, connection: socketserver.StreamRequestHandler, reply: Callable[[Asked], bytes | list[bytes]]) -> bool:
        start = connection.rfile.readline().decode("latin-1").split()
        if len(start) < 2:
            return False
        headers: dict[str, str] = {}
        while (line := connection.rfile.readline().decode("utf-8").strip()) != "":
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        body = connection.rfile.read(int(headers.get("content-length", 0)))
        with self._lock:
            asked = Asked(len(self.asked) + 1, start[0], start[1], headers, body)
            self.asked.append(asked)
            self.running += 1
            self.most_at_once = max(self.most_at_once, self.running)
        try:
            parts = reply(asked)
        finally:
            with self._lock:
                self.running -= 1
        for part in [parts] if isinstance(parts, bytes) else parts:
            if part == self.cut:
                connection.connection.shutdown(socket.SHUT_RDWR)
                return False
            connection.wfile.write(part)
        return True

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        with self._lock:
            for connection in self._open:
                connection.close()
        self._thread.join()
