"""What stands around every route: request ids, tags, HEAD and OPTIONS, addresses and methods that are not, bodies, the log, headers."""

import dataclasses
import json
import logging
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.responses import StreamingResponse

from muxly_dagster.api.app import create_app
from muxly_dagster.api.middleware import conditional
from muxly_dagster.api.middleware.bodies import LARGEST
from muxly_dagster.errors import ConfigurationError
from muxly_dagster_tests.api.shop import TOKEN, Shop

Run = Callable[[Any], Any]
PROBLEM = "application/problem+json"


async def ask(shop: Shop, method: str, path: str, **asked: Any) -> httpx.Response:
    async with shop.client() as client:
        return await client.request(method, path, **asked)


# ---- request ids and the log -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["", "short", "a" * 129, "with space in it", "naïve-and-long", 'quote"quote"', "new\tline-here"])
def test_a_request_id_that_is_not_sane_is_replaced(shop: Shop, run: Run, given: str) -> None:
    answer = run(ask(shop, "GET", "/healthz", headers={"x-request-id": given.encode("latin-1")}))
    assert answer.headers["x-request-id"] != given
    assert len(answer.headers["x-request-id"]) == 16


def test_a_request_id_is_answered_in_header_problem_and_log(shop: Shop, run: Run, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "muxly.access")
    answer = run(ask(shop, "GET", "/v1/sources/nobody", headers={"x-request-id": "from-the-caller-1"}))
    assert answer.headers["x-request-id"] == answer.json()["request_id"] == "from-the-caller-1"
    (line,) = [json.loads(record.getMessage()) for record in caplog.records if record.name == "muxly.access"]
    assert line.pop("seconds") > 0
    assert line == {"request_id": "from-the-caller-1", "client": "127.0.0.1", "method": "GET", "path": "/v1/sources/nobody", "status": 404}


def test_the_log_names_no_query_no_header_and_no_body(shop: Shop, run: Run, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    run(ask(shop, "GET", "/v1/trace?table=shop.orders&key=s3cr3t-in-a-query"))
    run(ask(shop, "POST", "/v1/dead-letters/skip", json={"name": "s3cr3t-in-a-body"}))
    run(ask(shop, "GET", "/v1/sources", headers={"authorization": "Bearer s3cr3t-of-somebody"}))
    ours = [record for record in caplog.records if record.name.startswith("muxly")]
    assert len(ours) >= 3
    assert [record for record in ours if "s3cr3t" in record.getMessage() or TOKEN in record.getMessage()] == []


def test_no_address_can_begin_a_line_of_its_own_in_the_log(shop: Shop, run: Run, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "muxly.access")
    run(ask(shop, "GET", "/v1/x%0A%7B%22status%22%3A200%7D%1B%5B2J"))
    (line,) = [record.getMessage() for record in caplog.records if record.name == "muxly.access"]
    assert line.isprintable() and json.loads(line)["path"] == '/v1/x\n{"status":200}\x1b[2J'


def test_what_nobody_expected_is_a_problem_and_stands_in_the_log(own_shop: Shop, run: Run, caplog: pytest.LogCaptureFixture) -> None:
    @own_shop.app.get("/broken")
    def broken() -> None:
        raise ZeroDivisionError("s3cr3t detail")

    answer = run(ask(own_shop, "GET", "/broken"))
    assert (answer.status_code, answer.headers["content-type"]) == (500, PROBLEM)
    assert "s3cr3t" not in answer.text and answer.headers["x-request-id"] == answer.json()["request_id"]
    assert any(answer.json()["request_id"] in record.getMessage() and record.exc_info for record in caplog.records)


def test_an_answer_that_breaks_on_its_way_is_cut_and_not_told_as_whole(own_shop: Shop, run: Run) -> None:
    async def half() -> Any:
        yield b"a"
        raise ZeroDivisionError

    @own_shop.app.get("/half")
    def halved() -> StreamingResponse:
        return StreamingResponse(half())

    with pytest.raises(ZeroDivisionError):
        run(ask(own_shop, "GET", "/half"))


# ---- conditional requests, HEAD, OPTIONS -------------------------------------------------------------------------------


def test_what_the_client_has_is_not_sent_again(shop: Shop, run: Run) -> None:
    first = run(ask(shop, "GET", "/v1/sources"))
    tag = first.headers["etag"]
    assert first.headers["cache-control"] == "private, no-cache"
    for said in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        again = run(ask(shop, "GET", "/v1/sources", headers={"if-none-match": said}))
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        assert "content-type" not in again.headers and again.headers["x-request-id"]
    for said in ('"other"', tag.strip('"')):
        assert run(ask(shop, "GET", "/v1/sources", headers={"if-none-match": said})).status_code == 200


def test_a_list_that_changed_has_another_tag(own_shop: Shop, run: Run) -> None:
    before = run(ask(own_shop, "GET", "/v1/dead-letters"))
    assert run(ask(own_shop, "POST", "/v1/dead-letters/skip", json={"name": "big_orders"})).json() == {"skipped": 1}
    after = run(ask(own_shop, "GET", "/v1/dead-letters", headers={"if-none-match": before.headers["etag"]}))
    assert after.status_code == 200 and after.headers["etag"] != before.headers["etag"]


def test_errors_have_no_tag(shop: Shop, run: Run) -> None:
    answer = run(ask(shop, "GET", "/v1/sources/nobody", headers={"if-none-match": "*"}))
    assert answer.status_code == 404 and "etag" not in answer.headers


@pytest.mark.parametrize("path", ["/healthz", "/v1/sources", "/v1/tables/shop.orders/rows", "/metrics", "/docs", "/openapi.json"])
def test_head_is_get_without_the_body(shop: Shop, run: Run, path: str) -> None:
    got, head = run(ask(shop, "GET", path)), run(ask(shop, "HEAD", path))
    assert (head.status_code, head.content) == (got.status_code, b"")
    told = [name for name in got.headers if name not in ("x-request-id", "content-length", "etag") or path != "/metrics"]
    assert [name for name in told if name != "x-request-id" and got.headers[name] != head.headers.get(name)] == []
    assert run(ask(shop, "HEAD", path, headers={"if-none-match": "*"})).status_code == 304


def test_head_of_an_endless_answer_ends(own_shop: Shop, run: Run) -> None:
    async def endless() -> Any:
        while True:
            yield b"line\n"

    @own_shop.app.get("/endless")
    def streamed() -> StreamingResponse:
        return StreamingResponse(endless(), media_type="text/plain")

    answer = run(ask(own_shop, "HEAD", "/endless"))
    assert (answer.status_code, answer.content) == (200, b"")


def test_streams_and_large_answers_pass_without_a_tag(own_shop: Shop, run: Run) -> None:
    async def parts() -> Any:
        yield b"a"
        yield b"b"

    @own_shop.app.get("/parts")
    def streamed() -> StreamingResponse:
        return StreamingResponse(parts())

    @own_shop.app.get("/large")
    def large() -> str:
        return "x" * conditional.LARGEST

    assert run(ask(own_shop, "GET", "/parts")).content == b"ab"
    assert "etag" not in run(ask(own_shop, "GET", "/parts")).headers
    assert "etag" not in run(ask(own_shop, "GET", "/large")).headers


def test_options_says_which_methods_there_are(shop: Shop, run: Run) -> None:
    answer = run(ask(shop, "OPTIONS", "/v1/dead-letters/3f9c"))
    assert (answer.status_code, answer.headers["allow"]) == (204, "GET, HEAD, PATCH, OPTIONS")
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert run(ask(shop, "OPTIONS", "/v1/nowhere")).status_code == 404


def test_no_other_origin_is_let_in(shop: Shop, run: Run) -> None:
    asked = {"origin": "https://elsewhere.example", "access-control-request-method": "POST"}
    for method in ("GET", "OPTIONS"):
        answer = run(ask(shop, method, "/v1/sources", headers=asked))
        assert not [name for name in answer.headers if name.startswith("access-control")]


# ---- addresses, methods, bodies ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "do"),
    [
        ("/v1/sorces", "did you mean /v1/sources?"),
        ("/v1/sources/", "leave the slash at the end out: /v1/sources"),
        ("/v1/tables/shop.orders/rows/", "leave the slash at the end out: /v1/tables/shop.orders/rows"),
        ("/", "see /docs for what there is"),
        ("//", "see /docs for what there is"),
        ("/" + "x" * 5000, "see /docs for what there is"),
    ],
)
def test_an_address_that_leads_nowhere_is_told(shop: Shop, run: Run, path: str, do: str) -> None:
    answer = run(ask(shop, "GET", path))
    assert (answer.status_code, answer.headers["content-type"]) == (404, PROBLEM)
    assert answer.json()["do"] == do


def test_a_method_that_is_not_known_is_told_with_those_that_are(shop: Shop, run: Run) -> None:
    for method in ("PUT", "DELETE", "BREW"):
        answer = run(ask(shop, method, "/v1/dead-letters/3f9c"))
        assert (answer.status_code, answer.headers["content-type"], answer.headers["allow"]) == (405, PROBLEM, "GET, HEAD, PATCH, OPTIONS")
        assert answer.json()["do"] == "use GET or HEAD or PATCH"


def test_a_body_that_is_too_large_is_refused_whether_or_not_its_length_is_said(shop: Shop, run: Run) -> None:
    async def parts() -> Any:
        for _ in range(20):
            yield b" " * (LARGEST // 10)

    said = {"content-type": "application/json"}
    for content in (b" " * (LARGEST + 1), parts()):
        answer = run(ask(shop, "POST", "/v1/dead-letters/skip", content=content, headers=said))
        assert (answer.status_code, answer.headers["content-type"]) == (413, PROBLEM)
        assert answer.json()["title"] == "Content too large"


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {},
        {"content-type": "application/jsonp"},
        {"content-type": "application/json", "content-encoding": "gzip"},
    ],
)
def test_a_body_of_another_kind_is_refused(shop: Shop, run: Run, headers: dict[str, str]) -> None:
    answer = run(ask(shop, "POST", "/v1/dead-letters/skip", content=b'{"name": "big_orders"}', headers=headers))
    assert (answer.status_code, answer.headers["content-type"]) == (415, PROBLEM)


@pytest.mark.parametrize(
    "content",
    [b"{", b"\xff\xfe", b"nope", b"[" * 100_000, b'{"name": "\\ud800"}', b"null", b"[]", b'{"ids": "x"}', b'{"nmae": "x"}', b"{}"],
)
def test_rubbish_is_refused_in_words(shop: Shop, run: Run, content: bytes) -> None:
    answer = run(ask(shop, "POST", "/v1/dead-letters/skip", content=content, headers={"content-type": "application/json"}))
    assert answer.status_code in (400, 422) and answer.headers["content-type"] == PROBLEM
    assert answer.json()["title"] in ("Bad request", "The request is not valid")


def test_every_answer_has_the_headers_that_protect_a_browser(shop: Shop, run: Run) -> None:
    for path in ("/v1/sources", "/v1/nowhere", "/docs", "/metrics"):
        headers = run(ask(shop, "GET", path)).headers
        assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert headers["cache-control"] == "private, no-cache"
        assert len(headers.get_list("content-security-policy")) == 1
    assert run(ask(shop, "POST", "/v1/sources/shop/test")).headers["cache-control"] == "no-store"


# ---- rate limits -------------------------------------------------------------------------------------------------------


def limited(shop: Shop, rate: str) -> FastAPI:
    return create_app(dataclasses.replace(shop.service, environ={**shop.service.environ, "MUXLY_RATE_LIMIT": rate}))


def test_more_than_the_rate_is_refused_with_when_to_come_again(shop: Shop, run: Run) -> None:
    few = Shop(shop.folder, shop.service, limited(shop, "3/hour"))
    answers = [run(ask(few, "GET", "/v1/sources")) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert [answer.headers["ratelimit"].partition(";t=")[0] for answer in answers] == [f'"default";r={n}' for n in (2, 1, 0, 0, 0)]
    assert {answer.headers["ratelimit-policy"] for answer in answers} == {'"default";q=3;w=3600'}
    refused = answers[-1]
    assert refused.headers["content-type"] == PROBLEM and 3500 < int(refused.headers["retry-after"]) <= 3600
    assert refused.headers["x-request-id"] == refused.json()["request_id"]
    assert run(ask(few, "GET", "/healthz")).status_code == 200


def test_one_client_does_not_use_up_another_ones_rate(shop: Shop, run: Run) -> None:
    few = Shop(shop.folder, shop.service, limited(shop, "2/hour"))

    async def statuses() -> list[int]:
        found = []
        for token, address in (
            (TOKEN, "10.0.0.1"),
            (TOKEN, "10.0.0.2"),
            (TOKEN, "10.0.0.3"),
            ("wrong", "10.0.0.1"),
            ("", "10.0.0.1"),
            ("", "10.0.0.1"),
        ):
            async with few.client(token, address=address) as client:
                found.append((await client.get("/v1/sources")).status_code)
        return found

    assert run(statuses()) == [200, 200, 429, 401, 401, 429]


@pytest.mark.parametrize("text", ["often", "0/minute", "10/minute; 20/hour", "-1/second", "10"])
def test_a_rate_that_is_none_is_told_at_the_start(shop: Shop, text: str) -> None:
    with pytest.raises(ConfigurationError, match="MUXLY_RATE_LIMIT is .* which is no rate"):
        limited(shop, text)
