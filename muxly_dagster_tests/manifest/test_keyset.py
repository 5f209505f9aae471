"""Keyset paging reads past an API's cap on results, and finds out an API that does not keep the order."""

from collections.abc import Callable
from typing import Any

import pytest

from muxly_dagster.errors import SourceError
from muxly_dagster.manifest.asking.keyset import key_reader
from muxly_dagster_tests.http.server import Asked, Server, json_answer
from muxly_dagster_tests.manifest.conftest import Make, ids, pull

KEYSET = {"kind": "keyset", "by": "id", "into": "query.after", "size": ["query.limit", 5], "sorted": True}


def things(number: int, of: Callable[[int], Any] = int) -> list[dict[str, Any]]:
    return [{"id": of(i), "props": {"id": str(i)}} for i in range(1, number + 1)]


def behind(records: list[dict[str, Any]], cap: int = 1000) -> Callable[[Asked], bytes]:
    """An API that gives what lies behind `after`, in the order of the list, never more than `cap` at a time."""

    def reply(asked: Asked) -> bytes:
        query = dict(asked.query)
        after, size = query.get("after"), min(int(query["limit"]), cap)
        start = 1 + [str(r["id"]) for r in records].index(after) if after else 0
        return json_answer({"results": records[start : start + size]})

    return reply


@pytest.mark.parametrize("number", [0, 1, 4, 5, 6, 10, 11])
@pytest.mark.parametrize("of", [int, str, "k{:04}".format], ids=["numbers", "numbers as text", "texts"])
def test_every_record_comes_once_wherever_the_last_page_ends(make: Make, number: int, of: Callable[[int], Any]) -> None:
    records = things(number, of)
    with Server(behind(records)) as server:
        assert ids(pull(make(server.url, {"paging": KEYSET}))) == [r["id"] for r in records]


def test_an_api_with_smaller_pages_than_asked_for_loses_nothing(make: Make) -> None:
    records = things(23)
    with Server(behind(records, cap=3)) as server:
        assert ids(pull(make(server.url, {"paging": KEYSET}))) == [r["id"] for r in records]


def test_records_of_one_timestamp_beyond_the_cap_on_results_all_come(make: Make) -> None:
    """A search that never gives more than 10 results for one query, over 57 records changed in the same millisecond."""
    records = [{"id": str(i), "at": "2024-01-01T00:00:00Z"} for i in range(1, 58)]

    def reply(asked: Asked) -> bytes:
        import json

        body = json.loads(asked.body)
        after = next((int(f["above"]) for f in body["filters"] if f["name"] == "id"), 0)
        assert len(body["filters"]) == (2 if after else 1), "a filter without a value is left out as a whole"
        found = [r for r in records if int(r["id"]) > after][:10]
        return json_answer({"results": found[: body["limit"]]})

    filters = [{"name": "at", "from": "${window.start}", "to": "${window.end}"}, {"name": "id", "above": "${keyset}"}]
    stream = {
        "request": {"method": "POST", "path": "/search", "json": {"filters": filters, "sort": "id"}},
        "types": {"at": "timestamp"},
        "paging": {"kind": "keyset", "by": "id", "size": ["json.limit", 10]},
        "sync": {"kind": "cursor", "field": "at", "start": "2023-12-31", "window": "30000d"},
    }
    with Server(reply) as server:
        assert ids(pull(make(server.url, stream))) == [r["id"] for r in records]


def test_the_first_request_can_have_a_key_of_its_own(make: Make) -> None:
    with Server(behind([{"id": 0}, *things(3)])) as server:
        assert ids(pull(make(server.url, {"paging": {**KEYSET, "start": "0"}}))) == [1, 2, 3]
        assert dict(server.asked[0].query) == {"limit": "5", "after": "0"}


@pytest.mark.parametrize("wrong", [[1, 2, 4, 3, 5], [1, 2, 3, 3, 5], [5, 4, 3, 2, 9]])
def test_an_api_that_does_not_sort_is_found_out(make: Make, wrong: list[int]) -> None:
    with Server(behind([{"id": i} for i in wrong])) as server, pytest.raises(SourceError, match="do not come in the order of id"):
        pull(make(server.url, {"paging": KEYSET}))


@pytest.mark.parametrize("of", [int, "k{}".format])
def test_an_api_that_does_not_read_the_key_is_found_out(make: Make, of: Callable[[int], Any]) -> None:
    with (
        Server(lambda _: json_answer({"results": things(5, of)})) as server,
        pytest.raises(SourceError, match="do not come in the order of id"),
    ):
        pull(make(server.url, {"paging": KEYSET}))


def test_a_descending_order_is_an_order(make: Make) -> None:
    records = list(reversed(things(12)))
    with Server(behind(records)) as server:
        assert ids(pull(make(server.url, {"paging": KEYSET}))) == list(range(12, 0, -1))


def test_digits_may_be_sorted_as_a_text_is(make: Make) -> None:
    records = sorted(things(12, str), key=lambda record: record["id"])
    with Server(behind(records)) as server:
        assert ids(pull(make(server.url, {"paging": KEYSET}))) == [record["id"] for record in records]
    wrong = [{"id": each} for each in ("1", "10", "2", "3", "20")]  # in neither order
    with Server(behind(wrong)) as server, pytest.raises(SourceError, match="20 comes behind 3"):
        pull(make(server.url, {"paging": KEYSET}))


@pytest.mark.parametrize("last", ["1700000000.123456789123", "123456789012345678901234567890", "0.1"])
def test_a_key_of_any_length_is_asked_for_as_it_is(make: Make, last: str) -> None:
    pages = [f'{{"results": [{{"id": 0.05}}, {{"id": {last}}}]}}'.encode(), b'{"results": []}']

    def reply(asked: Asked) -> bytes:
        page = pages[1 if "after" in dict(asked.query) else 0]
        return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(page), page)

    with Server(reply) as server:
        pull(make(server.url, {"paging": {**KEYSET, "size": ["query.limit", 2]}}))
        assert dict(server.asked[1].query)["after"] == last


def test_records_without_the_field_are_an_error(make: Make) -> None:
    with Server(behind(things(3))) as server, pytest.raises(SourceError, match=r"has no props\.number"):
        pull(make(server.url, {"paging": {**KEYSET, "by": "props.number"}}))


@pytest.mark.parametrize(
    ("records", "by", "page", "keys"),
    [
        ("$.a.b", "id", b'{"a":{"b":[{"id":1,"x":[{}]},{"id":"2"}]}}', [1, "2"]),
        ("$", "p.id", b'[{"p":{"id":1}},{"p":null},{}]', [1, None, None]),
        ("$", "id", b'{"id":7}', [7]),
        ("$..r[*]", "id", b'{"q":{"r":[{"id":1},{"id":2}]}}', [1, 2]),
        ("$.a", "id", b'{"a":null}', []),
        ("$.a", "id", b'{"a":[{"id":12345678901234567890123}]}', [12345678901234567890123]),
        ("$", "id", b"no json", []),
    ],
)
def test_keys_are_read_wherever_the_records_stand(records: str, by: str, page: bytes, keys: list[Any]) -> None:
    assert key_reader(records, by)(page) == keys
