"""A stand-in for Acme's API: a real HTTP server on this machine with a few stations in it."""

import hashlib
import hmac
import json
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from acme_weather.connector import Weather

TOKEN, STATION, SECRET = "token-of-the-tests", "roof", "secret-of-the-tests"
PAGE = 3


class Stations:
    """The provider that ConnectorContract asks for; `with Stations() as api:` serves on a free port."""

    secrets = (TOKEN, SECRET)
    pull: Mapping[str, Any] = {"stream": "observations"}

    def __init__(self) -> None:
        self.rows: dict[int, dict[str, Any]] = {}
        self.extra: dict[str, Any] = {}
        self.fails: list[int] = []
        self.room: int | None = None
        proof = hmac.new(SECRET.encode(), STATION.encode(), hashlib.sha256).hexdigest()
        self.badge = f"{STATION}:{proof}"
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body = outer.answer(self.path, self.headers)
                content = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.send_header("Retry-After", "0")
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def answer(self, target: str, headers: Any) -> tuple[int, Any]:
        """What the API says."""
        if headers["Authorization"] != f"Bearer {TOKEN}" and headers["X-Badge"] != self.badge:
            return 401, {"error": "who are you?"}
        if urlsplit(target).path == "/account":
            return 200, {"name": STATION}
        if self.room == 0:
            return 400, {"error": "broken"}
        self.room = None if self.room is None else self.room - 1
        if self.fails:
            return self.fails.pop(), {"error": "not now"}
        page = int(parse_qs(urlsplit(target).query)["page"][0])
        rows = [self.rows[number] for number in sorted(self.rows)]
        part = rows[(page - 1) * PAGE : page * PAGE]
        return 200, {"observations": part, "next_page": page + 1 if len(rows) > page * PAGE else None}

    # ---- muxly_dagster.testing.Provider -----------------------------------------------------------------------------

    def connector(self, *, wrong: bool = False) -> Weather:
        """Signed in with a token."""
        return Weather(auth={"kind": "bearer", "token": "wrong" if wrong else TOKEN}, base_url=self.url)

    def put(self, *numbers: int, text: str = "") -> None:
        """Stations that measure."""
        self.rows |= {number: {"id": number, "sky": text, "celsius": 20.5, **self.extra} for number in numbers}

    def delete(self, number: int) -> None:
        """A station that is gone."""
        del self.rows[number]

    def number(self, row: Mapping[str, Any]) -> int:
        """A row's station."""
        return int(row["id"])

    def text(self, row: Mapping[str, Any]) -> str:
        """What can change."""
        return str(row["sky"])

    def drift(self) -> None:
        """Stations learn to measure wind."""
        self.extra = {"wind": "north"}

    def fail_once(self, status: int) -> None:
        """The next request fails."""
        self.fails.append(status)

    def break_after(self, requests: int) -> None:
        """After so many, all fail."""
        self.room = requests

    def mend(self) -> None:
        """None fails."""
        self.room = None
