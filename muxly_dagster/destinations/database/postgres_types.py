"""PostgreSQL's column types for the lake's: which to create, which existing ones hold a lake column exactly, how to widen one."""

import re

import pyarrow as pa

from muxly_dagster import records
from muxly_dagster.destinations.database.session import Widened

_TEXTS = ("text", "character varying", "character", "citext", "name")
_NOT_FOR_TEXT = re.compile(
    r"(smallint|integer|bigint|real|double precision|numeric.*|money|boolean|bytea|date|timestamp.*|time .*|interval.*|oid)$"
)


def column_type(field: pa.Field) -> str:
    """The type to create for a lake column."""
    type_ = field.type
    if records.is_json(field):
        return "jsonb"
    if pa.types.is_decimal(type_):
        return f"numeric({type_.precision},{type_.scale})"
    names = {
        pa.int64(): "bigint",
        pa.float64(): "double precision",
        pa.bool_(): "boolean",
        pa.date32(): "date",
        records.TIMESTAMP: "timestamp with time zone",
        pa.binary(): "bytea",
    }
    return names.get(type_, "text")


def fits(field: pa.Field, present: str, *, ours: bool) -> bool:
    """Whether a column of the type `present` takes this lake column's values as they are: exactly, or by refusing one aloud.

    `ours` says that Muxly created the table: there, a jsonb column held nested values, not texts that happen to be JSON.
    """
    type_ = field.type
    base = present.partition("(")[0]
    if records.is_json(field):
        return present in ("jsonb", "json")
    if pa.types.is_string(type_):
        return not _NOT_FOR_TEXT.match(present) and not (ours and present == "jsonb")
    if pa.types.is_binary(type_):
        return present == "bytea"
    if base in _TEXTS:
        return True
    if type_ == pa.int64():
        return present in ("bigint", "integer", "smallint", "double precision") or base == "numeric"
    if type_ == pa.float64():
        return present in ("double precision", "numeric")
    if pa.types.is_decimal(type_):
        return base == "numeric" and (present == "numeric" or _scale(present) >= type_.scale)
    if type_ == pa.bool_():
        return present == "boolean"
    if type_ == pa.date32():
        return present == "date" or base.startswith("timestamp")
    return base.startswith("timestamp")


def widened(field: pa.Field, present: str) -> Widened | None:
    """What a column that Muxly created must become to hold both its old values and the lake column's; None if there is no such type."""
    if records.is_json(field):
        return Widened("jsonb", "to_jsonb({})")
    if present == "jsonb":
        return Widened("text", "{}::text")
    before = _lake_type(present)
    if before is None:
        return None
    after = records.widen(before, field.type)
    if after == pa.string() and pa.types.is_binary(before):
        return Widened("text", "translate(encode({}, 'base64'), E'\\n', '')")
    type_ = column_type(pa.field(field.name, after))
    return Widened(type_, "{}::" + type_)


def _lake_type(present: str) -> pa.DataType | None:
    """The lake type that Muxly creates this column type for."""
    sized = re.fullmatch(r"numeric\((\d+),(\d+)\)", present)
    if sized:
        return pa.decimal128(int(sized[1]), int(sized[2]))
    candidates = (pa.int64(), pa.float64(), pa.bool_(), pa.date32(), records.TIMESTAMP, pa.binary(), pa.string())
    return next((t for t in candidates if column_type(pa.field("", t)) == present), None)


def _scale(present: str) -> int:
    found = re.search(r",(-?\d+)\)", present)
    return int(found[1]) if found else 0
