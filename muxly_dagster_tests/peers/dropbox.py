"""A Dropbox over HTTP, as far as the API's reference describes it: folder listings, cursors that are reset, content, shared links.

https://www.dropbox.com/developers/documentation/http/documentation
"""

import json
from collections.abc import Mapping
from typing import Any

from muxly_dagster_tests.http.server import Asked, answer, json_answer
from muxly_dagster_tests.peers.service import BUILT_IN, Service, body, paged

_PAGE = 2


class Dropbox(Service):
    """The account. Record number n is the file /n.txt; its text is the file's content."""

    base = "/2"
    manifest = BUILT_IN / "dropbox.yaml"
    pull: Mapping[str, Any] = {"stream": "files"}

    def __init__(self, *, refreshing: bool = False) -> None:
        super().__init__(refreshing=refreshing)
        self.entries: dict[str, dict[str, Any]] = {}
        self.contents: dict[str, bytes] = {}
        self._log: list[dict[str, Any]] = []
        self._generation = 1

    # ---- what happens in the account

    def write(self, path: str, content: bytes) -> None:
        """Create a file or change its content."""
        name, rev = path.rpartition("/")[2], content.hex() or "0"
        entry = {".tag": "file", "name": name, "path_display": path, "path_lower": path.lower(), "id": f"id:{path.lower().encode().hex()}"}
        entry |= {"rev": rev, "content_hash": rev, "size": len(content), "is_downloadable": True}
        entry |= {"client_modified": "2026-01-02T03:04:05Z", "server_modified": "2026-01-02T03:04:05Z"}
        entry |= {"has_explicit_shared_members": False} if self.extra else {}
        self.contents[path.lower()] = content
        self._enter(entry)

    def make_folder(self, path: str) -> None:
        """Create a folder."""
        names = {"name": path.rpartition("/")[2], "path_display": path, "path_lower": path.lower()}
        self._enter({".tag": "folder", **names, "id": f"id:{path.lower().encode().hex()}"})

    def remove(self, path: str) -> None:
        """Delete a file, or a folder with all that lies below it: one entry says so."""
        for each in [known for known in self.entries if known == path.lower() or known.startswith(f"{path.lower()}/")]:
            del self.entries[each]
        self._log.append({".tag": "deleted", "name": path.rpartition("/")[2], "path_display": path, "path_lower": path.lower()})

    def put(self, *numbers: int, text: str = "") -> None:
        for number in numbers:
            self.write(f"/{number}.TXT", text.encode())

    def delete(self, number: int) -> None:
        self.remove(f"/{number}.TXT")

    def expire(self) -> None:
        self._generation += 1

    def number(self, row: Mapping[str, Any]) -> int:
        return int(row["path_lower"].strip("/").removesuffix(".txt"))

    def text(self, row: Mapping[str, Any]) -> str:
        return bytes.fromhex("" if row["rev"] == "0" else row["rev"]).decode()

    def replace(self, folder: str, content: bytes) -> None:
        """Put a file where a folder was: the one entry of the file says that what was in the folder is gone."""
        for each in [known for known in self.entries if known.startswith(f"{folder.lower()}/")]:
            del self.entries[each]
        self.write(folder, content)

    def _enter(self, entry: dict[str, Any]) -> None:
        self.entries[entry["path_lower"]] = entry
        self._log.append(entry)

    # ---- answers

    def is_for_records(self, asked: Asked) -> bool:
        return asked.path.startswith("/2/files/list_folder")

    def refusal(self, status: int) -> bytes:
        return json_answer({"error_summary": "no/...", "error": {".tag": "no"}}, status, Retry_After="0")

    def answer(self, asked: Asked) -> bytes:
        argument = json.loads(asked.headers.get("dropbox-api-arg", "{}"))
        match asked.method, asked.path.removeprefix("/2/"):
            case "POST", "users/get_current_account":
                return json_answer({"account_id": "dbid:1", "email": "me@shop.example"})
            case "POST", "files/list_folder":
                return self._listing(body(asked)["path"].lower(), len(self._log), 0)
            case "POST", "files/list_folder/continue":
                return self._go_on(str(body(asked)["cursor"]))
            case "POST", "files/download":
                return self._download(asked, argument["path"])
            case "POST", "files/upload":
                self.write(argument["path"], asked.body)
                return json_answer(self.entries[argument["path"].lower()])
            case "POST", "files/delete_v2":
                metadata = self.entries[body(asked)["path"].lower()]
                self.remove(body(asked)["path"])
                return json_answer({"metadata": metadata})
            case "POST", "files/create_folder_v2":
                self.make_folder(body(asked)["path"])
                return json_answer({"metadata": self.entries[body(asked)["path"].lower()]})
            case "POST", "sharing/list_shared_links":
                first = "cursor" not in body(asked)
                link = {".tag": "file", "url": f"https://www.dropbox.com/s/{1 if first else 2}", "name": "a", "path_lower": "/a"}
                return json_answer({"links": [link], "has_more": first, **({"cursor": "c2"} if first else {})})
        return answer(404)

    def _listing(self, folder: str, log: int, start: int) -> bytes:
        below = [entry for path, entry in sorted(self.entries.items()) if path.startswith(f"{folder}/")]
        page, after = paged(below, start, _PAGE)
        return self._page(page, f"L{self._generation}:{log}:{after}:{folder}" if after else f"C{self._generation}:{log}", after is not None)

    def _go_on(self, cursor: str) -> bytes:
        generation, log, *rest = cursor[1:].split(":")
        if int(generation) != self._generation:
            return json_answer({"error_summary": "reset/...", "error": {".tag": "reset"}}, 409)
        if rest:
            return self._listing(rest[1], int(log), int(rest[0]))
        page, after = paged(self._log, int(log), _PAGE)
        return self._page(list(page), f"C{generation}:{after or len(self._log)}", after is not None)

    @staticmethod
    def _page(entries: Any, cursor: str, more: bool) -> bytes:
        return json_answer({"entries": entries, "cursor": cursor, "has_more": more})

    def _download(self, asked: Asked, path: str) -> bytes:
        if asked.body or asked.headers.get("content-type", "") not in ("", "text/plain", "application/octet-stream"):
            return answer(400, "a download has no body and no such Content-Type")
        lower = bytes.fromhex(path.removeprefix("id:")).decode() if path.startswith("id:") else path.lower()
        if lower in self.entries and not self.entries[lower].get("is_downloadable"):
            return json_answer({"error_summary": "unsupported_file/", "error": {".tag": "unsupported_file"}}, 409)
        if lower not in self.entries:
            return json_answer({"error_summary": "path/not_found/", "error": {".tag": "path", "path": {".tag": "not_found"}}}, 409)
        headers = {"Dropbox-API-Result": json.dumps(self.entries[lower]), "ETag": f'"{self.entries[lower]["rev"]}"'}
        return answer(200, self.contents[lower], Content_Type="application/octet-stream", **headers)
