"""A stream's fields as the provider itself describes them: their names, and their types in the manifest's words."""

import logging
import re
from dataclasses import dataclass
from typing import Any

from muxly_dagster.decoding import Page, parse_path
from muxly_dagster.errors import SourceError
from muxly_dagster.http import Http, Judge, Response
from muxly_dagster.manifest.asking.keyset import key_reader
from muxly_dagster.manifest.asking.paging import Asking, envelope_paths, read_pages
from muxly_dagster.manifest.language.expressions import Context
from muxly_dagster.manifest.schema import DiscoveredSchema, KeysetPaging

_log = logging.getLogger("muxly.manifest")

_USUAL: dict[str, tuple[str, ...]] = {
    "string": (
        *("string", "str", "text", "varchar", "char", "nvarchar", "longtext", "textarea", "richtext", "html", "url", "uri", "email"),
        *("phone", "phone_number", "id", "uuid", "guid", "reference", "enum", "enumeration", "select", "picklist", "multipicklist", "time"),
    ),
    "integer": ("integer", "int", "long", "bigint", "smallint", "int32", "int64"),
    # Not `number`: what somebody calls so may have more digits than a double holds.
    "decimal": ("number", "numeric", "decimal", "currency", "money", "percent"),
    "number": ("float", "double", "real"),
    "boolean": ("boolean", "bool", "checkbox", "booleancheckbox"),
    "timestamp": ("datetime", "date-time", "date_time", "timestamp", "timestamptz", "dateandtime"),
    "date": ("date",),
    "json": ("json", "jsonb", "object", "array", "list", "map", "struct", "object_coordinates", "address", "location"),
}
_TYPES = {name: type_ for type_, names in _USUAL.items() for name in names}
_WORD = re.compile(r"[a-z][\w-]*")


@dataclass(frozen=True, slots=True)
class Discovered:
    """What the provider says of a stream's fields: all names in its order, and types of the manifest for those that are understood."""

    types: dict[str, str]
    names: list[str]


def discover(http: Http, spec: DiscoveredSchema, context: Context, judge: Judge | None) -> Discovered:
    """Ask for the fields. A type that neither `map` nor the usual names know is left to be inferred from the values.

    Raises SourceError where the answer holds no fields or one without a name, and what the client raises.
    """
    records, name_of = parse_path(spec.records), parse_path(spec.name)
    type_of = parse_path(spec.type) if spec.type else None
    beside = [parse_path(path) for path in envelope_paths(spec.paging)]
    keys_of = key_reader(spec.records, spec.paging.by) if isinstance(spec.paging, KeysetPaging) else None
    mapped = {name.lower(): type_ for name, type_ in spec.map.items()}
    names: dict[str, None] = {}
    types: dict[str, str] = {}
    unknown: set[str] = set()

    def take(response: Response) -> Page:
        document = response.json()
        skipped = judge is not None and judge(response) == "skip"
        found = [] if skipped else records.records(document)
        if found is None:
            raise SourceError(
                f"the answer has no fields at {spec.records}: {response.excerpt(80)}",
                do="correct `records` of the stream's `schema`",
                where=response.where,
            )
        for field in found:
            name = name_of.first(field) if isinstance(field, dict) else field
            if not isinstance(name, str) or not name:
                raise SourceError(
                    f"a field has no name at {spec.name}: {str(field)[:80]}",
                    do="correct `name` of the stream's `schema`",
                    where=response.where,
                )
            names[name] = None
            said = type_of.first(field) if type_of and isinstance(field, dict) else None
            if said is not None:
                type_ = mapped.get(str(said).lower()) or _usual(str(said))
                if type_:
                    types[name] = type_
                else:
                    unknown.add(str(said))
        values = tuple(path.first(document) for path in beside)
        return Page(len(found), (keys_of(response.content), *values) if keys_of else values)

    for _ in read_pages(Asking(http, spec.request, context), spec.paging, take):
        pass
    if unknown:
        _log.info("types that the manifest does not map, inferred from the values instead: %s", ", ".join(sorted(unknown)))
    return Discovered(types, list(names))


def _usual(said: str) -> str | None:
    """`varchar(255)` is a varchar, `array<string>` an array."""
    word: Any = _WORD.match(said.lower())
    return _TYPES.get(said.lower()) or (_TYPES.get(word[0]) if word else None)
