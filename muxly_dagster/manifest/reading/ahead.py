"""Reading ahead: an iterator's items, made on a thread of their own while the last one is being used."""

import queue
import threading
from collections.abc import Callable, Generator, Iterator
from typing import TypeVar

T = TypeVar("T")


class _End(Exception):
    """There are no more items."""


def read_ahead(items: Iterator[T], give_up: Callable[[], None]) -> Generator[T, None, None]:
    """The items in their order; what making one raises is raised at its place. At most one item waits to be taken.

    Closing the iterator early calls `give_up`, which has to end whatever the items are made from; afterwards nothing is running.
    """
    made: queue.SimpleQueue[tuple[T] | BaseException] = queue.SimpleQueue()
    room = threading.Semaphore()
    closed = threading.Event()

    def make() -> None:
        try:
            for item in items:
                room.acquire()
                if closed.is_set():
                    return
                made.put((item,))
            made.put(_End())
        except BaseException as error:
            made.put(error)

    # A daemon: a process that ends while an iterator is left half read must not wait for it.
    thread = threading.Thread(target=make, name="muxly-ahead", daemon=True)
    thread.start()
    ended = False
    try:
        while not isinstance(taken := made.get(), BaseException):
            room.release()
            yield taken[0]
        ended = True
        if not isinstance(taken, _End):
            raise taken
    finally:
        if not ended:
            closed.set()
            room.release()
            give_up()
        thread.join()
