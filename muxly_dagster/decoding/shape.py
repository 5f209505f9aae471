"""The shape of a stream's records as learnt so far, and the msgspec decoders compiled from it."""

from collections.abc import Callable, Iterable
from operator import attrgetter
from types import GenericAlias
from typing import Any, Literal

import msgspec
import pyarrow as pa

Path = tuple[str, ...]
"""Where a value sits in a record: its field, or the flattened object and the field within."""

Wire = Literal["null", "string", "integer", "boolean", "raw"]
"""How a field's values come: always of one simple kind, or `raw`: fractions, nested or mixed, kept as exact JSON text."""

Form = Literal["string", "integer", "boolean", "text"]
"""What the values of a read column are: decoded ones, or JSON text."""

Columns = dict[Path, tuple[Form, pa.Array]]

_TYPES: dict[Wire, tuple[Any, Any]] = {
    "null": (None, None),
    "string": (str | None, None),
    "integer": (int | None, None),
    "boolean": (bool | None, None),
    "raw": (msgspec.Raw, msgspec.Raw(b"null")),
}
_RECORDS = object()


def wire_of(text: bytes) -> Wire:
    """How one JSON value comes."""
    first = text[:1]
    if first == b'"':
        return "string"
    if first == b"n":
        return "null"
    if first in (b"t", b"f"):
        return "boolean"
    return "raw" if first in b"{[" or b"." in text or b"e" in text or b"E" in text else "integer"


class Shape:
    """Which fields records have and how their values come. Grows by `learn`; `reader` is compiled again when it has grown."""

    def __init__(self, flatten: Iterable[str], always_raw: Callable[[Path], bool]) -> None:
        self.flatten = frozenset(flatten)
        self.wires: dict[Path, Wire] = {}
        self._always_raw = always_raw
        self._reader: Reader | None = None
        self._grown = True

    def learn(self, path: Path, wire: Wire) -> None:
        """Take note of one value."""
        known = self.wires.get(path)
        if known == wire or known == "raw" or (wire == "null" and known is not None):
            return
        if wire != "null":
            wire = wire if known in (None, "null") and not self._always_raw(path) else "raw"
        self.wires[path] = wire
        self._grown = True

    def reader(self) -> "Reader | None":
        """The compiled reader of this shape; None while nothing is known, or where a field is now an object, now a plain value."""
        if self._grown:
            clash = any(len(p) == 1 and p[0] in self.flatten and w != "null" for p, w in self.wires.items())
            self._reader = Reader(self.wires, self.flatten) if self.wires and not clash else None
            self._grown = False
        return self._reader


class Reader:
    """A record type compiled from a shape (a struct that refuses unknown fields and other types), and its columns."""

    def __init__(self, wires: dict[Path, Wire], flatten: frozenset[str]) -> None:
        self.has_raw = "raw" in wires.values()
        nested: dict[str, dict[Path, Wire]] = {}
        for path, wire in wires.items():
            if len(path) == 2:
                nested.setdefault(path[0], {})[path] = wire
        tops: dict[str, tuple[Any, Any]] = {}
        self._nested: list[tuple[str, Any, list[tuple[Path, Wire, str]]]] = []
        self._plain: list[tuple[Path, Wire, str]] = []
        for path, wire in wires.items():
            top = path[0]
            if top in tops:
                continue
            attribute = f"f{len(tops)}"
            if top in nested:
                inner = _struct([(p[-1], *_TYPES[w]) for p, w in nested[top].items()], strict=True)
                self._nested.append((attribute, inner(), [(p, w, f"f{i}") for i, (p, w) in enumerate(nested[top].items())]))
                tops[top] = (inner | None, None)
            else:
                self._plain.append((path, wire, attribute))
                tops[top] = _TYPES[wire]
        self.record = _struct([(name, *kind) for name, kind in tops.items()], strict=True)
        self.decode: Callable[[bytes], list[Any]] = msgspec.json.Decoder(_list_of(self.record)).decode

    def columns(self, rows: list[Any]) -> Columns:
        """The records' values, column by column; columns without any value are left out."""
        found: Columns = {}
        groups: list[tuple[list[Any], list[tuple[Path, Wire, str]]]] = [(rows, self._plain)]
        for attribute, empty, fields in self._nested:
            get = attrgetter(attribute)
            groups.append(([get(row) or empty for row in rows], fields))
        for objects, fields in groups:
            for path, wire, attribute in fields:
                if wire != "null":
                    found[path] = _column(wire, list(map(attrgetter(attribute), objects)))
        return found


def _column(wire: Wire, values: list[Any]) -> tuple[Form, pa.Array]:
    if wire == "string":
        return "string", pa.array(values, pa.string())
    if wire == "boolean":
        return "boolean", pa.array(values, pa.bool_())
    if wire == "integer":
        try:
            return "integer", pa.array(values, pa.int64())
        except (OverflowError, pa.ArrowInvalid):
            return "text", pa.array([None if v is None else str(v) for v in values], pa.string())
    return "text", texts(map(bytes, values))


def texts(values: Iterable[bytes | None]) -> pa.Array:
    """JSON texts as a string column; JSON's null is null."""
    return pa.array([None if v is None or v == b"null" else v for v in values], pa.string())


class Envelope:
    """A page type around a record type: finds the records and a few values beside them in one pass over the page."""

    def __init__(self, record: Any, records: Path, values: Iterable[Path]) -> None:
        self._record = record
        tree: dict[str, Any] = {}
        paths = list(values)
        for path in paths:
            _plant(tree, path, None)
        if records:
            _plant(tree, records, _RECORDS)
        self._rows = _attributes(tree, records)
        self._values = [_attributes(tree, path) for path in paths]
        self._decode: Callable[[bytes], Any] = msgspec.json.Decoder(self._type(tree) if records else _list_of(record)).decode

    def _type(self, tree: dict[str, Any]) -> Any:
        fields: list[tuple[str, Any, Any]] = []
        for name, node in tree.items():
            if node is _RECORDS:
                fields.append((name, _list_of(self._record) | None | msgspec.UnsetType, msgspec.UNSET))
            elif node is None:
                fields.append((name, Any, None))
            else:
                fields.append((name, self._type(node) | None, None))
        return _struct(fields, strict=False)

    def decode(self, page: bytes) -> tuple[list[Any] | None, list[Any]]:
        """The page's records (None: it has no such list) and the values beside them. Raises ValueError for any other shape."""
        document = self._decode(page)
        if not self._rows:
            return document, []
        rows = _walk(document, self._rows, msgspec.UNSET)
        values = [_walk(document, path, None) for path in self._values]
        return None if rows is msgspec.UNSET else rows or [], values


def _list_of(record: Any) -> Any:
    return GenericAlias(list, (record,))


def _plant(tree: dict[str, Any], path: Path, leaf: Any) -> None:
    for name in path[:-1]:
        tree = tree.setdefault(name, {})
    tree[path[-1]] = leaf


def _attributes(tree: dict[str, Any], path: Path) -> list[str]:
    found = []
    for name in path:
        found.append(f"f{list(tree).index(name)}")
        tree = tree[name]
    return found


def _walk(value: Any, attributes: list[str], missing: Any) -> Any:
    for attribute in attributes:
        if value is None or value is msgspec.UNSET:
            return missing
        value = getattr(value, attribute)
    return value


def _struct(fields: list[tuple[str, Any, Any]], *, strict: bool) -> Any:
    """A struct type whose attributes are f0, f1 ...: any text can be a field's name in JSON."""
    return msgspec.defstruct(
        "Compiled",
        [(f"f{i}", kind, default) for i, (_, kind, default) in enumerate(fields)],
        rename={f"f{i}": name for i, (name, _, _) in enumerate(fields)},
        gc=False,
        forbid_unknown_fields=strict,
    )
