"""Waiting and trying again."""

import datetime as dt
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from email.utils import format_datetime

import pytest

from muxly_dagster.errors import RetryLater
from muxly_dagster.http import Http, Limit, Request, Response, Retries, Verdict, retry_after
from muxly_dagster_tests.http.server import Asked, Server, answer, json_answer

QUICK = Retries(attempts=4, base=0.001, cap=0.002, budget_seconds=5)


def response(**headers: str) -> Response:
    return Response(429, {name.replace("_", "-"): value for name, value in headers.items()}, b"", "http://x/", Request("GET", "http://x/"))


@pytest.mark.usefixtures("over")
@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_a_passing_trouble_is_met_by_asking_again(status: int) -> None:
    def reply(asked: Asked) -> bytes:
        return answer(status) if asked.number < 3 else json_answer({"fine": True})

    with Server(reply) as server, Http(server.url, retries=QUICK) as http:
        assert http.get("/").json() == {"fine": True}
    assert len(server.asked) == 3


def test_429_for_ever_ends_in_retry_later_with_advice() -> None:
    with (
        Server(lambda asked: json_answer({"message": "slow down"}, 429)) as server,
        Http(server.url, retries=QUICK) as http,
        pytest.raises(RetryLater, match=r"rate limit is used up \(429 Too Many Requests\).*slow down.*gave up after 4") as caught,
    ):
        http.get("/contacts")
    assert "limits" in caught.value.do
    assert len(server.asked) == 4


@pytest.mark.parametrize(("status", "times"), [(500, 1), (502, 1), (504, 1), (429, 4), (503, 4)])
def test_a_post_is_only_repeated_where_it_cannot_have_been_carried_out(status: int, times: int) -> None:
    with Server(lambda asked: answer(status)) as server, Http(server.url, retries=QUICK) as http, pytest.raises(RetryLater) as caught:
        http.request(Request("POST", "/", json={}))
    assert len(server.asked) == times
    assert ("Idempotency-Key" in caught.value.what) == (times == 1)


@pytest.mark.parametrize(
    "request_",
    [Request("POST", "/", headers={"idempotency-key": "7"}), Request("POST", "/", idempotent=True), Request("PUT", "/", json=1)],
)
def test_what_may_be_sent_twice_is_repeated(request_: Request) -> None:
    with Server(lambda asked: answer(500 if asked.number == 1 else 200)) as server, Http(server.url, retries=QUICK) as http:
        assert http.request(request_).status == 200
    assert len(server.asked) == 2


@pytest.mark.usefixtures("over")
def test_a_post_whose_answer_breaks_off_is_not_repeated() -> None:
    with (
        Server(lambda asked: [Server.cut]) as server,
        Http(server.url, retries=QUICK) as http,
        pytest.raises(RetryLater, match="not sent again"),
    ):
        http.request(Request("POST", "/", json={}))
    assert len(server.asked) == 1


@pytest.mark.usefixtures("over")
def test_a_post_that_found_nobody_is_repeated() -> None:
    with Http("http://127.0.0.1:1", retries=QUICK) as http, pytest.raises(RetryLater, match="gave up after 4"):
        http.request(Request("POST", "/", json={}))


def test_retry_after_reads_seconds_and_dates() -> None:
    now = dt.datetime(2026, 1, 1, 12, 0, 0, tzinfo=dt.UTC)
    later = format_datetime(now + dt.timedelta(seconds=90), usegmt=True)
    assert retry_after(response(Retry_After="7")) == 7
    assert retry_after(response(Retry_After="0.5")) == 0.5
    assert retry_after(response(Retry_After=later), now) == 90
    assert retry_after(response(Retry_After=later), now + dt.timedelta(hours=1)) == 0
    server_clock = format_datetime(now + dt.timedelta(seconds=60), usegmt=True)
    assert retry_after(response(Retry_After=later, Date=server_clock), now - dt.timedelta(hours=5)) == 30
    assert [retry_after(response(Retry_After=text)) for text in ("", "soon", "nan", "inf", "-3")] == [None, None, None, None, 0]


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_waited_for(form: str) -> None:
    now = dt.datetime(2030, 5, 5, tzinfo=dt.UTC)
    date = format_datetime(now + dt.timedelta(seconds=1), usegmt=True)
    headers = {"Retry_After": "0.3"} if form == "seconds" else {"Retry_After": date, "Date": format_datetime(now, usegmt=True)}

    def reply(asked: Asked) -> bytes:
        return answer(503, **headers) if asked.number == 1 else json_answer({})

    with Server(reply) as server, Http(server.url, retries=QUICK) as http:
        http.get("/")
    first, second = server.asked
    assert second.at - first.at >= (0.29 if form == "seconds" else 0.99)


@pytest.mark.parametrize("status", [429, 503])
def test_a_wait_beyond_the_budget_is_handed_to_the_caller(status: int) -> None:
    with (
        Server(lambda asked: answer(status, Retry_After="3600")) as server,
        Http(server.url, retries=QUICK) as http,
        pytest.raises(RetryLater, match="asked to wait 3600 s") as caught,
    ):
        http.get("/")
    assert caught.value.after == 3600
    assert len(server.asked) == 1


def test_the_retry_after_of_one_request_holds_back_all() -> None:
    def reply(asked: Asked) -> bytes:
        return answer(429, Retry_After="0.4") if asked.path == "/limited" and asked.number == 1 else json_answer({})

    with Server(reply) as server, ThreadPoolExecutor() as threads, Http(server.url, retries=QUICK) as http:
        first = threads.submit(http.get, "/limited")
        while not server.asked:
            time.sleep(0.005)
        time.sleep(0.1)  # the refusal has come back
        http.get("/other")
        first.result()
    other = next(asked for asked in server.asked if asked.path == "/other")
    assert other.at - server.asked[0].at >= 0.39


def test_a_budget_of_one_path_does_not_hold_back_the_others() -> None:
    def reply(asked: Asked) -> bytes:
        return answer(429, Retry_After="4") if asked.path == "/search/a" and asked.number == 1 else json_answer({})

    limits = [Limit(path="/search/*", concurrency=4), Limit(concurrency=8)]
    with Server(reply) as server, ThreadPoolExecutor() as threads, Http(server.url, retries=QUICK, limits=limits) as http:
        threads.submit(http.get, "/search/a")
        while not server.asked:
            time.sleep(0.005)
        time.sleep(0.05)
        http.get("/other")
        threads.submit(http.get, "/search/b")
        http.get("/other")
    assert [asked.path for asked in server.asked] == ["/search/a", "/other", "/other"]


def test_the_judges_own_wait_counts() -> None:
    def judge(seen: Response) -> tuple[Verdict, float | None] | None:
        return ("retry", 900.0) if b"quota" in seen.content else None

    with (
        Server(lambda asked: answer(403, "quota")) as server,
        Http(server.url, judge=judge, retries=QUICK) as http,
        pytest.raises(RetryLater) as caught,
    ):
        http.get("/")
    assert caught.value.after == 900


def test_jitter_spreads_over_the_whole_doubling_range() -> None:
    retries = Retries(base=1, cap=5)
    for attempt, most in [(1, 1), (2, 2), (3, 4), (4, 5), (5000, 5)]:
        delays = [retries.delay(attempt) for _ in range(300)]
        assert max(delays) <= most
        assert min(delays) < 0.2 * most < 0.8 * most < max(delays)


def test_each_retry_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "muxly.http")
    with Server(lambda asked: answer(500 if asked.number < 3 else 200)) as server, Http(server.url, retries=QUICK) as http:
        http.get("/contacts")
    assert [record.getMessage().split(";")[0] for record in caplog.records if record.name == "muxly.http"] == [
        f"GET {server.url}/contacts: the service cannot answer now (500 Internal Server Error)"
    ] * 2
