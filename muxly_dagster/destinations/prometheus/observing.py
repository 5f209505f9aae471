"""Rows of a table as what they say of each metric: labels, a value, or that a series has ended."""

import base64
import datetime as dt
import decimal
import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from muxly_dagster import records
from muxly_dagster.destination import Delivery
from muxly_dagster.destinations.prometheus.metric import MOST_IN_A_SUM, Metric
from muxly_dagster.messages import require_columns

Labels = tuple[tuple[str, str], ...]

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_YEAR_1, _YEAR_10000 = -62_135_596_800, 253_402_300_800  # in seconds since 1970


@dataclass(frozen=True, slots=True)
class Observation:
    """What one row says of one metric. `value` None: a gauge's series ends, or there is nothing to count."""

    labels: Labels
    value: float | None
    ends: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """One change: its seq, the time it counts at (milliseconds since 1970), who it is, and an observation per metric (None: none).

    `refused` is the reason why it can never be taken, empty where it can.
    """

    seq: int
    at: int
    owner: str
    observations: tuple[Observation | None, ...]
    refused: str = ""


def observe(delivery: Delivery, metrics: Sequence[Metric], *, timestamp: str, deletes: bool, latest: float = math.inf) -> list[Row]:
    """Read the rows; what is later than `latest` (milliseconds since 1970) is refused.

    Raises ConfigurationError when the table lacks a column that a metric names.
    """
    if timestamp:
        require_columns([timestamp], delivery, "timestamp")
    readers = [_reader(delivery, metric) for metric in metrics]
    rows = delivery.rows
    times = rows[timestamp].to_pylist() if timestamp else rows[records.AT].to_pylist()
    found: list[Row] = []
    envelope = zip(*(rows[name].to_pylist() for name in (records.SEQ, records.OP, records.KEY)), strict=True)
    for number, (seq, op, key) in enumerate(envelope):
        owner = "" if op == "append" else hashlib.sha256(key.encode()).hexdigest()[:32]
        try:
            at = _milliseconds(times[number], timestamp)
            if at > latest:
                raise _RefusedError(
                    f"{timestamp} is {_EPOCH + dt.timedelta(milliseconds=at):%Y-%m-%d %H:%M:%S} UTC, which is in the future"
                )
            if op == "delete":
                read = [_ended(reader.labels[number]) if deletes and reader.gauge else None for reader in readers]
            else:
                read = [reader.observation(number) for reader in readers]
        except _RefusedError as refused:
            found.append(Row(seq, 0, owner, (), str(refused)))
            continue
        found.append(Row(seq, at, owner, tuple(read)))
    return found


def _ended(labels: Labels) -> Observation:
    return Observation(labels, None, ends=True)


class _RefusedError(Exception):
    """A value that a metric cannot take; the text is the reason."""


@dataclass(frozen=True, slots=True)
class _Reader:
    """One metric's columns of a delivery, as lists."""

    metric: Metric
    labels: Sequence[Labels]
    values: Sequence[Any] | None
    nothing_special: bool
    """Whether every value is a plain number, so that it need not be looked at."""

    @property
    def gauge(self) -> bool:
        return self.metric.type == "gauge"

    def observation(self, number: int) -> Observation | None:
        """Raises _RefusedError."""
        metric, labels = self.metric, self.labels[number]
        if self.values is None:
            return Observation(labels, float(metric.value))
        if self.nothing_special:
            return Observation(labels, float(self.values[number]))
        value = _number(self.values[number], metric)
        if value is None or math.isnan(value):
            if metric.type == "gauge":
                return _ended(labels)
            if metric.nulls == "skip":
                return None
            raise _RefusedError(f"{metric.name}: {metric.value} is empty, so there is nothing to count")
        if metric.type != "gauge" and abs(value) > MOST_IN_A_SUM:
            raise _RefusedError(f"{metric.name}: {metric.value} is {value}, which no sum can hold")
        if value < 0 and not metric.below_zero:
            raise _RefusedError(f"{metric.name}: {metric.value} is {value:g}, and a {metric.type} takes nothing below 0")
        return Observation(labels, value)


def _reader(delivery: Delivery, metric: Metric) -> _Reader:
    for setting, column in metric.columns.items():
        require_columns([column], delivery, f"metrics.{metric.name}.{setting}")
    labels = _labels(delivery, metric)
    if not isinstance(metric.value, str):
        return _Reader(metric, labels, None, True)
    column = delivery.rows[metric.value]
    return _Reader(metric, labels, column.to_pylist(), _is_plain(column))


def _labels(delivery: Delivery, metric: Metric) -> list[Labels]:
    """The labels of every row; rows that are alike share them."""
    fixed = tuple(metric.fixed.items())
    known: dict[tuple[str, ...], Labels] = {}
    found: list[Labels] = []
    columns = [_texts(delivery.rows[column]) for column in metric.labels.values()]
    for texts in zip(*columns, strict=True) if columns else [()] * len(delivery.rows):
        labels = known.get(texts)
        if labels is None:
            labels = known[texts] = tuple(sorted((*zip(metric.labels, texts, strict=True), *fixed)))
        found.append(labels)
    return found


def _is_plain(column: pa.ChunkedArray) -> bool:
    """Whether a column holds numbers from 0 on that can be added up, and nothing else."""
    if not (pa.types.is_int64(column.type) or pa.types.is_float64(column.type)) or column.null_count or not len(column):
        return False
    bounds = pc.min_max(column)
    return bool(pc.all(pc.is_finite(column)).as_py()) and bounds["min"].as_py() >= 0 and bounds["max"].as_py() <= MOST_IN_A_SUM


def _number(value: Any, metric: Metric) -> float | None:
    """A value as a float: truth values as 0 and 1, times as seconds since 1970, text where it is a number."""
    try:
        if value is None or isinstance(value, bool | int | float | decimal.Decimal):
            return None if value is None else float(value)
        if isinstance(value, dt.datetime):
            return (value - _EPOCH).total_seconds()
        if isinstance(value, dt.date):
            return (dt.datetime(value.year, value.month, value.day, tzinfo=dt.UTC) - _EPOCH).total_seconds()
        if isinstance(value, str) and not value.strip():
            return None
        if isinstance(value, str) and value.isascii() and "_" not in value:  # what Python reads beyond, nobody else does
            return float(value)
    except (ValueError, OverflowError):
        pass
    shown = repr(value)
    raise _RefusedError(f"{metric.name}: {metric.value} is {shown if len(shown) < 60 else shown[:60] + '...'}, which is no number")


def _texts(column: pa.ChunkedArray) -> list[str]:
    """A column as label values. Prometheus takes an empty one for a label that is not there, as a null is."""
    write = _WRITERS.get(str(column.type), str)
    known: dict[Any, str] = {None: ""}
    texts = []
    for value in column.to_pylist():
        text = known.get(value)
        if text is None:
            text = known[value] = write(value)
        texts.append(text)
    return texts


_WRITERS: dict[str, Callable[[Any], str]] = {
    "bool": lambda value: "true" if value else "false",
    "double": repr,
    "binary": lambda value: base64.b64encode(value).decode(),
    str(records.TIMESTAMP): lambda value: f"{value.replace(tzinfo=None).isoformat()}Z",
}


def _milliseconds(value: Any, column: str) -> int:
    """A time as milliseconds since 1970: a time, a day, or a number of seconds."""
    if isinstance(value, str):
        try:
            value = dt.datetime.fromisoformat(value)
        except ValueError:
            raise _RefusedError(f"{column} is {value[:60]!r}, which is no time") from None
        value = value if value.tzinfo else value.replace(tzinfo=dt.UTC)
    elif isinstance(value, dt.date) and not isinstance(value, dt.datetime):
        value = dt.datetime(value.year, value.month, value.day, tzinfo=dt.UTC)
    if isinstance(value, dt.datetime):
        return (value - _EPOCH) // dt.timedelta(milliseconds=1)
    if isinstance(value, bool) or not isinstance(value, int | float | decimal.Decimal) or not math.isfinite(value):
        raise _RefusedError(f"{column} is {'empty' if value is None else repr(value)[:60]}, and no sample can be without a time")
    if not _YEAR_1 <= value < _YEAR_10000:
        raise _RefusedError(f"{column} is {value!r}, which is no time")
    return int(float(value) * 1000)
