"""The keys of a page's records, for keyset paging: read beside the records, and held to be in order."""

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from muxly_dagster.decoding import parse_path
from muxly_dagster.errors import SourceError
from muxly_dagster.manifest.answers import jsontext

_DO = "sort the request by the field of `paging.by`, which has to be another one for every record (an id)"


def key_reader(records: str, by: str) -> Callable[[bytes], list[Any]]:
    """A function that reads the field `by` (`id`, or `object.field`) of every record of a JSON page, in order; None where one lacks it."""
    path, names = parse_path(records), by.split(".")
    compiled = _compiled(path.names, names)

    def read(page: bytes) -> list[Any]:
        if compiled is not None:
            try:
                return compiled(page)
            except (msgspec.DecodeError, AttributeError):
                pass  # valid JSON of another form, such as one object for a list
        try:
            found = path.records(jsontext.exact(page)) or []
        except (ValueError, RecursionError):
            return []  # the decoder of the records says what is wrong with the page
        return [_walk(record, names) for record in found]

    return read


def _compiled(path: tuple[str, ...] | None, names: Sequence[str]) -> Callable[[bytes], list[Any]] | None:
    """One pass over the page that makes nothing of it but the keys."""
    if path is None:
        return None
    record: Any = Any
    for name in reversed(names):
        record = _one_field(name, record if record is Any else record | None)
    page: Any = list[record]
    for name in reversed(path):
        page = _one_field(name, page)
    decode = msgspec.json.Decoder(page, float_hook=jsontext.number).decode

    def read(content: bytes) -> list[Any]:
        found: Any = decode(content)
        for _ in path:
            found = found.field
        keys: list[Any] = []
        for key in found or ():
            for _ in names:
                key = None if key is None else key.field
            keys.append(key)
        return keys

    return read


def _one_field(name: str, type_: Any) -> type[msgspec.Struct]:
    return msgspec.defstruct("Field", [("field", type_, None)], rename={"field": name})


def _walk(record: Any, names: Sequence[str]) -> Any:
    for name in names:
        record = record.get(name) if isinstance(record, dict) else None
    return record


class Order:
    """Sees to it that keys come in one order, up or down, so that nothing can lie behind a key without being asked for."""

    def __init__(self, by: str) -> None:
        self._by = by
        self._last: Any = None
        self._signs: dict[str, int] | None = None
        self._seen: set[str] = set()

    def take(self, keys: Sequence[Any], where: str) -> Any:
        """The last key of a page, once the page has proved to be in order. Raises SourceError."""
        if any(key is None for key in keys):
            raise SourceError(
                f"a record has no {self._by}, by which the pages are asked for", do="correct the stream's `paging.by`", where=where
            )
        for key in keys:
            self._next(key, where)
        if str(self._last) in self._seen:
            raise self._disorder(f"{str(self._last)[:200]!r} ends a page a second time", where)
        self._seen.add(str(self._last))
        return self._last

    def _next(self, key: Any, where: str) -> None:
        before, self._last = self._last, key
        if before is None:
            return
        if str(before) == str(key):
            raise self._disorder(f"{str(key)[:200]!r} comes twice", where)
        numbers = _number(before), _number(key)
        if numbers[0] is None or numbers[1] is None:
            return  # texts have an order of the API's own making
        found = {"number": _sign(numbers[0], numbers[1])}
        if isinstance(before, str) and isinstance(key, str):
            found["text"] = _sign(before, key)  # digits may be sorted as a text is: 1, 10, 2
        held = found if self._signs is None else self._signs
        self._signs = {name: sign for name, sign in found.items() if sign and held.get(name) == sign}
        if not self._signs:
            raise self._disorder(f"{key} comes behind {before}", where)

    def _disorder(self, what: str, where: str) -> SourceError:
        return SourceError(f"the records do not come in the order of {self._by}: {what}", do=_DO, where=where)


def _sign(a: Any, b: Any) -> int:
    return int(b > a) - int(b < a)


def _number(key: Any) -> Decimal | None:
    """The key as a number, also where it is written as a text; None for other texts."""
    if isinstance(key, bool) or key is None:
        return None
    text = str(key)
    return Decimal(text) if (text.lstrip("-").isdigit() and text.isascii()) or isinstance(key, float | Decimal) else None
