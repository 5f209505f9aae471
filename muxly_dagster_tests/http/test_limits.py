"""Rate budgets are kept by all threads together."""

import time

import pytest
from pydantic import ValidationError

from muxly_dagster.http import Http, Limit, Request
from muxly_dagster_tests.http.server import Asked, Server, json_answer


def slow(seconds: float = 0.02):  # type: ignore[no-untyped-def]
    """Answers after a while, so that requests overlap."""

    def reply(asked: Asked) -> bytes:
        time.sleep(seconds)
        return json_answer({})

    return reply


def get(path: str, count: int) -> list[Request]:
    return [Request("GET", path) for _ in range(count)]


def busiest(times: list[float], window: float) -> int:
    """The most arrivals within any window of this length."""
    return max(sum(start <= at < start + window for at in times) for start in times)


def test_no_more_requests_run_at_once_than_allowed() -> None:
    with Server(slow()) as server, Http(server.url, limits=[Limit(concurrency=3)]) as http:
        assert len(list(http.each(get("/", 24), 16))) == 24
    assert server.most_at_once == 3


def test_without_limits_the_threads_are_the_limit() -> None:
    with Server(slow()) as server, Http(server.url, concurrency=4) as http:
        list(http.each(get("/", 16), 16))
    assert server.most_at_once == 4


def test_a_window_never_holds_more_than_its_requests() -> None:
    with Server(lambda asked: json_answer({})) as server, Http(server.url, limits=[Limit(requests=5, window=0.4)]) as http:
        list(http.each(get("/", 14), 14))
    times = [asked.at for asked in server.asked]
    assert busiest(times, 0.35) <= 5
    assert times[-1] - times[0] >= 0.75


def test_a_rate_per_second_is_paced() -> None:
    with Server(lambda asked: json_answer({})) as server, Http(server.url, limits=[Limit(per_second=40)]) as http:
        list(http.each(get("/", 21), 16))
    times = [asked.at for asked in server.asked]
    assert times[-1] - times[0] >= 20 / 40 * 0.9
    assert busiest(times, 0.1) <= 7


def test_a_limit_of_some_paths_leaves_the_others_alone() -> None:
    limits = [Limit(path="/search/*", concurrency=1)]
    with Server(slow(0.05)) as server, Http(f"{server.url}/v1", limits=limits) as http:
        list(http.each([r for _ in range(4) for r in (Request("GET", "/search/a"), Request("GET", "/list"))], 8))
    at = {path: sorted(asked.at for asked in server.asked if asked.path == path) for path in ("/v1/search/a", "/v1/list")}
    assert min(b - a for a, b in zip(at["/v1/search/a"], at["/v1/search/a"][1:], strict=False)) >= 0.045
    assert server.most_at_once >= 4


def test_several_limits_hold_together() -> None:
    limits = [Limit(concurrency=2), Limit(requests=4, window=0.3)]
    with Server(slow(0.01)) as server, Http(server.url, limits=limits) as http:
        list(http.each(get("/", 9), 9))
    assert server.most_at_once <= 2
    assert busiest([asked.at for asked in server.asked], 0.25) <= 4


@pytest.mark.parametrize("fields", [{}, {"path": "/a"}, {"requests": 5}, {"window": 5}, {"per_second": 0}, {"rate": 1}])
def test_a_limit_that_says_nothing_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Limit.model_validate(fields)
