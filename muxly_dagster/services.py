"""What the runtime lends to connectors: a place for files, answers kept for later, rate budgets shared between processes.

Each has a form that lives in this process alone, for tests and for whoever uses a connector by itself.
"""

import hashlib
import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file that is kept beside the lake: its address, the SHA-256 of its content as hex, bytes, and media type (RFC 6838)."""

    url: str
    sha256: str
    size: int
    media_type: str


class Files(Protocol):
    """Keeps the files that records speak of. The same content is kept once."""

    def partial(self, name: str) -> Path:
        """A path on this machine for a download under way: the same one for the same name, also for a later run, so that it can go on."""

    def keep(self, path: Path, media_type: str) -> StoredFile:
        """Move a complete file from this machine to where files are kept."""

    def find(self, sha256: str) -> str | None:
        """The address of the file with this content; None where it is not kept."""


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """An answer that may be asked for again by its validators (RFC 9110, 8.8): body, ETag, Last-Modified."""

    content: bytes
    etag: str = ""
    last_modified: str = ""


class Answers(Protocol):
    """Keeps answers to requests, by a name made of the request. Losing one costs a download and nothing else."""

    def read(self, name: str) -> KeptAnswer | None:
        """The answer kept under this name."""

    def keep(self, name: str, answer: KeptAnswer) -> None:
        """Keep an answer in place of what was there."""


@dataclass(frozen=True, slots=True)
class Rate:
    """A budget of starts: `spacing` is the least time between two in seconds (0: none), `requests` the most in any `window` seconds
    (0: no such limit)."""

    budget: str
    spacing: float = 0.0
    requests: int = 0
    window: float = 0.0


@dataclass(frozen=True, slots=True)
class Grant:
    """`count` starts that belong to whoever reserved them, to be made from `opens` to `closes` (`time.monotonic()`), evenly spaced.

    With a count of 0 nothing is reserved: ask again when it opens.
    """

    id: str
    count: int
    opens: float
    closes: float


@dataclass(frozen=True, slots=True)
class Used:
    """What became of a grant: how many starts were made, and when the last of them was (`time.monotonic()`)."""

    id: str
    count: int
    last: float


class Turns(Protocol):
    """Rate budgets held together by all processes that use an account. Called from several threads; raises RetryLater."""

    def reserve(self, rates: Sequence[Rate], wanted: int, used: Used | None = None) -> Grant:
        """Reserve up to `wanted` starts (at least one) that count in all of these budgets, and give back what is left of a grant."""

    def settle(self, rates: Sequence[Rate], used: Used) -> None:
        """Give back what is left of a grant."""

    def slots(self, budget: str, most: int, holder: str, running: int, wanted: int) -> tuple[int, float]:
        """Ask for up to `wanted` of `most` places for requests under way, of which this holder has `running`.

        Answers how many it may fill, and until when (`time.monotonic()`) it has them unless it asks again: a holder that dies lets go.
        Others that wait get their share: what the holder may fill can be less than what is running. `wanted` 0 gives all back.
        """

    def pause(self, budgets: Sequence[str], seconds: float) -> None:
        """No start before so many seconds are over, in any process."""

    def paused(self, budgets: Sequence[str]) -> Mapping[str, float]:
        """When the pauses of these budgets end (`time.monotonic()`), for those that have one."""


class OwnFiles:
    """Files in a temporary folder that goes when this object goes."""

    def __init__(self) -> None:
        self._folder: Path | None = None

    def partial(self, name: str) -> Path:
        """A path in the folder."""
        return self._root() / f"{hashlib.sha256(name.encode()).hexdigest()}.partial"

    def keep(self, path: Path, media_type: str) -> StoredFile:
        """Move the file to its content's name."""
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = path.stat().st_size
        shutil.move(path, self._root() / digest)
        return StoredFile(str(self._root() / digest), digest, size, media_type)

    def find(self, sha256: str) -> str | None:
        """The file of this content."""
        path = self._root() / sha256
        return str(path) if path.exists() else None

    def _root(self) -> Path:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="muxly-files-"))
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        return self._folder


class OwnAnswers:
    """Answers in memory."""

    def __init__(self) -> None:
        self._kept: dict[str, KeptAnswer] = {}

    def read(self, name: str) -> KeptAnswer | None:
        """The answer kept under this name."""
        return self._kept.get(name)

    def keep(self, name: str, answer: KeptAnswer) -> None:
        """Keep it."""
        self._kept[name] = answer


@dataclass(frozen=True, slots=True)
class Services:
    """Everything lent. `turns` None: a client's own budgets are all there are."""

    files: Files = field(default_factory=OwnFiles)
    answers: Answers = field(default_factory=OwnAnswers)
    turns: Turns | None = None
