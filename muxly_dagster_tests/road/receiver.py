"""A webhook's receiver in a process of its own: writes down the id and the key of every record that it answered for, in order."""

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path


def serve(port: Connection, log: Path) -> None:
    """Tell the port, then take records until the process is ended. What is answered for is in the log before the answer goes."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            refused = is_refused(body["data"]["v"])
            if not refused:
                os.write(file, f"{body['id']} {body['key']}\n".encode())
            self.send_response(422 if refused else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        port.send(server.server_address[1])
        server.serve_forever()


def is_refused(v: int) -> bool:
    """Whether the receiver does not want a record of this value."""
    return v % 100 == 13


def taken(log: Path) -> list[tuple[str, str]]:
    """The ids and keys that were answered for, in order."""
    lines = log.read_text().splitlines() if log.exists() else []
    return [(identity, key) for identity, _, key in (line.partition(" ") for line in lines)]
