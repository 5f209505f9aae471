"""A Gmail mailbox over HTTP, as far as the API's reference describes it: messages, labels, history that expires, sending.

https://developers.google.com/workspace/gmail/api/reference/rest
"""

import base64
import json
from collections.abc import Mapping
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from muxly_dagster_tests.http.server import Asked, answer, json_answer
from muxly_dagster_tests.peers.service import BUILT_IN, Service, body, paged

_PAGE = 2
_BASE = "/gmail/v1/users/me"


class Gmail(Service):
    """The mailbox. A message never changes but for its labels: the text of record number n is the last label of its message."""

    base = _BASE
    manifest = BUILT_IN / "gmail.yaml"
    pull: Mapping[str, Any] = {"stream": "messages"}

    def __init__(self, *, refreshing: bool = False) -> None:
        super().__init__(refreshing=refreshing)
        self.messages: dict[str, dict[str, Any]] = {}
        self.sent: list[EmailMessage] = []
        self._history: list[tuple[int, dict[str, Any]]] = []
        self._now = 1000
        self._oldest = 0

    # ---- what happens in the mailbox

    def put(self, *numbers: int, text: str = "") -> None:
        for number in numbers:
            name, new = f"{number:016x}", f"{number:016x}" not in self.messages
            kind, short = ("messagesAdded", {}) if new else ("labelsAdded", {"labelIds": [f"Label_{text}"]})
            change = {"messages": [self._short(name)], kind: [{"message": self._short(name), **short}]}
            self.messages[name] = self._message(name, f"Label_{text}", self._log(change))

    def delete(self, number: int) -> None:
        name = f"{number:016x}"
        del self.messages[name]
        self._log({"messages": [self._short(name)], "messagesDeleted": [{"message": self._short(name)}]})

    def expire(self) -> None:
        self._now += 1000
        self._oldest = self._now

    def number(self, row: Mapping[str, Any]) -> int:
        return int(row["id"], 16)

    def text(self, row: Mapping[str, Any]) -> str:
        return str(json.loads(row["labelIds"])[-1]).removeprefix("Label_")

    def _log(self, change: dict[str, Any]) -> int:
        self._now += 1
        self._history.append((self._now, {"id": str(self._now), **change}))
        return self._now

    @staticmethod
    def _short(name: str) -> dict[str, Any]:
        return {"id": name, "threadId": name}

    def _message(self, name: str, label: str, history: int) -> dict[str, Any]:
        data = base64.urlsafe_b64encode(f"Hello, this is {name}".encode()).decode()
        payload = {"mimeType": "text/plain", "headers": [{"name": "Subject", "value": name}], "body": {"size": 20, "data": data}}
        extra = {"classificationLabelValues": [{"labelId": label}]} if self.extra else {}
        dates = {"historyId": str(history), "internalDate": str(1_700_000_000_000 + int(name, 16)), "sizeEstimate": 500}
        return {**self._short(name), "labelIds": ["INBOX", label], "snippet": "Hello", "payload": payload, **dates, **extra}

    # ---- answers

    def is_for_records(self, asked: Asked) -> bool:
        return asked.path.startswith((f"{_BASE}/messages", f"{_BASE}/history"))

    def answer(self, asked: Asked) -> bytes:
        query = dict(asked.query)
        match asked.method, asked.path.removeprefix(_BASE).strip("/").split("/"):
            case "GET", ["profile"]:
                return json_answer({"emailAddress": "me@shop.example", "messagesTotal": len(self.messages), "historyId": str(self._now)})
            case "GET", ["messages"]:
                return self._list("messages", [self._short(name) for name in sorted(self.messages)], query)
            case "GET", ["messages", name]:
                return json_answer(self.messages[name]) if name in self.messages else self.refusal(404)
            case "GET", ["history"]:
                return self._changes(query)
            case "GET", ["threads"]:
                return self._list("threads", [{"id": n, "snippet": "Hello", "historyId": "5"} for n in sorted(self.messages)], query)
            case "GET", ["drafts"]:
                return self._list("drafts", [{"id": "r1", "message": self._short("1")}], query)
            case "GET", ["labels"]:
                return json_answer({"labels": [{"id": "INBOX", "name": "INBOX", "type": "system"}]})
            case "GET", ["labels", name]:
                return json_answer({"id": name, "name": name, "type": "system", "messagesTotal": len(self.messages), "messagesUnread": 0})
            case "POST", ["messages", "send"]:
                return self._send(body(asked))
            case "POST", ["messages", name, "modify"]:
                labels = [label for label in self.messages[name]["labelIds"] if label not in body(asked).get("removeLabelIds", [])]
                return json_answer({**self._short(name), "labelIds": [*labels, *body(asked).get("addLabelIds", [])]})
            case "GET", ["messages", _, "attachments", _]:
                return json_answer({"size": 3, "data": "AP8-"})
        return answer(404)

    def _list(self, name: str, found: list[dict[str, Any]], query: Mapping[str, str]) -> bytes:
        page, after = paged(found, int(query.get("pageToken", "0")), _PAGE)
        more = {"nextPageToken": str(after)} if after else {}
        return json_answer({**({name: page} if page else {}), **more, "resultSizeEstimate": len(found)})

    def _changes(self, query: Mapping[str, str]) -> bytes:
        since = int(query["startHistoryId"])
        if since < self._oldest:
            return self.refusal(404)
        page, after = paged([change for at, change in self._history if at > since], int(query.get("pageToken", "0")), _PAGE)
        more = {"nextPageToken": str(after)} if after else {}
        return json_answer({**({"history": page} if page else {}), **more, "historyId": str(self._now)})

    def _send(self, sent: Mapping[str, Any]) -> bytes:
        raw = base64.urlsafe_b64decode(sent["raw"] + "==")
        self.sent.append(message_from_bytes(raw, policy=policy.default))
        return json_answer({"id": "5e27", "threadId": sent.get("threadId", "5e27"), "labelIds": ["SENT"]})
