"""An API of notes that tells what is new in every way the manifest's language knows, and forgets tokens when it is asked to.

`/notes` lists them by page cursors, `/changes` tells what changed since a version (deleted ones beside), `/tree` lists and tells changes by
one kind of token whose entries carry a mark when they are gone, `/search` finds them by time and id but never gives more than `cap`
results for one query, `/archive` lists those that were deleted.
"""

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from muxly_dagster_tests.http.server import Asked, Server, json_answer

TOKEN = "n0tes-secret-t0ken"
BEGIN_MS = 1_700_000_000_000
PAGE = 2


class Notes:
    """The account, and the server that speaks for it. Versions count changes; a note's `updated` is the version it changed in."""

    def __init__(self, cap: int = 10_000) -> None:
        self.notes: dict[str, dict[str, Any]] = {}
        self.log: list[tuple[str, dict[str, Any] | None]] = []
        self.archive: dict[str, int] = {}
        self.generation, self.cap, self.extra = 1, cap, False
        self.before_page: Callable[[Asked], None] | None = None
        self._failing: int | None = None
        self._left: int | None = None
        self._lock = threading.RLock()
        self._server = Server(self._answer)

    @property
    def url(self) -> str:
        return self._server.url

    @property
    def asked(self) -> list[Asked]:
        """Every request so far."""
        return self._server.asked

    def __enter__(self) -> Self:
        self._server.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.__exit__(kind, error, trace)

    # ---- what happens in the account

    def write(self, name: str, text: str, **fields: Any) -> None:
        """Create or change a note."""
        with self._lock:
            note = {"id": name, "text": text, "updated": BEGIN_MS + len(self.log) + 1, **({"extra": text} if self.extra else {}), **fields}
            self.notes[name] = note
            self.archive.pop(name, None)
            self.log.append((name, note))

    def remove(self, name: str) -> None:
        """Delete it, and whatever lies below it (`a/b` lies below `a`), in one change."""
        with self._lock:
            for each in [n for n in self.notes if n == name or n.startswith(f"{name}/")]:
                del self.notes[each]
                self.archive[each] = BEGIN_MS + len(self.log) + 1
            self.log.append((name, None))

    def expire(self) -> None:
        """Forget every token given out so far."""
        with self._lock:
            self.generation += 1

    def fail_once(self, status: int) -> None:
        """Answer the next request for notes so."""
        self._failing = status

    def break_after(self, requests: int | None) -> None:
        """Refuse requests for notes after so many more; None: never."""
        self._left = requests

    # ---- answers

    def _token(self, version: int) -> str:
        return f"{self.generation}.{version}"

    def _version(self, token: str) -> int | None:
        """The version that a token stands for; None once it was forgotten."""
        generation, _, version = token.partition(".")
        return int(version) if int(generation) == self.generation else None

    def _answer(self, asked: Asked) -> bytes:
        with self._lock:
            if asked.headers.get("authorization") != f"Bearer {TOKEN}":
                return json_answer({"error": "who are you"}, 401)
            if asked.path == "/profile":
                return json_answer({"address": "me@notes.example", "version": self._token(len(self.log))})
            if self._failing is not None:
                status, self._failing = self._failing, None
                return json_answer({"error": "not now"}, status, Retry_After="0")
            if self._left is not None:
                self._left -= 1
                if self._left < 0:
                    return json_answer({"error": "broken"}, 500 + 1)
            body = json.loads(asked.body) if asked.body else {}
            answers = {"/notes": self._list, "/changes": self._changes, "/tree": self._tree, "/search": self._search}
            answer = answers.get(asked.path, self._archived)(dict(asked.query), body)
        if self.before_page is not None:
            self.before_page(asked)  # after the answer was made: what happens now is not in it
        return answer

    def _list(self, query: Mapping[str, str], _: Any) -> bytes:
        after, box = query.get("after", ""), query.get("box", "")
        found = sorted((n for n in self.notes.values() if n["id"] > after and n.get("box", "") == box), key=lambda n: n["id"])
        return json_answer({"notes": found[:PAGE], **({"next": found[PAGE - 1]["id"]} if len(found) > PAGE else {})})

    def _changes(self, query: Mapping[str, str], _: Any) -> bytes:
        since, start = self._version(query["since"]), int(query.get("page", "0"))
        if since is None:
            return json_answer({"error": "too old"}, 404)
        found = [
            (name, note)
            for name, note in self.log[since:]
            if (note or self.notes.get(name) or {}).get("box", query.get("box", "")) == query.get("box", "")
        ]
        page = found[start : start + PAGE]
        changes = [{"note": note} if note else {"gone": {"id": name}} for name, note in page]
        more = {"next": str(start + PAGE)} if len(found) > start + PAGE else {}
        return json_answer({"changes": changes, **more, "version": self._token(len(self.log))})

    def _tree(self, _: Any, body: Mapping[str, Any]) -> bytes:
        """Like a folder listing: without a token everything from the beginning, then what changed, all by the same kind of token."""
        start = self._version(body["token"]) if "token" in body else 0
        if start is None:
            return json_answer({"error": {"tag": "reset"}}, 409)
        page = self.log[start : start + PAGE]
        entries = [{**note, "tag": "note"} if note else {"id": name, "tag": "deleted"} for name, note in page]
        return json_answer({"entries": entries, "token": self._token(start + len(page)), "more": len(self.log) > start + PAGE})

    def _search(self, _: Any, body: Mapping[str, Any]) -> bytes:
        found = sorted(self.notes.values(), key=lambda n: int(n["id"]))
        for each in body["filters"]:
            low, high = each.get("above", each.get("from")), each.get("to")
            if each["name"] == "id":
                found = [n for n in found if int(n["id"]) > int(low)]
            else:
                found = [n for n in found if low <= n["updated"] <= high]
        return json_answer({"results": found[: min(body["limit"], self.cap)]})

    def _archived(self, query: Mapping[str, str], _: Any) -> bytes:
        since = int(query.get("since", "0"))
        return json_answer({"archived": [{"note": {"id": name}} for name, at in sorted(self.archive.items()) if at >= since]})


class NotesProvider:
    """The account as `muxly_dagster.testing.connectors.Provider` has it."""

    secrets: Sequence[str] = (TOKEN,)

    def __init__(self, api: Notes, stream: str, connector: Callable[..., Any]) -> None:
        self.api, self.pull, self._connector = api, {"stream": stream}, connector

    def connector(self, *, wrong: bool = False) -> Any:
        return self._connector(base_url=self.api.url, auth={"kind": "bearer", "token": "wr0ng-t0ken" if wrong else TOKEN})

    def put(self, *numbers: int, text: str = "") -> None:
        for number in numbers:
            self.api.write(str(number), text)

    def delete(self, number: int) -> None:
        self.api.remove(str(number))

    def number(self, row: Mapping[str, Any]) -> int:
        return int(row["id"])

    def text(self, row: Mapping[str, Any]) -> str:
        return str(row["text"])

    def drift(self) -> None:
        self.api.extra = True

    def fail_once(self, status: int) -> None:
        self.api.fail_once(status)

    def break_after(self, requests: int) -> None:
        self.api.break_after(requests)

    def mend(self) -> None:
        self.api.break_after(None)

    def expire(self) -> None:
        self.api.expire()
