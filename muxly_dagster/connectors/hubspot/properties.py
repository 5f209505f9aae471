"""Properties: what an object's schema says they are, and values that do not come as it says."""

import datetime as dt
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import orjson

from muxly_dagster.connector import Unreadable
from muxly_dagster.connectors.hubspot.api import Api, parsed
from muxly_dagster.errors import ConfigurationError, Problem
from muxly_dagster.http import Response
from muxly_dagster.project.checks import did_you_mean

ID = "hs_object_id"
MERGED = "hs_merged_object_ids"

_TYPES = {"number": "decimal", "datetime": "timestamp", "date": "date", "bool": "boolean"}
_MILLISECONDS = re.compile(r"-?\d{9,15}")


class Property(msgspec.Struct, frozen=True):
    """One property of an object type, as far as reading it goes."""

    name: str
    type: str = "string"
    hidden: bool | None = False
    archived: bool | None = False


class _Properties(msgspec.Struct):
    results: list[Property]


@dataclass(frozen=True)
class Schema:
    """The properties of an object type by name. `types` are theirs as the page decoder calls them; everything else is text."""

    properties: Mapping[str, Property]

    @property
    def types(self) -> dict[str, str]:
        """Numbers are exact decimals: HubSpot sends them as text, with as many digits as somebody typed."""
        found = {name: _TYPES[p.type] for name, p in self.properties.items() if p.type in _TYPES}
        return found | {ID: "integer"} if ID in self.properties else found

    def chosen(self, names: Sequence[str]) -> list[str]:
        """The properties to ask for: those named, or all that are not hidden; with those that reading itself needs."""
        shown = list(names) or [name for name, p in self.properties.items() if not p.hidden and not p.archived]
        return list(dict.fromkeys([*shown, *(name for name in (ID, MERGED) if name in self.properties)]))

    def problems(self, names: Sequence[str]) -> list[Problem]:
        """What is wrong with these names. HubSpot itself leaves unknown properties out without a word."""
        unknown = [name for name in names if name not in self.properties]
        return [Problem("", f"there is no property {name!r}", did_you_mean(name, self.properties)) for name in unknown]


def read_schema(response: Response) -> Schema:
    """The schema from the answer of the properties API."""
    return Schema({p.name: p for p in parsed(response, _Properties).results})


def check_names(schema: Schema, names: Sequence[str], object_type: str) -> None:
    """Raises ConfigurationError with every name that the object type does not have."""
    problems = [Problem("", f"{object_type}: {p.what}", p.do) for p in schema.problems(names)]
    if problems:
        raise ConfigurationError(problems)


def ask_schema(api: Api, object_type: str) -> Schema:
    """The object type's schema as it is now."""
    return read_schema(api.get("crm/properties", object_type))


def repaired(bad: Unreadable, types: Mapping[str, str]) -> bytes | None:
    """The record with its times in ISO 8601 where they came as milliseconds since 1970 (calculated properties can); None: it has none."""
    try:
        record = orjson.loads(bad.text)
        properties = record["properties"]
        changed = {name: _iso(value, types[name]) for name, value in properties.items() if _is_milliseconds(value, types.get(name))}
    except (ValueError, TypeError, KeyError, OverflowError):
        return None
    return orjson.dumps({**record, "properties": {**properties, **changed}}) if changed else None


def _is_milliseconds(value: object, type_: str | None) -> bool:
    return type_ in ("timestamp", "date") and isinstance(value, str) and _MILLISECONDS.fullmatch(value) is not None


def _iso(value: str, type_: str) -> str:
    moment = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(milliseconds=int(value))
    return moment.isoformat() if type_ == "timestamp" else moment.date().isoformat() if moment.time() == dt.time() else moment.isoformat()
