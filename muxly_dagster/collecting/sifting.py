"""What of the events of a request can be kept: none too large, nested too deeply or of an id that is none; and none against its schema."""

import json
import re
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

import orjson

from muxly_dagster.collecting.events import Gathered, Rejected
from muxly_dagster.collecting.limits import Limits

LONGEST_ID = 255  # characters

_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BRACKETS = re.compile(rb"[\[{}\]]")
_OTHERS = bytes(byte for byte in range(256) if byte not in b"[{\n")
_PRINTABLE = bytes(range(0x20, 0x7F))
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def sift(gathered: Gathered, limits: Limits) -> None:
    """Reject the events that go beyond a limit."""
    lines = gathered.lines
    if not lines:
        return
    text = lines.text
    bad: dict[int, str] = {}
    if len(text) > limits.event:  # else no part of it is
        bad |= {at: f"is larger than {limits.event:,} bytes" for at, line in enumerate(lines) if len(line) > limits.event}
    # There is no use in looking closer at a line that does not even have so many brackets.
    opening = text.translate(None, _OTHERS)
    if len(opening) > limits.depth and max(map(len, opening.split(b"\n"))) > limits.depth:
        for at, (line, brackets) in enumerate(zip(lines, opening.split(b"\n"), strict=True)):
            if len(brackets) > limits.depth and at not in bad and _depth(line) > limits.depth:
                bad[at] = f"is nested deeper than {limits.depth} levels"
    ids = "".join(gathered.ids)
    if not _is_printable(ids) or (len(ids) > LONGEST_ID and max(map(len, gathered.ids)) > LONGEST_ID):
        for at, id in enumerate(gathered.ids):
            if len(id) > LONGEST_ID:
                bad.setdefault(at, f"its id is longer than {LONGEST_ID} characters")
            elif _CONTROL.search(id):
                bad.setdefault(at, "its id has control characters")
    if bad:
        gathered.rejected += [Rejected(gathered.indexes[at], reason) for at, reason in sorted(bad.items())]
        _leave(gathered, bad)


def refuse(gathered: Gathered, fault: Callable[[Any], str]) -> list[tuple[int, str, str]]:
    """Take out the events that have a fault, which is asked about each; answers the place in the request, text and reason of each."""
    faults = {at: (line, reason) for at, line in enumerate(gathered.lines) if (reason := _fault(line, fault))}
    refused = [(gathered.indexes[at], line.decode(), reason) for at, (line, reason) in faults.items()]
    if faults:
        _leave(gathered, faults)
    return refused


def fault_by(schema: Mapping[str, Any]) -> Callable[[Any], str]:
    """What is wrong with an event by a JSON Schema, compiled once; "" for nothing. Nothing is fetched. Raises ValueError for no schema."""
    import jsonschema_rs  # where no stream has a schema, nobody should wait for it

    try:
        validator = jsonschema_rs.validator_for(dict(schema), offline=True)
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError) as error:
        raise ValueError(str(error)) from None

    def fault(event: Any) -> str:
        if validator.is_valid(event):
            return ""
        errors = [_told(error) for error, _ in zip(validator.iter_errors(event), range(3), strict=False)]
        return "does not meet the JSON Schema: " + "; ".join(errors)

    return fault


def _fault(line: bytes, fault: Callable[[Any], str]) -> str:
    try:
        return fault(_read(line))
    except ValueError:  # Python reads whole numbers up to some thousands of digits
        return "has a number that is too long to be checked by the JSON Schema"


def _told(error: Any) -> str:
    place = ".".join(str(part) for part in error.instance_path)
    return f"{place}: {error.message[:200]}" if place else str(error.message[:200])


def _read(line: bytes) -> Any:
    """With every number as it stands: beyond 64 bits one reader makes floats, and beyond floats another gives up."""
    try:
        event = orjson.loads(line)
    except orjson.JSONDecodeError:
        return json.loads(line)
    return json.loads(line) if _LONG.search(line) else event


_LONG = re.compile(rb"\d{19}")


def _is_printable(text: str) -> bool:
    return not text.encode().translate(None, _PRINTABLE) if text.isascii() else text.isprintable()


def _leave(gathered: Gathered, without: Container[int]) -> None:
    kept = [at for at in range(len(gathered.lines)) if at not in without]
    indexes: Sequence[int] = gathered.indexes
    gathered.lines = gathered.lines.without(without)
    gathered.ids = [gathered.ids[at] for at in kept]
    gathered.indexes = [indexes[at] for at in kept]


def _depth(line: bytes) -> int:
    depth = most = 0
    for bracket in _BRACKETS.findall(_STRINGS.sub(b"", line)):
        depth += 1 if bracket in b"[{" else -1
        most = max(most, depth)
    return most
