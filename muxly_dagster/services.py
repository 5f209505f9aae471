"""What the runtime lends to connectors and destinations: a place for files, answers kept for later, rate budgets shared between
processes, the values of metrics, and what came in by HTTP.

Each has a form that lives in this process alone, for tests and for whoever uses a connector by itself.
"""

import contextlib
import copy
import hashlib
import shutil
import tempfile
import threading
import weakref
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from muxly_dagster.intake import Calls, Inbox, OwnCalls, OwnInbox


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


@dataclass(frozen=True, slots=True)
class Series:
    """One time series of a metric as a target's records made it. Times are milliseconds since 1970.

    `labels` are pairs of name and value, sorted. `value` is a gauge's value, a counter's total, else the sum of what was observed, `count`
    how many changes are in it, `buckets` pairs of an upper bound and the observations above the bound before it. `seq` is the newest change
    in it, `at` that change's time, and `owner` (32 characters at most) stands for the key whose record gave a gauge its value.
    Where samples are written to a receiver, `sample_at` is the time of the newest one that may have got there, `sent_at` of the newest
    that was confirmed, and `gone` says that the series has ended.
    """

    metric: str
    kind: str
    labels: tuple[tuple[str, str], ...]
    value: float = 0.0
    count: int = 0
    buckets: tuple[tuple[float, int], ...] = ()
    seq: int = 0
    owner: str = ""
    at: int = 0
    sample_at: int = 0
    sent_at: int = 0
    created_at: int = 0
    gone: bool = False


class MetricBook(Protocol):
    """The values that one target's records made, within one transaction."""

    def held(self) -> tuple[str, int | None] | None:
        """The lake table that the values are made of and the last seq that was taken; None before the first delivery."""

    def move(self, table_id: str, seq: int | None) -> None:
        """Set both; a seq of None has everything delivered again."""

    def definitions(self) -> Mapping[str, str]:
        """By metric, what its values are made by."""

    def define(self, metric: str, definition: str | None) -> None:
        """Begin a metric anew, or forget it (None): which changes and keys it counted is forgotten; its series are the caller's to end."""

    def series(self, metric: str | None = None) -> list[Series]:
        """All series, or those of one metric."""

    def find(self, metric: str, labels: Collection[tuple[tuple[str, str], ...]], owners: Collection[str] = ()) -> list[Series]:
        """The series of a metric that have these labels, or a value from one of these keys."""

    def gone(self) -> list[Series]:
        """The series that have ended and are kept until the receiver knows, and a little longer."""

    def size(self, metric: str) -> int:
        """How many series a metric has, without those that are gone."""

    def save(self, series: Iterable[Series]) -> None:
        """Keep series in place of those of the same metric and labels."""

    def remove(self, series: Iterable[Series]) -> None:
        """Forget series."""

    def counted(self, metric: str, chunks: Collection[int]) -> dict[int, bytes]:
        """Which changes a metric holds: 65,536 bits for each of these chunks of the lake table's changes that has any."""

    def mark(self, metric: str, chunk: int, bits: bytes) -> None:
        """Write the bits of one chunk."""

    def known(self, metric: str, keys: Collection[str]) -> set[str]:
        """Those of these keys (32 characters at most) that a metric has counted."""

    def learn(self, metric: str, keys: Collection[str]) -> None:
        """Note that a metric has counted these keys."""


class MetricStore(Protocol):
    """Keeps the values of metrics. Raises RetryLater."""

    def open(self, target: str) -> contextlib.AbstractContextManager[MetricBook]:
        """A transaction over one target's values: written as a whole when the block ends, and not at all when it raises."""


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


@dataclass
class OwnMetricBook:
    """One target's values in memory."""

    position: tuple[str, int | None] | None = None
    defined: dict[str, str] = field(default_factory=dict)
    kept: dict[tuple[str, tuple[tuple[str, str], ...]], Series] = field(default_factory=dict)
    bits: dict[tuple[str, int], bytes] = field(default_factory=dict)
    keys: dict[str, set[str]] = field(default_factory=dict)

    def held(self) -> tuple[str, int | None] | None:
        """Table and seq."""
        return self.position

    def move(self, table_id: str, seq: int | None) -> None:
        """Set both."""
        self.position = table_id, seq

    def definitions(self) -> Mapping[str, str]:
        """By metric."""
        return dict(self.defined)

    def define(self, metric: str, definition: str | None) -> None:
        """Forget what was counted."""
        self.defined.pop(metric, None)
        self.keys.pop(metric, None)
        self.bits = {place: bits for place, bits in self.bits.items() if place[0] != metric}
        if definition is not None:
            self.defined[metric] = definition

    def series(self, metric: str | None = None) -> list[Series]:
        """Those of a metric."""
        found = [series for series in self.kept.values() if metric in (None, series.metric)]
        return sorted(found, key=lambda series: (series.metric, series.labels))

    def find(self, metric: str, labels: Collection[tuple[tuple[str, str], ...]], owners: Collection[str] = ()) -> list[Series]:
        """By labels or owner."""
        wanted, of = set(labels), set(owners)
        return [series for series in self.series(metric) if series.labels in wanted or series.owner in of]

    def gone(self) -> list[Series]:
        """Those that are gone."""
        return [series for series in self.kept.values() if series.gone]

    def size(self, metric: str) -> int:
        """Those that are not gone."""
        return sum(not series.gone for series in self.series(metric))

    def save(self, series: Iterable[Series]) -> None:
        """By metric and labels."""
        self.kept |= {(each.metric, each.labels): replace(each) for each in series}

    def remove(self, series: Iterable[Series]) -> None:
        """By metric and labels."""
        for each in series:
            self.kept.pop((each.metric, each.labels), None)

    def counted(self, metric: str, chunks: Collection[int]) -> dict[int, bytes]:
        """The bits."""
        return {chunk: self.bits[metric, chunk] for chunk in chunks if (metric, chunk) in self.bits}

    def mark(self, metric: str, chunk: int, bits: bytes) -> None:
        """Set the bits."""
        self.bits[metric, chunk] = bits

    def known(self, metric: str, keys: Collection[str]) -> set[str]:
        """Keys that were learnt."""
        return self.keys.get(metric, set()).intersection(keys)

    def learn(self, metric: str, keys: Collection[str]) -> None:
        """Learn keys."""
        self.keys.setdefault(metric, set()).update(keys)


class OwnMetrics:
    """Values in memory."""

    def __init__(self) -> None:
        self._books: dict[str, OwnMetricBook] = {}
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def open(self, target: str) -> Iterator[MetricBook]:
        """A copy, which takes the place of the book when nothing failed."""
        with self._lock:
            book = copy.deepcopy(self._books.get(target, OwnMetricBook()))
            yield book
            self._books[target] = book


@dataclass(frozen=True, slots=True)
class Services:
    """Everything lent. `turns` None: a client's own budgets are all there are. `source` is the name that a connector goes by in its
    project, under which the inbox holds what was sent to it."""

    files: Files = field(default_factory=OwnFiles)
    answers: Answers = field(default_factory=OwnAnswers)
    turns: Turns | None = None
    metrics: MetricStore = field(default_factory=OwnMetrics)
    inbox: Inbox = field(default_factory=OwnInbox)
    calls: Calls = field(default_factory=OwnCalls)
    source: str = ""
