"""The places a stream is read from: once for each of a list, of an input's values, or of a parent stream's records."""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import xxhash

from muxly_dagster.errors import ConfigurationError, SourceError
from muxly_dagster.manifest.language.expressions import ABSENT, Context, render, text_of
from muxly_dagster.manifest.schema import ForEach
from muxly_dagster.records import to_json

_log = logging.getLogger("muxly.manifest")

ReadParent = Callable[[str], Iterator[dict[str, Any]]]
"""Reads every record of the stream of this name."""


@dataclass(frozen=True, slots=True)
class Place:
    """One of the places: its name, which cursors are kept by, what requests may name there, and columns that its records get."""

    name: str
    context: Context
    add: Mapping[str, Any]


def places(spec: ForEach | None, context: Context, read_parent: ReadParent) -> Iterator[Place]:
    """The places, in the order they are given. A stream without `for_each` has one, whose name is empty.

    A place is named by its value as text, or by the parent record's `key`. A parent record that comes twice as it is counts once.
    Raises ConfigurationError for two values of one name, SourceError for two different parent records of one key or a record without.
    """
    if spec is None:
        yield Place("", context, {})
        return
    root, _, name = spec.in_.partition(".") if isinstance(spec.in_, str) else ("", "", "")
    found = _of_parent(spec, name, read_parent) if root == "streams" else _of_values(spec, context)
    for label, value in found:
        inside = {**context, spec.as_: value}
        yield Place(label, inside, render(spec.add, inside))


def _of_values(spec: ForEach, context: Context) -> Iterator[tuple[str, Any]]:
    values = render(f"${{{spec.in_}}}", context) if isinstance(spec.in_, str) else list(spec.in_)
    if values is ABSENT or values in ([], ""):
        _log.warning("%s is empty, so nothing is read: list there what to read", spec.in_ if isinstance(spec.in_, str) else "for_each")
        return
    seen: set[str] = set()
    for value in values if isinstance(values, list | tuple) else [values]:
        label = text_of(value)
        if label in seen:
            where = f"`{spec.in_}`" if isinstance(spec.in_, str) else "`for_each`"
            raise ConfigurationError(f"{where} names {label!r} twice", do="remove one of the two: each is read once")
        seen.add(label)
        yield label, value


def _of_parent(spec: ForEach, stream: str, read_parent: ReadParent) -> Iterator[tuple[str, Any]]:
    seen: dict[str, int] = {}
    for record in read_parent(stream):
        parts = [record.get(column) for column in spec.key]
        if None in parts:
            missing = spec.key[parts.index(None)]
            raise SourceError(
                f"a record of the stream {stream} has no {missing!r}, which tells apart what is read for each of them",
                do=f"name a field that every record of {stream} has, by `for_each: {{in: streams.{stream}, as: ..., key: [...]}}`",
            )
        label = text_of(parts[0]) if len(parts) == 1 else to_json(list(map(text_of, parts))).decode()
        content = xxhash.xxh3_64_intdigest(to_json(record))
        if label not in seen:
            seen[label] = content
            yield label, record
        elif seen[label] != content:  # the very same record again is only a page that moved while the parent was read
            raise SourceError(
                f"two different records of the stream {stream} have the {' and '.join(spec.key)} {label!r}",
                do="name the fields that tell them apart by `for_each.key`; where records change while they are read, run it again",
            )
