"""How events come in, whatever a sender's protocol: a body within limits, events of known streams, one durable commit, a receipt.

A route reads the body (`body`), has it read into `Gathered` by one of `muxly_dagster.collecting`, and gives these to `accept`.
"""

import datetime as dt
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import anyio.to_thread
import orjson
from starlette.requests import Request

from muxly_dagster.api.collecting import receipts
from muxly_dagster.api.collecting.known import Known, Looking, Taking
from muxly_dagster.api.collecting.rates import Rates
from muxly_dagster.api.collecting.storing import Storing
from muxly_dagster.api.collecting.tidying import Tidying
from muxly_dagster.api.collecting.writing import Writer
from muxly_dagster.api.problems import ApiError, not_found
from muxly_dagster.api.receiving import SHORT, Hold, Room, received, too_large
from muxly_dagster.assembly import Assembly
from muxly_dagster.collecting import Gathered, TooLarge, UnknownType, Unreadable
from muxly_dagster.collecting.encodings import ACCEPTED, decoded
from muxly_dagster.collecting.limits import Limits, size_of
from muxly_dagster.collecting.sifting import refuse, sift
from muxly_dagster.errors import ConfigurationError, RetryLater
from muxly_dagster.measures import parse_duration
from muxly_dagster.project.checks import did_you_mean
from muxly_dagster.state import State
from muxly_dagster.state.posts import Part, Post, request_mark

INBOX = 10 << 30
"""Bytes that wait in the inbox until no more are taken, unless MUXLY_INBOX_BYTES says otherwise."""

REMEMBER = dt.timedelta(days=7)
"""How long ids and Idempotency-Keys are remembered, unless MUXLY_COLLECT_REMEMBER says otherwise."""

LARGE = 128 << 10
"""Bytes: a body of that size is read in a thread, so that others do not wait for it."""

UNSTORED = "unstored"
"""In the state of a request whose events were to be stored before it came to its route: the error because of which they were not."""

_BODIES = 256 << 20  # bytes of bodies that are held in memory at a time
_UNPROVEN = 128 << 20  # and beside them, of senders who have not proven yet who they are
_AT_ONCE = 4
_HUGE = 16 << 20  # bytes: only one body of that size is read at a time, as it can take a gigabyte for a moment

T = TypeVar("T")
"""What a reader makes of a body."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A receipt, and whether it is that of an earlier request which this one repeats; `upto` are the parcels that hold the events."""

    receipt: dict[str, Any]
    replayed: bool = False
    upto: Mapping[tuple[str, str], int] = field(default_factory=dict)


class Collecting:
    """What all collecting routes of one process share."""

    def __init__(self, state: State, assembly: Callable[[], Assembly], environ: Mapping[str, str]) -> None:
        self.limits = Limits.from_environ(environ)
        self._most = size_of(environ, "MUXLY_INBOX_BYTES", INBOX)
        self.writer = Writer(state.inbox, Tidying(state.inbox, _remember(environ)))
        self.storing = Storing(state.inbox)
        self.rates = Rates()
        self._looking = Looking(state, assembly)
        self._room, self._lobby = Room(_BODIES), Room(_UNPROVEN, SHORT)
        self._large: anyio.CapacityLimiter | None = None
        self._huge: anyio.CapacityLimiter | None = None

    def believed(self) -> Known | None:
        """Streams and keys, without waiting; None where that cannot be, or where the inbox is full."""
        known = self._looking.believed
        return known if known is not None and known.size <= self._most else None

    async def known(self) -> Known:
        """Streams and keys. Raises RetryLater where the database cannot be asked."""
        return await self._looking.known()

    async def known_anew(self) -> Known:
        """The same, with what was declared or made a moment ago."""
        return await self._looking.anew()

    def hold(self, *, proven: bool = True) -> Hold:
        """What one request holds in memory, to be opened around reading its body and whatever is made of it.

        Whoever has not `proven` yet who he is has less room, and takes none from those who have.
        """
        return (self._room if proven else self._lobby).hold()

    async def body(self, request: Request, hold: Hold, most: int = 0) -> bytes:
        """The body of a request, with its content coding undone; `most` bytes, where that is less than the limit.

        Raises ApiError (400, 408, 413, 415) for one that cannot be used, RetryLater where too many are held; and why it was not stored
        before it came here.
        """
        unstored: Exception | None = request.scope["state"].get(UNSTORED)
        if unstored is not None:
            raise unstored
        most = min(most or self.limits.body, self.limits.body)
        body = await received(request, hold, most)
        encoding = request.headers.get("content-encoding", "")
        if encoding:
            body = await self.read(len(body) * 4, lambda: decoded(body, encoding, most))
            hold.add(len(body))
        return body

    async def read(self, size: int, reader: Callable[[], T]) -> T:
        """What a reader makes of a body of so many bytes: at once, or in a thread where it takes long. Raises ApiError (400, 413, 415)."""
        try:
            if size < LARGE:
                return reader()
            if self._large is None or self._huge is None:
                self._large, self._huge = anyio.CapacityLimiter(_AT_ONCE), anyio.CapacityLimiter(1)
            return await anyio.to_thread.run_sync(reader, limiter=self._large if size < _HUGE else self._huge)
        except TooLarge as error:
            raise too_large(str(error)) from None
        except UnknownType as error:
            raise ApiError(415, "Unsupported media type", str(error), accept_encoding=ACCEPTED) from None
        except Unreadable as error:
            raise ApiError(400, "The body cannot be read", str(error), do="correct it; nothing of it was kept") from None

    async def taking(self, source: str, stream: str) -> Taking:
        """How events of a stream are taken. Raises ApiError (404) for a stream that no pull reads."""
        found = (await self.known()).streams.get((source, stream))
        if found is None:
            known = await self.known_anew()
            found = known.streams.get((source, stream))
            if found is None:
                raise _no_stream(known, source, stream)
        return found

    async def accept(
        self,
        source: str,
        gathered: Sequence[Gathered],
        *,
        body: bytes = b"",
        key: str = "",
        place: str = "",
        ids: bool = False,
    ) -> Accepted:
        """Store events; they are durable when this returns.

        `key` is the request's Idempotency-Key, which counts for a `place` (such as the stream) of the source; `body` what was sent with
        it. Raises ApiError (400) where nothing can be taken, (404) for unknown streams, (422) for a key that came with another body;
        RetryLater where nothing can be stored now.
        """
        known = await self.known()
        if known.size > self._most:
            raise RetryLater(
                f"the inbox holds more than {self._most:,} bytes that nobody has pulled",
                do="see that the pulls of the collector run; MUXLY_INBOX_BYTES sets the limit",
                after=10,
            )
        takings = [known.streams.get((source, each.stream)) or await self.taking(source, each.stream) for each in gathered]
        size = sum(each.lines.size for each in gathered)
        if size < LARGE:
            parts, errors = self._parts(source, gathered, takings)
        else:
            parts, errors = await self.read(size, lambda: self._parts(source, gathered, takings))
        if not any(part.lines or part.refused for part in parts):
            rejected = [(each.index, each.reason) for part in gathered for each in part.rejected]
            if rejected:
                raise _nothing(rejected)
            return Accepted(receipts.write([], gathered, ()))
        post = Post(source, parts)
        if key or (body and all(each.repeatable and not any(each.ids) for each in gathered)):
            post.fingerprint = hashlib.blake2b(body, digest_size=16).digest()
            post.key = request_mark(source, place, f"key:{key}" if key else f"body:{post.fingerprint.hex()}")
            post.receipt = lambda post: receipts.to_json(receipts.write(post.kept, gathered, errors)).decode()
        await self.writer.put(post)
        if post.earlier is not None:
            return _earlier(post, gathered)
        said = receipts.write(post.kept, gathered, errors)
        if ids:
            said["ids"] = [id for part in parts for id in part.ids]
        upto = {(source, part.stream): kept.seq for part, kept in zip(parts, post.kept, strict=True)}
        return Accepted(said, upto=upto)

    def close(self) -> None:
        """Store what waits."""
        self.writer.close()

    def _parts(self, source: str, gathered: Sequence[Gathered], takings: Sequence[Taking]) -> tuple[list[Part], list[tuple[int, str]]]:
        parts, errors = [], []
        for each, taking in zip(gathered, takings, strict=True):
            sift(each, self.limits)
            refused = refuse(each, taking.fault) if taking.fault is not None else []
            errors += [(index, reason) for index, _, reason in refused]
            parts.append(Part.of(source, each, [(text, reason) for _, text, reason in refused]))
        return parts, errors


def _earlier(post: Post, gathered: Sequence[Gathered]) -> Accepted:
    assert post.earlier is not None
    fingerprint, receipt = post.earlier
    if fingerprint != post.fingerprint:
        raise ApiError(
            422,
            "This key was used",
            "another body came with this Idempotency-Key before",
            do="use a new key for new events, and the same one only to repeat a request",
        )
    upto = {(post.source, each.stream): 0 for each in gathered}
    return Accepted(orjson.loads(receipt), replayed=True, upto=upto)


def _remember(environ: Mapping[str, str]) -> dt.timedelta:
    text = environ.get("MUXLY_COLLECT_REMEMBER", "")
    try:
        return parse_duration(text) if text else REMEMBER
    except ValueError as error:
        raise ConfigurationError(f"MUXLY_COLLECT_REMEMBER is {text!r}: it {error}", do="write it like 7d or 12h") from None


def _nothing(rejected: Sequence[tuple[int, str]]) -> ApiError:
    said = receipts.told(rejected)
    what = said[0]["reason"] if len(rejected) == 1 else f"none of the {len(rejected)} items can be taken"
    return ApiError(400, "Nothing in it is an event", what, do="correct the items; nothing was kept", errors=said)


def _no_stream(known: Known, source: str, stream: str) -> ApiError:
    sources = known.sources()
    if source not in sources:
        near = did_you_mean(source, sources) if sources else ""
        return not_found(
            f"no collector named {source} is in the project",
            near or f"add it to muxly.yaml: `sources: {{{source}: {{connector: collector, pulls: {{{stream}: {{}}}}}}}}`",
        )
    return not_found(
        f"no pull of {source} reads the stream {stream}", f"add it to muxly.yaml, under `sources: {source}: pulls:`, as `{stream}: {{}}`"
    )
