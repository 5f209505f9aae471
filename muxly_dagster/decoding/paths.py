"""JSONPath as Muxly reads it: plain member paths that can be compiled, and everything else (RFC 9535) the general way."""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

_PLAIN = re.compile(r"""\$(?P<members>(?:\.[A-Za-z_][\w-]*|\['[^'\\]*'\]|\["[^"\\]*"\])*)(?:\[\*\])?""")
_MEMBER = re.compile(r"""\.([A-Za-z_][\w-]*)|\['([^'\\]*)'\]|\["([^"\\]*)"\]""")


@dataclass(frozen=True, slots=True)
class Selector:
    """A parsed JSONPath. `names` are the members it walks down (`$.a.b`, `$.a[*]`); None means the path is not a plain one."""

    text: str
    names: tuple[str, ...] | None

    def first(self, document: Any) -> Any:
        """The first value the path selects; None where there is none."""
        if self.names is None:
            found = _general(self.text).findall(document)
            return found[0] if found else None
        for name in self.names:
            if not isinstance(document, dict):
                return None
            document = document.get(name)
        return document

    def records(self, document: Any) -> list[Any] | None:
        """The records the path selects: a list's elements or one object. None where a plain path leads nowhere."""
        if self.names is None:
            found: list[Any] = _general(self.text).findall(document)
            return found[0] if len(found) == 1 and isinstance(found[0], list) else found
        for name in self.names:
            if not isinstance(document, dict) or name not in document:
                return None
            document = document[name]
        if document is None:
            return []
        return document if isinstance(document, list) else [document]


@lru_cache(256)
def parse_path(text: str) -> Selector:
    """Parse a JSONPath. Raises ValueError that says what is wrong with it."""
    plain = _PLAIN.fullmatch(text)
    if plain:
        return Selector(text, tuple(a or b or c for a, b, c in _MEMBER.findall(plain["members"])))
    _general(text)
    return Selector(text, None)


@lru_cache(256)
def _general(text: str) -> Any:
    import jsonpath

    try:
        return jsonpath.compile(text)
    except jsonpath.JSONPathError as error:
        raise ValueError(f"{text!r} is no JSONPath: {str(error).splitlines()[0]}; write a path such as $.results") from None
