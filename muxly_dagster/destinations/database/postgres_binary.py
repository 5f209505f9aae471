"""Arrow columns in the binary form of PostgreSQL's COPY, made without a loop over rows.

Every field is four bytes of length and the value in network byte order. Columns of one width are written side by side by NumPy, texts stay
where they are, and Arrow joins the pieces of all rows: a tenth of the work of writing them as text, for both sides.
Source: PostgreSQL documentation, COPY, "Binary Format"; the values as its `*_recv` functions read them.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from muxly_dagster import records
from muxly_dagster.errors import RecordRefused

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"

_EPOCH_DAYS = 10_957  # from 1970-01-01 to 2000-01-01, where PostgreSQL counts from
_EPOCH = _EPOCH_DAYS * 86_400_000_000
_DAYS = (-2_451_545, 2_145_031_948)
_TIMES = (-211_813_488_000_000_000, 9_223_371_331_200_000_000)
"""The days and microseconds from 2000-01-01 that PostgreSQL has: the numbers beyond are its infinities."""
_MOST_DIGITS = 18  # of a decimal in 64 bits
_TEXTS = ("text", "character varying")

Numbers = npt.NDArray[Any]


def writes(schema: pa.Schema, column_types: Mapping[str, str]) -> bool:
    """Whether every column can be written in the binary form of the type it has in the database."""
    return all(_is_written(field, column_types[field.name]) for field in schema)


def _is_written(field: pa.Field, present: str) -> bool:
    type_, base = field.type, present.partition("(")[0]
    if pa.types.is_string(type_):
        return base in _TEXTS or present in ("jsonb", "json")
    if pa.types.is_decimal(type_):
        return base == "numeric" and type_.precision <= _MOST_DIGITS
    same = {
        pa.int64(): "bigint",
        pa.float64(): "double precision",
        pa.bool_(): "boolean",
        pa.date32(): "date",
        records.TIMESTAMP: "timestamp with time zone",
        pa.binary(): "bytea",
    }
    return same.get(type_) == present


def encoded(batch: pa.RecordBatch, column_types: Mapping[str, str]) -> memoryview:
    """The rows, without header and trailer. Raises RecordRefused for a time that PostgreSQL does not have."""
    row = _Row(len(batch))
    row.add(np.dtype(">i2"), batch.num_columns)
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if pa.types.is_string(column.type) or pa.types.is_binary(column.type):
            mark = 1 if column_types[name] == "jsonb" else 0  # jsonb's values begin with a version number
            lengths = pc.fill_null(pc.add(pc.binary_length(column), mark), -1)
            row.add(np.dtype(">i4"), lengths.to_numpy(zero_copy_only=False))
            if mark:
                column = pc.binary_join_element_wise(pa.scalar(b"\x01"), column.cast(pa.binary()), pa.scalar(b""))
            row.append(column.cast(pa.binary()))
            continue
        values = _fixed(column, name)
        width = values.dtype.itemsize
        if not column.null_count:
            row.add(np.dtype(">i4"), width)
            row.add(values.dtype, values)
            continue
        there = column.is_valid()
        row.add(np.dtype(">i4"), np.where(there.to_numpy(zero_copy_only=False), width, -1))
        row.append(pc.if_else(there, _cut(values), pa.scalar(None, pa.binary())))
    return row.joined()


class _Row:
    """The pieces of every row in turn; those of one width that follow each other become one."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._pieces: list[pa.Array] = []
        self._fixed: list[tuple[np.dtype[Any], Numbers | int]] = []

    def add(self, type_: np.dtype[Any], values: Numbers | int) -> None:
        """A piece of one width."""
        self._fixed.append((type_, values))

    def append(self, values: pa.Array) -> None:
        """A piece of any width, none for null."""
        self._flush()
        self._pieces.append(values)

    def joined(self) -> memoryview:
        """All rows, one after the other."""
        self._flush()
        rows = pc.binary_join_element_wise(*self._pieces, pa.scalar(b"", pa.binary()), null_handling="replace", null_replacement=b"")
        return _data(rows)

    def _flush(self) -> None:
        if self._fixed:
            block = np.empty(self._rows, [(f"f{place}", type_) for place, (type_, _) in enumerate(self._fixed)])
            for place, (_, values) in enumerate(self._fixed):
                block[f"f{place}"] = values
            self._pieces.append(_cut(block))
            self._fixed = []


def _data(rows: pa.Array) -> memoryview:
    """The bytes of a binary array's values, which lie side by side."""
    ends = np.frombuffer(rows.buffers()[1], np.int32)
    return memoryview(rows.buffers()[2])[ends[rows.offset] : ends[rows.offset + len(rows)]]


def _cut(values: Numbers) -> pa.Array:
    """The values' bytes as a binary array."""
    width = values.dtype.itemsize
    ends = np.arange(0, (len(values) + 1) * width, width, dtype=np.int32)
    return pa.Array.from_buffers(pa.binary(), len(values), [None, pa.py_buffer(ends), pa.py_buffer(np.ascontiguousarray(values))])


def _fixed(column: pa.Array, name: str) -> Numbers:
    """The values as PostgreSQL reads them; anything for null."""
    type_ = column.type
    if type_ == pa.bool_():
        return np.asarray(pc.fill_null(column, False).cast(pa.uint8()))
    if type_ == pa.int64():
        return _numbers(column, np.int64).astype(">i8")
    if type_ == pa.float64():
        return _numbers(column, np.float64).astype(">f8")
    if pa.types.is_decimal(type_):
        return _numeric(column)
    if type_ == pa.date32():
        return _shifted(column.cast(pa.int32()).cast(pa.int64()), _EPOCH_DAYS, _DAYS, name).astype(">i4")
    return _shifted(column.cast(pa.int64()), _EPOCH, _TIMES, name).astype(">i8")


def _numbers(column: pa.Array, type_: type[np.generic]) -> Numbers:
    return np.frombuffer(column.buffers()[1], type_)[column.offset : column.offset + len(column)]


def _shifted(column: pa.Array, epoch: int, bounds: tuple[int, int], name: str) -> Numbers:
    try:
        moved = pc.subtract_checked(column, epoch)
        least, most = pc.min_max(moved).as_py().values()
        outside = least is not None and not (bounds[0] <= least and most <= bounds[1])
    except pa.ArrowInvalid:
        outside = True
    if outside:
        raise RecordRefused(f"column {name} holds a date that PostgreSQL does not have")
    return _numbers(moved, np.int64)


def _numeric(column: pa.Array) -> Numbers:
    """Four numbers (how many digits to the base 10,000, the first one's weight, the sign, the scale), then those digits.

    All values get as many digits as the type may need: PostgreSQL drops the zeros before and behind.
    """
    precision, scale = column.type.precision, column.type.scale
    unscaled = np.frombuffer(column.buffers()[1], np.int64).reshape(-1, 2)[column.offset : column.offset + len(column), 0]
    if column.null_count:
        unscaled = np.where(column.is_valid().to_numpy(zero_copy_only=False), unscaled, 0)
    missing = -scale % 4  # decimal digits of the last one that lie behind the scale
    whole, digits = -(-(precision - scale) // 4), -(-(precision - scale) // 4) + (scale + missing) // 4
    numbers = np.empty((len(column), 4 + digits), ">i2")
    numbers[:, 0], numbers[:, 1], numbers[:, 2], numbers[:, 3] = digits, whole - 1, np.where(unscaled < 0, 0x4000, 0), scale
    rest = np.abs(unscaled)
    for place in range(digits - 1, -1, -1):
        base = 10 ** (4 - missing) if place == digits - 1 else 10_000
        numbers[:, 4 + place] = rest % base * (10_000 // base)
        rest = rest // base
    return numbers.view([("numeric", "V", numbers.dtype.itemsize * (4 + digits))])["numeric"].reshape(-1)
