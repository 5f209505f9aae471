"""Limits of single events, and JSON Schemas."""

import pytest

from muxly_dagster.collecting import Gathered
from muxly_dagster.collecting.limits import Limits
from muxly_dagster.collecting.plain import read
from muxly_dagster.collecting.sifting import fault_by, refuse, sift
from muxly_dagster.errors import ConfigurationError


def sifted(body: bytes, **limits: int) -> Gathered:
    found = read(body, "application/x-ndjson", "signups")
    sift(found, Limits(**limits))
    return found


def test_each_limit_rejects_the_events_beyond_it() -> None:
    body = b"\n".join(
        [
            b'{"id":"a"}',
            b'{"id":"b","x":"%b"}' % (b"x" * 200),
            b"",
            b'{"id":"c","x":[[[[1]]]]}',
            b'{"id":"d","x":[[[1]],[[1]]],"y":"[[[[[[ \\"[[[["}',
            b'{"id":"%b"}' % (b"i" * 256),
            b'{"id":"new\\nline"}',
            b'{"id":"\\u0000"}',
            '{"id":"é☃\u2028"}'.encode(),
        ]
    )
    found = sifted(body, event=300, depth=4)
    assert [each.index for each in found.rejected] == [3, 5, 6, 7]
    reasons = [each.reason for each in found.rejected]
    assert reasons[0] == "is nested deeper than 4 levels" and "255 characters" in reasons[1] and "control characters" in reasons[2]
    assert (found.ids, list(found.indexes)) == (["a", "b", "d", "é☃\u2028"], [0, 1, 4, 8])
    assert sifted(body, event=100, depth=9).rejected[0].reason == "is larger than 100 bytes"


def test_an_event_against_its_schema_is_taken_out_with_the_reason() -> None:
    fault = fault_by({"type": "object", "required": ["plan"], "properties": {"plan": {"enum": ["free", "pro"]}, "n": {"type": "integer"}}})
    found = read(b'{"plan":"pro"}\n{"plan":"x","n":"y"}\n\n{"n":12345678901234567890123}', "", "signups")
    refused = refuse(found, fault)
    assert [(index, text) for index, text, _ in refused] == [(1, '{"plan":"x","n":"y"}'), (3, '{"n":12345678901234567890123}')]
    assert "plan" in refused[0][2] and refused[1][2].endswith('"plan" is a required property')
    assert (found.lines, found.ids, list(found.indexes)) == ([b'{"plan":"pro"}'], [""], [0])


@pytest.mark.parametrize(
    ("line", "good"),
    [('{"n":9007199254740993}', True), ('{"n":12345678901234567890123}', True), ('{"n":1.5}', False), ('{"n":1e999}', False)],
)
def test_numbers_are_judged_as_they_stand(line: str, good: bool) -> None:
    fault = fault_by({"properties": {"n": {"type": "integer"}}})
    assert (refuse(Gathered("s", [line.encode()], [""], (0,)), fault) == []) is good


def test_a_schema_is_not_fetched_and_a_bad_one_is_said() -> None:
    for schema in ({"type": "nonsense"}, {"$ref": "http://127.0.0.1:1/schema.json"}, {"pattern": "("}):
        with pytest.raises(ValueError):
            fault_by(schema)


def test_limits_come_from_the_environment() -> None:
    said = {"MUXLY_COLLECT_BODY": "1MiB", "MUXLY_COLLECT_ITEMS": "10", "MUXLY_COLLECT_EVENT": "2kB", "MUXLY_COLLECT_DEPTH": "5"}
    assert Limits.from_environ(said) == Limits(1 << 20, 10, 2000, 5)
    assert Limits.from_environ({}) == Limits()
    for name, text in (("BODY", "much"), ("ITEMS", "0"), ("ITEMS", "-1"), ("DEPTH", "1.5"), ("DEPTH", "9999"), ("EVENT", "0B")):
        with pytest.raises(ConfigurationError, match=f"MUXLY_COLLECT_{name}"):
            Limits.from_environ({f"MUXLY_COLLECT_{name}": text})
