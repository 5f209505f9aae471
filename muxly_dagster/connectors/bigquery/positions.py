"""Values of a cursor column: as JSON in the cursor, as SQL literals in conditions, and moved back by `lookback`."""

import datetime as dt
import decimal
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from muxly_dagster.errors import ConfigurationError
from muxly_dagster.measures import parse_duration

_KINDS = {
    "INTEGER": "INT64",
    "INT64": "INT64",
    "NUMERIC": "NUMERIC",
    "BIGNUMERIC": "BIGNUMERIC",
    "STRING": "STRING",
    "DATE": "DATE",
    "DATETIME": "DATETIME",
    "TIMESTAMP": "TIMESTAMP",
}
_EARLIEST = dt.datetime(1, 1, 1)


@dataclass(frozen=True, slots=True)
class CursorColumn:
    """A column to go by: its name, and its type in BigQuery's standard SQL."""

    name: str
    kind: str

    @classmethod
    def of(cls, name: str, kind: str, mode: str) -> "CursorColumn":
        """Raises ConfigurationError for a type that has no exact order."""
        if mode == "REPEATED" or kind not in _KINDS:
            shown = f"ARRAY of {kind}" if mode == "REPEATED" else kind
            raise ConfigurationError(
                f"{name} ({shown}) has no exact order to go by", do="name a whole number, a decimal, a text or a time as `cursor`"
            )
        return cls(name, _KINDS[kind])

    def newest(self, column: pa.ChunkedArray) -> Any:
        """The greatest value of the column (as BigQuery sent it), as JSON has it; None where there is none."""
        newest = pc.max(column).as_py()
        return None if newest is None else self._write(newest)

    def later(self, one: Any, other: Any) -> Any:
        """The greater of two values, None being less than all."""
        if one is None or other is None:
            return other if one is None else one
        return one if self._read(one) >= self._read(other) else other

    def literal(self, value: Any) -> str:
        """The value in GoogleSQL, for conditions of the Storage Read API, which take no parameters."""
        if self.kind == "INT64":
            return str(int(value))
        text = str(value).replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n").replace("\r", "\\r")
        return f"'{text}'" if self.kind == "STRING" else f"{self.kind} '{text}'"

    def parameter(self, value: Any) -> Any:
        """The value as Google's client takes it for a query parameter of this type."""
        return self._read(value)

    def earlier(self, value: Any, lookback: str | int) -> Any:
        """The value moved back. Raises ConfigurationError where `lookback` is not of the column's kind."""
        if not lookback:
            return value
        at, counted = self._read(value), str(lookback).isdecimal()
        if counted and self.kind in ("INT64", "NUMERIC", "BIGNUMERIC"):
            return self._write(at - int(lookback))
        if not counted and self.kind in ("TIMESTAMP", "DATETIME", "DATE"):
            back = parse_duration(str(lookback))
            moment = at if isinstance(at, dt.datetime) else dt.datetime.combine(at, dt.time())
            first = _EARLIEST.replace(tzinfo=moment.tzinfo)
            moment = moment - back if moment - first > back else first
            return self._write(moment if isinstance(at, dt.datetime) else moment.date())
        raise ConfigurationError(
            f"`lookback` {lookback} cannot be taken from {self.name} ({self.kind})", do="write 1000 for a number, 15m for a time"
        )

    def _read(self, value: Any) -> Any:
        if value is None or self.kind in ("INT64", "STRING"):
            return value
        if self.kind in ("NUMERIC", "BIGNUMERIC"):
            return decimal.Decimal(value)
        return dt.date.fromisoformat(value) if self.kind == "DATE" else dt.datetime.fromisoformat(value)

    def _write(self, value: Any) -> Any:
        if self.kind in ("INT64", "STRING"):
            return value
        return value.isoformat() if isinstance(value, dt.date) else format(value, "f")
