"""MySQL's column types for the lake's: which to create, which existing ones hold a lake column exactly, how to widen one.

MySQL rounds decimals and fractions of seconds, cuts spaces off and folds cases without a word: a type that would do so does not fit.
"""

import re
from collections.abc import Sequence

import pyarrow as pa

from muxly_dagster import records
from muxly_dagster.destinations.database.session import Widened

_INDEX_BYTES = 3072
_NUMBER_BYTES = 16  # the most that a number or a time takes in an index
_LONGEST_KEY = 500
_LARGEST_SCALE = 30
_WHOLE = ("tinyint", "smallint", "mediumint", "int", "bigint")
_TEXTS = ("varchar", "tinytext", "text", "mediumtext", "longtext")
_BYTES = ("varbinary", "tinyblob", "blob", "mediumblob", "longblob")


def column_type(field: pa.Field, collation: str, key: Sequence[pa.Field] = ()) -> str:
    """The type to create for a lake column; `key` are the columns of the key if it is one of them: an index takes no long texts."""
    type_ = field.type
    if key and (pa.types.is_string(type_) or pa.types.is_binary(type_)):
        long = [f for f in key if pa.types.is_string(f.type) or pa.types.is_binary(f.type)]
        room = (_INDEX_BYTES - _NUMBER_BYTES * (len(key) - len(long))) // len(long)
        if pa.types.is_binary(type_):
            return f"varbinary({min(_LONGEST_KEY, room)})"
        return f"varchar({min(_LONGEST_KEY, room // 4)}) CHARACTER SET utf8mb4 COLLATE {collation}"
    if pa.types.is_decimal(type_) and type_.scale <= _LARGEST_SCALE:
        return f"decimal({type_.precision},{type_.scale})"
    names = {
        pa.int64(): "bigint",
        pa.float64(): "double",
        pa.bool_(): "tinyint(1)",
        pa.date32(): "date",
        records.TIMESTAMP: "datetime(6)",
        pa.binary(): "longblob",
    }
    return names.get(type_, f"longtext CHARACTER SET utf8mb4 COLLATE {collation}")


def fits(field: pa.Field, present: str) -> bool:
    """Whether a column of the type `present` takes this lake column's values as they are, or refuses one aloud."""
    type_, base = field.type, present.partition("(")[0].partition(" ")[0]
    if pa.types.is_binary(type_):
        return base in _BYTES
    if base in _TEXTS or (base == "json" and records.is_json(field)):
        return True
    if type_ == pa.int64():
        return base in (*_WHOLE, "decimal") or present == "double"
    if type_ == pa.bool_():
        return base in _WHOLE
    if pa.types.is_decimal(type_):
        return base == "decimal" and _scale(present) >= type_.scale
    if type_ == pa.date32():
        return base in ("date", "datetime")
    return present in {pa.float64(): ("double",), records.TIMESTAMP: ("datetime(6)", "timestamp(6)")}.get(type_, ())


def widened(field: pa.Field, present: str, collation: str, key: Sequence[pa.Field]) -> Widened | None:
    """What a column that Muxly created must become to hold both its old values and the lake column's."""
    before = _lake_type(present)
    if before is None:
        return None
    after = records.widen(before, field.type)
    type_ = column_type(pa.field(field.name, after), collation, key)
    if not pa.types.is_string(after):
        return Widened(type_)
    if before == pa.bool_():
        return Widened(type_, "CASE {} WHEN 1 THEN 'true' WHEN 0 THEN 'false' END")
    if before == records.TIMESTAMP:
        return Widened(type_, "DATE_FORMAT({}, '%Y-%m-%dT%H:%i:%s.%fZ')")
    if pa.types.is_binary(before):
        return Widened(type_, "REPLACE(TO_BASE64({}), CHAR(10), '')")
    return Widened(type_, "CAST({} AS CHAR)")


def _lake_type(present: str) -> pa.DataType | None:
    """The lake type that Muxly creates this column type for."""
    sized = re.fullmatch(r"decimal\((\d+),(\d+)\)", present)
    if sized:
        return pa.decimal128(min(38, int(sized[1])), int(sized[2]))
    if present == "tinyint(1)":
        return pa.bool_()
    names = {"bigint": pa.int64(), "double": pa.float64(), "date": pa.date32(), "datetime": records.TIMESTAMP}
    base = present.partition("(")[0]
    return pa.binary() if base in _BYTES else names.get(base)


def _scale(present: str) -> int:
    found = re.search(r",(\d+)\)", present)
    return int(found[1]) if found else 0
