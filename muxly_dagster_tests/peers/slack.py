"""A Slack workspace over HTTP: channels that keep their messages, the Web API as far as posting needs it, and incoming webhooks.

What it answers has the shape of Slack's own examples (data/slack, MIT). https://docs.slack.dev/reference/methods
"""

import copy
import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl

from muxly_dagster.destinations.slack import Slack
from muxly_dagster_tests.http.server import Asked, Server, answer, json_answer

EXAMPLES: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "data/slack/web-api.json").read_text())
TOKEN = "xoxb-17653672481-s3cretbott0ken"
HOOK = "/services/T12345678/B19LU7CSY/s3crethookp4th"
ALL_SCOPES = frozenset({"chat:write", "channels:read", "groups:read", "channels:history", "im:write"})
BOT = {"bot_id": "B19LU7CSY", "user_id": "W12345678"}

_NEEDS = {
    "chat.postMessage": "chat:write",
    "chat.update": "chat:write",
    "conversations.info": "channels:read",
    "conversations.list": "channels:read",
    "conversations.history": "channels:history",
    "conversations.replies": "channels:history",
    "conversations.open": "im:write",
}


@dataclass
class Channel:
    """One conversation. `messages` holds everything in it by `ts`, answers in threads too."""

    id: str
    name: str
    is_archived: bool = False
    is_member: bool = True
    messages: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def texts(self) -> list[str]:
        """What people read, the oldest first, whether in the channel or in a thread."""
        return [message["text"] for message in self.messages.values()]


@dataclass
class Fault:
    """Something that goes wrong with the next requests for a method (`hook` for webhooks): an answer instead of the right one.

    With `after`, the request is carried out all the same.
    """

    method: str
    answer: bytes
    times: int = 1
    after: bool = False


class SlackWorkspace:
    """The workspace. `scopes` are the app's; `page` is the most messages of one page; `held` runs before a post is answered."""

    def __init__(self) -> None:
        self.channels: dict[str, Channel] = {}
        self.scopes = ALL_SCOPES
        self.hook_works = True
        self.page = 100
        self.held: Callable[[], None] | None = None
        self.faults: list[Fault] = []
        self.allowed: dict[str, int] = {}
        """So many requests for a method are answered; the others are told to come back in an hour."""

        self._last = 0.0
        self._lock = threading.RLock()
        self._server = Server(self._reply)
        self.sales = self.add("C0SALES00", "sales")
        self.hooked = self.add("C0HOOKED0", "hooked")

    @property
    def url(self) -> str:
        return self._server.url

    @property
    def base_url(self) -> str:
        """Where the Web API lies."""
        return f"{self.url}/api/"

    @property
    def hook_url(self) -> str:
        """The incoming webhook that posts to `hooked`."""
        return self.url + HOOK

    def __enter__(self) -> Self:
        self._server.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.__exit__(kind, error, trace)

    # ---- what a test does and sees

    def add(self, id_: str, name: str, **fields: Any) -> Channel:
        """A channel more."""
        self.channels[id_] = Channel(id_, name, **fields)
        return self.channels[id_]

    def asked(self, method: str) -> list[dict[str, Any]]:
        """The arguments of every request for a method so far."""
        return [_arguments(each) for each in self._server.asked if each.path == f"/api/{method}"]

    def fail(self, method: str, status: int, times: int = 1, **headers: str) -> None:
        """Answer the next requests for a method with a status."""
        code = "ratelimited" if status == 429 else "internal_error"
        self.faults.append(Fault(method, json_answer({"ok": False, "error": code}, status, **headers), times))

    def say(self, method: str, code: str, times: int = 1, **more: Any) -> None:
        """Refuse the next requests for a method by a code, as Slack does: with status 200, for webhooks as text."""
        body = answer(more.pop("status", 400), code) if method == "hook" else json_answer({"ok": False, "error": code, **more})
        self.faults.append(Fault(method, body, times))

    def cut(self, method: str, *, after: bool, times: int = 1, text: bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{") -> None:
        """Break the next requests off in the middle of their answer; `after`: they were carried out."""
        self.faults.append(Fault(method, text, times, after))

    def somebody_posts(self, channel: Channel, text: str, **more: Any) -> str:
        """A message that is not the app's."""
        return self._put(channel, {"user": "U061F7AUR", "text": text, **more})

    # ---- answers

    def _reply(self, asked: Asked) -> bytes | list[bytes]:
        if asked.method == "OPTIONS":
            return answer(302, Location="https://docs.example/")
        method = "hook" if asked.path.startswith("/services/") else asked.path.removeprefix("/api/")
        with self._lock:
            fault = next((fault for fault in self.faults if fault.method == method), None)
            if fault is not None:
                fault.times -= 1
                if not fault.times:
                    self.faults.remove(fault)
            if fault is not None and not fault.after:
                return [fault.answer, Server.cut]
            right = self._hook(asked) if method == "hook" else self._method(method, asked)
        if self.held is not None and method in ("hook", "chat.postMessage"):
            self.held()
        return [fault.answer, Server.cut] if fault is not None else right

    def _method(self, method: str, asked: Asked) -> bytes:
        given = _arguments(asked)
        if asked.headers.get("authorization") != f"Bearer {TOKEN}":
            return json_answer({"ok": False, "error": "invalid_auth"})
        if method in self.allowed and len(self.asked(method)) > self.allowed[method]:
            return json_answer({"ok": False, "error": "ratelimited"}, 429, Retry_After="3600")
        needed = _NEEDS.get(method)
        if needed is not None and needed not in self.scopes:
            said = {"ok": False, "error": "missing_scope", "needed": needed, "provided": ",".join(sorted(self.scopes))}
            return json_answer(said)
        if method == "conversations.list" and "private_channel" in given["types"] and "groups:read" not in self.scopes:
            return json_answer({"ok": False, "error": "missing_scope", "needed": "groups:read", "provided": ",".join(sorted(self.scopes))})
        answers: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "auth.test": lambda _: {**EXAMPLES["auth.test"]["answer"], **BOT},
            "chat.postMessage": self._post,
            "chat.update": self._update,
            "chat.getPermalink": lambda g: {
                "permalink": f"https://x.slack.com/archives/{g['channel']}/p{g['message_ts'].replace('.', '')}"
            },
            "conversations.info": lambda g: {"channel": self._shown(self.channels[g["channel"]])},
            "conversations.list": self._list,
            "conversations.history": self._history,
            "conversations.replies": self._history,
            "conversations.open": lambda g: {"channel": {"id": self._direct(g["users"]).id}},
        }
        try:
            body = answers[method](given)
        except KeyError:
            body = {"ok": False, "error": "channel_not_found" if method in answers else "unknown_method"}
        except _No as no:
            body = {"ok": False, "error": no.code, **no.more}
        return json_answer({"ok": True, **body}, X_OAuth_Scopes=",".join(sorted(self.scopes)))

    def _post(self, given: dict[str, Any]) -> dict[str, Any]:
        channel = self._named(given["channel"])
        if channel.is_archived:
            raise _No("is_archived")
        if not channel.is_member and "chat:write.public" not in self.scopes:
            raise _No("not_in_channel")
        _checked(given)
        root = given.get("thread_ts")
        if root is not None and root not in channel.messages:
            raise _No("thread_not_found")
        ts = self._put(channel, {**_written(given), **({"thread_ts": root} if root else {})})
        if root is not None:
            channel.messages[root] |= {"thread_ts": root, "latest_reply": ts}
        example: dict[str, Any] = EXAMPLES["chat.postMessage"]["answer"]
        return {**example, "channel": channel.id, "ts": ts, "message": copy.deepcopy(channel.messages[ts])}

    def _update(self, given: dict[str, Any]) -> dict[str, Any]:
        channel = self.channels[given["channel"]]
        there = channel.messages.get(given["ts"])
        if there is None:
            raise _No("message_not_found")
        if there.get("bot_id") != BOT["bot_id"]:
            raise _No("cant_update_message")
        _checked(given)
        there.update(_written(given))
        return {"channel": channel.id, "ts": given["ts"], "text": given["text"]}

    def _history(self, given: dict[str, Any]) -> dict[str, Any]:
        channel = self.channels[given["channel"]]
        if not channel.is_member:
            raise _No("not_in_channel")
        root, oldest = given.get("ts"), float(given.get("oldest", 0))
        found = []
        for ts, message in reversed(channel.messages.items()):
            thread = message.get("thread_ts", ts)
            if float(ts) > oldest and (thread == root if root else thread == ts):
                whole = str(given.get("include_all_metadata", "")).lower() in ("1", "true")
                found.append({name: value for name, value in message.items() if whole or name != "metadata"})
        start, size = int(given.get("cursor", 0)), min(int(given.get("limit", 100)), self.page)
        rest = str(start + size) if len(found) > start + size else ""
        return {"messages": copy.deepcopy(found[start : start + size]), "response_metadata": {"next_cursor": rest}}

    def _list(self, given: dict[str, Any]) -> dict[str, Any]:
        start, size = int(given.get("cursor", 0)), self.page
        every = [self._shown(channel) for channel in self.channels.values()]
        rest = str(start + size) if len(every) > start + size else ""
        return {"channels": every[start : start + size], "response_metadata": {"next_cursor": rest}}

    @staticmethod
    def _shown(channel: Channel) -> dict[str, Any]:
        example: dict[str, Any] = EXAMPLES["conversations.list"]["answer"]["channels"][0]
        own = {"id": channel.id, "name": channel.name, "is_archived": channel.is_archived, "is_member": channel.is_member}
        return {**example, **own}

    def _named(self, name: str) -> Channel:
        if re.fullmatch("[UW][A-Z0-9]+", name):
            return self._direct(name)
        found = self.channels.get(name) or next((c for c in self.channels.values() if c.name == name.removeprefix("#")), None)
        if found is None:
            raise _No("channel_not_found")
        return found

    def _direct(self, person: str) -> Channel:
        id_ = f"D{person[1:]}"
        return self.channels.get(id_) or self.add(id_, f"dm-{person}")

    def _hook(self, asked: Asked) -> bytes:
        if asked.path != HOOK or not self.hook_works:
            return answer(404, "no_service")
        try:
            given = json.loads(asked.body)
        except ValueError:
            return answer(400, "invalid_payload")
        try:
            _checked(given)
        except _No as no:
            return answer(400, no.code)
        self._put(self.hooked, _written(given))
        return answer(200, "ok")

    def _put(self, channel: Channel, message: dict[str, Any]) -> str:
        with self._lock:
            self._last = max(time.time(), self._last + 0.000002)
            ts = f"{self._last:.6f}"
            channel.messages[ts] = {"type": "message", **message, "ts": ts}
            return ts


class _No(Exception):
    def __init__(self, code: str, **more: Any) -> None:
        super().__init__(code)
        self.code, self.more = code, more


def _arguments(asked: Asked) -> dict[str, Any]:
    if "json" in asked.headers.get("content-type", "") and asked.body.startswith(b"{"):
        found: dict[str, Any] = json.loads(asked.body)
        return found
    return {**dict(parse_qsl(asked.body.decode())), **dict(asked.query)}


def _written(given: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: given[name] for name in ("text", "blocks", "metadata", "unfurl_links") if name in given}
    return {"subtype": "bot_message", "bot_id": BOT["bot_id"], **kept}


def _checked(given: Mapping[str, Any]) -> None:
    """Slack's limits: https://docs.slack.dev/reference/block-kit/blocks."""
    blocks = given.get("blocks") or []
    if not given.get("text") and not blocks:
        raise _No("no_text")
    if len(given.get("text", "")) > 40_000:
        raise _No("msg_too_long")
    if len(blocks) > 50:
        raise _No("invalid_blocks", response_metadata={"messages": ["[ERROR] no more than 50 items allowed [json-pointer:/blocks]"]})
    for at, block in enumerate(blocks):
        most = 150 if block.get("type") == "header" else 3_000
        texts = [(block.get("text"), most, "text")] + [(each, 2_000, f"fields/{n}") for n, each in enumerate(block.get("fields", ()))]
        for text, limit, place in texts:
            if isinstance(text, dict) and not 0 < len(text["text"]) <= limit:
                said = f"[ERROR] must be more than 0 and less than {limit + 1} characters [json-pointer:/blocks/{at}/{place}/text]"
                raise _No("invalid_blocks", response_metadata={"messages": [said]})


def slack(workspace: SlackWorkspace, **fields: Any) -> Slack:
    """A destination that posts to #sales by a token, at once."""
    given: dict[str, Any] = {"token": TOKEN, "base_url": workspace.base_url, "pace": 0, "text": "{{ name }}"}
    given |= {} if "channel_by" in fields else {"channel": "C0SALES00"}
    return Slack.model_validate(given | fields)


def hook(workspace: SlackWorkspace, **fields: Any) -> Slack:
    """A destination that posts by the webhook."""
    return Slack.model_validate({"webhook_url": workspace.hook_url, "pace": 0, "text": "{{ name }}"} | fields)
