"""Many requests at once: order, errors at their place, ending early, and ending at all."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from muxly_dagster.errors import RetryLater, SourceError
from muxly_dagster.http import Http, Limit, Request, Retries
from muxly_dagster_tests.http.server import Asked, Server, answer, json_answer

pytestmark = pytest.mark.usefixtures("over")


def pages(count: int, seen: list[int] | None = None) -> Iterator[Request]:
    for number in range(count):
        if seen is not None:
            seen.append(number)
        yield Request("GET", f"/{number}", tag=number)


def echo(asked: Asked) -> bytes:
    number = int(asked.path[1:])
    time.sleep(0.03 if number % 5 == 0 else 0)  # so that later ones overtake
    return json_answer(number)


def test_answers_come_in_the_order_of_the_requests() -> None:
    with Server(echo) as server, Http(server.url) as http:
        answers = [(response.request.tag, response.json()) for response in http.each(pages(40), 8)]
    assert answers == [(n, n) for n in range(40)]
    assert server.most_at_once > 1


def test_requests_are_only_asked_for_when_there_is_room() -> None:
    seen: list[int] = []
    with Server(echo) as server, Http(server.url) as http:
        answers = http.each(pages(40, seen), 4)
        assert seen == []
        next(answers)
        assert len(seen) == 4
        next(answers)
        assert len(seen) == 5
        answers.close()  # type: ignore[attr-defined]
    assert len(server.asked) <= 5


def test_an_error_is_raised_at_its_place() -> None:
    def reply(asked: Asked) -> bytes:
        return answer(404) if asked.path == "/3" else echo(asked)

    with Server(reply) as server, Http(server.url) as http:
        answers = http.each(pages(10), 8)
        assert [next(answers).json() for _ in range(3)] == [0, 1, 2]
        with pytest.raises(SourceError, match="404"):
            next(answers)


def test_an_error_of_the_requests_comes_after_the_answers_before_it() -> None:
    def broken() -> Iterator[Request]:
        yield from pages(2)
        raise LookupError("no more")

    with Server(echo) as server, Http(server.url) as http:
        answers = http.each(broken(), 8)
        assert [next(answers).json() for _ in range(2)] == [0, 1]
        with pytest.raises(LookupError, match="no more"):
            next(answers)


def test_closing_early_ends_waits_and_leaves_nothing_running() -> None:
    def reply(asked: Asked) -> bytes:
        return json_answer(0) if asked.path == "/0" else answer(503)

    patient = Retries(attempts=9, base=1000, cap=1000, budget_seconds=10_000)
    with Server(reply) as server, Http(server.url, retries=patient, limits=[Limit(requests=4, window=500)]) as http:
        answers = http.each(pages(100), 8)
        assert next(answers).json() == 0
        while len(server.asked) < 4:
            time.sleep(0.005)
        answers.close()  # type: ignore[attr-defined]
        assert server.running == 0
    assert len(server.asked) == 4


def test_many_threads_share_a_client() -> None:
    with Server(echo) as server, Http(server.url) as http:
        results: list[int] = []
        threads = [threading.Thread(target=lambda n=n: results.append(http.get(f"/{n}").json())) for n in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(results) == list(range(12))


def test_closing_the_client_ends_what_waits_to_try_again() -> None:
    patient = Retries(attempts=9, base=1000, cap=1000, budget_seconds=10_000)
    with Server(lambda asked: answer(503)) as server, ThreadPoolExecutor() as threads:
        http = Http(server.url, retries=patient)
        coming = threads.submit(http.get, "/")
        while not server.asked:
            time.sleep(0.005)
        http.close()
        with pytest.raises(RetryLater):
            coming.result()
