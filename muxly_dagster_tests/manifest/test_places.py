"""A stream that is read once for each of something: of a list, of an input's values, of a parent stream's records."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from muxly_dagster.errors import ConfigurationError, SourceError
from muxly_dagster.manifest.language.expressions import render
from muxly_dagster.manifest.reading.places import Place, places
from muxly_dagster.manifest.schema import ForEach, StreamSpec

FOLDERS = [{"id": 1, "name": "In", "owner": {"id": "a"}}, {"id": 2, "name": "Out", "owner": {"id": "b"}}]


def each(**spec: Any) -> ForEach:
    return ForEach.model_validate({"as": "it", **spec})


def found(spec: ForEach | None, context: dict[str, Any] | None = None, parent: list[dict[str, Any]] = FOLDERS) -> list[Place]:
    def read_parent(name: str) -> Iterator[dict[str, Any]]:
        assert name == "folders"
        yield from parent

    return list(places(spec, context or {}, read_parent))


def test_a_stream_without_for_each_has_one_place_without_a_name() -> None:
    assert found(None, {"config": {"a": 1}}) == [Place("", {"config": {"a": 1}}, {})]


def test_a_list_in_the_manifest_keeps_its_values_types() -> None:
    eu, two = found(each(**{"in": ["eu", 2], "add": {"region": "${it}", "label": "r-${it}", "lost": "${config.nothing}"}}))
    assert (eu.name, eu.context["it"], eu.add) == ("eu", "eu", {"region": "eu", "label": "r-eu"})
    assert (two.name, two.context["it"], two.add) == ("2", 2, {"region": 2, "label": "r-2"})


def test_an_input_s_values_and_its_short_form() -> None:
    spec = StreamSpec.model_validate({"request": {}, "for_each": "config.objects as object"}).for_each
    context = {"config": {"objects": ["contacts", "deals"]}, "api_version": "1"}
    contacts, deals = found(spec, context)
    assert (contacts.name, deals.name) == ("contacts", "deals")
    assert render("/${api_version}/${object}", deals.context) == "/1/deals"
    assert [place.name for place in found(spec, {"config": {"objects": "one"}})] == ["one"]


@pytest.mark.parametrize("value", [None, [], ""])
def test_an_empty_input_is_no_place_and_says_so(value: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert found(each(**{"in": "config.objects"}), {"config": {"objects": value}}) == []
    assert "config.objects is empty" in caplog.text


def test_a_parent_s_records_are_places_named_by_their_key() -> None:
    first, second = found(each(**{"in": "streams.folders", "add": {"folder_id": "${it.id}", "owner": "${it.owner.id}"}}))
    assert (first.name, first.add) == ("1", {"folder_id": 1, "owner": "a"})
    assert second.context["it"] == FOLDERS[1]
    named = found(each(**{"in": "streams.folders", "key": ["id", "name"]}))
    assert [place.name for place in named] == ['["1","In"]', '["2","Out"]']


def test_parent_records_are_read_as_they_are_needed() -> None:
    read = []

    def read_parent(_: str) -> Iterator[dict[str, Any]]:
        for number in range(3):
            read.append(number)
            yield {"id": number}

    assert next(places(each(**{"in": "streams.folders"}), {}, read_parent)).name == "0"
    assert read == [0]


def test_two_places_of_one_name_are_told_which() -> None:
    with pytest.raises(ConfigurationError, match=r"`config\.objects` names 'deals' twice"):
        found(each(**{"in": "config.objects"}), {"config": {"objects": ["deals", "deals"]}})
    with pytest.raises(ConfigurationError, match="names '1' twice"):
        found(each(**{"in": ["1", 1]}))
    with pytest.raises(SourceError, match="two different records of the stream folders have the id '1'"):
        found(each(**{"in": "streams.folders"}), parent=[{"id": 1, "n": 1}, {"id": 1, "n": 2}])


def test_the_same_parent_record_on_two_pages_counts_once() -> None:
    assert [place.name for place in found(each(**{"in": "streams.folders"}), parent=[*FOLDERS, dict(FOLDERS[0])])] == ["1", "2"]


def test_a_parent_record_without_its_key_is_an_error_that_names_both() -> None:
    with pytest.raises(SourceError, match="a record of the stream folders has no 'id'") as caught:
        found(each(**{"in": "streams.folders"}), parent=[{"name": "x"}])
    assert "key" in caught.value.do


def test_what_is_no_for_each_is_refused_when_the_manifest_is_read() -> None:
    for wrong in ("objects as object", "config.objects", "config.objects as Big Word"):
        with pytest.raises(ValidationError, match="for_each"):
            StreamSpec.model_validate({"request": {}, "for_each": wrong})
