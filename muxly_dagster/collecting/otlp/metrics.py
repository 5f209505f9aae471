"""Metrics: one event for each data point."""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import xxhash
from google.protobuf.unknown_fields import UnknownFieldSet
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    Exemplar,
    ExponentialHistogramDataPoint,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    SummaryDataPoint,
)

from muxly_dagster.collecting.otlp.values import Event, Json, Read, attributes, double, line, moment, origin, special

P = TypeVar("P", NumberDataPoint, HistogramDataPoint, ExponentialHistogramDataPoint, SummaryDataPoint)

_TEMPORALITY = {1: "delta", 2: "cumulative"}
_NO_RECORDED_VALUE = 1  # a flag: the series has ended, as a stale marker of Prometheus says


def read(request: ExportMetricsServiceRequest) -> Iterator[Read]:
    """The data points of a request in their order. The id of one is a hash of all that it says: what is sent again is known for it."""
    for resource in request.resource_metrics:
        for scope in resource.scope_metrics:
            shared = origin(resource.resource, scope.scope, scope.schema_url or resource.schema_url)
            for metric in scope.metrics:
                yield from _points(metric, shared)


def _points(metric: Metric, shared: bytes) -> Iterator[Read]:
    kind = metric.WhichOneof("data")
    head: Event = {"name": metric.name, "type": kind}
    for name, text in (("unit", metric.unit), ("description", metric.description)):
        if text:
            head[name] = text
    if metric.metadata:
        head["metadata"] = attributes(metric.metadata)
    if kind == "gauge":
        yield from _each(metric.gauge.data_points, _number, head, shared)
    elif kind == "sum":
        head |= {"temporality": _TEMPORALITY.get(metric.sum.aggregation_temporality), "monotonic": metric.sum.is_monotonic}
        yield from _each(metric.sum.data_points, _number, head, shared)
    elif kind == "histogram":
        head["temporality"] = _TEMPORALITY.get(metric.histogram.aggregation_temporality)
        yield from _each(metric.histogram.data_points, _histogram, head, shared)
    elif kind == "exponential_histogram":
        head["temporality"] = _TEMPORALITY.get(metric.exponential_histogram.aggregation_temporality)
        yield from _each(metric.exponential_histogram.data_points, _exponential, head, shared)
    elif kind == "summary":
        yield from _each(metric.summary.data_points, _summary, head, shared)
    elif len(UnknownFieldSet(metric)):
        yield f"the metric {metric.name[:100]!r} is of a kind that Muxly does not know"


def _each(points: Iterable[P], fill: Callable[[P, Event], None], head: Event, shared: bytes) -> Iterator[Read]:
    for point in points:
        if not head["name"]:
            yield "a metric has no name"
            continue
        if not point.time_unix_nano:
            yield f"a data point of {head['name']!r:.100} has no time"
            continue
        event = head.copy()
        try:
            moment(event, "time", point.time_unix_nano)
            moment(event, "start_time", point.start_time_unix_nano)
        except ValueError as error:
            yield str(error)
            continue
        if point.flags & _NO_RECORDED_VALUE:
            event["special"] = "stale"
        else:
            fill(point, event)
        event["attributes"] = attributes(point.attributes)
        found = line(event, shared)
        yield found, xxhash.xxh3_128_hexdigest(found)


def _number(point: NumberDataPoint, event: Event) -> None:
    """`value` is a double always, so that a stream's column has one type; a whole number stands exactly in `int_value` as well."""
    if point.WhichOneof("value") == "as_int":
        event["value"] = float(point.as_int)
        event["int_value"] = point.as_int
    elif math.isfinite(point.as_double):
        event["value"] = point.as_double
    else:
        event["special"] = special(point.as_double)
    if point.exemplars:
        event["exemplars"] = [_exemplar(each) for each in point.exemplars]


def _histogram(point: HistogramDataPoint, event: Event) -> None:
    _total(point, event)
    event["bucket_counts"] = list(point.bucket_counts)
    event["bounds"] = [double(bound) for bound in point.explicit_bounds]


def _exponential(point: ExponentialHistogramDataPoint, event: Event) -> None:
    _total(point, event)
    event |= {"scale": point.scale, "zero_count": point.zero_count, "zero_threshold": double(point.zero_threshold)}
    for name, buckets in (("positive", point.positive), ("negative", point.negative)):
        if buckets.bucket_counts:
            event[name] = {"offset": buckets.offset, "bucket_counts": list(buckets.bucket_counts)}


def _total(point: HistogramDataPoint | ExponentialHistogramDataPoint, event: Event) -> None:
    event["count"] = point.count
    for name, there, number in (
        ("sum", point.HasField("sum"), point.sum),
        ("min", point.HasField("min"), point.min),
        ("max", point.HasField("max"), point.max),
    ):
        if there and math.isfinite(number):
            event[name] = number
        elif there:
            event["special"] = special(number)
    if point.exemplars:
        event["exemplars"] = [_exemplar(each) for each in point.exemplars]


def _summary(point: SummaryDataPoint, event: Event) -> None:
    event["count"] = point.count
    if math.isfinite(point.sum):
        event["sum"] = point.sum
    else:
        event["special"] = special(point.sum)
    event["quantiles"] = [{"quantile": each.quantile, "value": double(each.value)} for each in point.quantile_values]


def _exemplar(exemplar: Exemplar) -> Json:
    found: Event = {"value": exemplar.as_int if exemplar.WhichOneof("value") == "as_int" else double(exemplar.as_double)}
    moment(found, "time", exemplar.time_unix_nano)
    for name, id_ in (("trace_id", exemplar.trace_id), ("span_id", exemplar.span_id)):
        if id_:
            found[name] = id_.hex()
    found["attributes"] = attributes(exemplar.filtered_attributes)
    return found
