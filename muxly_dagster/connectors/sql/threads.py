"""Reading ahead: iterators' items, made on threads of their own while earlier ones are being used."""

import contextlib
import queue
import threading
from collections.abc import Callable, Generator, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


def side_by_side(makers: Sequence[Generator[T, Any, Any]], give_up: Callable[[], None]) -> Generator[T, None, None]:
    """The items of all, each maker's in their order; the first error of any ends it all. One item of each waits to be taken.

    Leaving early, also by an error, calls `give_up`, which has to end whatever the items are made from; afterwards nothing is running.
    """
    made: queue.SimpleQueue[tuple[threading.Semaphore, T] | BaseException | None] = queue.SimpleQueue()
    closed = threading.Event()

    def make(items: Generator[T, Any, Any], room: threading.Semaphore) -> None:
        end: BaseException | None = None
        try:
            for item in items:
                room.acquire()
                if closed.is_set():
                    break
                made.put((room, item))
        except BaseException as error:
            end = error
        # What was read from may be closed by now, and says so.
        with contextlib.suppress(Exception):
            items.close()
        made.put(end)

    rooms = [threading.Semaphore() for _ in makers]
    # Daemons: a process that ends while an iterator is left half read must not wait for them.
    threads = [threading.Thread(target=make, args=pair, name="muxly-sql", daemon=True) for pair in zip(makers, rooms, strict=True)]
    for thread in threads:
        thread.start()
    running = len(threads)
    try:
        while running:
            taken = made.get()
            if isinstance(taken, BaseException):
                running -= 1
                raise taken
            if taken is None:
                running -= 1
                continue
            room, item = taken
            room.release()
            yield item
    finally:
        if running:
            closed.set()
            for room in rooms:
                room.release()
            give_up()
        for thread in threads:
            thread.join()
