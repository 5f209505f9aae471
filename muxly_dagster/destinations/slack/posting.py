"""One delivery's messages on their way: channels side by side, one message after the other in each, at Slack's pace."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace

from muxly_dagster.destination import Delivery
from muxly_dagster.destinations.slack.answers import LOST, Refused
from muxly_dagster.destinations.slack.notes import Note, Posted
from muxly_dagster.destinations.slack.recalling import Recall
from muxly_dagster.destinations.slack.workspace import Hook, Made, Spot, Workspace
from muxly_dagster.errors import MuxlyError, RecordRefused
from muxly_dagster.messages import Settled

AT_ONCE = 100
"""Messages to one channel that one delivery sends: what is confirmed after so many need not be looked for after a crash."""


class Pace:
    """When the next message may go to a channel: `spacing` seconds after the one before, in this process. Called from several threads.

    https://docs.slack.dev/apis/web-api/rate-limits: one message per second and channel.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._next, self._lock = clock, dict[str, float](), threading.Lock()

    def turn(self, channel: str, spacing: float) -> float:
        """Take the next turn: the seconds until then."""
        with self._lock:
            now = self._clock()
            turn = max(now, self._next.get(channel, now))
            self._next[channel] = turn + spacing
            return turn - now


@dataclass(frozen=True, slots=True)
class Way:
    """How messages go: the channels' ids by name, whether the project names the channel (`fixed`) or the record, whether a message takes
    the place of the one before it, the seconds between two in a channel, and the channels at a time."""

    ids: Mapping[str, str]
    fixed: bool
    updating: bool
    spacing: float
    side_by_side: int


@dataclass(slots=True)
class Tally:
    """What was done, for people."""

    posted: int = 0
    updated: int = 0
    last: Spot = field(default_factory=Spot)


class Posting:
    """Sends notes, and tells `settled` and `recall` of each. `error` is what it met, if anything."""

    def __init__(self, wall: Workspace | Hook, delivery: Delivery, settled: Settled, recall: Recall, stop: threading.Event) -> None:
        self._wall, self._delivery, self._settled, self._recall, self._stop = wall, delivery, settled, recall, stop
        self._lock = threading.Lock()
        self.tally = Tally()
        self.error: MuxlyError | None = None
        self._bug: Exception | None = None

    def run(self, queues: Sequence[Sequence[Note]], make: Callable[[Note], Made], way: Way, pace: Pace) -> None:
        """Send what stands in the queues, each in its order, until one meets trouble."""
        with ThreadPoolExecutor(max(1, min(way.side_by_side, len(queues))), thread_name_prefix="muxly-slack") as threads:
            try:
                wait([threads.submit(self._queue, queue, make, way, pace) for queue in queues])
            finally:
                self._stop.set()
        if self._bug is not None:
            raise self._bug

    def _queue(self, queue: Sequence[Note], make: Callable[[Note], Made], way: Way, pace: Pace) -> None:
        for note in queue:
            try:
                made, channel = make(note), way.ids.get(note.channel, note.channel)
                if self._stop.wait(pace.turn(channel, way.spacing)):
                    return
                self._send(note, made, channel, way)
            except RecordRefused as refused:
                self._settled.refuse(note.seqs, refused.what)
            except MuxlyError as error:
                self._end(error)
                return
            except Exception as bug:
                self._bug = bug
                self._stop.set()
                return

    def _end(self, error: MuxlyError) -> None:
        with self._lock:
            self.error = self.error or error
        self._stop.set()

    def _send(self, note: Note, made: Made, channel: str, way: Way) -> None:
        says = Posted.of(note, self._delivery)
        try:
            spot, thread, updated = self._put(note, made, channel, says, way)
        except Refused as refused:
            raise refused.error(note.channel or "the webhook's channel", fixed=way.fixed) from None
        with self._lock:
            # A webhook tells no `ts`; the message is remembered all the same until it is confirmed.
            self._recall.add(replace(says, channel=spot.channel, ts=spot.ts or f"{says.alike}{says.last}", thread=thread or spot.ts))
            self.tally.posted += not updated
            self.tally.updated += updated
            self.tally.last = max(self.tally.last, spot, key=lambda each: each.ts)
        self._settled.accept(note.seqs)

    def _put(self, note: Note, made: Made, channel: str, says: Posted, way: Way) -> tuple[Spot, str, bool]:
        """Where the message stands now, the thread it stands in, and whether it took another one's place."""
        metadata = says.metadata(note.letter)
        while True:
            with self._lock:
                root = self._recall.root(channel, note.key) if note.key else None
            if root is None or isinstance(self._wall, Hook):
                return self._wall.post(channel, made, metadata), "", False
            try:
                if not way.updating:
                    return self._wall.post(channel, made, metadata, root.ts), root.ts, False
                spot = Spot(root.channel, root.ts)
                self._wall.update(spot, made, metadata)
                return spot, "", True
            except Refused as refused:
                if refused.code not in LOST:
                    raise
            with self._lock:
                self._recall.forget(root)  # somebody deleted it, or it may not be changed any more: the key begins anew
