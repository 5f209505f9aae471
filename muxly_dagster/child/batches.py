"""Messages into batches: records are decoded like pages of an API, a state becomes the cursor of what came before it."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec
import pyarrow as pa

from muxly_dagster import records
from muxly_dagster.child.process import Message
from muxly_dagster.connector import Batch, Unreadable
from muxly_dagster.decoding import PageDecoder

_PAGE = 500  # records that are decoded in one go
_ROWS = 20_000
_BYTES = 8 << 20

_HINTS: dict[str, pa.DataType] = {"boolean": pa.bool_(), "integer": pa.int64(), "number": pa.float64(), "string": pa.string()}
_FORMATS: dict[str, pa.DataType] = {"date-time": records.TIMESTAMP, "date": pa.date32(), "decimal": pa.decimal128(28, 9)}


def hinted(json_schema: Mapping[str, Any]) -> pa.Schema:
    """The columns whose types a JSON Schema of an object says. Such schemas are often wrong: they are hints, and values that do not
    fit widen their column."""
    fields = []
    for name, said in (json_schema.get("properties") or {}).items():
        said = said if isinstance(said, Mapping) else {}
        types = said.get("type")
        kinds = {types} if isinstance(types, str) else set(types or ())
        kinds.discard("null")
        if kinds and kinds <= {"object", "array"}:
            fields.append(pa.field(name, pa.string(), metadata=records.JSON_FIELD))
        elif len(kinds) == 1:
            kind = kinds.pop()
            if kind == "number" and said.get("airbyte_type") in ("integer", "big_integer"):
                kind = "integer"
            type_ = _FORMATS.get(str(said.get("format"))) if kind == "string" or said.get("format") == "decimal" else None
            if type_ or kind in _HINTS:
                fields.append(pa.field(name, type_ or _HINTS[kind]))
    return pa.schema(fields)


def batches(messages: Iterable[Message], known: pa.Schema | None, *, keep_states: bool) -> Iterator[Batch]:
    """Batches of one stream's records. A CATALOG on the way tells types of columns that the lake does not have yet.

    A STATE becomes the cursor of the batch that ends there, if states are to be kept.
    """
    reading = _Reading(known)
    for message in messages:
        if message.type == "RECORD" and message.record is not None:
            reading.take(message.record.data)
            if reading.full:
                yield from reading.give()
        elif message.type == "STATE" and keep_states:
            yield from reading.give(message.state)
        elif message.type == "CATALOG":
            yield from reading.give()
            reading.hint(hinted(message.catalog["streams"][0].get("json_schema") or {}))
    yield from reading.give()


class _Reading:
    """Records between two batches."""

    def __init__(self, known: pa.Schema | None) -> None:
        self._known: pa.Schema = known if known is not None else pa.schema([])
        self._decoder = PageDecoder(known=self._known)
        self._waiting: list[msgspec.Raw] = []

    @property
    def full(self) -> bool:
        return self._decoder.buffered_rows >= _ROWS or self._decoder.buffered_bytes >= _BYTES

    def hint(self, hints: pa.Schema) -> None:
        """Read columns that are not known yet into these types where they fit. Nothing may be waiting."""
        new = [field for field in hints if field.name not in self._known.names]
        if new:
            self._known = pa.schema([*self._known, *new])
            self._decoder = PageDecoder(known=self._known)

    def take(self, record: msgspec.Raw) -> None:
        self._waiting.append(record)
        if len(self._waiting) >= _PAGE:
            self._decode()

    def give(self, state: Any = None) -> Iterator[Batch]:
        """What was taken since the last time, the last batch with the state as its cursor."""
        self._decode()
        some = False
        while self._decoder.buffered_rows:
            rows, unread = self._decoder.flush()
            self._known = records.widen_schema(self._known, rows.schema)
            last = not self._decoder.buffered_rows
            some = True
            yield Batch(rows, state if last else None, tuple(Unreadable(bad.text, bad.reason) for bad in unread))
        if not some and state is not None:
            yield Batch(pa.table({}), state)

    def _decode(self) -> None:
        if self._waiting:
            self._decoder.decode(b"[" + b",".join(map(bytes, self._waiting)) + b"]")
            self._waiting = []
