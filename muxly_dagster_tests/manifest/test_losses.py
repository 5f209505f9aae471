"""Nothing is lost in silence: what was skipped, deleted or listed elsewhere is not passed by a cursor or a token."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from muxly_dagster.connector import Batch
from muxly_dagster.errors import SourceError
from muxly_dagster_tests.http.server import Asked, Server, json_answer
from muxly_dagster_tests.manifest.conftest import Make, ids, pull
from muxly_dagster_tests.manifest.test_delta import NOTES, place, texts
from muxly_dagster_tests.peers.notes import Notes

SKIP = [{"status": 402, "do": "skip"}]
CURSOR = {"kind": "cursor", "field": "rev"}
NEXT = {"kind": "cursor", "next": "$.next", "into": "query.page"}
REFUSED = json_answer({"error": "not in your plan"}, 402)


def cursors(batches: list[Batch]) -> list[Any]:
    return [batch.cursor for batch in batches if batch.cursor is not None]


def reasons(batches: list[Batch]) -> list[str]:
    return [bad.reason for batch in batches for bad in batch.unreadable]


# ---- skipped answers -------------------------------------------------------------------------------------------------


def test_a_cursor_does_not_pass_an_answer_that_was_skipped(make: Make) -> None:
    def newest_first(asked: Asked) -> bytes:
        return REFUSED if dict(asked.query).get("page") else json_answer({"results": [{"id": 9, "rev": 9}], "next": "2"})

    with Server(newest_first) as server:
        batches = pull(make(server.url, {"paging": NEXT, "sync": CURSOR}, errors=SKIP), {"value": 1})
    assert (ids(batches), cursors(batches)) == ([9], [])
    assert "402" in reasons(batches)[0]


def test_nor_does_a_cursor_pass_a_window_of_which_an_answer_was_skipped(make: Make) -> None:
    day = "2026-01-0{}T00:00:00Z"

    def reply(asked: Asked) -> bytes:
        start = dict(asked.query)["from"]
        return REFUSED if start == day.format(2) else json_answer({"results": [{"id": start[8:10], "rev": start}]})

    query = {"from": "${window.start}", "to": "${window.end}"}
    sync = {**CURSOR, "window": "1d", "start": "2026-01-01"}
    stream = {"request": {"path": "/things", "query": query}, "types": {"rev": "timestamp"}, "sync": sync}
    with Server(reply) as server:
        batches = pull(make(server.url, stream, errors=SKIP))
    assert cursors(batches) == [{"value": day.format(1)}]
    assert ids(batches)[:2] == ["01", "03"]


@pytest.mark.parametrize("seed", ["pages", {"request": {"path": "/seed"}, "token": "$.token"}])
def test_a_token_does_not_pass_an_answer_that_was_skipped(make: Make, seed: Any) -> None:
    refused = [True]

    def reply(asked: Asked) -> bytes:
        if dict(asked.query).get("page"):
            return REFUSED if refused else json_answer({"results": [{"id": 2}], "token": "new"})
        return json_answer({"results": [{"id": 1}], "token": "new", "next": "2"})

    request = {"path": "/changes", "query": {"since": "${token}"}}
    sync = {"kind": "delta", "seed": seed, "token": "$.token", "request": request, "paging": NEXT, "expired": [410]}
    with Server(reply) as server:
        connector = make(server.url, {"paging": NEXT, "sync": sync}, errors=SKIP)
        assert cursors(pull(connector)) == []
        assert cursors(pull(connector, {"token": "old"})) == []
        refused.clear()
        batches = pull(connector, {"token": "old"})
    assert (ids(batches), cursors(batches)) == ([1, 2], [{"token": "new"}])


# ---- what was deleted ------------------------------------------------------------------------------------------------


def test_a_cursor_on_the_way_does_not_pass_deletions_that_are_listed_behind_the_records(make: Make) -> None:
    things = [{"id": n, "rev": n} for n in range(1, 7001)]

    def reply(asked: Asked) -> bytes:
        if asked.path == "/gone":
            return json_answer([{"id": 5}])
        start = int(dict(asked.query).get("page", "0"))
        return json_answer({"results": things[start : start + 1000], "next": start + 1000 if start < 6000 else None})

    def batches_with(query: dict[str, str]) -> list[Batch]:
        deletes = {"request": {"path": "/gone", "query": query}, "key": ["$.id"]}
        stream = {"request": {"path": "/things", "query": {"since": "${cursor}"}}, "paging": NEXT, "deletes": deletes}
        with Server(reply) as server:
            return pull(make(server.url, {**stream, "sync": {**CURSOR, "ascending": True}}), {"value": 0})

    since = batches_with({"since": "${cursor}"})
    assert [batch.cursor for batch in since[:-1]] == [None] * (len(since) - 1)
    assert since[-1].cursor == {"value": 7000}
    assert len(cursors(batches_with({}))) > 2, "a list that is read whole each time needs no cursor to wait for it"


def test_a_deleted_record_without_a_key_is_set_aside(make: Make) -> None:
    deletes = {"request": {"path": "/gone"}, "key": ["$.id"]}
    sync = {"kind": "delta", "seed": "pages", "token": "$.t", "request": {"path": "/d", "query": {"t": "${token}"}}, "expired": [410]}
    page = {"results": [{"id": 1, "rev": 1}], "t": "2", "gone": [{"id": 3}, {"id": None}]}
    with Server(lambda asked: json_answer([{"ref": 4}] if asked.path == "/gone" else page)) as server:
        listed = pull(make(server.url, {"request": {"path": "/things", "query": {"c": "${cursor}"}}, "sync": CURSOR, "deletes": deletes}))
        beside = pull(make(server.url, {"sync": {**sync, "deletes": "$.gone[*].id"}}), {"token": "1"})
    assert "no" in reasons(listed)[0] and "key" in reasons(listed)[0]
    assert [bad.text for batch in listed for bad in batch.unreadable] == ['{"ref":4}']
    assert [row for batch in beside if batch.deletes is not None for row in batch.deletes.to_pylist()] == [{"id": 3}]
    assert len(reasons(beside)) == 1


@pytest.mark.parametrize("key", [{}, {"id": None}])
def test_a_marked_record_without_a_key_is_left_to_be_set_aside(make: Make, key: dict[str, Any]) -> None:
    sync = {"kind": "delta", "seed": "pages", "token": "$.t", "request": {"path": "/d", "query": {"t": "${token}"}}, "expired": [410]}
    with Server(lambda _: json_answer({"results": [{**key, "gone": True}], "t": "2"})) as server:
        (batch, _) = pull(make(server.url, {"sync": {**sync, "deletes": {"column": "gone"}}}), {"token": "1"})
    assert (len(batch.rows), batch.deletes) == (1, None), "the lake refuses a record without a key, and the pull keeps it aside"


@pytest.mark.parametrize("values", [[False, {"by": "ann"}], [0, 1], ["", "2026-01-01"], [None, True], ["false", "true"], ["0", "1"]])
def test_a_mark_that_says_no_deletes_nothing(make: Make, values: list[Any]) -> None:
    page = {"results": [{"id": n, "rev": n, "gone": value} for n, value in enumerate(values)]}
    stream = {"request": {"path": "/things", "query": {"since": "${cursor}"}}, "sync": CURSOR, "deletes": {"column": "gone"}}
    child = {"for_each": {"in": "streams.things", "as": "thing"}, "request": {"path": "/of/${thing.id}"}, "records": "$.results"}
    with Server(lambda _: json_answer(page)) as server:
        (batch, _) = pull(make(server.url, stream))
        connector = make(server.url, stream, more={"children": child})
        list(connector.pull(connector.Pull(stream="children"), None, None))
        assert [asked.path for asked in server.asked if asked.path.startswith("/of/")] == ["/of/0"]
    assert (batch.rows["id"].to_pylist(), batch.deletes and batch.deletes["id"].to_pylist()) == ([0], [1])


def test_a_mark_within_a_flattened_object_counts_for_a_parent_too(make: Make) -> None:
    page = {"results": [{"id": 0, "state": {"gone": True}}, {"id": 1, "state": {"gone": False}}]}
    parents = {"request": {"path": "/p"}, "records": "$.results", "flatten": ["state"], "deletes": {"column": "gone"}}
    stream = {"for_each": {"in": "streams.parents", "as": "parent"}, "request": {"path": "/of/${parent.id}"}}
    with Server(lambda _: json_answer(page)) as server:
        pull(make(server.url, stream, more={"parents": parents}))
        assert [asked.path for asked in server.asked] == ["/p", "/of/1"]


def test_records_below_a_parent_that_could_not_be_read_are_not_gone(tmp_path: Path) -> None:
    """Places that no column tells apart are read again together: what is not there then would all be gone."""
    manifest = yaml.safe_load(NOTES.read_text())
    boxed = manifest["streams"]["boxed"]
    boxed["for_each"] = {"in": "streams.boxes", "as": "box"}
    boxed |= {"key": ["id"], "request": {"path": "/notes", "query": {"box": "${box.id}"}}}
    boxed["sync"]["request"]["query"]["box"] = "${box.id}"
    path = tmp_path / "notes.yaml"
    with Notes() as api, Server(lambda _: answers[-1]) as boxes:
        manifest["streams"]["boxes"] = {"request": {"path": f"{boxes.url}/boxes"}, "records": "$.boxes"}
        path.write_text(yaml.safe_dump(manifest))
        answers = [json_answer({"boxes": [{"id": "red"}, {"id": "blue"}]})]
        api.write("a", "first", box="red")
        api.write("b", "first", box="blue")
        pulled = place(api, tmp_path, "boxed", manifest=path)
        pulled.run()
        answers.append(json_answer({"boxes": [{"id": "red"}, "blue"]}))
        api.expire()
        pulled.run()
        assert texts(pulled) == {"red/a": "first", "blue/b": "first"}
        answers.append(answers[0])
        del api.notes["b"]
        pulled.run()
        assert texts(pulled) == {"red/a": "first"}


def test_a_full_pull_that_could_not_tell_what_is_gone_comes_again(tmp_path: Path) -> None:
    with Notes() as api:
        for name in "abc":
            api.write(name, "first")
        pulled = place(api, tmp_path, "seeded")
        pulled.run()
        api.expire()
        api.write("b", "bad")
        api.notes["b"]["updated"] = "no time"
        del api.notes["c"]  # nobody will ever tell of it
        assert pulled.run().metadata["quarantined"] == 1
        assert texts(pulled) == {"a": "first", "b": "first", "c": "first"}
        api.write("b", "second")
        pulled.run()
        assert texts(pulled) == {"a": "first", "b": "second"}


# ---- requests that would ask for something else ----------------------------------------------------------------------


def test_a_request_whose_path_names_what_is_not_there_is_not_sent_to_another_address(make: Make) -> None:
    folders = {"request": {"path": "/folders"}, "records": "$.results"}
    stream = {"for_each": {"in": "streams.folders", "as": "folder"}, "request": {"path": "/folders/${folder.slug}"}}
    with Server(lambda _: json_answer({"results": [{"id": 1}]})) as server:
        with pytest.raises(SourceError, match=r"/folders/\$\{folder.slug\} names a value that is not there"):
            pull(make(server.url, stream, more={"folders": folders}))
        assert [asked.path for asked in server.asked] == ["/folders"]


def test_a_value_of_a_record_does_not_lead_out_of_its_place_in_a_path(make: Make) -> None:
    with Server(lambda _: json_answer({"results": [{"id": ".."}]})) as server:
        with pytest.raises(SourceError, match=r"'\.\.' would lead out of its place in /things/\$\{key\}/more"):
            pull(make(server.url, {"enrich": [{"request": {"path": "/things/${key}/more"}, "key": "id"}]}))
        assert len(server.asked) == 1


def test_records_are_not_emptied_by_asking_for_no_fields(make: Make) -> None:
    stream = {"schema": {"request": {"path": "/fields"}}, "request": {"path": "/things", "query": {"fields": "${schema.names|text}"}}}
    with Server(lambda asked: REFUSED if asked.path == "/fields" else json_answer({"results": [{"id": 1}]})) as server:
        with pytest.raises(SourceError, match="names no fields"):
            pull(make(server.url, stream, errors=SKIP))
        assert [asked.path for asked in server.asked] == ["/fields"]


# ---- exact ------------------------------------------------------------------------------------------------------------


def test_a_parent_s_numbers_are_exact(make: Make) -> None:
    number = "12345678901234567.89"
    parent = {"request": {"path": "/accounts"}, "records": "$.results"}
    each = {"in": "streams.accounts", "as": "account", "add": {"limit": "${account.limit}", "share": "${account.share}"}}
    stream = {"for_each": each, "request": {"path": "/accounts/${account.limit}"}}

    def reply(asked: Asked) -> bytes:
        page = f'{{"results": [{{"id": 1, "limit": {number}, "share": 0.5}}]}}'.encode()
        return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(page), page)

    with Server(reply) as server:
        (batch,) = pull(make(server.url, stream, more={"accounts": parent}))
        assert server.asked[1].path == f"/accounts/{number}"
    (row,) = batch.rows.to_pylist()
    assert (str(row["limit"]), row["share"]) == (number, 0.5)
