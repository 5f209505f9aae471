"""Every kind of paging reads every record once, and ends."""

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from muxly_dagster.errors import SourceError
from muxly_dagster_tests.http.server import Asked, Server, answer, json_answer
from muxly_dagster_tests.manifest.conftest import Make, ids, pull

RECORDS = [{"id": i, "name": f"thing {i}"} for i in range(1, 24)]


def by_cursor(asked: Asked) -> bytes:
    query = dict(asked.query)
    start, size = int(query.get("after", "0")), int(query["limit"])
    after = str(start + size) if start + size < len(RECORDS) else None
    return json_answer({"results": RECORDS[start : start + size], "paging": {"next": {"after": after}} if after else None})


def by_offset(asked: Asked) -> bytes:
    query = dict(asked.query)
    start, size = int(query["offset"]), int(query["limit"])
    return json_answer({"results": RECORDS[start : start + size], "total": len(RECORDS)})


def by_page(asked: Asked) -> bytes:
    query = dict(asked.query)
    number, size = int(query["page"]), int(query["per_page"])
    if (number - 1) * size >= len(RECORDS):
        return json_answer({"error": "there is no such page"}, 404)
    return json_answer({"results": RECORDS[(number - 1) * size : number * size]})


OFFSET = {"kind": "offset", "into": "query.offset", "size": ["query.limit", 5]}
CURSOR = {"kind": "cursor", "next": "$.paging.next.after", "into": "query.after", "size": ["query.limit", 5]}
PAGE = {"kind": "page", "into": "query.page", "size": ["query.per_page", 5]}


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[Asked], Any]], Server]]:
    running: list[Server] = []

    def start(reply: Callable[[Asked], Any]) -> Server:
        running.append(Server(reply).__enter__())
        return running[-1]

    yield start
    for server in running:
        server.__exit__(None, None, None)


Serve = Callable[[Callable[[Asked], Any]], Server]


@pytest.mark.parametrize(
    ("reply", "paging"),
    [(by_cursor, CURSOR), (by_offset, OFFSET), (by_offset, {**OFFSET, "total": "$.total"}), (by_page, PAGE)],
)
def test_every_record_is_read_once_and_in_order(serve: Serve, make: Make, reply: Any, paging: Any) -> None:
    server = serve(reply)
    assert ids(pull(make(server.url, {"paging": paging}))) == [r["id"] for r in RECORDS]


def test_without_paging_there_is_one_request(serve: Serve, make: Make) -> None:
    server = serve(lambda _: json_answer({"results": RECORDS}))
    assert len(ids(pull(make(server.url, {})))) == len(RECORDS)
    assert len(server.asked) == 1


def test_a_known_total_is_asked_for_and_nothing_beyond(serve: Serve, make: Make) -> None:
    server = serve(by_offset)
    pull(make(server.url, {"paging": {**OFFSET, "total": "$.total"}}))
    assert sorted(int(dict(a.query)["offset"]) for a in server.asked) == [0, 5, 10, 15, 20]


def test_a_short_first_page_ends_numbered_paging_once_nothing_lies_behind_it(serve: Serve, make: Make) -> None:
    server = serve(by_page)
    assert len(ids(pull(make(server.url, {"paging": {**PAGE, "size": ["query.per_page", 100]}})))) == len(RECORDS)
    assert len(server.asked) == 2


def test_an_api_that_caps_its_pages_in_silence_is_found_out(serve: Serve, make: Make) -> None:
    def capped(asked: Asked) -> bytes:
        start = int(dict(asked.query).get("offset", 0))
        return json_answer({"results": RECORDS[start : start + 5]})

    with pytest.raises(SourceError, match="100 records a page were asked for, 5 came"):
        pull(make(serve(capped).url, {"paging": {**OFFSET, "size": ["query.limit", 100]}}))


def test_offset_pages_are_asked_for_side_by_side_within_the_limits(serve: Serve, make: Make) -> None:
    together = threading.Barrier(3, timeout=20)
    lock = threading.Lock()
    waiting = 3

    def reply(asked: Asked) -> bytes:
        nonlocal waiting
        with lock:
            meet = asked.number > 1 and waiting > 0
            waiting -= meet
        if meet:
            together.wait()  # only three at the same time can get past here
        return by_offset(asked)

    server = serve(reply)
    assert len(ids(pull(make(server.url, {"paging": OFFSET}, limits=[{"concurrency": 3}])))) == len(RECORDS)
    assert server.most_at_once == 3


def test_the_next_page_is_asked_for_while_the_last_one_is_converted(serve: Serve, make: Make) -> None:
    second = threading.Event()
    big = [{"id": i, "text": "x"} for i in range(3000)]

    def reply(asked: Asked) -> bytes:
        if dict(asked.query).get("after") is None:
            return json_answer({"results": big, "next": "b"})
        second.set()
        return json_answer({"results": [{"id": 3000, "text": "x"}], "next": None})

    server = serve(reply)
    stream = {"paging": {"kind": "cursor", "next": "$.next", "into": "query.after"}}
    connector = make(server.url, stream)
    batches = connector.pull(connector.Pull(stream="things"), None, None)
    assert len(next(batches).rows) == 3000
    assert second.wait(20)  # nobody has asked for the second batch yet
    assert len(next(batches).rows) == 1


def test_pages_are_grouped_into_batches_of_some_thousand_records(serve: Serve, make: Make) -> None:
    def reply(asked: Asked) -> bytes:
        start = int(dict(asked.query)["offset"])
        return json_answer({"results": [{"id": i} for i in range(start, min(start + 500, 7200))]})

    server = serve(reply)
    batches = pull(make(server.url, {"paging": {**OFFSET, "size": ["query.limit", 500]}}))
    assert [len(b.rows) for b in batches] == [3000, 3000, 1200]
    assert ids(batches) == list(range(7200))


def test_link_headers_are_followed_and_relative_addresses_understood(serve: Serve, make: Make) -> None:
    def reply(asked: Asked) -> bytes:
        start = int(dict(asked.query).get("start", "0"))
        link = (
            f'</things?limit=5&start={start + 5}>; rel="next", </things>; rel="first"'
            if start + 5 < len(RECORDS)
            else '</things>; rel="first"'
        )
        return json_answer({"results": RECORDS[start : start + 5]}, Link=link)

    server = serve(reply)
    batches = pull(make(server.url, {"paging": {"kind": "link", "size": ["query.limit", 5]}}))
    assert ids(batches) == [r["id"] for r in RECORDS]
    assert all(dict(a.query)["limit"] == "5" for a in server.asked)


def test_the_next_address_may_stand_in_the_body(serve: Serve, make: Make) -> None:
    def reply(asked: Asked) -> bytes:
        start = int(dict(asked.query).get("start", "0"))
        following = f"{server.url}/things?start={start + 10}" if start + 10 < len(RECORDS) else ""
        return json_answer({"results": RECORDS[start : start + 10], "links": {"next": following}})

    server = serve(reply)
    assert ids(pull(make(server.url, {"paging": {"kind": "link", "next": "$.links.next"}}))) == [r["id"] for r in RECORDS]


def test_a_next_address_on_another_host_is_refused(serve: Serve, make: Make) -> None:
    server = serve(lambda _: json_answer({"results": RECORDS[:1], "next": "https://elsewhere.example/things"}))
    with pytest.raises(SourceError, match=r"elsewhere\.example"):
        pull(make(server.url, {"paging": {"kind": "link", "next": "$.next"}}))


def test_a_cursor_may_go_into_the_body_and_end_with_a_flag(serve: Serve, make: Make) -> None:
    def reply(asked: Asked) -> bytes:
        page = json.loads(asked.body).get("page", {})
        start, size = page.get("after", 0), page["size"]
        return json_answer({"results": RECORDS[start : start + size], "next": start + size, "more": start + size < len(RECORDS)})

    server = serve(reply)
    stream = {
        "request": {"method": "POST", "path": "/search", "json": {"filter": {"kind": "any"}}},
        "paging": {"kind": "cursor", "next": "$.next", "more": "$.more", "into": "json.page.after", "size": ["json.page.size", 7]},
    }
    assert ids(pull(make(server.url, stream))) == [r["id"] for r in RECORDS]
    assert all(b'"filter":{"kind":"any"}' in a.body.replace(b" ", b"") for a in server.asked)


@pytest.mark.parametrize("paging", [CURSOR, {"kind": "link", "next": "$.link"}])
def test_a_cursor_that_comes_again_and_again_is_an_error_that_names_it(serve: Serve, make: Make, paging: Any) -> None:
    server = serve(lambda a: json_answer({"results": RECORDS[:5], "paging": {"next": {"after": "stuck"}}, "link": "/things?x=1"}))
    with pytest.raises(SourceError) as caught:
        pull(make(server.url, {"paging": paging}))
    assert "shop things" in caught.value.what
    assert "circles" in caught.value.what
    assert "stuck" in caught.value.what or "next page" in caught.value.what
    assert len(server.asked) <= 4


@pytest.mark.parametrize("size", [5, None])
def test_an_api_that_ignores_the_offset_is_an_error_and_no_endless_loop(serve: Serve, make: Make, size: int | None) -> None:
    server = serve(lambda _: json_answer({"results": RECORDS[:5]}))
    paging = {"kind": "offset", "into": "query.offset"} | ({"size": ["query.limit", size]} if size else {})
    with pytest.raises(SourceError, match="same page again"):
        pull(make(server.url, {"paging": paging}))


def test_an_api_that_gives_smaller_pages_than_asked_for_is_an_error_where_it_can_be_seen(serve: Serve, make: Make) -> None:
    server = serve(lambda a: json_answer({"results": RECORDS[:3], "total": 23}))
    with pytest.raises(SourceError, match="5 records a page were asked for, 3 came"):
        pull(make(server.url, {"paging": {**OFFSET, "total": "$.total"}}))


def test_without_a_size_pages_are_asked_for_one_by_one_until_an_empty_one(serve: Serve, make: Make) -> None:
    def reply(asked: Asked) -> bytes:
        start = int(dict(asked.query)["offset"])
        return json_answer({"results": RECORDS[start : start + 4]})

    server = serve(reply)
    assert ids(pull(make(server.url, {"paging": {"kind": "offset", "into": "query.offset"}}))) == [r["id"] for r in RECORDS]
    assert server.most_at_once == 1


def test_a_page_that_is_html_says_what_came_and_from_where(serve: Serve, make: Make) -> None:
    server = serve(lambda _: answer(200, "<!doctype html><title>Log in</title>", Content_Type="text/html"))
    with pytest.raises(SourceError) as caught:
        pull(make(server.url, {}))
    assert "<!doctype html>" in caught.value.what
    assert caught.value.where.endswith("/things")


def test_an_answer_may_be_as_large_as_the_manifest_says(serve: Serve, make: Make) -> None:
    server = serve(lambda _: json_answer({"results": [{"id": 1, "text": "x" * 5000}]}))
    assert len(ids(pull(make(server.url, {}, max_answer=6000)))) == 1
    with pytest.raises(SourceError, match="larger than the 4,000 bytes allowed") as error:
        pull(make(server.url, {}, max_answer=4000))
    assert "max_answer" in error.value.do
