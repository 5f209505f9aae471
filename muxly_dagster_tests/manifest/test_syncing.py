"""Cursor sync asks for what came since, and gives a cursor only where a pull can really go on."""

import datetime as dt
import json
from decimal import Decimal
from typing import Any

import pytest

from muxly_dagster.errors import SourceError
from muxly_dagster_tests.http.server import Asked, Server, json_answer
from muxly_dagster_tests.manifest.conftest import Make, ids, pull

DAY = dt.timedelta(days=1)
BEGIN = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
SINCE = {"request": {"path": "/things", "query": {"since": "${cursor|iso}"}}, "types": {"at": "timestamp"}}


def thing(number: int, at: dt.datetime | None = None) -> dict[str, Any]:
    return {"id": number, "at": (at or BEGIN + number * DAY).isoformat()}


def since(things: list[dict[str, Any]]) -> Any:
    """An API with `since` (inclusive) and offset paging."""

    def reply(asked: Asked) -> bytes:
        query = dict(asked.query)
        first = query.get("since", "")
        found = [t for t in things if not first or dt.datetime.fromisoformat(t["at"]) >= dt.datetime.fromisoformat(first)]
        start = int(query.get("offset", "0"))
        return json_answer({"results": found[start : start + 1000] if "offset" in query else found})

    return reply


def test_the_first_pull_asks_without_bounds_and_the_next_from_the_greatest_value(make: Make) -> None:
    with Server(since([thing(3), thing(1), thing(2)])) as server:
        connector = make(server.url, {**SINCE, "sync": {"kind": "cursor", "field": "at"}})
        first = pull(connector)
        assert ids(first) == [3, 1, 2]
        assert [b.cursor for b in first] == [None, {"value": "2024-01-04T00:00:00Z"}]
        assert json.loads(json.dumps(first[-1].cursor)) == first[-1].cursor
        assert ids(pull(connector, first[-1].cursor)) == [3]
        assert [dict(a.query) for a in server.asked] == [{}, {"since": "2024-01-04T00:00:00Z"}]


def test_a_pull_that_finds_nothing_moves_no_cursor(make: Make) -> None:
    with Server(lambda _: json_answer({"results": []})) as server:
        assert pull(make(server.url, {**SINCE, "sync": {"kind": "cursor", "field": "at"}}), {"value": "2024-01-04T00:00:00Z"}) == []


def test_older_records_never_move_the_cursor_back(make: Make) -> None:
    with Server(lambda _: json_answer({"results": [thing(1)]})) as server:
        connector = make(server.url, {**SINCE, "sync": {"kind": "cursor", "field": "at"}})
        assert pull(connector, {"value": "2024-06-01T00:00:00Z"})[-1].cursor == {"value": "2024-06-01T00:00:00Z"}


def test_the_first_pull_begins_at_start(make: Make) -> None:
    with Server(since([thing(1), thing(5)])) as server:
        connector = make(
            server.url,
            {**SINCE, "sync": {"kind": "cursor", "field": "at", "start": "${config.from}"}},
            {"from": "2024-01-03"},
            config={"from": {"type": "string"}},
        )
        assert ids(pull(connector)) == [5]


def test_lookback_reads_again_what_may_have_come_late(make: Make) -> None:
    with Server(since([thing(n) for n in range(1, 9)])) as server:
        connector = make(server.url, {**SINCE, "sync": {"kind": "cursor", "field": "at", "lookback": "2d"}})
        batches = pull(connector, {"value": "2024-01-07T00:00:00Z"})
        assert ids(batches) == [4, 5, 6, 7, 8]
        assert batches[-1].cursor == {"value": "2024-01-09T00:00:00Z"}


def test_lag_keeps_the_cursor_behind_the_newest(make: Make) -> None:
    now = dt.datetime.now(dt.UTC)
    with Server(since([thing(1, now - 5 * DAY), thing(2, now)])) as server:
        connector = make(server.url, {**SINCE, "sync": {"kind": "cursor", "field": "at", "lag": "1d"}})
        cursor = pull(connector)[-1].cursor
        assert cursor is not None
        assert now - 2 * DAY < dt.datetime.fromisoformat(cursor["value"]) < now - 0.9 * DAY


def test_windows_are_asked_for_one_after_another_and_each_is_a_place_to_resume(make: Make) -> None:
    def reply(asked: Asked) -> bytes:
        start, end = (int(dict(asked.query)[name]) for name in ("from", "to"))
        found = [thing(n) for n in (9, 2, 12, 1) if start <= (BEGIN + n * DAY).timestamp() * 1000 < end]
        return json_answer({"results": found})

    today = dt.datetime.now(dt.UTC)
    window = (today - BEGIN) / 3 + DAY
    with Server(reply) as server:
        stream = {
            "request": {"path": "/things", "query": {"from": "${window.start|ms}", "to": "${window.end|ms}"}},
            "types": {"at": "timestamp"},
            "sync": {"kind": "cursor", "field": "at", "start": "2024-01-01", "window": window.total_seconds()},
        }
        batches = pull(make(server.url, stream))
        assert ids(batches) == [9, 2, 12, 1]
        assert batches[-1].cursor == {"value": "2024-01-13T00:00:00Z"}
        bounds = [(dict(a.query)["from"], dict(a.query)["to"]) for a in server.asked]
        assert len(bounds) == 3
        assert bounds[0][1] == bounds[1][0]
        assert bounds[1][1] == bounds[2][0]
        # the first slice was whole before the second one was asked for
        first_end = next(b.cursor for b in batches if b.cursor)
        assert first_end == {"value": "2024-01-13T00:00:00Z"}


def paged(things: list[dict[str, Any]], **sync: Any) -> tuple[Any, dict[str, Any]]:
    paging = {"kind": "offset", "into": "query.offset", "size": ["query.limit", 1000]}
    return since(things), {**SINCE, "paging": paging, "sync": {"kind": "cursor", "field": "at", **sync}}


def test_where_records_come_in_order_each_batch_is_a_place_to_resume_from(make: Make) -> None:
    things = [thing(n, BEGIN + n * dt.timedelta(minutes=1)) for n in range(7000)]
    reply, stream = paged(things, ascending=True)
    with Server(reply) as server:
        connector = make(server.url, stream)
        batches = pull(connector)
        read: list[int] = []
        for batch in batches:
            read += ids([batch])
            assert batch.cursor is not None
            rest = ids(pull(connector, batch.cursor))
            assert set(read) | set(rest) == set(range(7000)), "a pull that breaks off here loses records"


def test_records_of_one_moment_that_lie_across_a_batch_s_end_are_not_lost(make: Make) -> None:
    """An API that answers `> since` must not pass over the second half of a moment's records."""
    things = [thing(n, BEGIN + (n // 2000) * DAY) for n in range(7000)]

    def reply(asked: Asked) -> bytes:
        query = dict(asked.query)
        first = query.get("since", "")
        found = [t for t in things if not first or dt.datetime.fromisoformat(t["at"]) > dt.datetime.fromisoformat(first)]
        start = int(query["offset"])
        return json_answer({"results": found[start : start + 1000]})

    _, stream = paged(things, ascending=True)
    with Server(reply) as server:
        connector = make(server.url, stream)
        read: set[int] = set()
        for batch in pull(connector)[:-1]:
            read |= set(ids([batch]))
            if batch.cursor is not None:
                assert read | set(ids(pull(connector, batch.cursor))) == set(range(7000))


def test_an_api_that_only_claims_to_answer_in_order_gets_no_cursor_on_the_way(make: Make) -> None:
    things = [thing(n, BEGIN - n * dt.timedelta(minutes=1)) for n in range(7000)]
    reply, stream = paged(things, ascending=True)
    with Server(reply) as server:
        batches = pull(make(server.url, stream))
        assert [b.cursor for b in batches] == [None, None, None, {"value": "2024-01-01T00:00:00Z"}]


def test_a_number_can_be_the_cursor(make: Make) -> None:
    with Server(lambda _: json_answer({"results": [{"id": 1, "rev": 10**12}, {"id": 2, "rev": 7}]})) as server:
        stream = {"request": {"path": "/things", "query": {"after": "${cursor}"}}, "sync": {"kind": "cursor", "field": "rev"}}
        connector = make(server.url, stream)
        cursor = pull(connector)[-1].cursor
        assert cursor == {"value": 10**12}
        pull(connector, cursor)
        assert dict(server.asked[-1].query) == {"after": "1000000000000"}


def test_a_decimal_a_day_and_a_text_can_be_the_cursor(make: Make) -> None:
    record = {"id": 1, "d": "1.50", "day": "2024-02-01", "t": "abc"}
    with Server(lambda _: json_answer({"results": [record]})) as server:
        for field, value in {"d": "1.500000000", "day": "2024-02-01", "t": "abc"}.items():
            stream = {"types": {"d": "decimal", "day": "date"}, "sync": {"kind": "cursor", "field": field}}
            connector = make(server.url, stream)
            cursor = pull(connector)[-1].cursor
            assert cursor is not None
            assert cursor["value"] == value or Decimal(cursor["value"]) == Decimal(value)
            assert pull(connector, cursor)[-1].cursor == cursor


def test_the_field_may_lie_in_a_flattened_object(make: Make) -> None:
    with Server(lambda _: json_answer({"results": [{"id": 1, "p": {"at": "2024-01-02T00:00:00Z"}}]})) as server:
        stream = {**SINCE, "flatten": ["p"], "sync": {"kind": "cursor", "field": "p.at"}}
        assert pull(make(server.url, stream))[-1].cursor == {"value": "2024-01-02T00:00:00Z"}


def test_records_without_the_sync_field_are_an_error(make: Make) -> None:
    with Server(lambda _: json_answer({"results": [{"id": 1}]})) as server, pytest.raises(SourceError, match="has a value in changed"):
        pull(make(server.url, {"sync": {"kind": "cursor", "field": "changed"}}))
