"""Reading ahead: the items in order, errors at their place, and nothing left running."""

import threading
from collections.abc import Iterator

import pytest

from muxly_dagster.manifest.reading.ahead import read_ahead


def never() -> None:
    raise AssertionError("there was nothing to give up")


def running() -> bool:
    return any(thread.name == "muxly-ahead" for thread in threading.enumerate())


def test_items_come_in_their_order() -> None:
    assert list(read_ahead(iter(range(100)), never)) == list(range(100))
    assert not running()


def test_what_making_an_item_raises_is_raised_behind_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise ValueError("three is missing")

    taken = []
    with pytest.raises(ValueError, match="three is missing"):
        for item in read_ahead(items(), never):
            taken.append(item)
    assert taken == [1, 2]
    assert not running()


def test_the_next_item_is_made_while_the_last_one_is_used() -> None:
    made = [threading.Event(), threading.Event()]

    def items() -> Iterator[int]:
        for number, event in enumerate(made):
            event.set()
            yield number

    ahead = read_ahead(items(), never)
    assert next(ahead) == 0
    assert made[1].wait(30)
    assert list(ahead) == [1]


def test_no_more_than_one_item_waits_to_be_taken() -> None:
    started = threading.Semaphore(0)
    count = 0

    def items() -> Iterator[int]:
        nonlocal count
        while True:
            count += 1
            started.release()
            yield count

    ahead = read_ahead(items(), lambda: None)
    assert next(ahead) == 1
    for _ in range(3):  # the one in use, the one that waits, and the one behind it, which finds no room
        assert started.acquire(timeout=30)
    assert not started.acquire(timeout=0.05)
    ahead.close()
    assert count == 3


def test_closing_early_gives_up_what_is_being_made_and_leaves_nothing_running() -> None:
    given_up = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        given_up.wait(30)  # as a request whose answer does not come
        yield 2

    ahead = read_ahead(items(), given_up.set)
    assert next(ahead) == 1
    ahead.close()
    assert given_up.is_set()
    assert not running()
