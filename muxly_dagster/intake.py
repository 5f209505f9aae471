"""What comes in by HTTP and waits until somebody pulls it: parcels of collected events, and calls of webhooks."""

import contextlib
import datetime as dt
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Parcel:
    """Events of one stream that were accepted together, durable and in order.

    `body` holds one JSON object a line, `ids` the id of each, in the same order. `refused` are pairs of text and reason: what a JSON Schema
    of the stream did not allow, kept for quarantine. `seq` grows from parcel to parcel of a stream, with gaps.
    """

    seq: int
    received_at: dt.datetime
    ids: tuple[str, ...]
    body: bytes
    refused: tuple[tuple[str, str], ...] = ()


class Inbox(Protocol):
    """Holds collected events until they are in the lake. Raises RetryLater."""

    def parcels(self, source: str, stream: str, after: int, limit: int) -> Sequence[Parcel]:
        """The next parcels of a stream behind the seq `after`, in order: about `limit` bytes of them, at least one if there is any."""

    def let_go(self, source: str, stream: str, upto: int) -> None:
        """Delete the parcels up to this seq: they are in the lake."""

    def waiting(self, source: str) -> Mapping[str, int]:
        """How many events of each stream of a source wait, the refused ones among them; streams of which none does are left out."""

    def ends(self, streams: Iterable[tuple[str, str]]) -> Mapping[tuple[str, str], tuple[int, int]]:
        """The lowest and highest seq of what waits in these streams, by source and stream; those in which nothing does are left out."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a job's webhook, verified and durable. `headers` have lower-case names and nothing that signs in.

    `delivery_id` is the sender's own id of it (where it gives none: a hash of what it sent), `id` a UUID made of job and delivery id.
    `seq` grows from call to call, with gaps.
    """

    seq: int
    id: str
    job: str
    delivery_id: str
    received_at: dt.datetime
    headers: Mapping[str, str]
    query: str
    body: bytes


class Calls(Protocol):
    """Remembers the calls of webhooks. Raises RetryLater."""

    def after(self, job: str, seq: int, limit: int) -> Sequence[Call]:
        """The next calls of a job's webhook behind a seq, in order: at most `limit`, fewer where they are large."""

    def jobs(self) -> Sequence[str]:
        """The jobs that calls are kept of, by name."""


_STARTED_BY: ContextVar[Callable[[], Iterable[Call]]] = ContextVar("started_by", default=tuple)


@contextlib.contextmanager
def started_by(calls: Callable[[], Iterable[Call]]) -> Iterator[None]:
    """Let what runs in the block know by which calls its run was started; they are read when somebody asks."""
    token = _STARTED_BY.set(calls)
    try:
        yield
    finally:
        _STARTED_BY.reset(token)


def current_calls() -> list[Call]:
    """The calls that the run under way was started by, in order; none where something else started it."""
    return list(_STARTED_BY.get()())


@dataclass
class OwnInbox:
    """An inbox in memory."""

    kept: dict[tuple[str, str], list[Parcel]] = field(default_factory=dict)

    def put(self, source: str, stream: str, lines: Iterable[bytes], *, refused: Sequence[tuple[str, str]] = ()) -> Parcel:
        """Accept events, one JSON object each; answers their parcel."""
        events = list(lines)
        there = self.kept.setdefault((source, stream), [])
        seq = max((parcel.seq for parcels in self.kept.values() for parcel in parcels), default=0) + 1
        ids = tuple(f"{seq}-{number}" for number in range(len(events)))
        there.append(Parcel(seq, dt.datetime.now(dt.UTC), ids, b"\n".join(events), tuple(refused)))
        return there[-1]

    def parcels(self, source: str, stream: str, after: int, limit: int) -> Sequence[Parcel]:
        """In order."""
        behind = [parcel for parcel in self.kept.get((source, stream), []) if parcel.seq > after]
        sizes = itertools.accumulate((len(parcel.body) for parcel in behind), initial=0)
        return [parcel for parcel, before in zip(behind, sizes, strict=False) if before < limit]

    def let_go(self, source: str, stream: str, upto: int) -> None:
        """Forget them."""
        self.kept[source, stream] = [parcel for parcel in self.kept.get((source, stream), []) if parcel.seq > upto]

    def waiting(self, source: str) -> Mapping[str, int]:
        """By stream."""
        counts = {stream: sum(len(p.ids) + len(p.refused) for p in parcels) for (of, stream), parcels in self.kept.items() if of == source}
        return {stream: count for stream, count in counts.items() if count}

    def ends(self, streams: Iterable[tuple[str, str]]) -> Mapping[tuple[str, str], tuple[int, int]]:
        """The first and last."""
        return {each: (self.kept[each][0].seq, self.kept[each][-1].seq) for each in streams if self.kept.get(each)}


@dataclass
class OwnCalls:
    """Calls in memory."""

    kept: list[Call] = field(default_factory=list)

    def after(self, job: str, seq: int, limit: int) -> Sequence[Call]:
        """In order."""
        return [call for call in self.kept if call.job == job and call.seq > seq][:limit]

    def jobs(self) -> Sequence[str]:
        """Each once."""
        return sorted({call.job for call in self.kept})
