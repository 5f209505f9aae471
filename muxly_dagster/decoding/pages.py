"""The page decoder: takes pages as they come, gives back what stands beside the records, and the records as Arrow tables."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec
import orjson
import pyarrow as pa

from muxly_dagster.decoding import salvage, values
from muxly_dagster.decoding.paths import parse_path
from muxly_dagster.decoding.shape import Columns, Envelope, Path, Reader, Shape, texts, wire_of
from muxly_dagster.errors import SourceError
from muxly_dagster.records import is_json

_WHOLE_PAGE = 4 * 2**20  # a larger page is cut into records first, so that its objects do not all exist at once
_BLOCK = 2**20
_SLOW_ROWS = 128
_SHOWN = 64 * 1024

_fields_of = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_rewrite = msgspec.json.Encoder(decimal_format="number").encode


class Unread(NamedTuple):
    """A record that could not be read: what came (cut to 64 KiB) and why it failed."""

    text: str
    reason: str


@dataclass(frozen=True, slots=True)
class Page:
    """What one page held: the number of records, and the values beside them in the order they were asked for."""

    records: int
    envelope: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Records read under one shape, column by column. `source` gives the text a record came as."""

    count: int
    columns: Columns
    source: Callable[[int], bytes]


@dataclass(slots=True)
class _Open:
    """Rows of whole pages, decoded under one shape and not yet turned into columns."""

    reader: Reader
    rows: list[Any] = field(default_factory=list)
    pages: list[tuple[int, bytes]] = field(default_factory=list)


class PageDecoder:
    """Reads pages of one stream into tables of the lake's types, learning the records' shape on the way.

    `types` are declared types by column, `known` the columns the lake has already: their types are kept where the values
    fit. `flatten` names objects whose fields become columns of their own (a top-level field keeps its name, the other one
    is called `object_field`). `optional` says that the API leaves the list of records out when it is empty.
    Of a key that stands twice in one record, the last value counts.
    """

    def __init__(
        self,
        records: str = "$",
        *,
        types: Mapping[str, str] | None = None,
        flatten: Iterable[str] = (),
        known: pa.Schema | None = None,
        envelope: Iterable[str] = (),
        optional: bool = False,
    ) -> None:
        self._records = parse_path(records)
        self._envelope = tuple(parse_path(path) for path in envelope)
        self._types = dict(types or {})
        self._known = {f.name: f for f in known} if known is not None else {}
        self._flatten = tuple(flatten)
        self._optional = optional
        self._fields: dict[Path, pa.Field] = {}
        self._beside_apart = self._must_look_apart()
        self._shape = Shape(self._flatten, self._wants_text)
        self._splitter = self._compile(msgspec.Raw)
        self._compiled: tuple[Reader, Envelope] | None = None
        self._chunks: list[_Chunk] = []
        self._open: _Open | None = None
        self._waiting: list[bytes | msgspec.Raw] = []
        self._unread: list[Unread] = []
        self.buffered_rows = 0
        self.buffered_bytes = 0

    # ---- taking pages ----

    def decode(self, page: bytes) -> Page:
        """Take one page. Raises SourceError where it is no JSON, or holds no list of records where one should be."""
        whole = self._decode_whole(page) if len(page) <= _WHOLE_PAGE else None
        if whole is None:
            found = self._split(page)
            self.buffered_rows += len(found[0])
            self.buffered_bytes += len(page)
            if len(page) > _WHOLE_PAGE:
                self._waiting.extend(found[0])
            else:
                self._close()
                self._read(found[0])
            return Page(len(found[0]), tuple(found[1]))
        self.buffered_rows += whole.records
        self.buffered_bytes += len(page)
        return whole

    def _decode_whole(self, page: bytes) -> Page | None:
        """The fast way: one pass with the compiled decoder. None where the page does not have the shape known so far."""
        reader = self._shape.reader()
        if reader is None or self._waiting:
            return None
        if self._compiled is None or self._compiled[0] is not reader:
            compiled = self._compile(reader.record)
            if compiled is None:
                return None
            self._compiled = (reader, compiled)
        try:
            if reader.has_raw and not page.isascii():
                page.decode()  # JSON kept as text is not looked into by the decoder
            rows, beside = self._compiled[1].decode(page)
            if rows is None:
                return None
            if self._beside_apart:
                beside = self._look_apart(msgspec.json.decode(page))
        except (ValueError, RecursionError):
            return None
        if self._open is None or self._open.reader is not reader:
            self._close()
            self._open = _Open(reader)
        if rows:
            self._open.pages.append((len(self._open.rows), page))
            self._open.rows.extend(rows)
        return Page(len(rows), tuple(beside))

    def _compile(self, record: Any) -> Envelope | None:
        """A decoder of whole pages; None where the records lie too deep for one."""
        if self._records.names is None:
            return None
        beside = [] if self._beside_apart else [path.names for path in self._envelope if path.names]
        return Envelope(record, self._records.names, beside)

    def _must_look_apart(self) -> bool:
        """Whether the values beside the records need a look of their own: one lies within another, or within the records."""
        beside = [path.names for path in self._envelope]
        every = [*beside, self._records.names]
        if not beside:
            return False
        within = any(a != b and a == b[: len(a)] for a in every for b in every if a and b)
        return within or not all(every) or every[-1] in beside

    def _look_apart(self, document: Any) -> list[Any]:
        return [path.first(document) for path in self._envelope]

    # ---- the slow way ----

    def _split(self, page: bytes) -> tuple[list[Any], list[Any]]:
        """The page's records as JSON texts, and the values beside them."""
        try:
            page.isascii() or page.decode()
            if self._splitter is not None:
                try:
                    raws, beside = self._splitter.decode(page)
                    if raws is not None:
                        return raws, self._look_apart(msgspec.json.decode(page)) if self._beside_apart else beside
                except msgspec.ValidationError:
                    pass  # valid JSON of another form: one object for a list, a list for an object beside it
            return self._split_any(page)
        except (ValueError, RecursionError) as error:
            return self._salvage(page, error)

    def _split_any(self, page: bytes) -> tuple[list[Any], list[Any]]:
        document = json.loads(page, parse_float=Decimal, parse_int=_whole, parse_constant=_refuse)
        found = self._records.records(document)
        if found is None:
            if not (self._optional and isinstance(document, dict)):
                raise SourceError(
                    f"The answer has no records at {self._records.text}: it begins with {salvage.begin(page)}",
                    do="check the stream's `records:` path; if the API leaves an empty list out, say `records_optional: true`",
                )
            found = []
        return [_rewrite(record) for record in found], list(map(_native, self._look_apart(document)))

    def _salvage(self, page: bytes, error: Exception) -> tuple[list[Any], list[Any]]:
        """What can be read of a page that is no valid JSON: bad records are set aside, a broken page is an error."""
        mark = b""
        try:
            page.decode()
        except UnicodeDecodeError:
            page, mark = salvage.mark_invalid_utf8(page)
        pieces = salvage.cut(page, self._records)
        try:
            if pieces is None:
                raise ValueError
            document = orjson.loads(salvage.show_marked(pieces[0], mark) if mark else pieces[0])
        except ValueError:
            raise SourceError(
                f"The answer is no JSON ({salvage.reason(error)}): it begins with {salvage.begin(page)}",
                do="see what the address answers; a page cut short usually comes whole at the next try",
            ) from None
        good: list[bytes] = []
        for text in pieces[1]:
            if mark and mark in text:
                self._set_aside(salvage.show_marked(text, mark), "it holds bytes that are no UTF-8")
            elif (reason := salvage.broken(text)) is not None:
                self._set_aside(text, reason)
            else:
                good.append(text)
        return good, self._look_apart(document)

    def _read(self, raws: list[Any]) -> None:
        """Records given as JSON texts: compiled where their shape is known, else in halves, down to one by one."""
        if not raws:
            return
        reader = self._shape.reader()
        if reader is not None:
            try:
                rows = reader.decode(b"[" + b",".join(raws) + b"]")
                self._chunks.append(_Chunk(len(rows), reader.columns(rows), lambda i: bytes(raws[i])))
                return
            except (ValueError, RecursionError):
                pass  # something new: the halves will tell what
        if len(raws) <= _SLOW_ROWS:
            self._read_slowly(raws)
        else:
            middle = _SLOW_ROWS if reader is None else len(raws) // 2
            self._read(raws[:middle])
            self._read(raws[middle:])

    def _read_slowly(self, raws: list[Any]) -> None:
        records: list[dict[Path, bytes]] = []
        sources: list[bytes] = []
        for raw in raws:
            text = bytes(raw)
            reason = salvage.broken(text)
            if reason is not None:
                self._set_aside(text, reason)
                continue
            record: dict[Path, bytes] = {}
            for name, value in _fields_of(text).items():
                inner = bytes(value)
                if name in self._flatten and inner[:1] == b"{":
                    record.update({(name, key): bytes(v) for key, v in _fields_of(inner).items()})
                else:
                    record[name,] = inner
            for path, inner in record.items():
                if inner != b"null" or path[0] not in self._flatten or len(path) > 1:
                    self._shape.learn(path, wire_of(inner))
            records.append(record)
            sources.append(text)
        columns: Columns = {path: ("text", texts(r.get(path) for r in records)) for path in {p: None for r in records for p in r}}
        self._chunks.append(_Chunk(len(records), columns, sources.__getitem__))

    def _set_aside(self, text: bytes, reason: str) -> None:
        text, reason = salvage.as_spoiled(text) or (text, reason)
        self._unread.append(Unread(text[:_SHOWN].decode("utf-8", "replace"), reason))

    # ---- giving tables ----

    def flush(self, limit: int = 8 * 2**20) -> tuple[pa.Table, list[Unread]]:
        """What was taken so far, as one table in the lake's types, and what could not be read.

        Of very large pages only about `limit` bytes at a time: `buffered_rows` above zero says that there is more.
        """
        self._close()
        self._take_waiting(limit)
        chunks, self._chunks = self._chunks, []
        table = self._table(chunks)
        unread, self._unread = self._unread, []
        self.buffered_rows = len(self._waiting)
        self.buffered_bytes = sum(map(_size, self._waiting)) if self._waiting else 0
        return table, unread

    def _close(self) -> None:
        if self._open is not None and self._open.rows:
            rows, pages = self._open.rows, self._open.pages
            self._chunks.append(_Chunk(len(rows), self._open.reader.columns(rows), lambda i: self._source(pages, i)))
        self._open = None

    def _source(self, pages: list[tuple[int, bytes]], row: int) -> bytes:
        first, page = next((n, p) for n, p in reversed(pages) if n <= row)
        return bytes(self._split(page)[0][row - first])

    def _take_waiting(self, limit: int) -> None:
        taken = end = 0
        while end < len(self._waiting) and taken < limit:
            start, block = end, 0
            while end < len(self._waiting) and block < _BLOCK:
                block += _size(self._waiting[end])
                end += 1
            taken += block
            self._read(self._waiting[start:end])
        del self._waiting[:end]

    def _wants_text(self, path: Path) -> bool:
        """Whether a field is JSON text in the lake, so that even its simple values are kept as they are written."""
        name = path[-1]
        return self._types.get(name) == "json" or (name in self._known and is_json(self._known[name]) and name not in self._types)

    def _names(self) -> dict[Path, str]:
        taken = {path[0] for path in self._shape.wires if len(path) == 1}
        names: dict[Path, str] = {}
        for path in self._shape.wires:
            name = path[-1]
            if len(path) == 2:
                while name in taken:
                    name = f"{path[0]}_{name}"
                taken.add(name)
            names[path] = name.removeprefix("_") if name.startswith("_muxly_") else name
        return names

    def _table(self, chunks: list[_Chunk]) -> pa.Table:
        total = sum(chunk.count for chunk in chunks)
        fields: list[pa.Field] = []
        columns: list[pa.ChunkedArray] = []
        bad: dict[int, str] = {}
        for path, name in self._names().items():
            type_ = self._types.get(name)
            known = self._fields.get(path) or self._known.get(name) or pa.field(name, pa.null())
            if type_ is not None and path not in self._fields:
                declared = values.declared_field(name, type_)
                grows = type_ == "decimal" and name in self._known and pa.types.is_decimal(self._known[name].type)
                known = self._known[name] if grows else declared
            found: list[values.Column] = [chunk.columns.get(path) or ("text", pa.nulls(chunk.count, pa.string())) for chunk in chunks]
            if type_ is not None:
                arrays, to, misfits = values.declare(found, type_, known)
                for row, reason in misfits.items():
                    bad[row] = f"{bad[row]}; {reason}" if row in bad else reason
            else:
                arrays, to = values.infer(found, known)
            if pa.types.is_null(to.type):
                continue
            self._fields[path] = to
            fields.append(pa.field(name, to.type, metadata=to.metadata))
            columns.append(pa.chunked_array(arrays, to.type))
        if not fields:
            for chunk in chunks:
                for i in range(chunk.count):
                    self._set_aside(chunk.source(i), "it has no field with a value")
            return pa.table({})
        table = pa.table(columns, schema=pa.schema(fields))
        return self._without(table, bad, chunks, total) if bad else table

    def _without(self, table: pa.Table, bad: dict[int, str], chunks: list[_Chunk], total: int) -> pa.Table:
        first = 0
        for chunk in chunks:
            for row in range(first, first + chunk.count):
                if row in bad:
                    self._set_aside(chunk.source(row - first), bad[row])
            first += chunk.count
        return table.filter(pa.array([row not in bad for row in range(total)]))


def _size(raw: bytes | msgspec.Raw) -> int:
    return memoryview(raw).nbytes


def _whole(text: str) -> int | Decimal:
    return int(text) if len(text) <= 19 else Decimal(text)


def _refuse(word: str) -> Any:
    raise ValueError(f"{word} is no JSON number")


def _native(value: Any) -> Any:
    return value if not isinstance(value, Decimal) else int(value) if value == value.to_integral_value() else float(value)
