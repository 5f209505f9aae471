"""A Google Cloud Storage on loopback: the part of its JSON API that writes, lists, reads and deletes objects, and a token endpoint.

Google's own client is on the other side. See https://cloud.google.com/storage/docs/json_api/v1/objects.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from unittest import mock
from urllib.parse import parse_qs, unquote

import google_crc32c
from google.auth import credentials, jwt

from muxly_dagster_tests.http.server import Asked, Server, answer, json_answer
from muxly_dagster_tests.peers.bigquery import key_pair

BUCKET = "archive"
_OBJECT = re.compile(r"(?:/download)?/storage/v1/b/([^/]+)/o/([^/]+)")
_PAGE = 3


@dataclass
class Blob:
    """An object: what it holds, and what is said of it."""

    content: bytes
    generation: int
    metadata: Mapping[str, str] = field(default_factory=dict)
    content_type: str = ""
    kms_key: str = ""


class Gcs:
    """Serves the bucket `archive` until the block ends. Only tokens it gave out itself are good."""

    def __init__(self) -> None:
        self.blobs: dict[str, Blob] = {}
        self.denied = False
        self.failing: list[int] = []
        """The statuses that the next requests end with, one each."""
        self._tokens: set[str] = set()
        self._uploads: dict[str, tuple[dict[str, Any], bytearray]] = {}
        self._generation = 0
        self._lock = threading.RLock()
        self._server = Server(self._reply)

    @property
    def url(self) -> str:
        return self._server.url

    @property
    def port(self) -> int:
        return self._server.port

    def key(self, owner: str = "muxly") -> str:
        """A service account's key as Google gives it out; of an owner that is not `muxly`, one that Google does not know."""
        private, _ = key_pair(owner)
        fields = {"type": "service_account", "project_id": "lab", "private_key_id": "1", "private_key": private}
        return json.dumps(fields | {"client_email": "muxly@lab.example", "client_id": "1", "token_uri": f"{self.url}/token"})

    def __enter__(self) -> Self:
        # Google's library asks a public address of Google's, in the background, where an account may be used from; here, nobody does.
        boundary = "_is_regional_access_boundary_lookup_required"
        self._hermetic = mock.patch.object(credentials.CredentialsWithRegionalAccessBoundary, boundary, return_value=False)
        self._hermetic.start()
        self._server.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.__exit__(kind, error, trace)
        self._hermetic.stop()

    # ---- answers

    def _reply(self, asked: Asked) -> bytes:
        with self._lock:
            if asked.path == "/token":
                return self._token(asked)
            if self.failing:
                return _refusal(self.failing.pop(0), "not now")
            if asked.headers.get("authorization", "").removeprefix("Bearer ") not in self._tokens:
                return _refusal(401, "Invalid Credentials")
            if self.denied:
                return _refusal(403, "muxly@lab.example does not have storage.objects.list access to the Google Cloud Storage bucket.")
            bucket = asked.path.partition("/b/")[2].partition("/")[0]
            if bucket != BUCKET:
                return _refusal(404, "The specified bucket does not exist.")
            if asked.path.startswith(("/upload/", "/resumable/")):
                return self._upload(asked)
            found = _OBJECT.fullmatch(asked.path)
            return self._object(asked, unquote(found[2])) if found else self._list(dict(asked.query))

    def _token(self, asked: Asked) -> bytes:
        assertion = parse_qs(asked.body.decode())["assertion"][0]
        _, public = key_pair("muxly")
        try:
            jwt.decode(assertion, certs=public, audience="https://oauth2.googleapis.com/token")  # type: ignore[no-untyped-call]
        except ValueError:
            return json_answer({"error": "invalid_grant", "error_description": "Invalid JWT Signature."}, 400)
        token = f"ya29.{len(self._tokens)}-of-a-robot"
        self._tokens.add(token)
        return json_answer({"access_token": token, "token_type": "Bearer", "expires_in": 3600})

    def _list(self, query: dict[str, str]) -> bytes:
        start = max(query.get("startOffset", ""), query.get("pageToken", ""))
        names = sorted(name for name in self.blobs if name.startswith(query.get("prefix", "")) and name >= start)
        size = min(_PAGE, int(query.get("maxResults", _PAGE)))
        page: dict[str, Any] = {"kind": "storage#objects", "items": [self._shown(name) for name in names[:size]]}
        if len(names) > size:
            page["nextPageToken"] = names[size]
        return json_answer(page)

    def _object(self, asked: Asked, name: str) -> bytes:
        blob = self.blobs.get(name)
        if blob is None:
            return _refusal(404, f"No such object: {BUCKET}/{name}")
        if asked.method == "DELETE":
            del self.blobs[name]
            return answer(204)
        if dict(asked.query).get("alt") == "media":
            return answer(200, blob.content, X_Goog_Hash=f"crc32c={_crc32c(blob.content)}")
        return json_answer(self._shown(name))

    def _upload(self, asked: Asked) -> bytes:
        query = dict(asked.query)
        if query.get("upload_id"):
            said, received = self._uploads[query["upload_id"]]
            received += asked.body
            _, _, total = asked.headers["content-range"].removeprefix("bytes ").partition("/")
            if total == "*" or len(received) < int(total):
                return answer(308, Range=f"bytes=0-{len(received) - 1}")
            return self._store(said, bytes(received))
        if query["uploadType"] == "resumable":
            number = f"u{len(self._uploads)}"
            self._uploads[number] = (json.loads(asked.body) | {"query": query, "type": asked.headers["x-upload-content-type"]}, bytearray())
            return answer(200, Location=f"{self.url}/resumable/storage/v1/b/{BUCKET}/o?uploadType=resumable&upload_id={number}")
        boundary = re.search(r'boundary="?([^"]+)', asked.headers["content-type"])
        assert boundary
        _, first, second, _ = asked.body.split(b"--" + boundary[1].encode(), 3)
        about, content = first.split(b"\r\n\r\n", 1)[1], second.split(b"\r\n\r\n", 1)
        type_ = re.search(rb"content-type: (\S+)", content[0])
        assert type_
        return self._store(json.loads(about) | {"query": query, "type": type_[1].decode()}, content[1].removesuffix(b"\r\n"))

    def _store(self, said: dict[str, Any], content: bytes) -> bytes:
        name: str = said["name"]
        if said["query"].get("ifGenerationMatch") == "0" and name in self.blobs:
            return _refusal(412, "At least one of the pre-conditions you specified did not hold.")
        if said.get("crc32c", _crc32c(content)) != _crc32c(content):
            return _refusal(400, "Provided CRC32C does not match what was received.")
        self._generation += 1
        self.blobs[name] = Blob(content, self._generation, said.get("metadata", {}), said["type"], said["query"].get("kmsKeyName", ""))
        return json_answer(self._shown(name))

    def _shown(self, name: str) -> dict[str, Any]:
        blob = self.blobs[name]
        return {
            "kind": "storage#object",
            "bucket": BUCKET,
            "name": name,
            "generation": str(blob.generation),
            "metageneration": "1",
            "size": str(len(blob.content)),
            "contentType": blob.content_type,
            "metadata": dict(blob.metadata),
            "crc32c": _crc32c(blob.content),
            "md5Hash": base64.b64encode(hashlib.md5(blob.content).digest()).decode(),
        }


def _crc32c(content: bytes) -> str:
    return base64.b64encode(google_crc32c.value(content).to_bytes(4)).decode()


def _refusal(status: int, message: str) -> bytes:
    return json_answer({"error": {"code": status, "message": message, "errors": [{"message": message, "reason": "lab"}]}}, status)
