"""SQLAlchemy's column types for the lake's: which to create, which existing ones hold a lake column exactly; values for drivers."""

import datetime as dt
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa
from sqlalchemy.dialects import mssql, mysql

from muxly_dagster import records
from muxly_dagster.destinations.database.session import as_texts

_LONGEST_KEY = 250
_NO_DECIMALS = ("sqlite",)
"""Dialects that make doubles of decimals."""

Type = sa.types.TypeEngine[Any]


def column_type(field: pa.Field, dialect: sa.Dialect, *, in_key: bool) -> Type:
    """The type to create for a lake column; in a key, texts are limited, as no index takes long ones."""
    type_ = field.type
    if pa.types.is_decimal(type_) and dialect.name not in _NO_DECIMALS:
        return sa.Numeric(type_.precision, type_.scale)
    if pa.types.is_binary(type_):
        return sa.VARBINARY(_LONGEST_KEY) if in_key and dialect.name in ("mysql", "mariadb", "mssql") else sa.LargeBinary()
    if type_ == records.TIMESTAMP:
        at = sa.DateTime(timezone=dialect.name in ("postgresql", "duckdb"))
        return at.with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb").with_variant(mssql.DATETIME2(6), "mssql")  # type: ignore[no-untyped-call]
    text: Type = sa.Unicode(_LONGEST_KEY) if in_key else sa.UnicodeText().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")
    names: dict[pa.DataType, Type] = {
        pa.int64(): sa.BigInteger(),
        pa.float64(): sa.Double(),
        pa.bool_(): sa.Boolean(),
        pa.date32(): sa.Date(),
    }
    return names.get(type_, text)


def fits(field: pa.Field, present: Type, dialect: sa.Dialect) -> bool:
    """Whether a column of the type `present` takes this lake column's values as they are, or refuses one aloud."""
    type_ = field.type
    if pa.types.is_binary(type_):
        return isinstance(present, sa.types._Binary) and not isinstance(present, sa.BINARY)
    if isinstance(present, sa.String):
        return not isinstance(present, sa.Enum | sa.CHAR | sa.NCHAR)
    if type_ == pa.int64():
        return isinstance(present, sa.Integer) or (isinstance(present, sa.Numeric) and not isinstance(present, sa.Float))
    if type_ == pa.float64():
        return isinstance(present, sa.Float) and not isinstance(present, sa.REAL)
    if type_ == pa.bool_():
        return isinstance(present, sa.Boolean | sa.Integer)
    if pa.types.is_decimal(type_):
        exact = isinstance(present, sa.Numeric) and not isinstance(present, sa.Float) and dialect.name not in _NO_DECIMALS
        return exact and (present.scale is None or present.scale >= type_.scale)  # type: ignore[attr-defined]
    if type_ == pa.date32() and isinstance(present, sa.Date):
        return True
    return type_ in (pa.date32(), records.TIMESTAMP) and isinstance(present, sa.DateTime) and _keeps_microseconds(present, dialect)


def _keeps_microseconds(present: Type, dialect: sa.Dialect) -> bool:
    if dialect.name in ("mysql", "mariadb"):
        return getattr(present, "fsp", None) == 6
    return dialect.name != "mssql" or isinstance(present, mssql.DATETIME2 | mssql.DATETIMEOFFSET)


def values(column: pa.ChunkedArray, present: Type) -> list[Any]:
    """Python values for a column of this type: exact text for texts, times in UTC, without saying so where the column has no zone."""
    if isinstance(present, sa.String):
        return list(as_texts(column).to_pylist())
    if isinstance(present, sa.DateTime):
        if column.type == pa.date32():
            column = pc.cast(column, records.TIMESTAMP)
        found: list[dt.datetime | None] = column.to_pylist()
        return found if present.timezone else [None if value is None else value.replace(tzinfo=None) for value in found]
    if isinstance(present, sa.Boolean) or not isinstance(present, sa.Integer):
        return list(column.to_pylist())
    return list((column.cast(pa.int64()) if column.type == pa.bool_() else column).to_pylist())
