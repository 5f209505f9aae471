"""A OneDrive over HTTP, as far as Microsoft Graph's reference describes it: delta links that expire, content elsewhere, uploads.

https://learn.microsoft.com/graph/api/driveitem-delta
"""

import zlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from muxly_dagster_tests.http.server import Asked, Server, answer, json_answer
from muxly_dagster_tests.peers.service import BUILT_IN, Service, body, paged

_PAGE = 2
_BASE = "/v1.0"


class OneDrive(Service):
    """Drives by their ids, of which `me` is the user's own. Record number n is its item with the id I!n; its text is the item's name.

    Content comes from `store`, another server, which must not see credentials.
    """

    base = _BASE
    manifest = BUILT_IN / "onedrive.yaml"
    pull: Mapping[str, Any] = {"stream": "items"}

    def __init__(self, *, refreshing: bool = False) -> None:
        super().__init__(refreshing=refreshing)
        self.drives: dict[str, dict[str, dict[str, Any]]] = {"me": {}}
        self.contents: dict[str, bytes] = {}
        self._logs: dict[str, list[dict[str, Any]]] = {"me": []}
        self._generation = 1
        self.store = Server(lambda asked: answer(200, self.contents[asked.path.strip("/")], Content_Type="text/plain", ETag='"1"'))

    def __enter__(self) -> "OneDrive":
        self.store.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self.store.__exit__(*error)

    # ---- what happens in the drives

    def write(self, name: str, content: bytes | None, *, item: str, drive: str = "me") -> dict[str, Any]:
        """Create or change a file; a folder where there is no content."""
        facet: dict[str, Any] = {"folder": {"childCount": 0}}
        if content is not None:
            facet = {"file": {"mimeType": "text/plain", "hashes": {"quickXorHash": f"{zlib.crc32(content):x}"}}}
            self.contents[item] = content
        entry = {"id": item, "name": name, "size": len(content or b""), "parentReference": {"driveId": drive, "id": "root"}, **facet}
        entry |= {
            "createdDateTime": "2026-01-02T03:04:05Z",
            "lastModifiedDateTime": "2026-01-02T03:04:05.5Z",
            "webUrl": "https://x.example",
        }
        self.drives.setdefault(drive, {})[item] = entry
        self._logs.setdefault(drive, []).append(entry)
        return entry

    def remove(self, item: str, drive: str = "me") -> None:
        """Delete an item."""
        del self.drives[drive][item]
        self._logs[drive].append({"id": item, "deleted": {"state": "deleted"}, "parentReference": {"driveId": drive}})

    def put(self, *numbers: int, text: str = "") -> None:
        for number in numbers:
            self.write(text, text.encode(), item=f"I!{number}")

    def delete(self, number: int) -> None:
        self.remove(f"I!{number}")

    def expire(self) -> None:
        self._generation += 1

    def number(self, row: Mapping[str, Any]) -> int:
        return int(row["id"].removeprefix("I!"))

    def text(self, row: Mapping[str, Any]) -> str:
        return str(row["name"])

    # ---- answers

    def is_for_records(self, asked: Asked) -> bool:
        return asked.path.endswith("/root/delta")

    def refusal(self, status: int) -> bytes:
        return json_answer({"error": {"code": "generalException", "message": "no"}}, status, Retry_After="0")

    def answer(self, asked: Asked) -> bytes:
        parts = [unquote(part) for part in asked.path.removeprefix(f"{_BASE}/").split("/")]
        drive, rest = "me" if parts[0] == "me" else parts[1], parts[2:]
        match asked.method, rest:
            case "GET", []:
                owner = {"user": {"email": "me@shop.example"}}
                found = {"id": drive, "name": "Drive", "driveType": "business", "createdDateTime": "2026-01-02T03:04:05Z", "owner": owner}
                return json_answer({"value": [found]} if parts == ["me", "drives"] else found)
            case "GET", ["root", "delta"]:
                return self._delta(drive, asked)
            case "GET", ["items", item, "content"]:
                return answer(302, b"", Location=f"{self.store.url}/{item}") if item in self.contents else self.refusal(404)
            case "PUT", ["items", _, "content"]:
                name = rest[1].split(":")[1].strip("/")
                return json_answer(self.write(name, asked.body, item=f"N!{name}"), 201)
            case "PUT", ["items", _, name, "content"]:
                return json_answer(self.write(name.rstrip(":"), asked.body, item=f"N!{name.rstrip(':')}"), 201)
            case "POST", ["items", _, "children"]:
                return json_answer(self.write(body(asked)["name"], None, item=f"N!{body(asked)['name']}"), 201)
            case "DELETE", ["items", item]:
                self.remove(item)
                return answer(204)
        return answer(404)

    def _delta(self, drive: str, asked: Asked) -> bytes:
        token = dict(asked.query).get("token", f"L:{self._generation}:{len(self._logs[drive])}:0")
        kind, generation, log, start = token.split(":")
        if int(generation) != self._generation:
            gone = {"error": {"code": "resyncChangesApplyDifferences", "message": "Resync required"}}
            return json_answer(gone, 410, Location=f"{self.url}{_BASE}{asked.path.removeprefix(_BASE)}")
        found = list(self.drives[drive].values()) if kind == "L" else self._logs[drive][int(log) :]
        page, after = paged(found, int(start), _PAGE)
        here = f"{self.url}{asked.path}?token="
        if after is not None:
            return json_answer({"value": page, "@odata.nextLink": f"{here}{kind}:{generation}:{log}:{after}"})
        end = int(log) if kind == "L" else len(self._logs[drive])
        # What a page has shown already may be shown again: a listing is as of its last page.
        return json_answer({"value": page, "@odata.deltaLink": f"{here}C:{generation}:{end}:0"})
