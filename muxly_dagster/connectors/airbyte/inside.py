"""Runs inside the child, in an environment that has airbyte-cdk and need not have Muxly: reads a low-code source's messages.

`ConcurrentDeclarativeSource` is what Airbyte's own image for manifests runs; here it reads one stream at a time.
"""

import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

_STATUS = re.compile(r"status code:? '?(\d{3})\b", re.IGNORECASE)
_CHAIN = 10  # causes of an error that are looked at

Line = Mapping[str, Any] | bytes


class MissingPackage(Exception):
    """airbyte-cdk is not there."""


def run(request: Mapping[str, Any]) -> Iterator[Line]:
    """Answer one request: `command` is check, discover or read."""
    _prepare(request)
    try:
        import orjson  # type: ignore[import-not-found,unused-ignore]  # airbyte-cdk brings it
        from airbyte_cdk.models import (  # type: ignore[import-not-found,unused-ignore]
            AirbyteMessageSerializer,
            AirbyteStateMessageSerializer,
            ConfiguredAirbyteCatalogSerializer,
        )
        from airbyte_cdk.sources.declarative.concurrent_declarative_source import (  # type: ignore[import-not-found,unused-ignore]
            ConcurrentDeclarativeSource,
        )
        from airbyte_cdk.sources.utils.schema_helpers import (  # type: ignore[import-not-found,unused-ignore]
            check_config_against_spec_or_exit,
        )
    except ImportError as error:
        raise MissingPackage(f"{sys.executable} cannot import airbyte-cdk ({error})") from error
    _trust_only(frozenset(request["trust"]))
    logger = logging.getLogger("airbyte")
    config, command, name = dict(request["config"]), request["command"], request.get("stream", "")
    catalog = ConfiguredAirbyteCatalogSerializer.load(_catalog(name, request.get("sync", ""))) if command == "read" else None
    states = [AirbyteStateMessageSerializer.load(_state(name, request["state"]))] if request.get("state") is not None else []
    source = ConcurrentDeclarativeSource(
        catalog, config, states, source_config=dict(request["manifest"]), custom_components_trusted=bool(request["trust"])
    )
    check_config_against_spec_or_exit(config, source.spec(logger))
    if command == "check":
        status = source.check(logger, config)
        message = str(status.message or "")
        said = {"status": status.status.value, "message": message, "code": _status(message)}
        yield {"type": "CONNECTION_STATUS", "connectionStatus": said}
        return
    if command == "discover":
        yield {"type": "CATALOG", "catalog": {"streams": [_described(stream) for stream in source.streams(config)]}}
        return
    found = next((stream for stream in source.streams(config) if stream.name == name), None)
    if found is None:
        raise LookupError(f"the manifest has no stream {name!r}")
    yield {"type": "CATALOG", "catalog": {"streams": [_described(found)]}}
    for message in source.read(logger, config, catalog, states):
        if message.type.value == "STATE":
            stream = message.state.stream
            state = AirbyteMessageSerializer.dump(message)["state"]["stream"]["stream_state"] if stream else None
            if state is not None:
                yield {"type": "STATE", "state": state}
        elif message.type.value == "TRACE" and message.trace.error:
            raise _Traced(AirbyteMessageSerializer.dump(message)["trace"]["error"])
        else:
            yield orjson.dumps(AirbyteMessageSerializer.dump(message))


class _Traced(Exception):
    """An error that the source told as a message, with that message's fields."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        super().__init__(fields.get("message"))
        self.fields = fields


def explain(error: BaseException) -> dict[str, Any]:
    """The fields of a TRACE: messages, kind of failure, and the status that the provider answered with."""
    if isinstance(error, MissingPackage):
        return {"message": str(error), "failure_type": "missing_package"}
    if isinstance(error, _Traced):
        told = {name: error.fields.get(name) for name in ("message", "internal_message", "failure_type")}
        told["internal_message"] = str(told["internal_message"] or "").partition(" Request (body)")[0]
        text = " ".join(str(value) for value in told.values())
        return {**told, "status": _status(text)}
    texts: list[str] = []
    at: BaseException | None = error
    failure = "config_error" if isinstance(error, LookupError | ValueError) else "system_error"
    while at is not None and len(texts) < _CHAIN:
        texts.append(str(getattr(at, "internal_message", None) or at))
        failure = getattr(getattr(at, "failure_type", None), "value", failure)
        at = at.__cause__ or at.__context__
    if type(error).__name__ in ("ValidationError", "UndefinedReferenceException", "CircularReferenceException"):
        failure = "config_error"
    said = " ".join(dict.fromkeys(" ".join(text.split("\n\n")[0].split()) for text in texts[:3]))
    return {"message": f"{type(error).__name__}: {said}", "failure_type": failure, "status": _status(" ".join(texts))}


def _prepare(request: Mapping[str, Any]) -> None:
    # The CDK keeps answers of parent streams in a file; the parent takes this folder away.
    os.environ["REQUEST_CACHE_PATH"] = tempfile.gettempdir()
    if request["trust"]:
        sys.path.insert(0, request["folder"])


def _trust_only(trusted: frozenset[str]) -> None:
    """Ask again where a class is imported: what a manifest puts together while it runs was not there to be seen beforehand."""
    from airbyte_cdk.sources.declarative.parsers.model_to_component_factory import (  # type: ignore[import-not-found,unused-ignore]
        ModelToComponentFactory,
    )

    name = "_get_class_from_fully_qualified_class_name"
    find = getattr(ModelToComponentFactory, name, None)
    if find is None:
        if trusted:
            raise ValueError("this version of airbyte-cdk finds custom components in a way that is not known here")
        return

    def only(full_qualified_class_name: str) -> Any:
        if full_qualified_class_name not in trusted:
            raise ValueError(f"the manifest makes use of {full_qualified_class_name}, which `trust` does not name")
        return find(full_qualified_class_name)

    setattr(ModelToComponentFactory, name, staticmethod(only))


def _catalog(name: str, sync: str) -> dict[str, Any]:
    stream = {"name": name, "json_schema": {}, "supported_sync_modes": ["full_refresh", "incremental"]}
    mode = "incremental" if sync == "cursor" else "full_refresh"
    return {"streams": [{"stream": stream, "sync_mode": mode, "destination_sync_mode": "append"}]}


def _state(name: str, state: Any) -> dict[str, Any]:
    return {"type": "STREAM", "stream": {"stream_descriptor": {"name": name}, "stream_state": state}}


def _described(stream: Any) -> dict[str, Any]:
    described = stream.as_airbyte_stream()
    return {
        "name": described.name,
        "json_schema": described.json_schema,
        "incremental": "incremental" in [mode.value for mode in described.supported_sync_modes],
        "key": described.source_defined_primary_key or [],
    }


def _status(text: str) -> int:
    found = _STATUS.search(text)
    return int(found[1]) if found else 0
