"""Runs inside the child, in an environment that has dlt and need not have Muxly: iterates one resource of a source.

No pipeline is made: dlt lets whoever iterates bring the state (`StateInjectableContext`), which is how incremental resources, and
`dlt.current.source_state()`, find where they stood.
"""

import base64
import datetime as dt
import decimal
import importlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

_CHAIN = 10  # causes of an error that are looked at
_HINTS = {
    "text": {"type": "string"},
    "double": {"type": "number"},
    "bool": {"type": "boolean"},
    "timestamp": {"type": "string", "format": "date-time"},
    "bigint": {"type": "integer"},
    "json": {"type": "object"},
    "decimal": {"type": "string", "format": "decimal"},
    "date": {"type": "string", "format": "date"},
    "time": {"type": "string"},
    "binary": {"type": "string"},
}
_NATIVE = {dt.datetime: "timestamp", dt.date: "date", decimal.Decimal: "decimal", bytes: "binary", dt.time: "time"}

Line = Mapping[str, Any] | bytes


class MissingPackage(Exception):
    """dlt is not there."""


class WrongSource(Exception):
    """What `source` names is no dlt source, or cannot be made with these arguments."""


def run(request: Mapping[str, Any]) -> Iterator[Line]:
    """Answer one request: `command` is check, discover or read."""
    try:
        import dlt  # type: ignore[import-not-found,unused-ignore]
        from dlt.common.configuration.container import Container  # type: ignore[import-not-found,unused-ignore]
        from dlt.common.pipeline import StateInjectableContext  # type: ignore[import-not-found,unused-ignore]
    except ImportError as error:
        raise MissingPackage(f"{sys.executable} cannot import dlt ({error})") from error
    source = _source(dlt, request)
    command = request["command"]
    if command == "discover":
        yield {"type": "CATALOG", "catalog": {"streams": [_described(each) for each in source.resources.values()]}}
        return
    name = request.get("stream") or next(iter(source.selected_resources), "")
    if name not in source.resources:
        raise WrongSource(f"{request['source']} has no resource {name!r}; it has {', '.join(source.resources)}")
    described = _described(source.resources[name])
    # What is read whole must not begin where the last time ended.
    whole = request.get("sync") == "full" or (not request.get("sync") and described["disposition"] == "replace")
    state: dict[str, Any] = {} if whole else dict(request.get("state") or {})
    if command == "read":
        yield {"type": "CATALOG", "catalog": {"streams": [described]}}
    with Container().injectable_context(StateInjectableContext(state=state)):
        chosen = source.with_resources(name)
        if command == "check":
            next(iter(chosen), None)
            yield {"type": "CONNECTION_STATUS", "connectionStatus": {"status": "SUCCEEDED", "message": f"{name} was begun to be read"}}
            return
        yield from _records(chosen, name)
    if not whole:
        yield b'{"type":"STATE","state":' + _encoded(state) + b"}"


def explain(error: BaseException) -> dict[str, Any]:
    """The fields of a TRACE: messages, kind of failure, and the status that the provider answered with."""
    if isinstance(error, MissingPackage):
        return {"message": str(error), "failure_type": "missing_package"}
    if isinstance(error, WrongSource):
        return {"message": str(error), "failure_type": "config_error"}
    status, at, innermost, failure = 0, error, error, "system_error"
    for _ in range(_CHAIN):
        status = status or int(getattr(getattr(at, "response", None), "status_code", None) or 0)
        if type(at).__name__ in ("ConfigFieldMissingException", "ConfigProviderException", "ConfigurationValueError"):
            failure = "config_error"
        if type(at).__name__ in ("ConnectionError", "ConnectTimeout", "ReadTimeout", "Timeout", "ChunkedEncodingError"):
            failure = "transient_error"
        innermost = at
        following = at.__cause__ or at.__context__
        if following is None:
            break
        at = following
    said = innermost if failure == "system_error" else error
    return {"message": f"{type(said).__name__}: {said}", "failure_type": failure, "status": status}


# ---- the source ---------------------------------------------------------------------------------------------------------


def _source(dlt: Any, request: Mapping[str, Any]) -> Any:
    """The source that `module:attribute` names: as it is, or made by calling it. A single resource becomes a source of its own."""
    from dlt.extract.resource import DltResource  # type: ignore[import-not-found,unused-ignore]
    from dlt.extract.source import DltSource  # type: ignore[import-not-found,unused-ignore]

    sys.path.insert(0, request["folder"])
    module, _, path = request["source"].partition(":")
    try:
        found: Any = importlib.import_module(module)
        for name in path.split("."):
            found = getattr(found, name)
    except (ImportError, AttributeError) as error:
        raise WrongSource(f"{request['source']} cannot be imported: {error}") from error
    arguments = request["arguments"]
    if not isinstance(found, DltSource | DltResource) or arguments:
        if not callable(found):
            raise WrongSource(f"{request['source']} is a {type(found).__name__}, which is no dlt source and cannot be called for one")
        try:
            found = found(**arguments)
        except TypeError as error:
            raise WrongSource(f"{request['source']} does not take these arguments: {error}") from error
    if isinstance(found, DltResource):
        resource = found
        found = dlt.source(lambda: resource, name=resource.section or resource.name)()
    if not isinstance(found, DltSource):
        raise WrongSource(f"{request['source']} gave a {type(found).__name__} and no dlt source")
    return found


def _described(resource: Any) -> dict[str, Any]:
    schema = resource.compute_table_schema()
    columns = schema.get("columns") or {}
    hints = {name: _HINTS[column["data_type"]] for name, column in columns.items() if column.get("data_type") in _HINTS}
    return {
        "name": resource.name,
        "json_schema": {"properties": hints},
        "key": [name for name, column in columns.items() if column.get("primary_key")],
        "disposition": schema.get("write_disposition") or "append",
    }


# ---- records ------------------------------------------------------------------------------------------------------------


def _records(items: Iterable[Any], name: str) -> Iterator[Line]:
    """Every record as a message. Where a value's Python type says more than JSON can, a CATALOG tells it beforehand."""
    told: dict[str, str] = {}
    for item in items:
        for record in _rows(item):
            new = {key: _NATIVE[type(value)] for key, value in record.items() if type(value) in _NATIVE and key not in told}
            new |= {key: "timestamp" for key, value in record.items() if isinstance(value, dt.datetime) and key not in told}
            if new:
                told |= new
                hints = {key: _HINTS[kind] for key, kind in new.items()}
                yield {"type": "CATALOG", "catalog": {"streams": [{"name": name, "json_schema": {"properties": hints}}]}}
            yield b'{"type":"RECORD","record":{"data":' + _encoded(record) + b"}}"


def _rows(item: Any) -> Iterable[Mapping[str, Any]]:
    """The records of what a resource gives: a dict, a list of such, a data frame, an Arrow table, a model."""
    if isinstance(item, Mapping):
        return (item,)
    if isinstance(item, list | tuple):
        return (row for each in item for row in _rows(each))
    if hasattr(item, "to_pylist"):
        rows: Iterable[Mapping[str, Any]] = item.to_pylist()
        return rows
    if hasattr(item, "to_dict") and hasattr(item, "columns"):
        rows = item.to_dict("records")
        return rows
    if hasattr(item, "model_dump"):
        return (item.model_dump(),)
    return () if item is None else ({"value": item},)


def _encoded(value: Any) -> bytes:
    import simplejson  # type: ignore[import-untyped,import-not-found,unused-ignore]  # dlt brings it; it writes decimals exactly

    text: str = simplejson.dumps(value, use_decimal=True, ignore_nan=True, default=_plain, separators=(",", ":"))
    return text.encode()


def _plain(value: Any) -> Any:
    if isinstance(value, dt.datetime | dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, set | frozenset):
        return list(value)
    if hasattr(value, "model_dump"):
        return value.model_dump()
    if hasattr(value, "item"):
        return value.item()  # numbers of NumPy's
    return str(value)
