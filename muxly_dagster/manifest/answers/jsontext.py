"""JSON taken apart and put together as text: numbers, strings and whole records stay the bytes they were."""

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec

from muxly_dagster.decoding import Selector, parse_path, salvage

fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
"""An object's members as texts. Raises ValueError for anything else."""

values = msgspec.json.Decoder(float_hook=Decimal).decode
"""A JSON text as values, its numbers exact. Raises ValueError."""


def number(text: str) -> float | Decimal:
    """A JSON number with a fraction or an exponent: a float where that says the same, else a Decimal."""
    found = float(text)
    return found if Decimal(repr(found)) == Decimal(text) else Decimal(text)


exact = msgspec.json.Decoder(float_hook=number).decode
"""A JSON text as values; a number that no float says exactly is a Decimal. Raises ValueError."""

_elements = msgspec.json.Decoder(list[msgspec.Raw]).decode
write = msgspec.json.Encoder(decimal_format="number").encode
"""Values as a JSON text, Decimals as the numbers that they are."""


def first(text: bytes, path: str) -> bytes | None:
    """The first value that the JSONPath selects, as text; None where there is none. Raises ValueError for what is no JSON."""
    selector = parse_path(path)
    if selector.names is not None:
        return _walk(text, selector)
    found = selector.first(_document(text))
    return None if found is None else write(found)


def records(text: bytes, path: str) -> list[bytes] | None:
    """The records that the JSONPath selects: a list's elements, or one value; None where it leads nowhere. Raises ValueError."""
    selector = parse_path(path)
    if selector.names is None:
        return [write(record) for record in selector.records(_document(text)) or []]
    found = _walk(text, selector)
    if found is None:
        return None
    if found == b"null":
        return []
    return [bytes(element) for element in _elements(found)] if found[:1] == b"[" else [found]


def change_records(page: bytes, path: str, change: Callable[[list[bytes]], list[bytes]]) -> bytes:
    """The page with its records changed and nothing else; a page without records, or that is no JSON, as it is.

    In a plain list, even broken records are found and given to `change`. Anywhere else, numbers stay exact though not their spelling.
    """
    selector = parse_path(path)
    pieces = salvage.cut(page, selector)
    if pieces is not None:
        rest, texts = pieces
        if not texts:
            return page
        start = salvage.list_start(page, selector.names or ()) or 0
        return rest[:start] + b",".join(change(texts)) + rest[start:]
    try:
        document = _document(page)
        found = [record for record in selector.records(document) or [] if isinstance(record, dict)]
        texts = [write(record) for record in found]
    except (ValueError, RecursionError):
        return page
    if not texts:
        return page
    for record, text in zip(found, change(texts), strict=True):
        changed = _document(text)
        record.clear()
        record.update(changed)  # in its place: the path need not be known
    return write(document)


def _walk(text: bytes, selector: Selector) -> bytes | None:
    text = text.strip()
    for name in selector.names or ():
        if text[:1] != b"{":
            values(text)  # what is no JSON at all is an error
            return None
        inner = fields(text).get(name)
        if inner is None:
            return None
        text = bytes(inner)
    if not selector.names:
        values(text)
    return text


def _document(text: bytes) -> Any:
    return json.loads(text, parse_float=Decimal, parse_int=_whole, parse_constant=_refuse)


def _whole(text: str) -> int | Decimal:
    return int(text) if len(text) <= 19 else Decimal(text)  # int() refuses very long ones


def _refuse(word: str) -> Any:
    raise ValueError(f"{word} is no JSON number")
