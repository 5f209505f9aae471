"""The messages of Prometheus remote write, made of descriptors: `prometheus.WriteRequest` (1.0), `io.prometheus.write.v2.Request` (2.0).

Sources: the specifications at prometheus.io/docs/specs/prw/remote_write_spec and .../remote_write_spec_2_0 (2.0-rc.4), of which the parts
that a sender of plain samples needs are declared here.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

KINDS = {"counter": 1, "gauge": 2, "histogram": 3, "summary": 5}
"""The numbers of metric types in the metadata of both versions."""

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "double": _Field.TYPE_DOUBLE,
    "int64": _Field.TYPE_INT64,
    "string": _Field.TYPE_STRING,
    "uint32": _Field.TYPE_UINT32,
    "int32": _Field.TYPE_INT32,  # an enum's number, which is written alike
}

_ONE: dict[str, dict[str, tuple[int, str]]] = {
    "WriteRequest": {"timeseries": (1, "repeated TimeSeries"), "metadata": (3, "repeated MetricMetadata")},
    "TimeSeries": {"labels": (1, "repeated Label"), "samples": (2, "repeated Sample")},
    "Label": {"name": (1, "string"), "value": (2, "string")},
    "Sample": {"value": (1, "double"), "timestamp": (2, "int64")},
    "MetricMetadata": {"type": (1, "int32"), "metric_family_name": (2, "string"), "help": (4, "string"), "unit": (5, "string")},
}
_TWO: dict[str, dict[str, tuple[int, str]]] = {
    "Request": {"symbols": (4, "repeated string"), "timeseries": (5, "repeated TimeSeries")},
    "TimeSeries": {"labels_refs": (1, "repeated uint32"), "samples": (2, "repeated Sample"), "metadata": (5, "Metadata")},
    "Sample": {"value": (1, "double"), "timestamp": (2, "int64"), "start_timestamp": (3, "int64")},
    "Metadata": {"type": (1, "int32"), "help_ref": (3, "uint32"), "unit_ref": (4, "uint32")},
}


def _file(package: str, messages: dict[str, dict[str, tuple[int, str]]]) -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name=f"muxly/{package}.proto", package=package, syntax="proto3")
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        for field, (number, written) in fields.items():
            kind = written.removeprefix("repeated ")
            label = _Field.LABEL_REPEATED if written != kind else _Field.LABEL_OPTIONAL
            if kind in _SCALARS:
                message.field.add(name=field, number=number, label=label, type=_SCALARS[kind])
            else:
                message.field.add(name=field, number=number, label=label, type=_Field.TYPE_MESSAGE, type_name=f".{package}.{kind}")
    return file


# A pool of its own: another library of the process may have registered messages of these names.
_POOL = descriptor_pool.DescriptorPool()
_POOL.Add(_file("prometheus", _ONE))
_POOL.Add(_file("io.prometheus.write.v2", _TWO))


def _message(name: str) -> Any:
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(name))


WriteRequest = _message("prometheus.WriteRequest")
Request = _message("io.prometheus.write.v2.Request")
