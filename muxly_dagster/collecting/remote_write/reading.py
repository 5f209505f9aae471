"""Prometheus remote write, versions 1.0 and 2.0: one event for each sample, native histogram and exemplar.

A sample is `{"name": "up", "labels": {"job": "node"}, "kind": "sample", "time": "2023-11-14T22:13:20.000Z",
"time_unix_ms": 1700000000000, "value": 1.0}`.

Sources: the specifications at prometheus.io/docs/specs/prw/remote_write_spec and .../remote_write_spec_2_0.
"""

import math
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import cramjam
import orjson
import xxhash
from google.protobuf.message import DecodeError

from muxly_dagster.collecting.events import Gathered, Rejected, TooLarge, UnknownType, Unreadable
from muxly_dagster.collecting.limits import Limits
from muxly_dagster.collecting.moments import written_ms
from muxly_dagster.collecting.tally import ORDINARY, Tally
from muxly_dagster.remote_write import Request, WriteRequest

Version = Literal["1.0", "2.0"]
Kind = Literal["sample", "histogram", "exemplar"]

_MESSAGES = {"prometheus.WriteRequest": "1.0", "io.prometheus.write.v2.Request": "2.0"}
_STALE = 0x7FF0000000000002  # the NaN that ends a series, told from others by its bits
_FIRST, _LAST = -62_135_596_800_000, 253_402_300_799_999  # the years 1 to 9999
_TYPES = {1: "counter", 2: "gauge", 3: "histogram", 4: "gaugehistogram", 5: "summary", 6: "info", 7: "stateset"}


@dataclass(frozen=True, slots=True)
class Written:
    """A request that was read. `kinds` says of each item what it is, None of one that is no event."""

    version: Version
    gathered: Gathered
    kinds: tuple[Kind | None, ...]

    def counts(self) -> dict[str, str]:
        """The headers that version 2.0 asks of every answer: how many of the events that are still gathered are of each kind."""
        kinds = [self.kinds[index] for index in self.gathered.indexes]
        counted: dict[str, Kind] = {"Samples": "sample", "Histograms": "histogram", "Exemplars": "exemplar"}
        return {f"X-Prometheus-Remote-Write-{name}-Written": str(kinds.count(kind)) for name, kind in counted.items()}


def read(body: bytes, content_type: str, stream: str, limits: Limits = ORDINARY) -> Written:
    """The events of a request, compressed as it came. The id of one is a hash of all that it says: what is sent again is known for it.

    Raises Unreadable, UnknownType or TooLarge.
    """
    version = version_of(content_type)
    content = _decompressed(body, limits.body)
    gathered = Gathered(stream)
    indexes: list[int] = []
    kinds: list[Kind | None] = []
    tally = Tally(limits)
    try:
        request = (WriteRequest if version == "1.0" else Request).FromString(content)
    except DecodeError:
        raise Unreadable(f"the body is no protobuf of remote write {version}, or is cut off") from None
    _check(request, limits)
    for number, event in enumerate(_one(request) if version == "1.0" else _two(request)):
        if isinstance(event, str):
            tally.add()
            kinds.append(None)
            gathered.rejected.append(Rejected(number, event))
            continue
        kind, line = event
        tally.add(line)
        gathered.lines.append(line)
        gathered.ids.append(xxhash.xxh3_128_hexdigest(line))
        kinds.append(kind)
        indexes.append(number)
    gathered.indexes = indexes
    return Written(version, gathered, tuple(kinds))


def version_of(content_type: str) -> Version:
    """Which version a request is of. Raises UnknownType."""
    media_type, _, parameters = content_type.partition(";")
    if media_type.strip().lower() != "application/x-protobuf":
        raise UnknownType(f"remote write is application/x-protobuf, not {media_type[:80] or 'without a Content-Type'}")
    named = {name.strip().lower(): value.strip().strip('"') for name, _, value in (each.partition("=") for each in parameters.split(";"))}
    proto = named.get("proto", "prometheus.WriteRequest")
    if proto not in _MESSAGES:
        raise UnknownType(f"{proto[:80]} is no message of remote write 1.0 or 2.0")
    return "1.0" if _MESSAGES[proto] == "1.0" else "2.0"


def _decompressed(body: bytes, most: int) -> bytes:
    """Snappy's block format says at its beginning how large it is: nothing larger than is allowed is unpacked."""
    try:
        size = cramjam.snappy.decompress_raw_len(body)
        if size > most:
            raise TooLarge(f"the request has {size:,} bytes once it is decompressed, and {most:,} are allowed")
        return bytes(cramjam.snappy.decompress_raw(body))
    except (cramjam.DecompressionError, ValueError) as error:
        if isinstance(error, TooLarge):
            raise
        raise Unreadable("the body is not compressed with snappy (its block format), or is cut off") from None


def _check(request: Any, limits: Limits) -> None:
    """Raise TooLarge for more events or series than may be, before anything is made of them."""
    if len(request.timeseries) > limits.items:
        raise TooLarge(f"the request holds more than {limits.items:,} series")
    count = 0
    for series in request.timeseries:
        count += len(series.samples) + len(series.histograms) + len(series.exemplars)
        if count > limits.items:
            raise TooLarge(f"the body holds more than {limits.items:,} events")


# ---- messages into events ----------------------------------------------------------------------------------------------

_Event = tuple[Kind, bytes] | str


def _one(request: Any) -> Iterator[_Event]:
    """Version 1.0. Its metadata (type, help and unit of metric families) belongs to no series and is passed over."""
    for series in request.timeseries:
        labels = {label.name: label.value for label in series.labels}
        if len(labels) != len(series.labels):
            yield from _refused(series, "a label is given twice")
            continue
        yield from _series(series, labels, {}, ({each.name: each.value for each in exemplar.labels} for exemplar in series.exemplars))


def _two(request: Any) -> Iterator[_Event]:
    """Version 2.0, whose texts stand once in a table."""
    symbols = list(request.symbols)
    for series in request.timeseries:
        try:
            labels = _labels(series.labels_refs, symbols)
            meta = {"type": _TYPES.get(series.metadata.type), "help": symbols[series.metadata.help_ref] if symbols else ""}
            meta["unit"] = symbols[series.metadata.unit_ref] if symbols else ""
            exemplars = [_labels(exemplar.labels_refs, symbols) for exemplar in series.exemplars]
        except (IndexError, ValueError) as error:
            yield from _refused(series, "a label refers to no symbol" if isinstance(error, IndexError) else str(error))
            continue
        yield from _series(series, labels, {name: text for name, text in meta.items() if text}, exemplars)


def _labels(refs: Iterable[int], symbols: list[str]) -> dict[str, str]:
    texts = [symbols[ref] for ref in refs]
    labels = dict(zip(texts[::2], texts[1::2], strict=False))
    if len(texts) % 2 or len(labels) * 2 != len(texts):
        raise ValueError("labels are no pairs, or one is given twice")
    return labels


def _refused(series: Any, why: str) -> Iterator[_Event]:
    yield from [why] * (len(series.samples) + len(series.histograms) + len(series.exemplars))


def _series(series: Any, labels: dict[str, str], meta: Mapping[str, Any], exemplars: Iterable[dict[str, str]]) -> Iterator[_Event]:
    name = labels.pop("__name__", "")
    if not name:
        yield from _refused(series, "a series has no name (the label __name__)")
        return
    head = orjson.dumps({"name": name, "labels": labels, **meta})[:-1]
    for sample in series.samples:
        yield _event("sample", head, sample.timestamp, _number(sample.value) | _start(sample))
    for histogram in series.histograms:
        yield _event("histogram", head, histogram.timestamp, _histogram(histogram))
    for exemplar, of_exemplar in zip(series.exemplars, exemplars, strict=True):
        yield _event("exemplar", head, exemplar.timestamp, _number(exemplar.value) | {"exemplar_labels": of_exemplar})


def _event(kind: Kind, head: bytes, milliseconds: int, fields: dict[str, Any]) -> _Event:
    if not _FIRST <= milliseconds <= _LAST:
        return f"the time {milliseconds} is outside the years 1 to 9999: is it in milliseconds?"
    rest = {"kind": kind, "time": written_ms(milliseconds), "time_unix_ms": milliseconds, **fields}
    return kind, head + b"," + orjson.dumps(rest)[1:]


def _start(sample: Any) -> dict[str, Any]:
    """When a counter began, where version 2.0 says so."""
    start = getattr(sample, "start_timestamp", 0)
    return {"start_time": written_ms(start)} if start and _FIRST <= start <= _LAST else {}


def _number(value: float) -> dict[str, Any]:
    """A value, or the name of one that JSON cannot hold."""
    if math.isfinite(value):
        return {"value": value}
    if math.isnan(value):
        return {"special": "stale" if struct.unpack("<Q", struct.pack("<d", value))[0] == _STALE else "NaN"}
    return {"special": "Infinity" if value > 0 else "-Infinity"}


def _histogram(histogram: Any) -> dict[str, Any]:
    """A native histogram as it was sent: how its buckets are laid out is for who reads it to know (spans and deltas of spans)."""
    found: dict[str, Any] = {}
    if histogram.WhichOneof("count"):
        found["count"] = getattr(histogram, histogram.WhichOneof("count"))
    sum_ = _number(histogram.sum)
    found |= {"sum": sum_["value"]} if "value" in sum_ else sum_
    shape: dict[str, Any] = {"schema": histogram.schema, "zero_threshold": histogram.zero_threshold}
    if histogram.WhichOneof("zero_count"):
        shape["zero_count"] = getattr(histogram, histogram.WhichOneof("zero_count"))
    for name in ("negative_spans", "positive_spans"):
        if getattr(histogram, name):
            shape[name] = [{"offset": span.offset, "length": span.length} for span in getattr(histogram, name)]
    for name in ("negative_deltas", "negative_counts", "positive_deltas", "positive_counts", "custom_values"):
        if getattr(histogram, name):
            shape[name] = list(getattr(histogram, name))
    return found | {"histogram": shape}
