"""A bad line: a TCP proxy between a client and a server, both on loopback, that delays, slows, cuts, resets or garbles what comes back.

with Line(server.port) as line:
    line.then(cut(1_000), reset(0), ok)   # the next connections, one each; the last one repeats
    client.get(line.url)
"""

import asyncio
import socket
import struct
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

_NOISE = b"\x00\xff\x13 this is no answer\r\n\r\n" * 9
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER with no time to linger: the kernel sends RST instead of FIN
_BLOCK = 16_384
_MOMENT = 0.02


@dataclass(frozen=True, slots=True)
class Fault:
    """What becomes of one connection. `amount` is bytes, seconds or bytes per second, whatever the kind needs."""

    kind: Literal["ok", "refuse", "blackhole", "garbage", "delay", "slow", "cut", "reset", "cut_sent", "reset_sent"]
    amount: float = 0.0


ok = Fault("ok")
"""Everything goes through."""

refuse = Fault("refuse")
"""The connection is closed as soon as it is there."""

blackhole = Fault("blackhole")
"""Whatever is sent is taken, and nothing ever comes back."""

garbage = Fault("garbage")
"""Something that is no protocol comes back."""


def delay(seconds: float) -> Fault:
    """The first byte of the answer comes so much later."""
    return Fault("delay", seconds)


def slow(bytes_per_second: float) -> Fault:
    """The answer trickles."""
    return Fault("slow", bytes_per_second)


def cut(after: int) -> Fault:
    """The connection is closed after so many bytes of answers."""
    return Fault("cut", after)


def reset(after: int) -> Fault:
    """The connection is reset (RST) after so many bytes of answers."""
    return Fault("reset", after)


def cut_sent(after: int) -> Fault:
    """The connection is closed after so many bytes that the client sent: the server sees only those."""
    return Fault("cut_sent", after)


def reset_sent(after: int) -> Fault:
    """The connection is reset after so many bytes that the client sent: the server sees only those."""
    return Fault("reset_sent", after)


class Line:
    """A proxy on a free port of 127.0.0.1 to a port of the same machine, in a thread of its own, until the block ends."""

    def __init__(self, port: int, *faults: Fault) -> None:
        self._target = port
        self._plan: list[Fault] = list(faults) or [ok]
        self._lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.connections = 0
        """How many connections came so far."""

    @property
    def url(self) -> str:
        """The proxy's address, for HTTP."""
        return f"http://127.0.0.1:{self.port}"

    def then(self, *faults: Fault) -> None:
        """What becomes of the next connections, one each; the last one repeats."""
        with self._lock:
            self._plan = list(faults)

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(asyncio.start_server(self._serve, "127.0.0.1", 0), self._loop).result()
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _close(self) -> None:
        self._server.close()
        running = asyncio.all_tasks() - {asyncio.current_task()}
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await asyncio.sleep(0)  # closed connections let go of their sockets in the loop's next round

    def _next(self) -> Fault:
        with self._lock:
            self.connections += 1
            return self._plan.pop(0) if len(self._plan) > 1 else self._plan[0]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        fault = self._next()
        try:
            match fault.kind:
                case "refuse":
                    pass
                case "blackhole":
                    await reader.read(-1)
                case "garbage":
                    await reader.read(1_000)
                    writer.write(_NOISE)
                    await writer.drain()
                case _:
                    await self._through(fault, reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # one of the two ends hung up, or the block is over
        finally:
            writer.close()

    async def _through(self, fault: Fault, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._target)
        sent = _allowance(fault, "cut_sent", "reset_sent")
        came = _allowance(fault, "cut", "reset")
        ways = [
            asyncio.create_task(_pump(reader, up_writer, sent)),
            asyncio.create_task(_pump(up_reader, writer, came, fault)),
        ]
        try:
            # The answer's end is the end; so is a limit that was reached on either way.
            finished, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            if ways[1] not in finished and not ways[0].exception() and not ways[0].result():
                await ways[1]
            await asyncio.sleep(_MOMENT)  # lets what was passed on arrive before the end does
            if fault.kind.startswith("reset"):
                _reset(writer)
        finally:
            up_writer.close()
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)


def _allowance(fault: Fault, *kinds: str) -> int | None:
    return int(fault.amount) if fault.kind in kinds else None


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, most: int | None, fault: Fault = ok) -> bool:
    """Pass bytes on until there are no more, or `most` have gone. Answers whether it was the limit that ended it."""
    passed = 0
    block = max(1, int(fault.amount / 10)) if fault.kind == "slow" else _BLOCK
    while most is None or passed < most:
        data = await reader.read(block if most is None else min(block, most - passed))
        if not data:
            if writer.can_write_eof():
                writer.write_eof()
            return False
        if fault.kind == "delay" and not passed:
            await asyncio.sleep(fault.amount)
        writer.write(data)
        await writer.drain()
        passed += len(data)
        if fault.kind == "slow":
            await asyncio.sleep(len(data) / fault.amount)
    return True


def _reset(writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    writer.transport.abort()
