"""The records of a page that is no valid JSON as a whole: their boundaries are found by brackets and strings alone."""

import re

from muxly_dagster.decoding.paths import Selector

_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\]:,]', re.DOTALL)
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
    start = _list_start(page, records.names)
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


def _list_start(page: bytes, names: tuple[str, ...]) -> int | None:
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
