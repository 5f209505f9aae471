"""A provider's own description of a stream's fields, read into names and types."""

from typing import Any

import pytest
from pydantic import ValidationError

from muxly_dagster.decoding import declared_field
from muxly_dagster.errors import SourceError
from muxly_dagster.http import Http
from muxly_dagster.manifest.asking.judging import judge
from muxly_dagster.manifest.reading.discovering import _TYPES, Discovered, discover
from muxly_dagster.manifest.schema import DiscoveredSchema, ErrorRule
from muxly_dagster_tests.http.server import Asked, Server, json_answer

FIELDS = [
    {"name": "hs_object_id", "type": "number"},
    {"name": "name", "type": "string"},
    {"name": "closed", "type": "bool"},
    {"name": "at", "type": "dateTime"},
    {"name": "day", "type": "date"},
    {"name": "stage", "type": "enumeration"},
    {"name": "code", "type": "varchar(255)"},
    {"name": "tags", "type": "array<string>"},
    {"name": "score", "type": "double"},
    {"name": "shape", "type": "hologram"},
    {"name": "bare"},
]


def asked(reply: Any, rules: list[ErrorRule] | None = None, context: dict[str, Any] | None = None, **spec: Any) -> Discovered:
    made = DiscoveredSchema.model_validate({"request": {"path": "/fields"}, "records": "$.results", "type": "$.type", **spec})
    verdict = judge(rules or [])
    with Server(reply) as server, Http(server.url, judge=verdict) as http:
        return discover(http, made, context or {}, verdict)


def test_names_and_usual_types_are_understood() -> None:
    found = asked(lambda _: json_answer({"results": FIELDS}))
    assert found.names == [field["name"] for field in FIELDS]
    assert found.types == {
        "hs_object_id": "decimal",  # no digit is lost, however many there are
        "name": "string",
        "closed": "boolean",
        "at": "timestamp",
        "day": "date",
        "stage": "string",
        "code": "string",
        "tags": "json",
        "score": "number",
    }


def test_the_manifest_s_own_words_come_first() -> None:
    found = asked(lambda _: json_answer({"results": FIELDS}), map={"hologram": "json", "NUMBER": "integer", "datetime": "epoch_ms"})
    assert (found.types["shape"], found.types["hs_object_id"], found.types["at"]) == ("json", "integer", "epoch_ms")


def test_every_usual_type_is_one_of_the_manifest_s() -> None:
    assert {declared_field("x", type_).name for type_ in _TYPES.values()} == {"x"}


def test_the_request_is_filled_in_and_paged_by_cursor() -> None:
    def reply(asked: Asked) -> bytes:
        assert asked.path == "/crm/deals/fields"
        page = dict(asked.query).get("after")
        return json_answer({"results": FIELDS[6:], "next": None} if page else {"results": FIELDS[:6], "next": "p2"})

    paging = {"kind": "cursor", "next": "$.next", "into": "query.after"}
    found = asked(reply, context={"object": "deals"}, request={"path": "/crm/${object}/fields"}, paging=paging)
    assert len(found.names) == len(FIELDS)
    assert found.types["score"] == "number"


def test_the_pages_can_be_linked() -> None:
    def reply(asked: Asked) -> bytes:
        if asked.path == "/more":
            return json_answer({"results": FIELDS[1:2]})
        return json_answer({"results": FIELDS[:1]}, Link='</more>; rel="next"')

    assert asked(reply, paging={"kind": "link"}).names == ["hs_object_id", "name"]


def test_a_list_of_names_alone_is_a_description_too() -> None:
    assert asked(lambda _: json_answer({"results": ["a", "b"]})) == Discovered({}, ["a", "b"])


def test_an_answer_without_fields_or_names_says_what_to_correct() -> None:
    with pytest.raises(SourceError, match=r"no fields at \$\.results") as caught:
        asked(lambda _: json_answer({"items": []}))
    assert "schema" in caught.value.do
    with pytest.raises(SourceError, match=r"a field has no name at \$\.name"):
        asked(lambda _: json_answer({"results": [{"label": "x"}]}))


def test_a_refusal_that_the_rules_skip_leaves_all_to_be_inferred() -> None:
    rules = [ErrorRule.model_validate({"status": 402, "do": "skip"})]
    assert asked(lambda _: json_answer({}, 402), rules) == Discovered({}, [])
    with pytest.raises(SourceError, match="402"):
        asked(lambda _: json_answer({}, 402))


def test_a_type_that_muxly_does_not_have_is_refused_when_the_manifest_is_read() -> None:
    with pytest.raises(ValidationError, match="is no type"):
        DiscoveredSchema.model_validate({"request": {}, "map": {"hologram": "picture"}})
