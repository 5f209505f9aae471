"""One thread that stores what all requests of this process bring: whatever waits goes into one transaction, so many share one sync."""

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence

from muxly_dagster.api.collecting.tidying import Tidying
from muxly_dagster.errors import MuxlyError, RetryLater
from muxly_dagster.state.inbox import SharedInbox
from muxly_dagster.state.posts import Post

_log = logging.getLogger("muxly.api")

QUEUE = 64 << 20
"""Bytes that may wait for their transaction; more are told to come again."""

_GROUP = 8 << 20  # bytes of one transaction: those behind it do not wait for long

Done = Callable[[Post, Exception | None], None]
"""Is told that a post is durable, or what was wrong, in the loop that offered it."""

_Waiting = tuple[Post, int, asyncio.AbstractEventLoop, Done]


class Writer:
    """Stores posts in the order in which they come. Begun by the first one."""

    def __init__(self, inbox: SharedInbox, tidying: Tidying, queue: int = QUEUE) -> None:
        self._inbox, self._tidying, self._most = inbox, tidying, queue
        self._waiting: deque[_Waiting] = deque()
        self._queued = 0
        self._ready = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None

    async def put(self, post: Post) -> None:
        """Store a post; durable once this returns. Raises RetryLater where that cannot be done now, and nothing was stored then."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def done(_post: Post, error: Exception | None) -> None:
            if future.done():  # its client is gone
                return
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

        self.offer(post, done)
        await future

    def offer(self, post: Post, done: Done, held: int = 0) -> None:
        """Store a post, and tell of it once it is durable; `held` bytes are kept in memory for it until then.

        Raises RetryLater where that cannot be done now; nothing is told then.
        """
        size = max(post.size, held)
        if self._closed:
            raise RetryLater("the API is closing", do="send it again", after=1)
        if self._queued and self._queued + size > self._most:
            raise RetryLater("more events come in than can be stored", do="send them again, and fewer at a time", after=1)
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="muxly-inbox", daemon=True)
            thread.start()
            self._thread = thread
            self._tidying.begin()
        self._queued += size
        self._waiting.append((post, size, asyncio.get_running_loop(), done))
        if not self._ready.is_set():
            self._ready.set()

    @property
    def queued(self) -> int:
        """About how many bytes wait for their transaction, or are in one."""
        return self._queued

    def close(self) -> None:
        """Store what waits, and end."""
        self._closed = True
        self._ready.set()
        if self._thread is not None:
            self._thread.join()
        self._tidying.close()

    def _run(self) -> None:
        while True:
            self._ready.wait()
            self._ready.clear()
            while group := self._group():
                self._store(group)
            if self._closed:
                return

    def _group(self) -> list[_Waiting]:
        """What goes into the next transaction: at least one where any waits."""
        group: list[_Waiting] = []
        size = 0
        while self._waiting and (not group or size + self._waiting[0][1] <= _GROUP):
            group.append(self._waiting.popleft())
            size += group[-1][1]
        return group

    def _store(self, group: Sequence[_Waiting]) -> None:
        error: Exception | None = None
        try:
            self._inbox.put([post for post, _, _, _ in group])
        except MuxlyError as trouble:
            # Whatever is wrong with the database, the sender is to keep its events and come again.
            error = RetryLater(trouble.what, do=trouble.do, after=5)
            _log.warning("%d requests could not be stored: %s", len(group), trouble)
        except Exception as trouble:
            if len(group) > 1:  # one of them cannot be stored: the others are not to suffer for it
                for each in group:
                    self._store([each])
                return
            _log.exception("a request could not be stored")
            error = trouble
        if self._inbox.untidy:
            self._tidying.soon()
        for loop in {loop for _, _, loop, _ in group}:
            with contextlib.suppress(RuntimeError):  # a loop that is closed: nobody waits for an answer any more
                loop.call_soon_threadsafe(self._answer, [each for each in group if each[2] is loop], error)

    def _answer(self, group: Sequence[_Waiting], error: Exception | None) -> None:
        for post, size, _, done in group:
            self._queued -= size
            try:
                done(post, error)
            except Exception:  # the others are to hear of theirs
                _log.exception("a request could not be answered")
