"""What expressions may name, for every place in a manifest where they can stand."""

from dataclasses import dataclass
from typing import Self

from muxly_dagster.manifest.schema import ActionSpec, CursorSync, DeltaSync, Input, Manifest, StreamSpec

_BOUNDS = frozenset({"cursor", "window.start", "window.end"})


@dataclass(frozen=True)
class Names:
    """Whole paths (`config.project`), and roots that anything may follow (`record.*`). `common` holds what may stand everywhere."""

    common: frozenset[str]

    @classmethod
    def of(cls, manifest: Manifest) -> Self:
        """What the manifest declares for all of its requests."""
        inputs = {path for name, each in manifest.config.items() for path in _input(f"config.{name}", each)}
        return cls(frozenset(inputs | ({"api_version"} if manifest.api_version is not None else set())))

    def in_action(self, action: ActionSpec) -> frozenset[str]:
        """In an action's request."""
        return self.common | {"input"} | {path for name, each in action.input.items() for path in _input(f"input.{name}", each)}


@dataclass(frozen=True)
class StreamNames:
    """What the requests of a stream may name: about its place alone, with the schema found there, and of the records."""

    place: frozenset[str]
    schema: frozenset[str]
    request: frozenset[str]
    deletes: frozenset[str]


def stream_names(names: Names, stream: StreamSpec) -> StreamNames:
    """The names in a stream's requests."""
    place, each = names.common, stream.for_each
    if each is not None:
        of_records = isinstance(each.in_, str) and each.in_.startswith("streams.")
        place = place | {each.as_, *([f"{each.as_}.*"] if of_records else [])}
    schema = place | ({"schema.names"} if stream.discover is not None else set())
    bounds = _BOUNDS if isinstance(stream.sync, CursorSync) else frozenset()
    token = {"token"} if isinstance(stream.sync, DeltaSync) else set()
    return StreamNames(place, schema, schema | bounds, schema | bounds | token)


def _input(path: str, each: Input) -> list[str]:
    return [path, f"{path}.*"] if each.type == "object" else [path]
