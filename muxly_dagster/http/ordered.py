"""Deeds done side by side by threads, their results taken in the order of the deeds."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

_T = TypeVar("_T")


def in_order(
    deeds: Iterable[Callable[[threading.Event], _T]],
    in_flight: int,
    threads: ThreadPoolExecutor,
    stop: threading.Event,
    end: Callable[[], None],
) -> Iterator[_T]:
    """The results in order, with at most `in_flight` deeds begun ahead; each is given `stop`. What fails is raised at its place.

    The next deed is only asked for when a result has been taken. `end` is called once, when nobody wants further results; what is still
    running then is waited for.
    """
    pending: deque[Future[_T]] = deque()
    source = iter(deeds)
    more = patient = True
    try:
        while True:
            while more and len(pending) < max(1, in_flight):
                try:
                    pending.append(threads.submit(next(source), stop))
                except StopIteration:
                    more = False
                except Exception as error:
                    failed: Future[_T] = Future()
                    failed.set_exception(error)
                    pending.append(failed)
                    more = False
            if not pending:
                return
            yield pending.popleft().result()
    except (Exception, GeneratorExit):
        raise
    except BaseException:
        patient = False  # Ctrl-C must not wait for slow answers: closing the client ends them
        raise
    finally:
        end()
        for future in pending:
            future.cancel()
        if patient:
            wait(pending)
