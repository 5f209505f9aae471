"""The messages of Prometheus remote write, made of descriptors: `prometheus.WriteRequest` (1.0), `io.prometheus.write.v2.Request` (2.0).

What carries data is declared here, for whoever receives and whoever sends; fields that are not are passed over.

Sources: the specifications at prometheus.io/docs/specs/prw/remote_write_spec and .../remote_write_spec_2_0 (2.0-rc.4), and
github.com/prometheus/prometheus/tree/main/prompb.
"""

from collections.abc import Mapping
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

KINDS = {"counter": 1, "gauge": 2, "histogram": 3, "summary": 5}
"""The numbers of metric types in the metadata of both versions."""

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "double": _Field.TYPE_DOUBLE,
    "int64": _Field.TYPE_INT64,
    "sint64": _Field.TYPE_SINT64,
    "uint64": _Field.TYPE_UINT64,
    "sint32": _Field.TYPE_SINT32,
    "uint32": _Field.TYPE_UINT32,
    "int32": _Field.TYPE_INT32,  # an enum's number, which is written alike
    "string": _Field.TYPE_STRING,
}
_SHARED: dict[str, dict[str, tuple[int, str]]] = {
    "BucketSpan": {"offset": (1, "sint32"), "length": (2, "uint32")},
    "Histogram": {
        "count_int": (1, "count uint64"),
        "count_float": (2, "count double"),
        "sum": (3, "double"),
        "schema": (4, "sint32"),
        "zero_threshold": (5, "double"),
        "zero_count_int": (6, "zero_count uint64"),
        "zero_count_float": (7, "zero_count double"),
        "negative_spans": (8, "repeated BucketSpan"),
        "negative_deltas": (9, "repeated sint64"),
        "negative_counts": (10, "repeated double"),
        "positive_spans": (11, "repeated BucketSpan"),
        "positive_deltas": (12, "repeated sint64"),
        "positive_counts": (13, "repeated double"),
        "timestamp": (15, "int64"),
        "custom_values": (16, "repeated double"),
    },
}
_ONE: dict[str, dict[str, tuple[int, str]]] = {
    "WriteRequest": {"timeseries": (1, "repeated TimeSeries"), "metadata": (3, "repeated MetricMetadata")},
    "TimeSeries": {
        "labels": (1, "repeated Label"),
        "samples": (2, "repeated Sample"),
        "exemplars": (3, "repeated Exemplar"),
        "histograms": (4, "repeated Histogram"),
    },
    "Label": {"name": (1, "string"), "value": (2, "string")},
    "Sample": {"value": (1, "double"), "timestamp": (2, "int64")},
    "Exemplar": {"labels": (1, "repeated Label"), "value": (2, "double"), "timestamp": (3, "int64")},
    "MetricMetadata": {"type": (1, "int32"), "metric_family_name": (2, "string"), "help": (4, "string"), "unit": (5, "string")},
}
_TWO: dict[str, dict[str, tuple[int, str]]] = {
    "Request": {"symbols": (4, "repeated string"), "timeseries": (5, "repeated TimeSeries")},
    "TimeSeries": {
        "labels_refs": (1, "repeated uint32"),
        "samples": (2, "repeated Sample"),
        "histograms": (3, "repeated Histogram"),
        "exemplars": (4, "repeated Exemplar"),
        "metadata": (5, "Metadata"),
    },
    "Sample": {"value": (1, "double"), "timestamp": (2, "int64"), "start_timestamp": (3, "int64")},
    "Exemplar": {"labels_refs": (1, "repeated uint32"), "value": (2, "double"), "timestamp": (3, "int64")},
    "Metadata": {"type": (1, "int32"), "help_ref": (3, "uint32"), "unit_ref": (4, "uint32")},
}


def _file(package: str, messages: Mapping[str, Mapping[str, tuple[int, str]]]) -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name=f"muxly/{package}.proto", package=package, syntax="proto3")
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        for field, (number, said) in fields.items():
            before, _, kind = said.rpartition(" ")
            label = _Field.LABEL_REPEATED if before == "repeated" else _Field.LABEL_OPTIONAL
            added = message.field.add(name=field, number=number, label=label, type=_SCALARS.get(kind, _Field.TYPE_MESSAGE))
            if kind not in _SCALARS:
                added.type_name = f".{package}.{kind}"
            if before not in ("", "repeated"):
                names = [each.name for each in message.oneof_decl]
                if before not in names:
                    message.oneof_decl.add(name=before)
                added.oneof_index = len(names) if before not in names else names.index(before)
    return file


# A pool of its own: another library of the process may have registered messages of these names.
_POOL = descriptor_pool.DescriptorPool()
_POOL.Add(_file("prometheus", _ONE | _SHARED))
_POOL.Add(_file("io.prometheus.write.v2", _TWO | _SHARED))


def _message(name: str) -> Any:
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(name))


WriteRequest = _message("prometheus.WriteRequest")
Request = _message("io.prometheus.write.v2.Request")
