"""Values of one column into the lake's types, exactly or not at all."""

import datetime as dt
import decimal
import re
from collections.abc import Callable
from typing import Any

import msgspec
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from muxly_dagster.decoding.shape import Form
from muxly_dagster.records import JSON_FIELD, TIMESTAMP, is_json, widen, widen_field

_LAKE: dict[str, pa.DataType] = {
    "string": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
    "decimal": pa.decimal128(28, 9),  # leaves room to widen on either side of the point within 38 digits
    "timestamp": TIMESTAMP,
    "date": pa.date32(),
    "epoch_ms": TIMESTAMP,
    "epoch_s": TIMESTAMP,
    "json": pa.string(),
}
FIELD_TYPES = (*_LAKE, "decimal(P,S)")
"""The types a manifest can declare; P digits, S of them behind the point."""

_DECIMAL = re.compile(r"decimal\(\s*(\d{1,2})\s*,\s*(\d{1,2})\s*\)")
_SURE_DIGITS = 15  # a double holds every decimal number of so many digits
_INT64 = range(-(2**63), 2**63)
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_FIRST_US, _LAST_US = -62_135_596_800_000_000, 253_402_300_799_999_999  # the years 1 to 9999: what everybody behind us can print
_EXACT = decimal.Context(prec=1000, Emax=decimal.MAX_EMAX, Emin=decimal.MIN_EMIN)
_SUBMICRO = re.compile(r"(\.\d{6})\d+")

Column = tuple[Form, pa.Array]


class Misfit(Exception):
    """Some value of a column does not fit the type it was to be read into."""


def declared_field(name: str, type_: str) -> pa.Field:
    """The lake's column for a declared type. Raises ValueError for a type that does not exist."""
    if type_ in _LAKE:
        return pa.field(name, _LAKE[type_], metadata=JSON_FIELD if type_ == "json" else None)
    size = _DECIMAL.fullmatch(type_)
    if size is None or not 1 <= int(size[1]) <= 38 or int(size[2]) > int(size[1]):
        raise ValueError(f"{type_!r} is no type; there are {', '.join(FIELD_TYPES)}")
    return pa.field(name, pa.decimal128(int(size[1]), int(size[2])))


# ---- columns whose type is inferred ----------------------------------------------------------------------------------


def infer(columns: list[Column], known: pa.Field) -> tuple[list[pa.Array], pa.Field]:
    """The columns in the narrowest type that holds all their values and `known`'s; text when nothing narrower does.

    Without any value there is no type yet: null, and no columns.
    """
    if pa.types.is_null(known.type):
        for column in columns:
            known = widen_field(known, observe(column))
        if pa.types.is_null(known.type):
            return [], known
    while True:
        try:
            return [_fit(column, known) for column in columns], known
        except (Misfit, pa.ArrowInvalid):
            wider = known
            for column in columns:
                wider = widen_field(wider, observe(column))
            known = wider if wider != known else pa.field(known.name, pa.string(), metadata=known.metadata)


def observe(column: Column) -> pa.Field:
    """The narrowest type of the column's values, as a nameless field; null where it has none."""
    form, array = column
    if array.null_count == len(array):
        return pa.field("", pa.null())
    if form == "text":
        found = pa.field("", pa.null())
        for text in array.drop_null().to_pylist():
            found = widen_field(found, _observe(text))
        return found
    return pa.field("", {"string": pa.string(), "integer": pa.int64(), "boolean": pa.bool_()}[form])


def _observe(text: str) -> pa.Field:
    if text[0] == '"':
        return pa.field("", pa.string())
    if text[0] in "tf":
        return pa.field("", pa.bool_())
    if text[0] in "{[":
        return pa.field("", pa.string(), metadata=JSON_FIELD)
    if not any(mark in text for mark in ".eE"):
        digits = len(text.lstrip("-"))
        if digits <= 19 and int(text) in _INT64:
            return pa.field("", pa.int64())
        return pa.field("", pa.decimal128(38, 0) if digits <= 38 else pa.string())
    return pa.field("", pa.float64() if _is_exact(text) else pa.string())


def _is_exact(text: str) -> bool:
    """Whether a double holds this JSON number as it is written."""
    number = float(text)
    shortest = repr(number)
    return shortest == text or (abs(number) != float("inf") and decimal.Decimal(shortest) == decimal.Decimal(text))


def _fit(column: Column, to: pa.Field) -> pa.Array:
    form, array = column
    kind = to.type
    if is_json(to):
        return _json_texts(column)
    if pa.types.is_string(kind):
        return plain(column)
    if form == "boolean" or pa.types.is_boolean(kind):
        return _booleans(column, kind)
    if pa.types.is_temporal(kind) and form in ("string", "text"):
        return _cast_time(plain(column), kind)
    if form == "string" or not (pa.types.is_int64(kind) or pa.types.is_float64(kind) or pa.types.is_decimal(kind)):
        raise Misfit
    if form == "text" and pa.types.is_float64(kind):
        _must_be_exact(array)
    return pc.cast(array, kind)


def _booleans(column: Column, kind: pa.DataType) -> pa.Array:
    form, array = column
    if not pa.types.is_boolean(kind) or form not in ("boolean", "text"):
        raise Misfit
    if form == "boolean":
        return array
    if not pc.all(pc.is_in(array, pa.array(["true", "false", None]))).as_py():
        raise Misfit
    return pc.equal(array, "true")


def _must_be_exact(array: pa.Array) -> None:
    short = pc.less_equal(pc.utf8_length(array), _SURE_DIGITS)
    sure = pc.and_(short, pc.invert(pc.match_substring(array, "e", ignore_case=True)))
    for text in array.filter(pc.invert(sure)).drop_null().to_pylist():
        if text[0] in '"{[tf' or not _is_exact(text):
            raise Misfit


def plain(column: Column) -> pa.Array:
    """The values as bare text: JSON strings without their quotes, everything else as it is written in JSON."""
    form, array = column
    if form == "string":
        return array
    if form == "integer" or form == "boolean":
        return pc.cast(array, pa.string())
    if not pc.any(pc.starts_with(array, '"')).as_py():
        return array
    unquote = msgspec.json.Decoder(str).decode
    return pa.array([unquote(t) if t is not None and t[0] == '"' else t for t in array.to_pylist()], pa.string())


def _json_texts(column: Column) -> pa.Array:
    form, array = column
    if form == "string":
        return pa.array([None if v is None else orjson.dumps(v) for v in array.to_pylist()], pa.string())
    return array if form == "text" else pc.cast(array, pa.string())


def _cast_time(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """ISO 8601 text as a date or time; a time without zone is UTC."""
    try:
        return pc.cast(array, kind)
    except pa.ArrowInvalid:
        if not pa.types.is_timestamp(kind):
            raise
    return pc.assume_timezone(pc.cast(array, pa.timestamp("us")), "UTC")


# ---- columns whose type is declared ----------------------------------------------------------------------------------


def declare(columns: list[Column], type_: str, to: pa.Field) -> tuple[list[pa.Array], pa.Field, dict[int, str]]:
    """The columns in their declared type, and for rows whose value does not fit the reason (row numbers run through all columns).

    Numbers and times may come as JSON strings; an empty string is no value. Only `decimal` may grow, to hold more digits.
    """
    if type_ == "json":
        return [_json_texts(column) for column in columns], to, {}
    arrays = [plain(column) for column in columns]
    if type_ == "string":
        return arrays, to, {}
    try:
        return [_bulk(_without_blanks(array), type_, to.type) for array in arrays], to, {}
    except (Misfit, pa.ArrowInvalid):
        return _one_by_one(arrays, type_, to)


def _without_blanks(array: pa.Array) -> pa.Array:
    blank = pc.equal(array, "")
    return pc.if_else(blank, pa.scalar(None, pa.string()), array) if pc.any(blank).as_py() else array


def _bulk(array: pa.Array, type_: str, kind: pa.DataType) -> pa.Array:
    if type_ == "number":
        _must_be_exact(array)
        numbers = pc.cast(array, kind)
        if not pc.all(pc.is_finite(numbers)).as_py() and numbers.null_count < len(numbers):
            raise Misfit
        return numbers
    if type_ in ("timestamp", "date"):
        return _cast_time(array, kind)
    if type_ in ("epoch_ms", "epoch_s"):
        micros = pc.multiply_checked(pc.cast(array, pa.int64()), 1_000 if type_ == "epoch_ms" else 1_000_000)
        least, most = pc.min_max(micros).as_py().values()
        if least is not None and (least < _FIRST_US or most > _LAST_US):
            raise Misfit
        return micros.cast(kind)
    return pc.cast(array, kind)


def _one_by_one(arrays: list[pa.Array], type_: str, to: pa.Field) -> tuple[list[pa.Array], pa.Field, dict[int, str]]:
    parse = _PARSERS[type_.partition("(")[0]]
    kind = to.type
    bad: dict[int, str] = {}
    row = 0
    found: list[list[Any]] = []
    for array in arrays:
        values: list[Any] = []
        for text in array.to_pylist():
            value = None
            if text:
                try:
                    value = parse(text)
                    if pa.types.is_decimal(kind):
                        kind = _grown(kind, value, fixed=type_ != "decimal")
                except (ValueError, ArithmeticError) as error:
                    value = None
                    shown = text if len(text) <= 80 else text[:80] + "…"
                    detail = f" ({error})" if type(error) is ValueError and str(error) else ""
                    bad[row] = f"{to.name}: {shown!r} is no {type_}{detail}"
            values.append(value)
            row += 1
        found.append(values)
    return [pa.array(values, kind) for values in found], pa.field(to.name, kind, metadata=to.metadata), bad


def _grown(kind: pa.DataType, value: decimal.Decimal, *, fixed: bool) -> pa.DataType:
    """The decimal type that holds this value too."""
    _, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)
    scale = max(-exponent, 0)
    whole = max(len(digits) + exponent, 0)
    if scale > 38 or whole > 38:
        raise ValueError("more than 38 digits")
    if whole <= kind.precision - kind.scale and scale <= kind.scale:
        return kind
    if fixed:
        raise ValueError("more digits than declared")
    grown = widen(kind, pa.decimal128(max(whole, kind.precision - kind.scale) + scale, scale)) if whole + scale <= 38 else pa.string()
    if not pa.types.is_decimal(grown):
        raise ValueError("more than 38 digits")
    return grown


def _integer(text: str) -> int:
    number = decimal.Decimal(text)
    if not number.is_finite() or abs(number.adjusted()) > 20 or number != number.to_integral_value():
        raise ValueError("")
    if int(number) not in _INT64:
        raise ValueError("beyond 64 bits; declare it decimal or string")
    return int(number)


def _number(text: str) -> float:
    """A double, if the text is one as printed by anybody: in its shortest form or with more of its digits."""
    number = float(text)
    if not abs(number) < float("inf"):
        raise ValueError("")
    written = decimal.Decimal(text)
    digits = max(len(written.as_tuple().digits), 1)
    if not _is_exact(text) and decimal.Decimal(f"{number:.{digits - 1}e}") != written:
        raise ValueError("more digits than a double holds; declare it decimal or string")
    return number


def _decimal(text: str) -> decimal.Decimal:
    number = decimal.Decimal(text)
    if not number.is_finite():
        raise ValueError("")
    if number.adjusted() > 38 or len(number.as_tuple().digits) > 100:
        raise ValueError("more than 38 digits")
    number = number.normalize(_EXACT)
    return number.quantize(decimal.Decimal(1), context=_EXACT) if number.as_tuple().exponent > 0 else number  # type: ignore[operator]


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0"):
        raise ValueError("")
    return text.lower() in ("true", "1")


def _timestamp(text: str) -> dt.datetime:
    if len(text) < 10 or text[4] != "-":
        raise ValueError("")
    try:
        moment = dt.datetime.fromisoformat(_SUBMICRO.sub(r"\1", text))
    except ValueError:
        raise ValueError("") from None
    return moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment.astimezone(dt.UTC)


def _date(text: str) -> dt.date:
    """A day; a time is one only at midnight, or something would be lost."""
    moment = _timestamp(text) if len(text) > 10 else dt.datetime.combine(dt.date.fromisoformat(text), dt.time())
    if moment.time() != dt.time():
        raise ValueError("it has a time of day; declare it timestamp")
    return moment.date()


def _epoch(per_second: int) -> Callable[[str], dt.datetime]:
    def parse(text: str) -> dt.datetime:
        number = decimal.Decimal(text)
        if not number.is_finite() or number.adjusted() > 20:
            raise ValueError("")
        micros = int(number * 1_000_000 / per_second)
        if not _FIRST_US <= micros <= _LAST_US:
            raise ValueError("outside the years 1 to 9999")
        return _EPOCH + dt.timedelta(microseconds=micros)

    return parse


_PARSERS: dict[str, Callable[[str], Any]] = {
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
    "decimal": _decimal,
    "timestamp": _timestamp,
    "date": _date,
    "epoch_ms": _epoch(1000),
    "epoch_s": _epoch(1),
}
