"""The helpdesk of the full example: tickets by pages with a total, the conversation of each, agents as a plain list."""

from typing import Any

from muxly_dagster_tests.http.server import Asked, answer, json_answer
from muxly_dagster_tests.peers.service import Service, paged


class Helpdesk(Service):
    """Record number n is the ticket n; its text is the status."""

    base = "/api"

    def __init__(self) -> None:
        super().__init__()
        self._access = "h3lpdesk-t0ken"
        self.secrets = [self._access]
        self.tickets: dict[int, dict[str, Any]] = {}
        self._day = 0

    def put(self, *numbers: int, text: str = "", requester: str = "ada@shop.example") -> None:
        """Create or change tickets, a day later."""
        for number in numbers:
            self._day += 1
            changed = f"2026-01-{self._day:02d}T10:00:00Z"
            self.tickets[number] = {"id": number, "status": text, "requester": requester, "changed_at": changed}

    def is_for_records(self, asked: Asked) -> bool:
        return asked.path == "/api/tickets"

    def answer(self, asked: Asked) -> bytes:
        query = dict(asked.query)
        match asked.path.removeprefix("/api/").split("/"):
            case ["me"]:
                return json_answer({"login": "muxly"})
            case ["agents"]:
                return json_answer([{"id": 1, "name": "Linus"}])
            case ["tickets"]:
                found = [each for each in self.tickets.values() if each["changed_at"] >= query.get("changed_since", "")]
                page, _ = paged(found, int(query["offset"]), int(query["limit"]))
                return json_answer({"tickets": page, "total": len(found)})
            case ["tickets", number, "conversation"]:
                return json_answer({"messages": [{"from": self.tickets[int(number)]["requester"], "text": "It does not work."}]})
        return answer(404)
