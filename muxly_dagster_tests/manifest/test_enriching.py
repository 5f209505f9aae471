"""Enrichment: more of each record, one by one or in batches, and not a byte of anything else changed."""

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

from muxly_dagster.decoding import PageDecoder
from muxly_dagster.errors import ConfigurationError, RetryLater, SourceError
from muxly_dagster.http import Http, Retries
from muxly_dagster.manifest.asking.judging import judge
from muxly_dagster.manifest.reading.enriching import Enricher
from muxly_dagster.manifest.schema import EnrichSpec, ErrorRule
from muxly_dagster_tests.http.server import Asked, Server, answer, json_answer
from muxly_dagster_tests.manifest.conftest import Make

Reply = Callable[[Asked], bytes]
EACH = {"request": {"path": "/items/${key}"}, "key": "id"}
BATCH = {
    "request": {"method": "POST", "path": "/batch", "json": {"properties": ["name"]}},
    "key": "id",
    "batch": {"size": 2, "into": "json.inputs", "each": {"id": "${key}"}, "records": "$.results", "by": "$.id"},
}


def enrich(
    server: Server, page: bytes | Any, *specs: dict[str, Any], records: str = "$.items", rules: list[dict[str, Any]] | None = None
) -> bytes:
    verdict = judge([ErrorRule.model_validate(rule) for rule in rules or []])
    content = page if isinstance(page, bytes) else json.dumps(page).encode()
    with Http(server.url, judge=verdict, retries=Retries(attempts=1)) as http:
        spec = [EnrichSpec.model_validate(each) for each in specs]
        return Enricher(http, spec, {"config": {"format": "full"}}, verdict).enrich(content, records)


def items(page: bytes) -> list[Any]:
    found: list[Any] = json.loads(page)["items"]
    return found


def named(asked: Asked) -> bytes:
    return json_answer({"name": f"n{asked.path.rpartition('/')[2]}"})


def batched(asked: Asked) -> bytes:
    return json_answer({"results": [{"id": int(each["id"]), "name": f"n{each['id']}"} for each in json.loads(asked.body)["inputs"]]})


# ---- one by one ------------------------------------------------------------------------------------------------------


def test_the_answer_s_fields_go_over_the_record_s_own_in_its_place() -> None:
    with Server(lambda a: json_answer({"id": "1", "name": "new", "more": [1]})) as server:
        page = enrich(server, {"items": [{"id": 1, "name": "old", "at": 5}], "next": "p2"}, EACH)
    assert json.loads(page) == {"items": [{"id": "1", "name": "new", "at": 5, "more": [1]}], "next": "p2"}


def test_or_under_a_field_of_their_own_or_a_part_of_them() -> None:
    with Server(lambda a: json_answer({"data": {"name": "x"}, "other": 1})) as server:
        whole = enrich(server, {"items": [{"id": 1}]}, {**EACH, "into": "more"})
        part = enrich(server, {"items": [{"id": 1}]}, {**EACH, "into": "more", "select": "$.data.name"})
        over = enrich(server, {"items": [{"id": 1}]}, {**EACH, "select": "$.data"})
        found = enrich(server, {"items": [{"id": 1}]}, {**EACH, "into": "more", "select": "$..name"})
    assert items(whole) == [{"id": 1, "more": {"data": {"name": "x"}, "other": 1}}]
    assert items(part) == items(found) == [{"id": 1, "more": "x"}]
    assert items(over) == [{"id": 1, "name": "x"}]


def test_requests_name_key_record_and_input() -> None:
    spec = {
        "key": "owner.id",
        "request": {"path": "/o/${key}", "query": {"f": "${config.format}", "n": "${record.name}", "x": "${record.no}"}},
    }
    with Server(named) as server:
        assert items(enrich(server, {"items": [{"id": 1, "name": "a&b", "owner": {"id": "x/y"}}]}, spec))[0]["name"] == "nx%2Fy"
        assert server.asked[0].target == "/o/x%2Fy?f=full&n=a%26b"


def test_the_order_stays_and_the_requests_run_side_by_side() -> None:
    with Server(named) as server:
        page = enrich(server, {"items": [{"id": n} for n in range(60)]}, EACH)
        assert [item["name"] for item in items(page)] == [f"n{n}" for n in range(60)]
        assert server.connections > 1


def test_what_is_asked_twice_is_sent_once_also_on_later_pages() -> None:
    with Server(named) as server, Http(server.url) as http:
        enricher = Enricher(http, [EnrichSpec.model_validate(EACH)], {}, None)
        for _ in range(2):
            page = enricher.enrich(b'{"items": [{"id": 7, "n": 1}, {"id": 7, "n": 2}, {"id": 8}]}', "$.items")
            assert [item["name"] for item in items(page)] == ["n7", "n7", "n8"]
        assert sorted(asked.path for asked in server.asked) == ["/items/7", "/items/8"]


def test_a_record_that_comes_again_is_completed_anew() -> None:
    versions = iter("abc")
    spec = EnrichSpec.model_validate(EACH)
    with Server(lambda _: json_answer({"version": next(versions)})) as server, Http(server.url) as http:
        enricher = Enricher(http, [spec], {}, None, own=["id"])
        pages = [enricher.enrich(b'{"items": [{"id": 7}, {"id": 7}]}', "$.items") for _ in range(2)]
    assert [item["version"] for page in pages for item in items(page)] == ["a", "a", "b", "b"]


def test_one_step_builds_on_the_other() -> None:
    with Server(lambda a: json_answer({"owner": 5}) if a.path.startswith("/items") else json_answer({"mail": "x"})) as server:
        second = {"request": {"path": "/owners/${key}"}, "key": "owner", "into": "owner_mail", "select": "$.mail"}
        assert items(enrich(server, {"items": [{"id": 1}]}, EACH, second)) == [{"id": 1, "owner": 5, "owner_mail": "x"}]


@pytest.mark.parametrize("record", [{"name": "x"}, {"id": None}, {"id": ""}, {"id": [1]}, {"id": True}])
def test_a_record_without_a_key_stays_as_it_is(record: dict[str, Any]) -> None:
    with Server(named) as server:
        assert items(enrich(server, {"items": [record]}, EACH)) == [record]
        assert server.asked == []


def test_only_records_for_which_the_condition_holds() -> None:
    with Server(named) as server:
        page = enrich(server, {"items": [{"id": 1, "big": True}, {"id": 2, "big": False}]}, {**EACH, "when": "$.big == true"})
        half = enrich(server, {"items": [{"id": 1, "x": 1.1}, {"id": 2, "x": 2}]}, {**EACH, "when": "$.x == 1.1"})
    assert [item.get("name") for item in items(page)] == [item.get("name") for item in items(half)] == ["n1", None]


def test_an_address_in_the_record_is_asked_as_it_is_and_where_there_is_none_nothing() -> None:
    with Server(named) as server:
        spec = {"request": {"path": "${record.link}"}, "key": "id"}
        page = enrich(server, {"items": [{"id": 1, "link": f"{server.url}/at/9"}, {"id": 2}]}, spec)
        assert [item.get("name") for item in items(page)] == ["n9", None]
        with pytest.raises(SourceError, match=r"at elsewhere\.example"):
            enrich(server, {"items": [{"id": 1, "link": "https://elsewhere.example/x"}]}, spec)


# ---- exactness -------------------------------------------------------------------------------------------------------

ODD = b'{"id": 1, "big": 123456789012345678901234567890, "cost": 1.10, "e": 1E+2, "s": "\\u00e9\\ud83d\\ude00", "o": {"x":  0.30}}'


def test_numbers_and_texts_stay_the_bytes_they_were() -> None:
    with Server(lambda a: answer(200, b'{"rate": 0.1000, "n": 12345678901234567890123}')) as server:
        page = enrich(server, b'{ "items" : [ ' + ODD + b' ,\n {"x":1.0} ] , "total":  2.50 }', EACH)
    for text in (b"123456789012345678901234567890", b":1.10", b"1E+2", b"\\u00e9\\ud83d\\ude00", b'{"x":  0.30}', b":0.1000"):
        assert text in page, text
    assert page.startswith(b'{ "items" : [')
    assert page.endswith(b'{"x":1.0}] , "total":  2.50 }')


def test_records_that_lie_deep_are_changed_in_their_places() -> None:
    page = {"history": [{"id": "9", "added": [{"message": {"id": "a"}}, {"message": {"id": "b"}}]}, {"id": "10"}], "historyId": "11"}
    text = json.dumps(page).encode().replace(b'"10"', b"1.10")
    with Server(named) as server:
        changed = enrich(server, text, EACH, records="$.history[*].added[*].message")
    assert b"1.10" in changed
    found = json.loads(changed)
    assert [a["message"] for a in found["history"][0]["added"]] == [{"id": "a", "name": "na"}, {"id": "b", "name": "nb"}]
    assert found["historyId"] == "11"


def test_one_object_is_a_page_too() -> None:
    with Server(named) as server:
        assert json.loads(enrich(server, {"id": 1}, EACH, records="$")) == {"id": 1, "name": "n1"}
        assert json.loads(enrich(server, [{"id": 1}], EACH, records="$")) == [{"id": 1, "name": "n1"}]
        assert json.loads(enrich(server, {"item": {"id": 1}, "x": 1}, EACH, records="$.item")) == {"item": {"id": 1, "name": "n1"}, "x": 1}


def test_a_number_of_any_length_goes_through() -> None:
    long = b'{"items": [{"id": 1, "n": ' + b"9" * 6000 + b"}]}"
    with Server(named) as server:
        assert b"9" * 6000 in enrich(server, long, EACH)
        assert b"9" * 6000 in enrich(server, long, EACH, records="$..items[*]")


def test_a_broken_record_spoils_no_other_and_ends_in_quarantine() -> None:
    with Server(named) as server:
        page = enrich(server, b'{"items": [{"id": 1}, {"id": NaN}, {"id": 2, "x": "\xff"}, {"id": 3}]}', EACH)
        assert sorted(asked.path for asked in server.asked) == ["/items/1", "/items/3"]
    decoder = PageDecoder("$.items")
    decoder.decode(page)
    rows, unread = decoder.flush()
    assert rows.to_pylist() == [{"id": 1, "name": "n1"}, {"id": 3, "name": "n3"}]
    assert [each.text[:10] for each in unread] == ['{"id": NaN', '{"id": 2, ']


@pytest.mark.parametrize("page", [b"", b"<html>", b'{"other": []}', b'{"items": []}', b'{"items": null}', b'{"items": [{"id": 1}'])
def test_a_page_without_records_or_that_is_no_json_comes_back_as_it_is(page: bytes) -> None:
    with Server(named) as server:
        assert enrich(server, page, EACH) == page
        assert server.asked == []


# ---- batches ---------------------------------------------------------------------------------------------------------


def test_keys_go_in_groups_and_answers_are_joined_by_key() -> None:
    with Server(batched) as server:
        page = enrich(server, {"items": [{"id": f"{n}"} for n in (3, 1, 2, 1)]}, {**BATCH, "into": "more"})
        bodies = [json.loads(asked.body) for asked in server.asked]
    assert [item["more"]["name"] for item in items(page)] == ["n3", "n1", "n2", "n1"]
    assert sorted(bodies, key=str) == sorted(
        [
            {"properties": ["name"], "inputs": [{"id": "3"}, {"id": "1"}]},
            {"properties": ["name"], "inputs": [{"id": "2"}]},
        ],
        key=str,
    )


def test_a_partner_that_is_missing_leaves_the_record_as_it_is() -> None:
    with Server(lambda a: json_answer({"results": [{"id": "1", "name": "x"}, {"name": "nobody's"}]})) as server:
        page = enrich(server, {"items": [{"id": 1}, {"id": 2}]}, BATCH)
    assert items(page) == [{"id": "1", "name": "x"}, {"id": 2}]


def test_keys_can_stand_in_one_parameter() -> None:
    spec = {"request": {"path": "/many", "query": {"ids": "${keys|text}"}}, "key": "id", "batch": {"size": 10, "records": "$"}}
    with Server(lambda a: json_answer([{"id": 1, "name": "a"}, {"id": 2, "name": "b"}])) as server:
        assert [item["name"] for item in items(enrich(server, {"items": [{"id": 1}, {"id": 2}]}, spec))] == ["a", "b"]
        assert dict(server.asked[0].query) == {"ids": "1,2"}


def test_or_each_in_a_parameter_of_its_own() -> None:
    spec = {"request": {"path": "/many"}, "key": "id", "batch": {"size": 10, "into": "query.id", "records": "$.all[*].it"}}
    with Server(lambda a: json_answer({"all": [{"it": {"id": 2, "cost": 1.5}}]})) as server:
        assert items(enrich(server, {"items": [{"id": 1}, {"id": 2}]}, spec)) == [{"id": 1}, {"id": 2, "cost": 1.5}]
        assert server.asked[0].query == [("id", "1"), ("id", "2")]


def test_a_batch_whose_keys_have_no_place_is_refused_when_the_manifest_is_read(make: Make) -> None:
    def enriched(query: dict[str, str], **batch: Any) -> dict[str, Any]:
        return {"enrich": [{"request": {"path": "/many", "query": query}, "key": "id", "batch": {"size": 10, **batch}}]}

    make("http://127.0.0.1:1", enriched({"ids": "${keys|text}"}))
    make("http://127.0.0.1:1", enriched({}, into="query.ids"))
    with pytest.raises(ConfigurationError, match="nothing says where the keys go"):
        make("http://127.0.0.1:1", enriched({}))
    with pytest.raises(ConfigurationError, match=r"nothing is called \$\{key\} here"):
        make("http://127.0.0.1:1", enriched({"id": "${key}"}, into="query.ids"))


# ---- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [404, 410])
def test_what_is_gone_meanwhile_leaves_its_record_and_is_told_once(status: int, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), Server(lambda a: json_answer({}, status) if a.path != "/items/2" else named(a)) as server:
        page = enrich(server, {"items": [{"id": 1}, {"id": 2}, {"id": 3}]}, EACH)
    assert items(page) == [{"id": 1}, {"id": 2, "name": "n2"}, {"id": 3}]
    assert [record.message.count(str(status)) for record in caplog.records if record.name == "muxly.manifest"] == [1]


def test_what_the_rules_skip_leaves_its_record() -> None:
    rules = [{"status": 403, "do": "skip"}, {"when": "body.state == 'locked'", "do": "skip"}]
    replies = {"/items/1": json_answer({}, 403), "/items/2": json_answer({"state": "locked"})}
    with Server(lambda a: replies.get(a.path) or named(a)) as server:
        assert items(enrich(server, {"items": [{"id": 1}, {"id": 2}, {"id": 3}]}, EACH, rules=rules)) == [
            {"id": 1},
            {"id": 2},
            {"id": 3, "name": "n3"},
        ]


def test_other_refusals_end_the_pull() -> None:
    with Server(lambda a: json_answer({}, 500)) as server, pytest.raises(RetryLater):
        enrich(server, {"items": [{"id": 1}, {"id": 2}]}, EACH)
    with Server(lambda a: json_answer({}, 404)) as server, pytest.raises(SourceError, match="404"):
        enrich(server, {"items": [{"id": 1}]}, BATCH)


def test_an_empty_answer_adds_nothing() -> None:
    with Server(lambda a: answer(204)) as server:
        assert items(enrich(server, {"items": [{"id": 1}]}, EACH)) == [{"id": 1}]


@pytest.mark.parametrize(
    ("reply", "spec", "says"),
    [
        (answer(200, "<html>", Content_Type="text/html"), EACH, "answered text/html instead of JSON"),
        (answer(200, '{"a": NaN}'), EACH, "numbers that JSON does not know"),
        (json_answer([1]), EACH, "is no object"),
        (json_answer({"items": []}), BATCH, r"no records at \$\.results"),
        (answer(200, '{"results": [NaN]}'), BATCH, "numbers that JSON does not know"),
    ],
)
def test_an_answer_that_cannot_be_joined_says_why(reply: bytes, spec: dict[str, Any], says: str) -> None:
    with Server(lambda _: reply) as server, pytest.raises(SourceError, match=says) as caught:
        enrich(server, {"items": [{"id": 1}]}, spec)
    assert caught.value.do
