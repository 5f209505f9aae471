"""What can be had of a page that is no valid JSON: where its records begin and end, and what is wrong with each."""

import json
import re

import msgspec
import orjson

from muxly_dagster.decoding.paths import Selector

_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\]:,]', re.DOTALL)
_fields_of = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_SPOILED = "muxly: spoiled"
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def mark_invalid_utf8(page: bytes) -> tuple[bytes, bytes]:
    """The page with every byte that is no UTF-8 replaced by a mark that occurs nowhere else in it, and this mark."""
    text = page.decode("utf-8", "surrogateescape")
    mark = next(m for m in (chr(c) for c in range(0xE000, 0xF8FF)) if m not in text)
    return re.sub("[\udc80-\udcff]", mark, text).encode(), mark.encode()


def show_marked(text: bytes, mark: bytes) -> bytes:
    """Marked text as people should see it."""
    return text.replace(mark, _REPLACEMENT.encode())


def cut(page: bytes, records: Selector) -> tuple[bytes, list[bytes]] | None:
    """The page with an empty list of records, and each record's text. None where the list is not found or never ends."""
    if records.names is None:
        return None
    start = list_start(page, records.names)
    if start is None:
        return None
    found: list[bytes] = []
    depth = 0
    begin = start
    for token in _TOKEN.finditer(page, start):
        mark = token[0]
        if mark in b"{[":
            depth += 1
        elif mark in b"}]":
            if depth == 0:
                last = page[begin : token.start()].strip()
                if last:
                    found.append(last)
                return page[:start] + page[token.start() :], found
            depth -= 1
        elif mark == b"," and depth == 0:
            found.append(page[begin : token.start()].strip())
            begin = token.end()
    return None


def list_start(page: bytes, names: tuple[str, ...]) -> int | None:
    """Where the elements of the list at this path begin."""
    inside: list[bytes] = []
    path: list[str] = []
    text = key = ""
    for token in _TOKEN.finditer(page):
        mark = token[0]
        if mark[:1] == b'"':
            text = mark[1:-1].decode("utf-8", "replace")
        elif mark == b":":
            key = text
        elif mark in b"{[":
            path.append("" if not inside else key if inside[-1] == b"{" else "[]")
            inside.append(mark)
            if mark == b"[" and tuple(path[1:]) == names:
                return token.end()
        elif mark in b"}]" and inside:
            inside.pop()
            path.pop()
    return None


def spoiled_record(text: str, reason: str) -> bytes:
    """A place in a list of records for what came as something else and cannot be read: a decoder sets it aside with this text and reason.

    It is a list, which no record is, so it can be mistaken for nothing else.
    """
    return orjson.dumps([_SPOILED, text, reason])


def as_spoiled(record: bytes) -> tuple[bytes, str] | None:
    """Text and reason of a `spoiled_record`; None for anything else."""
    if _SPOILED.encode() not in record:
        return None
    try:
        mark, text, reason = orjson.loads(record)
    except (ValueError, TypeError):
        return None
    return (text.encode(), reason) if mark == _SPOILED and isinstance(text, str) and isinstance(reason, str) else None


def broken(text: bytes) -> str | None:
    """Why a record cannot be read; None if it can."""
    try:
        record = orjson.loads(text)
    except (ValueError, RecursionError) as error:
        if _only_too_large(text):
            return None
        return "a number is NaN or infinite, which JSON does not know" if _has_nan(text) else f"it is no valid JSON: {reason(error)}"
    return None if isinstance(record, dict) else "it is no object"


def _only_too_large(text: bytes) -> bool:
    """Whether all that is wrong is a field beyond the range of doubles, which is kept as text."""
    try:
        for value in _fields_of(text).values():
            if bytes(value)[:1] not in b"-0123456789":
                orjson.loads(bytes(value))
    except (ValueError, RecursionError):
        return False
    return True


def _has_nan(text: bytes) -> bool:
    """Whether the text would be JSON if NaN and Infinity were numbers."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return any(word in text for word in (b"NaN", b"Infinity"))


def reason(error: Exception) -> str:
    """What a decoder found wrong, in a few words."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return "bytes that are no UTF-8"
    return str(error).partition("\n")[0] or type(error).__name__


def begin(page: bytes) -> str:
    """The beginning of a page, for messages."""
    return ascii(page[:80].decode("utf-8", "replace")) if page.strip() else "nothing: the body is empty"
