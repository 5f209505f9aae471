"""Named query parameters, with types told by their values or said."""

import datetime as dt
import decimal
import re
from collections.abc import Mapping
from typing import Any

_NAME = re.compile(r"[A-Za-z_]\w{0,127}")
_ARRAY = re.compile(r"ARRAY<\s*([A-Z0-9]+)\s*>")
_INFERRED = ((bool, "BOOL"), (int, "INT64"), (float, "FLOAT64"), (decimal.Decimal, "NUMERIC"), (str, "STRING"), (bytes, "BYTES"))
TYPES = frozenset(
    {"BOOL", "INT64", "FLOAT64", "NUMERIC", "BIGNUMERIC", "STRING", "BYTES", "DATE", "DATETIME", "TIME", "TIMESTAMP", "JSON", "GEOGRAPHY"}
)
"""The scalar types a parameter can have here; each also as `ARRAY<...>`."""


def typed(name: str, said: Any) -> tuple[str, Any]:
    """Type and value of a parameter: said as `{type, value}`, or told by the value. Raises ValueError, in words that follow its name."""
    if not _NAME.fullmatch(name):
        raise ValueError("is no name for a parameter: use letters, digits and underscores")
    if name.lower() == "cursor" or name.lower().startswith("muxly_"):
        raise ValueError("is a name that Muxly itself gives a value")
    if isinstance(said, Mapping):
        if not {"type"} <= said.keys() <= {"type", "value"}:
            raise ValueError("must be a value, or a map of `type` and `value`")
        kind = str(said["type"]).upper().strip()
        scalar = _ARRAY.fullmatch(kind)
        if (scalar[1] if scalar else kind) not in TYPES:
            raise ValueError(f"has a type that is not known: {said['type']}; one of {', '.join(sorted(TYPES))}, or ARRAY<...> of one")
        if bool(scalar) != isinstance(said.get("value"), list) and said.get("value") is not None:
            raise ValueError(f"is {'no' if scalar else 'a'} list, but its type is {kind}")
        return kind, said.get("value")
    if isinstance(said, list):
        kinds = {_told(item) for item in said}
        if len(kinds) != 1:
            raise ValueError("is a list whose type cannot be told; write {type: ARRAY<...>, value: [...]}")
        return f"ARRAY<{kinds.pop()}>", said
    return _told(said), said


def _told(value: Any) -> str:
    if isinstance(value, dt.datetime):
        return "TIMESTAMP" if value.tzinfo else "DATETIME"
    if isinstance(value, dt.date):
        return "DATE"
    for type_, kind in _INFERRED:
        if isinstance(value, type_):
            return kind
    raise ValueError("has a type that cannot be told; write {type: ..., value: ...}")


def client_parameters(parameters: Mapping[str, Any]) -> list[Any]:
    """The parameters as Google's client takes them. Raises ValueError as `typed` does."""
    from google.cloud import bigquery  # a large import, which listing and checking a project can do without

    made: list[Any] = []
    for name, said in parameters.items():
        kind, value = typed(name, said)
        array = _ARRAY.fullmatch(kind)
        if array:
            made.append(bigquery.ArrayQueryParameter(name, array[1], value or []))
        else:
            made.append(bigquery.ScalarQueryParameter(name, kind, value))
    return made
