"""Where keys and values stand in a TOML text, which the standard library's reader does not tell."""

import re

Place = tuple[int, int]
Places = dict[tuple[str | int, ...], tuple[Place | None, Place | None]]

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_STRING = re.compile(r'"""(?:\\.|[^\\])*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:\\.|[^"\\])*"|\'[^\']*\'', re.DOTALL)
_SCALAR = re.compile(r"[^,\]}#\r\n]+")
_ESCAPE = re.compile(r'\\(u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|[btnfr"\\])')
_ESCAPED = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", '"': '"', "\\": "\\"}


def toml_places(text: str) -> Places:
    """Key and value positions (line and column, from 1) by path, for a text that is known to be valid TOML."""
    reader = _Reader(text)
    reader.document()
    return reader.places


class _Reader:
    def __init__(self, text: str) -> None:
        self._text, self._index = text, 0
        self._starts = [0, *(match.end() for match in re.finditer("\n", text))]
        self._line = 0
        self._lengths: dict[tuple[str | int, ...], int] = {}
        self.places: Places = {}

    def document(self) -> None:
        table: tuple[str | int, ...] = ()
        while self._blank() < len(self._text):
            if self._peek() == "[":
                table = self._header()
            else:
                self._entry(table)

    def _header(self) -> tuple[str | int, ...]:
        is_array = self._text.startswith("[[", self._index)
        self._index += 2 if is_array else 1
        path: tuple[str | int, ...] = ()
        keys = self._keys()
        for number, (key, at) in enumerate(keys):
            path = (*path, key)
            self.places.setdefault(path, (at, at))
            if is_array and number == len(keys) - 1:
                self._lengths[path] = self._lengths.get(path, 0) + 1
                self.places[(*path, self._lengths[path] - 1)] = (None, at)
            if path in self._lengths:
                path = (*path, self._lengths[path] - 1)
        self._index += 2 if is_array else 1
        return path

    def _entry(self, table: tuple[str | int, ...]) -> None:
        path = table
        for key, at in self._keys():
            path = (*path, key)
            self.places.setdefault(path, (at, at))
        self._blank()
        self._index += 1  # the equals sign
        self._value(path, self.places[path][0])

    def _value(self, path: tuple[str | int, ...], key_at: Place | None) -> None:
        self._blank()
        self.places[path] = (key_at, self._place(self._index))
        opening = self._peek()
        if opening == "[":
            self._index += 1
            number = 0
            while self._blank() and self._peek() != "]":
                if self._peek() == ",":
                    self._index += 1
                else:
                    self._value((*path, number), None)
                    number += 1
            self._index += 1
        elif opening == "{":
            self._index += 1
            while self._blank() and self._peek() != "}":
                if self._peek() == ",":
                    self._index += 1
                else:
                    self._entry(path)
            self._index += 1
        else:
            match = (_STRING if opening in "\"'" else _SCALAR).match(self._text, self._index)
            self._index = match.end() if match else self._index + 1

    def _keys(self) -> list[tuple[str, Place]]:
        keys: list[tuple[str, Place]] = []
        while True:
            self._blank()
            at = self._place(self._index)
            quote = self._peek()
            match = (_STRING if quote in "\"'" else _BARE).match(self._text, self._index)
            text = match.group() if match else ""
            self._index += len(text)
            keys.append((_unescaped(text[1:-1]) if quote == '"' else text[1:-1] if quote == "'" else text, at))
            self._blank()
            if self._peek() != ".":
                return keys
            self._index += 1

    def _blank(self) -> int:
        match = _BLANK.match(self._text, self._index)
        self._index = match.end() if match else self._index
        return self._index

    def _peek(self) -> str:
        return self._text[self._index : self._index + 1]

    def _place(self, index: int) -> Place:
        while self._line + 1 < len(self._starts) and self._starts[self._line + 1] <= index:
            self._line += 1
        return self._line + 1, index - self._starts[self._line] + 1


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda m: _ESCAPED[m[1]] if m[1] in _ESCAPED else chr(int(m[1][1:], 16)), text)
