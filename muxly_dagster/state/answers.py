"""Answers kept between runs, so that an API can say that they still hold: files in a folder of their own, the longest unused go first."""

import json
import logging
import os
import threading
import uuid
from contextlib import suppress
from pathlib import Path

import xxhash

from muxly_dagster.services import KeptAnswer

_log = logging.getLogger("muxly.state")

_ROOM = 512 * 2**20


class KeptAnswers:
    """Keeps answers as files that only the owner may read, at most `room` bytes of them. Used from several threads and processes.

    What cannot be kept or read is passed over: losing an answer costs a download and nothing else.
    """

    def __init__(self, folder: Path, room: int = _ROOM) -> None:
        self._folder, self._room = folder, room
        self._lock = threading.Lock()
        self._held: int | None = None

    def read(self, name: str) -> KeptAnswer | None:
        """The answer kept under this name; None also where its file is damaged."""
        path = self._path(name)
        try:
            head, _, content = path.read_bytes().partition(b"\n")
            said = json.loads(head)
            if said["hash"] != _hash(content):
                return None
            answer = KeptAnswer(content, said["etag"], said["last_modified"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        with suppress(OSError):
            os.utime(path)  # used just now
        return answer

    def keep(self, name: str, answer: KeptAnswer) -> None:
        """Keep an answer in place of what was there; one that takes up more than a quarter of the room is not kept."""
        if len(answer.content) > self._room // 4:
            with suppress(OSError):
                self._path(name).unlink()
            return
        head = json.dumps({"etag": answer.etag, "last_modified": answer.last_modified, "hash": _hash(answer.content)})
        content = head.encode() + b"\n" + answer.content
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            new = self._folder / f"{uuid.uuid4().hex}.new"
            try:
                with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                    file.write(content)
                os.replace(new, self._path(name))
            finally:
                new.unlink(missing_ok=True)
            self._make_room(len(content))
        except OSError as error:
            _log.warning("an answer cannot be kept in %s (%s): it will be downloaded again", self._folder, error.strerror)

    def _make_room(self, added: int) -> None:
        """Remove the longest unused where there is too much. The folder is only looked through when it may be."""
        with self._lock:
            if self._held is not None and self._held + added <= self._room:
                self._held += added
                return
            found = []
            for entry in os.scandir(self._folder):
                with suppress(OSError):  # gone meanwhile
                    if entry.is_file() and entry.name.endswith((".answer", ".new")):
                        stat = entry.stat()
                        found.append((stat.st_mtime_ns, entry.path, stat.st_size))
            held = sum(size for *_, size in found)
            for _, path, size in sorted(found):
                if held <= self._room:
                    break
                Path(path).unlink(missing_ok=True)
                held -= size
            self._held = held

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.answer" if name.isalnum() else self._folder / f"{_hash(name.encode())}.answer"


def _hash(content: bytes) -> str:
    return xxhash.xxh3_128_hexdigest(content)
