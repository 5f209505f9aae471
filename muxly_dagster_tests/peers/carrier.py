"""The carrier of the full example: parcels by page tokens, for whoever sends the key in the header X-Carrier-Key."""

from types import TracebackType
from typing import Any, Self

from muxly_dagster_tests.http.server import Asked, Server, answer, json_answer
from muxly_dagster_tests.peers.service import paged

KEY = "c4rrier-k3y-0815"
_PAGE = 2


class Carrier:
    """The carrier's API; `parcels` are in the order of their changes."""

    def __init__(self) -> None:
        self.parcels: list[dict[str, Any]] = []
        self._server = Server(self._reply)

    @property
    def url(self) -> str:
        """Where it listens."""
        return self._server.url

    def send(self, *numbers: int) -> None:
        """Take parcels."""
        for number in numbers:
            day = len(self.parcels) + 1
            self.parcels.append({"number": f"P{number}", "weight_kg": 1.25, "changed_at": f"2026-02-{day:02d}T08:00:00Z"})

    def __enter__(self) -> Self:
        self._server.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.__exit__(kind, error, trace)

    def _reply(self, asked: Asked) -> bytes:
        query = dict(asked.query)
        if asked.headers.get("x-carrier-key") != KEY:
            return json_answer({"message": f"unknown key {asked.headers.get('x-carrier-key')}"}, 401)
        if asked.path == "/me":
            return json_answer({"customer": "Fjordkit"})
        if asked.path != "/parcels":
            return answer(404)
        found = [each for each in self.parcels if each["changed_at"] >= query.get("changed_since", "")]
        page, after = paged(found, int(query.get("page", "0")), _PAGE)
        return json_answer({"parcels": page, "next": after})
