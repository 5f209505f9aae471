"""What collecting goes by, as it stood a moment ago: streams and their settings, write keys, and whether the inbox has room.

Requests come by the thousand a second, so none of them asks the database: a look is taken beside them, about once a second while any
come, and waited for only where the last one is too long ago to be believed, such as for a key that was revoked since.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.concurrency import run_in_threadpool

from muxly_dagster.assembly import Assembly
from muxly_dagster.collecting.sifting import fault_by
from muxly_dagster.errors import ConfigurationError, MuxlyError, RetryLater
from muxly_dagster.project.checks import did_you_mean
from muxly_dagster.state import State
from muxly_dagster.state.keys import WriteKey

_BETWEEN, _FRESH, _BELIEVED = 0.1, 1.0, 3.0  # seconds
_CONNECTOR = "collector"


@dataclass(frozen=True, slots=True)
class Taking:
    """How events of one stream are taken: the field of their ids ("" for none), and what their JSON Schema has against one."""

    id: str = "id"
    fault: Callable[[Any], str] | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """One look. `keys` are those that open something, by their hashes; `guarded` says that there are or were any. `size` is that of the
    inbox in bytes; `at` the time of the look (`time.monotonic()`)."""

    streams: Mapping[tuple[str, str], Taking] = field(default_factory=dict)
    keys: Mapping[str, WriteKey] = field(default_factory=dict)
    guarded: bool = False
    size: int = 0
    at: float = float("-inf")

    def sources(self) -> list[str]:
        """The sources that events can be posted to."""
        return list(dict.fromkeys(source for source, _ in self.streams))


class Looking:
    """Holds the last look and takes the next one."""

    def __init__(self, state: State, assembly: Callable[[], Assembly]) -> None:
        self._state, self._assembly = state, assembly
        self._known = Known()
        self._read: Assembly | None = None
        self._streams: Mapping[tuple[str, str], Taking] = {}
        self._look: asyncio.Task[None] | None = None

    @property
    def believed(self) -> Known | None:
        """What is known, if that needs no waiting for a look; one is begun where it is due."""
        age = time.monotonic() - self._known.at
        if age > _FRESH:
            self._begun()
        return self._known if age <= _BELIEVED else None

    async def known(self) -> Known:
        """What is known, some seconds old at the most. Raises RetryLater where the database cannot be asked."""
        if self.believed is None:
            await _over(self._begun())
        return self._known

    async def anew(self) -> Known:
        """What is known by a look that was not begun before this: for what is not known yet. Raises RetryLater.

        Looks are not taken more than ten times a second, so whoever asks for nonsense waits.
        """
        asked = time.monotonic()
        while self._known.at < asked:
            await asyncio.sleep(max(0.0, self._known.at + _BETWEEN - time.monotonic()))
            await _over(self._begun())
        return self._known

    def _begun(self) -> "asyncio.Task[None]":
        """The look under way."""
        if self._look is None or self._look.done() or self._look.get_loop() is not asyncio.get_running_loop():
            self._look = asyncio.create_task(self._again())
        return self._look

    async def _again(self) -> None:
        began = time.monotonic()
        try:
            self._known = await run_in_threadpool(self._taken, began)
        except MuxlyError:
            if self._look is not None:
                self._look.add_done_callback(lambda look: look.exception())  # told to whoever waits; nobody may
            raise

    def _taken(self, at: float) -> Known:
        assembly = self._assembly()
        if assembly is not self._read:
            self._streams, self._read = _streams(assembly), assembly
        keys = self._state.keys.all()
        size = self._state.inbox.size()
        return Known(self._streams, {key.hash: key for key in keys if key.revoked_at is None}, bool(keys), size, at)


async def _over(look: "asyncio.Task[None]") -> None:
    try:
        await asyncio.shield(look)
    except MuxlyError as error:
        raise RetryLater(error.what, do=error.do, after=5) from None


def check_scope(assembly: Assembly, source: str, streams: Sequence[str]) -> None:
    """Raises ConfigurationError for a source or streams that nobody can post to."""
    sources = [name for name, each in assembly.sources.items() if each.id == _CONNECTOR]
    if source not in sources:
        do = did_you_mean(source, sources) or f"add one to muxly.yaml: `sources: {{{source}: {{connector: collector, pulls: [events]}}}}`"
        raise ConfigurationError(f"no collector named {source} is in the project", do=do)
    known = [pull.stream.name for pull in assembly.pulls.values() if pull.source == source]
    for stream in streams:
        if stream not in known:
            raise ConfigurationError(f"no pull of {source} reads the stream {stream}", do=did_you_mean(stream, known))


def _streams(assembly: Assembly) -> dict[tuple[str, str], Taking]:
    """The streams that the project's pulls read."""
    found = {}
    for pull in assembly.pulls.values():
        if pull.connector.id == _CONNECTOR:
            schema = getattr(pull.settings, "json_schema", None)
            taking = Taking(getattr(pull.settings, "id", "id"), fault_by(schema) if schema else None)
            found[pull.source, pull.stream.name] = taking
    return found
