"""Requests that wait until their events are in the lake: the inbox has let go of them then."""

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool

from muxly_dagster.errors import RetryLater
from muxly_dagster.state.inbox import SharedInbox

_SECONDS_BETWEEN_LOOKS = 0.1
_MOST = 2000

Places = Mapping[tuple[str, str], int]
"""Seqs of parcels, by source and stream."""


@dataclass(slots=True)
class _Wait:
    upto: Places
    future: "asyncio.Future[None]"


class Storing:
    """Asks for all that wait at once."""

    def __init__(self, inbox: SharedInbox) -> None:
        self._inbox = inbox
        self._waits: list[_Wait] = []
        self._looking: asyncio.Task[None] | None = None

    async def stored(self, upto: Places, timeout: float) -> bool:
        """Whether these parcels are in the lake, now or within so many seconds. Raises RetryLater where too many wait."""
        if not upto:
            return True
        if len(self._waits) >= _MOST:
            raise RetryLater("too many requests wait until their events are stored", do="do not wait for it: the events are safe", after=5)
        loop = asyncio.get_running_loop()
        wait = _Wait(upto, loop.create_future())
        self._waits.append(wait)
        if self._looking is None or self._looking.done() or self._looking.get_loop() is not loop:
            self._looking = asyncio.create_task(self._look())
        try:
            async with asyncio.timeout(timeout):
                await wait.future
            return True
        except TimeoutError:
            return False
        finally:
            self._waits.remove(wait)

    async def upto(self, streams: list[tuple[str, str]]) -> Places:
        """The newest parcels of these streams that wait: what was known for a repetition lies in one of them, if in any."""
        ends = await run_in_threadpool(self._inbox.ends, streams)
        return {stream: high for stream, (_, high) in ends.items()}

    async def _look(self) -> None:
        while self._waits:
            waits = list(self._waits)
            with contextlib.suppress(RetryLater):  # they go on waiting
                ends = await run_in_threadpool(self._inbox.ends, {stream for wait in waits for stream in wait.upto})
                for wait in waits:
                    gone = all(stream not in ends or ends[stream][0] > seq for stream, seq in wait.upto.items())
                    if gone and not wait.future.done():
                        wait.future.set_result(None)
            await asyncio.sleep(_SECONDS_BETWEEN_LOOKS)
