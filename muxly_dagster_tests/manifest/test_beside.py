"""Places are read side by side as far as `limits` allow, and yet one after another as far as anybody can tell."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from muxly_dagster.connector import Batch, Connector
from muxly_dagster.errors import SourceError
from muxly_dagster.http import Http, Request
from muxly_dagster.manifest.reading.beside import side_by_side
from muxly_dagster.manifest.reading.places import Place
from muxly_dagster_tests.http.server import Asked, Server, answer, json_answer
from muxly_dagster_tests.manifest.conftest import Make, ids, pull

PLACES = [f"p{number}" for number in range(8)]
STREAM: dict[str, Any] = {
    "for_each": {"in": PLACES, "as": "place", "add": {"place": "${place}"}},
    "request": {"path": "/${place}"},
    "key": ["place", "id"],
}
SINCE: dict[str, Any] = {
    **STREAM,
    "request": {"path": "/${place}", "query": {"since": "${cursor}"}},
    "sync": {"kind": "cursor", "field": "id"},
}


def together(count: int) -> Callable[[Asked], None]:
    """Waits until so many requests wait for their answers: for ever, if they come one after another."""
    barrier = threading.Barrier(count, timeout=30)
    return lambda _: (barrier.wait(), None)[1]


def number_of(asked: Asked) -> int:
    return int(asked.path.removeprefix("/p"))


def one_record(asked: Asked) -> bytes:
    return json_answer({"results": [{"id": number_of(asked)}]})


@pytest.mark.parametrize("stream", [STREAM, SINCE, {**STREAM, "paging": {"kind": "cursor", "next": "$.next", "into": "query.page"}}])
def test_first_requests_are_under_way_together_and_answers_stay_in_order(make: Make, stream: dict[str, Any]) -> None:
    wait = together(4)

    def reply(asked: Asked) -> bytes:
        wait(asked)
        return one_record(asked)

    with Server(reply) as server:
        batches = pull(make(server.url, stream, limits=[{"concurrency": 4}]))
    assert ids(batches) == [*range(8)]
    assert [row for batch in batches for row in batch.rows.to_pylist()] == [{"id": n, "place": f"p{n}"} for n in range(8)]
    assert sorted(asked.path for asked in server.asked) == [f"/{place}" for place in PLACES], "nothing is asked for twice"
    assert server.most_at_once == 4


def test_places_of_a_parent_are_read_side_by_side_too(make: Make) -> None:
    wait = together(4)

    def reply(asked: Asked) -> bytes:
        if asked.path == "/folders":
            return json_answer({"results": [{"id": number} for number in range(8)]})
        wait(asked)
        return one_record(asked)

    child = {"for_each": {"in": "streams.folders", "as": "folder"}, "request": {"path": "/p${folder.id}"}}
    folders = {"request": {"path": "/folders"}, "records": "$.results", "key": ["id"]}
    with Server(reply) as server:
        assert ids(pull(make(server.url, child, more={"folders": folders}, limits=[{"concurrency": 4}]))) == [*range(8)]


def test_a_limit_of_one_at_a_time_holds(make: Make) -> None:
    with Server(one_record) as server:
        assert ids(pull(make(server.url, STREAM, limits=[{"concurrency": 1}]))) == [*range(8)]
    assert server.most_at_once == 1


def test_further_pages_follow_the_first_one_of_each_place(make: Make) -> None:
    def reply(asked: Asked) -> bytes:
        page = int(dict(asked.query).get("offset", 0))
        return json_answer({"results": [{"id": 10 * number_of(asked) + page + n} for n in range(2 if page < 4 else 0)]})

    stream = {**STREAM, "paging": {"kind": "offset", "into": "query.offset", "size": ["query.limit", 2]}}
    with Server(reply) as server:
        assert ids(pull(make(server.url, stream))) == [10 * place + n for place in range(8) for n in range(4)]
    first = [asked for asked in server.asked if dict(asked.query)["offset"] == "0"]
    assert len(first) == len(PLACES)


@pytest.mark.parametrize("stream", [STREAM, SINCE])
def test_a_place_that_fails_costs_nothing_of_those_before_it(make: Make, stream: dict[str, Any]) -> None:
    with Server(lambda asked: answer(400) if asked.path == "/p5" else one_record(asked)) as server:
        batches: list[Batch] = []
        connector = make(server.url, stream)
        with pytest.raises(SourceError, match="400"):
            gather(connector, batches)
    assert ids(batches) == [*range(5)]
    if "sync" in stream:
        [*_, last] = [batch.cursor for batch in batches if batch.cursor is not None]
        assert {name: each["value"] for name, each in last["places"].items()} == {f"p{n}": n for n in range(5)}


def test_a_place_whose_request_cannot_be_made_costs_nothing_of_those_before_it(make: Make) -> None:
    values = [{"name": "p0"}, {"name": "p1"}, {}, {"name": "p3"}]
    stream = {"for_each": {"in": "streams.folders", "as": "folder"}, "request": {"path": "/${folder.name}"}}
    folders = {"request": {"path": "/folders"}, "records": "$.results", "key": ["id"]}
    listed = [{"id": number, **value} for number, value in enumerate(values)]

    def reply(asked: Asked) -> bytes:
        return json_answer({"results": listed}) if asked.path == "/folders" else one_record(asked)

    with Server(reply) as server:
        batches: list[Batch] = []
        with pytest.raises(SourceError, match=r"names a value that is not there"):
            gather(make(server.url, stream, more={"folders": folders}), batches)
    assert ids(batches) == [0, 1]


def test_every_place_is_asked_since_its_own_cursor(make: Make) -> None:
    with Server(one_record) as server:
        connector = make(server.url, SINCE)
        [*_, last] = [batch.cursor for batch in pull(connector) if batch.cursor is not None]
        server.asked.clear()
        pull(connector, {"places": {name: each for name, each in last["places"].items() if name != "p3"}})
    since = {asked.path: dict(asked.query).get("since") for asked in server.asked}
    assert since == {f"/{place}": None if place == "p3" else place[1:] for place in PLACES}


def test_places_without_a_request_keep_their_turn() -> None:
    def found() -> Iterator[Place]:
        yield from (Place(name, {}, {}) for name in PLACES)

    def begin(place: Place) -> tuple[str, Request | None]:
        return place.name, None if place.name in ("p0", "p3", "p4", "p7") else Request("GET", f"/{place.name}")

    with Server(one_record) as server, Http(server.url) as http:
        opened = [(name, first and first.json()["results"][0]["id"]) for name, first in side_by_side(http, found(), begin, 4)]
    assert opened == [("p0", None), ("p1", 1), ("p2", 2), ("p3", None), ("p4", None), ("p5", 5), ("p6", 6), ("p7", None)]


def test_files_of_records_are_downloaded_together(make: Make) -> None:
    wait = together(6)

    def reply(asked: Asked) -> bytes:
        if asked.path == "/things":
            return json_answer({"results": [{"id": number} for number in range(12)]})
        wait(asked)
        return answer(200, asked.path)

    stream = {"file": {"request": {"path": "/files/${record.id}"}}}
    with Server(reply) as server:
        [batch] = [each for each in pull(make(server.url, stream, limits=[{"concurrency": 6}])) if len(each.rows)]
    assert batch.rows["file_size"].to_pylist() == [len(f"/files/{number}") for number in range(12)]


def gather(connector: Connector, into: list[Batch]) -> None:
    """Read everything to where it can be looked at even when reading ends in an error."""
    for batch in connector.pull(connector.Pull(stream="things"), None, None):
        into.append(batch)
