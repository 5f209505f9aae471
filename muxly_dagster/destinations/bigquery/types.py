"""BigQuery's column types for the lake's: which to create, which existing ones hold a lake column exactly, how to widen one.

Sources: "Data types" of GoogleSQL (NUMERIC, BIGNUMERIC), "Modify table schemas" (what SET DATA TYPE allows), "Parquet conversions".
"""

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from muxly_dagster import records
from muxly_dagster.errors import RecordRefused

_NUMERIC_SCALE, _NUMERIC_WHOLE = 9, 29
_BIGNUMERIC_SCALE, _BIGNUMERIC_WHOLE = 38, 38
_WHOLE_DIGITS_OF_INT64 = 19
_LEGACY = {"INT64": "INTEGER", "FLOAT64": "FLOAT", "BOOL": "BOOLEAN", "STRUCT": "RECORD"}
_SQL = {"INTEGER": "INT64", "FLOAT": "FLOAT64", "BOOLEAN": "BOOL"}
_KEYS = ("BIGNUMERIC", "BOOLEAN", "DATE", "DATETIME", "INTEGER", "NUMERIC", "STRING", "TIMESTAMP")
_WIDER = {"INTEGER": ("NUMERIC", "BIGNUMERIC", "FLOAT"), "NUMERIC": ("BIGNUMERIC",)}
"""What `ALTER COLUMN SET DATA TYPE` makes of a type without a change to its values; NUMERIC to FLOAT64 would change some."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a BigQuery table: its type as the API names it, and the digits a decimal declares (0: as many as the type has)."""

    name: str
    kind: str
    mode: str = "NULLABLE"
    precision: int = 0
    scale: int = 0
    default: str = ""

    @property
    def sql(self) -> str:
        """The type in GoogleSQL, for people and ALTER statements."""
        digits = f"({self.precision}, {self.scale})" if self.precision else ""
        name = f"{_SQL.get(self.kind, self.kind)}{digits}"
        return f"ARRAY<{name}>" if self.mode == "REPEATED" else name

    @property
    def can_be_primary_key(self) -> bool:
        """Whether BigQuery takes it into a primary key."""
        return self.kind in _KEYS

    @property
    def staged(self) -> str:
        """The type of this column in a stage: JSON travels as text, since no Parquet file holds it."""
        return "STRING" if self.kind == "JSON" else self.kind

    @property
    def digits(self) -> tuple[int, int]:
        """The most digits before and behind the point of a decimal."""
        if self.precision:
            return self.precision - self.scale, self.scale
        return (_NUMERIC_WHOLE, _NUMERIC_SCALE) if self.kind == "NUMERIC" else (_BIGNUMERIC_WHOLE, _BIGNUMERIC_SCALE)


def described(field: object) -> Column:
    """The column of a `google.cloud.bigquery.SchemaField`."""
    kind = str(getattr(field, "field_type", "")).upper()
    return Column(
        name=str(getattr(field, "name", "")),
        kind=_LEGACY.get(kind, kind),
        mode=str(getattr(field, "mode", "") or "NULLABLE").upper(),
        precision=int(getattr(field, "precision", None) or 0),
        scale=int(getattr(field, "scale", None) or 0),
        default=str(getattr(field, "default_value_expression", None) or ""),
    )


def column(field: pa.Field, *, key: bool = False) -> Column:
    """The column to create for a lake column. A key is compared, which JSON cannot be: there it stays text."""
    type_ = field.type
    if records.is_json(field):
        return Column(field.name, "STRING" if key else "JSON")
    if pa.types.is_decimal(type_):
        narrow = type_.scale <= _NUMERIC_SCALE and type_.precision - type_.scale <= _NUMERIC_WHOLE
        return Column(field.name, "NUMERIC" if narrow else "BIGNUMERIC")
    kinds = {
        pa.int64(): "INTEGER",
        pa.float64(): "FLOAT",
        pa.bool_(): "BOOLEAN",
        pa.date32(): "DATE",
        records.TIMESTAMP: "TIMESTAMP",
        pa.binary(): "BYTES",
    }
    return Column(field.name, kinds.get(type_, "STRING"))


def fits(field: pa.Field, present: Column) -> bool:
    """Whether a column takes this lake column's values as they are: exactly, or by refusing one aloud."""
    if present.mode == "REPEATED":
        return False
    if present.kind == "STRING":
        return True
    if records.is_json(field):
        return present.kind == "JSON"
    type_ = field.type
    if present.kind in ("NUMERIC", "BIGNUMERIC"):
        whole, scale = present.digits
        if pa.types.is_decimal(type_):
            return bool(type_.scale <= scale and (present.precision or type_.precision - type_.scale <= whole))
        return bool(type_ == pa.int64())
    kinds = {
        pa.int64(): ("INTEGER", "FLOAT"),
        pa.float64(): ("FLOAT",),
        pa.bool_(): ("BOOLEAN",),
        pa.date32(): ("DATE", "DATETIME", "TIMESTAMP"),
        records.TIMESTAMP: ("TIMESTAMP", "DATETIME"),
        pa.binary(): ("BYTES",),
    }
    return present.kind in kinds.get(type_, ())


def widened(field: pa.Field, present: Column) -> Column | None:
    """What an existing column must become to hold both its values and the lake column's; None where BigQuery cannot change it so."""
    if present.mode == "REPEATED":
        return None
    if pa.types.is_decimal(field.type) and present.kind in ("INTEGER", "NUMERIC"):
        whole = max(field.type.precision - field.type.scale, _WHOLE_DIGITS_OF_INT64 if present.kind == "INTEGER" else present.digits[0])
        scale = max(field.type.scale, 0 if present.kind == "INTEGER" else present.digits[1])
        kind = "NUMERIC" if whole <= _NUMERIC_WHOLE and scale <= _NUMERIC_SCALE else "BIGNUMERIC"
        return Column(field.name, kind) if kind in (*_WIDER[present.kind], present.kind) else None
    wanted = column(field)
    return wanted if wanted.kind in _WIDER.get(present.kind, ()) else None


def converted(values: pa.ChunkedArray, field: pa.Field, to: Column, where: str) -> pa.ChunkedArray:
    """The values of a lake column in the Arrow type that a load into `to` takes. Raises RecordRefused where one does not fit exactly."""
    if to.mode == "REQUIRED" and values.null_count:
        raise RecordRefused(f"column {to.name} is REQUIRED in the table, and there is no value for it", where=where)
    try:
        if to.kind in ("STRING", "JSON"):
            return records.cast(values, pa.field(field.name, pa.string()))
        if to.kind in ("NUMERIC", "BIGNUMERIC"):
            return _decimals(values, to)
        if to.kind == "FLOAT":
            return pc.cast(values, pa.float64())
        if to.kind == "TIMESTAMP":
            return pc.cast(values, records.TIMESTAMP)
        if to.kind == "DATETIME":
            return pc.cast(values, pa.timestamp("us"))
    except pa.ArrowInvalid as error:
        raise RecordRefused(f"column {to.name} is {to.sql} in the table: {error}", where=where) from None
    return values


def _decimals(values: pa.ChunkedArray, to: Column) -> pa.ChunkedArray:
    if values.type == pa.int64():
        values = pc.cast(values, pa.decimal128(_WHOLE_DIGITS_OF_INT64, 0))
    if to.precision and to.precision <= 38:
        return pc.cast(values, pa.decimal128(to.precision, to.scale))
    return values
