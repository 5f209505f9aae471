"""What the sql connector needs of a database, whatever its make: describe a query, read it in Arrow batches, name its errors."""

import base64
import decimal
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import pyarrow as pa
import pyarrow.compute as pc

from muxly_dagster.connector import Unreadable
from muxly_dagster.errors import MuxlyError
from muxly_dagster.records import JSON_FIELD, TIMESTAMP, to_json

BATCH_BYTES = 32 << 20
"""A batch ends here even if it has few rows, so that wide ones do not fill the memory."""

_UNREADABLE_TEXT = 64 << 10
_EXACT = decimal.Context(prec=100)
LOOSE_DECIMAL = pa.decimal128(28, 9)
"""First type of numbers whose column declares no precision; leaves room to widen on either side of the point within 38 digits."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table or query: `field` is its lake column, `kind` the database's own type name.

    `loose` marks exact numbers of undeclared precision, whose lake type depends on the values. `nullable` is True when unknown.
    """

    field: pa.Field
    kind: str
    nullable: bool = True
    loose: bool = False

    @property
    def name(self) -> str:
        """The column's name."""
        return str(self.field.name)

    def as_text(self) -> "Column":
        """The same column with its numbers kept as the database writes them."""
        return replace(self, field=pa.field(self.name, pa.string()), loose=False)


@dataclass(frozen=True, slots=True)
class Relation:
    """A table or view in the catalog. `default` says whether it is found without its schema; `keyed` whether it has a primary key."""

    schema: str
    name: str
    default: bool
    columns: tuple[str, ...] = ()
    keyed: bool = False


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows as read. `positions` are the raw values of the columns to order by, one tuple for each row, where there are such columns."""

    rows: pa.Table
    positions: Sequence[tuple[Any, ...]] = ()
    unreadable: tuple[Unreadable, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Select:
    """What to read: the columns, a FROM item ready to use, conditions, and the columns to order by."""

    columns: Sequence[Column]
    source: str
    where: str = ""
    order: tuple[str, ...] = ()
    batch_rows: int = 20_000

    def text(self, quote: Callable[[str], str]) -> str:
        """The statement; the columns to order by stand once more behind the others, as `_muxly_position_0` and so on."""
        items = [quote(column.name) for column in self.columns]
        items += [f"{quote(name)} as _muxly_position_{place}" for place, name in enumerate(self.order)]
        order = f" order by {', '.join(map(quote, self.order))}" if self.order else ""
        where = f" where {self.where}" if self.where else ""
        return f"select {', '.join(items)} from {self.source}{where}{order}"


class Database(ABC):
    """One open, read-only connection that sees a single state of the data. A context manager; every method may raise MuxlyError.

    `dynamic` databases know a value's type, not a column's; `folds_text` ones hold texts equal that differ in case.
    """

    dynamic: ClassVar[bool] = False
    folds_text: ClassVar[bool] = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Let go of the connection, in mid-read as well."""

    @abstractmethod
    def interrupt(self) -> None:
        """End a read that is under way on another thread, with an error there. Never raises."""

    @abstractmethod
    def quote(self, name: str) -> str:
        """The name as an identifier in SQL."""

    @abstractmethod
    def literal(self, value: Any, column: Column) -> str:
        """A cursor's value as an expression in SQL, of the column's type."""

    @abstractmethod
    def tables(self) -> list[str]:
        """Names of the tables and views that can be read, with their schema where they need one."""

    @abstractmethod
    def relations(self) -> list[Relation]:
        """The tables and views of all schemas but the system's own, as far as the user may read them, by schema and name."""

    @abstractmethod
    def describe(self, source: str, table: str = "") -> list[Column]:
        """The columns of a FROM item; `table` is its quoted name when it is a table."""

    @abstractmethod
    def primary_key(self, table: str) -> tuple[str, ...]:
        """The primary key of a table, given by its quoted name; empty if it has none."""

    @abstractmethod
    def read(self, select: Select, known: pa.Schema | None) -> Iterator[Chunk]:
        """The rows, in chunks. `known` is the lake table's schema: loose numbers are read into its types where they fit."""

    @abstractmethod
    def bound(self, source: str, key: Sequence[Column], where: str, place: int) -> tuple[Any, ...] | None:
        """The key's raw values in row `place` (0: the first) of those that match, in the order of the key; None if there are fewer."""

    def ranged(self, table: str, key: Sequence[str], least_rows: int) -> bool:
        """Whether a table has at least so many rows, by the database's own estimate, and they lie in the order of the key: then
        ranges of it cost no more than the whole."""
        return False

    def snapshot(self) -> str:
        """What this connection sees, as a name for `join`; empty where no other connection can see the same."""
        return ""

    def join(self, snapshot: str) -> bool:
        """See what another connection sees. False where that is over, and this connection sees the present state."""
        return False

    def compare(self, columns: Sequence[Column], sign: str, values: Sequence[Any]) -> str:
        """The condition that the columns, taken as one, are greater (`>`, `>=`) or less (`<`, `<=`) than these raw values."""
        names, literals = [self.quote(c.name) for c in columns], [self.literal(v, c) for v, c in zip(values, columns, strict=True)]
        if len(names) == 1:
            return f"{names[0]} {sign} {literals[0]}"
        return f"({', '.join(names)}) {sign} ({', '.join(literals)})"

    @abstractmethod
    def error(self, error: Exception) -> MuxlyError:
        """The database's error as one of Muxly's, without any secret."""

    def table(self, name: str, schema: str) -> str:
        """A table's quoted name. `name` may carry its schema."""
        first, dot, rest = name.partition(".")
        parts = [first, rest] if dot else [schema, name]
        return ".".join(self.quote(part) for part in parts if part)


# ---- texts into columns ---------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Columns:
    """Columns of one chunk on their way into Arrow; remembers which rows hold a value that cannot be read."""

    known: pa.Schema | None
    fields: list[pa.Field] = field(default_factory=list)
    arrays: list[pa.Array] = field(default_factory=list)
    bad: dict[int, str] = field(default_factory=dict)

    def add(self, column: Column, texts: pa.Array) -> None:
        """Take in a column's values as the database writes them."""
        to = column.field
        if column.loose:
            array, to = self._loose(column, texts)
        elif pa.types.is_string(to.type):
            array = texts
        else:
            array = self._cast(to.name, texts, to.type, column.kind)
        self.fields.append(to)
        self.arrays.append(array)

    def table(self) -> pa.Table:
        """The readable rows."""
        table = pa.table(self.arrays, schema=pa.schema(self.fields))
        return table.filter(self.readable(table.num_rows)) if self.bad else table

    def readable(self, count: int) -> pa.Array:
        """Which of the rows can be read."""
        return pa.array([row not in self.bad for row in range(count)])

    def unreadable(self, text: Callable[[int], Any]) -> tuple[Unreadable, ...]:
        """The other ones; `text` gives a row as it came."""
        return tuple(Unreadable(to_json(text(row)).decode()[:_UNREADABLE_TEXT], reason) for row, reason in sorted(self.bad.items()))

    def _cast(self, name: str, texts: pa.Array, type_: pa.DataType, kind: str) -> pa.Array:
        try:
            return _parse(texts, type_)
        except pa.ArrowInvalid:
            return pa.array([self._value(row, name, text, type_, kind) for row, text in enumerate(texts.to_pylist())], type_)

    def _value(self, row: int, name: str, text: str | None, type_: pa.DataType, kind: str) -> Any:
        try:
            return None if text is None else _parse(pa.array([text], pa.string()), type_)[0].as_py()
        except pa.ArrowInvalid:
            assert text is not None
            self.homeless(row, Column(pa.field(name, type_), kind), text)
            return None

    def homeless(self, row: int, column: Column, text: str) -> None:
        """Note that the lake has no place for a row's value."""
        what = f"{shown(text)} of type {column.kind} has no place in {column.field.type}"
        self.bad.setdefault(row, f"{column.name}: {what}; select it as text in a `query`")

    def _loose(self, column: Column, texts: pa.Array) -> tuple[pa.Array, pa.Field]:
        """Exact numbers in the lake's type, or in the narrowest decimal that holds them; as text past 38 digits."""
        name = column.name
        known = self.known.field(name).type if self.known is not None and name in self.known.names else LOOSE_DECIMAL
        if pa.types.is_string(known):
            return texts, pa.field(name, pa.string())
        first = known if pa.types.is_decimal(known) else LOOSE_DECIMAL
        try:
            return pc.cast(texts, first), pa.field(name, first)
        except pa.ArrowInvalid:
            pass
        values = [None if text is None else decimal.Decimal(text) for text in texts.to_pylist()]
        scale, whole = first.scale, first.precision - first.scale
        for row, value in enumerate(values):
            if value is None:
                continue
            if not value.is_finite():
                self.bad.setdefault(row, f"{name}: {value} is no number that others could take; leave it out in a `query`")
                values[row] = None
                continue
            _, digits, exponent = value.as_tuple()
            scale, whole = max(scale, -int(exponent)), max(whole, len(digits) + int(exponent))
        if scale + whole > 38:
            return texts, pa.field(name, pa.string())
        type_ = pa.decimal128(scale + whole, scale)
        return pa.array(values, type_), pa.field(name, type_)


def _parse(texts: pa.Array, type_: pa.DataType) -> pa.Array:
    if type_ == TIMESTAMP:
        return pc.assume_timezone(pc.cast(texts, pa.timestamp("us")), "UTC")
    return pc.cast(texts, type_)


def hex_bytes(texts: Iterable[str | None]) -> pa.Array:
    r"""Bytes from Postgres' `\x...` form."""
    return pa.array([None if text is None else bytes.fromhex(text[2:]) for text in texts], pa.binary())


def json_field(name: str) -> pa.Field:
    """A column of JSON text."""
    return pa.field(name, pa.string(), metadata=JSON_FIELD)


def shown(value: Any) -> str:
    """A value as messages show it: short."""
    text = base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)
    return repr(text if len(text) <= 60 else f"{text[:60]}…")
