"""Streams that are read from many places, or whose records are known to be gone by a mark or a list of their own."""

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest

from muxly_dagster.connector import Batch
from muxly_dagster.errors import SourceError
from muxly_dagster_tests.http.server import Asked, Server, answer, json_answer
from muxly_dagster_tests.manifest.conftest import Make, ids, pull

SINCE = {"query": {"since": "${cursor}"}}
CURSOR = {"kind": "cursor", "field": "rev"}


def rows(batches: list[Batch]) -> list[dict[str, Any]]:
    return [row for batch in batches for row in batch.rows.to_pylist()]


def deleted(batches: list[Batch]) -> list[dict[str, Any]]:
    return [row for batch in batches if batch.deletes is not None for row in batch.deletes.to_pylist()]


# ---- places


def folders(asked: Asked) -> bytes:
    """Folders 1 and 2, each with things of its own; `since` is exclusive."""
    if asked.path == "/folders":
        return json_answer({"results": [{"id": 1, "name": "one"}, {"id": 2, "name": "two"}]})
    folder = int(asked.path.split("/")[2])
    since = int(dict(asked.query).get("since", "0"))
    return json_answer({"results": [{"id": folder * 10 + n, "rev": n} for n in (1, 2) if n > since]})


def of_folders(**more: Any) -> dict[str, Any]:
    each = {"in": "streams.folders", "as": "folder", "add": {"folder_id": "${folder.id}", "folder": "${folder.name}"}}
    return {"for_each": each, "request": {"path": "/folders/${folder.id}/things", **SINCE}, "key": ["folder_id", "id"], **more}


def with_folders(make: Make, url: str, stream: dict[str, Any], **top: Any) -> Any:
    return make(url, stream, more={"folders": {"request": {"path": "/folders"}, "records": "$.results", "key": ["id"]}}, **top)


def test_a_stream_is_read_once_for_each_record_of_its_parent(make: Make) -> None:
    with Server(folders) as server:
        found = rows(pull(with_folders(make, server.url, of_folders(request={"path": "/folders/${folder.id}/things"}))))
    assert [(r["id"], r["folder_id"], r["folder"]) for r in found] == [(11, 1, "one"), (12, 1, "one"), (21, 2, "two"), (22, 2, "two")]


def test_each_place_keeps_its_own_cursor_and_a_new_one_begins_at_the_start(make: Make) -> None:
    with Server(folders) as server:
        connector = with_folders(make, server.url, of_folders(sync=CURSOR))
        first = pull(connector)
        cursors = [b.cursor for b in first if b.cursor is not None]
        assert cursors == [{"places": {"1": {"value": 2}}}, {"places": {"1": {"value": 2}, "2": {"value": 2}}}]
        assert pull(connector, cursors[-1]) == []
        resumed = pull(connector, cursors[0])  # it broke off behind the first folder
        assert ids(resumed) == [21, 22]
        assert resumed[-1].cursor == cursors[-1]


def test_a_place_that_is_gone_is_forgotten(make: Make) -> None:
    with Server(folders) as server:
        kept = {"1": {"value": 2}, "2": {"value": 2}}
        batches = pull(with_folders(make, server.url, of_folders(sync=CURSOR)), {"places": {**kept, "3": {"value": 9}}})
    assert [b.cursor for b in batches] == [{"places": kept}]


def test_a_parent_that_could_not_be_read_as_a_whole_keeps_the_pull_from_deleting(make: Make) -> None:
    def reply(asked: Asked) -> bytes:
        return json_answer({"error": "not in your plan"}, 402) if asked.path == "/folders" else folders(asked)

    rule = {"status": 402, "do": "skip"}
    with Server(reply) as server:
        kept = {"1": {"value": 2}}
        full = pull(with_folders(make, server.url, of_folders(request={"path": "/x"}), errors=[rule]))
        since = pull(with_folders(make, server.url, of_folders(sync=CURSOR), errors=[rule]), {"places": kept})
    assert [u.text for b in full for u in b.unreadable] == ['{"error": "not in your plan"}']
    assert [b.cursor for b in since] == [None]


def test_grandparents_and_parents_with_pages_and_marks_are_followed(make: Make) -> None:
    def reply(asked: Asked) -> bytes:
        match asked.path.split("/")[1:]:
            case ["teams"]:
                return json_answer({"results": [{"id": "a"}]} if dict(asked.query).get("page") else {"results": [{"id": "b"}], "next": "2"})
            case ["teams", team, "boards"]:
                return json_answer({"results": [{"id": f"{team}1", "closed": False}, {"id": f"{team}2", "closed": True}]})
            case ["boards", board]:
                return json_answer({"results": [{"id": board.upper()}]})
        raise AssertionError(asked.path)

    more = {
        "teams": {
            "request": {"path": "/teams"},
            "records": "$.results",
            "paging": {"kind": "cursor", "next": "$.next", "into": "query.page"},
        },
        "boards": {
            "for_each": "streams.teams as team",
            "request": {"path": "/teams/${team.id}/boards"},
            "records": "$.results",
            "deletes": {"column": "closed"},
        },
    }
    stream = {"for_each": {"in": "streams.boards", "as": "board"}, "request": {"path": "/boards/${board.id}"}}
    with Server(reply) as server:
        assert ids(pull(make(server.url, stream, more=more))) == ["B1", "A1"]


# ---- what is gone


def test_marked_records_are_deletes_and_move_the_cursor(make: Make) -> None:
    page = [{"id": 1, "rev": 1, "state": "open"}, {"id": 2, "rev": 2, "state": "gone"}, {"id": 3, "rev": 3, "state": None}]
    with Server(lambda _: json_answer({"results": page})) as server:
        stream = {"request": {"path": "/things", **SINCE}, "sync": CURSOR, "deletes": {"column": "state", "equals": "gone"}}
        batches = pull(make(server.url, stream), {"value": 0})
    assert ids(batches) == [1, 3]
    assert deleted(batches) == [{"id": 2}]
    assert batches[-1].cursor == {"value": 3}


def test_marked_records_of_a_full_pull_are_simply_not_there(make: Make) -> None:
    page = [{"id": 1, "archived": False}, {"id": 2, "archived": True}]
    with Server(lambda _: json_answer({"results": page})) as server:
        batches = pull(make(server.url, {"deletes": {"column": "archived"}}))
    assert rows(batches) == [{"id": 1, "archived": False}]


def test_a_list_of_deleted_records_is_read_behind_the_records_and_before_the_cursor(make: Make) -> None:
    def reply(asked: Asked) -> bytes:
        query = dict(asked.query)
        if asked.path == "/things":
            return json_answer({"results": [{"id": "9", "rev": 7}]})
        after = query.get("page")
        return json_answer(
            {"gone": [{"ref": {"id": 3}}] if after else [{"ref": {"id": 1}}, {"ref": {"id": 2}}], "next": None if after else "x"}
        )

    gone = {
        "request": {"path": "/gone", "query": {"since": "${cursor}"}},
        "records": "$.gone",
        "key": ["$.ref.id"],
        "paging": {"kind": "cursor", "next": "$.next", "into": "query.page"},
    }
    with Server(reply) as server:
        connector = make(server.url, {"request": {"path": "/things", **SINCE}, "types": {"id": "string"}, "sync": CURSOR, "deletes": gone})
        batches = pull(connector, {"value": 5})
        assert deleted(batches) == [{"id": "1"}, {"id": "2"}, {"id": "3"}]  # in the key column's own type
        assert [b.cursor for b in batches] == [None, None, None, {"value": 7}]
        assert [(a.path, dict(a.query).get("since")) for a in server.asked] == [("/things", "5"), ("/gone", "5"), ("/gone", "5")]


def test_a_list_of_deleted_records_at_a_wrong_path_is_an_error(make: Make) -> None:
    gone = {"request": {"path": "/gone"}, "records": "$.deleted", "key": ["$.id"]}
    with Server(lambda _: json_answer({"results": []})) as server:
        with pytest.raises(SourceError, match=r"no records at \$\.deleted"):
            pull(make(server.url, {"request": {"path": "/things", **SINCE}, "sync": CURSOR, "deletes": gone}))
        optional = {**gone, "records_optional": True}
        assert pull(make(server.url, {"request": {"path": "/things", **SINCE}, "sync": CURSOR, "deletes": optional})) == []


# ---- requests


def test_the_next_pages_may_have_a_request_of_their_own(make: Make) -> None:
    def reply(asked: Asked) -> bytes:
        body = json.loads(asked.body)
        if asked.path == "/things":
            return json_answer({"results": [{"id": 1}], "cursor": "c/1", "more": True})
        assert (asked.path, body) == ("/things/more", {"cursor": "c/1"})
        return json_answer({"results": [{"id": 2}], "cursor": "c/2", "more": False})

    then = {"method": "POST", "path": "/things/more", "json": {"cursor": "${page}"}}
    stream = {
        "request": {"method": "POST", "path": "/things", "json": {"all": True}},
        "paging": {"kind": "cursor", "next": "$.cursor", "more": "$.more", "then": then},
    }
    with Server(reply) as server:
        assert ids(pull(make(server.url, stream))) == [1, 2]


@pytest.mark.parametrize(
    ("request_", "media_type", "body"),
    [
        (
            {"form": {"id": [1, 2], "on": True, "q": "a b", "x": "${config.none}"}},
            "application/x-www-form-urlencoded",
            "id=1&id=2&on=true&q=a+b",
        ),
        ({"content": "select ${config.n}", "headers": {"Content-Type": "text/plain"}}, "text/plain", "select 5"),
        ({"json": {"n": "${config.n}", "none": "${config.none}"}}, "application/json", '{"n":5}'),
    ],
)
def test_a_request_has_a_body_of_its_kind(make: Make, request_: dict[str, Any], media_type: str, body: str) -> None:
    config = {"n": {"type": "integer", "default": 5}, "none": {"type": "string"}}
    with Server(lambda _: json_answer({"results": [{"id": 1}]})) as server:
        pull(make(server.url, {"request": {"method": "POST", "path": "/things", **request_}}, config=config))
        assert server.asked[0].headers["content-type"] == media_type
        assert server.asked[0].body.decode() == body


def test_an_answer_that_still_holds_is_not_sent_again(make: Make) -> None:
    def reply(asked: Asked) -> bytes:
        if asked.headers.get("if-none-match") == '"v1"':
            return answer(304, ETag='"v1"')
        return json_answer({"results": [{"id": 1}]}, ETag='"v1"')

    with Server(reply) as server:
        connector = make(server.url, {"request": {"path": "/things", "cache": True}})
        assert ids(pull(connector)) == ids(pull(connector)) == [1]
        assert [a.headers.get("if-none-match") for a in server.asked] == [None, '"v1"']


def test_rows_of_text_are_records_like_any_other(make: Make) -> None:
    with Server(lambda _: answer(200, "id,at,name\n1,2024-01-01,a\n2,2024-01-02,\n", Content_Type="text/csv")) as server:
        stream = {"records": "$", "response": {"kind": "csv"}, "types": {"id": "integer", "at": "date"}}
        assert rows(pull(make(server.url, stream))) == [
            {"id": 1, "at": dt.date(2024, 1, 1), "name": "a"},
            {"id": 2, "at": dt.date(2024, 1, 2), "name": None},
        ]


# ---- files


def test_the_file_of_a_record_is_stored_beside_it(make: Make) -> None:
    def reply(asked: Asked) -> bytes:
        if asked.path == "/things":
            return json_answer({"results": [{"id": 1, "file": {"v": "a"}}, {"id": 2}]})
        return answer(200, b"content of " + asked.path.encode(), Content_Type="text/plain")

    stream = {"file": {"request": {"path": "/things/${record.id}/content"}, "has": "$.file", "version": "$.file.v"}}
    with Server(reply) as server:
        connector = make(server.url, stream)
        first = rows(pull(connector))
        assert Path(first[0]["file_url"]).read_bytes() == b"content of /things/1/content"
        assert (first[0]["file_media_type"], first[1]["file_url"]) == ("text/plain", None)
        assert rows(pull(connector)) == first
        assert [a.path for a in server.asked] == ["/things", "/things/1/content", "/things"]


def test_an_answer_may_be_a_file_as_a_whole(make: Make) -> None:
    with Server(lambda _: answer(200, b"%PDF", Content_Type="application/pdf")) as server:
        (row,) = rows(
            pull(make(server.url, {"request": {"path": "/report.pdf"}, "records": "$", "response": {"kind": "binary"}, "key": []}))
        )
    assert (row["name"], row["size"], row["media_type"]) == ("report.pdf", 4, "application/pdf")
