"""Objects: their fields and types as Salesforce describes them, and the queries made of these."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import pyarrow as pa

from muxly_dagster.connectors.salesforce.api import Api, Missing
from muxly_dagster.decoding import declared_field
from muxly_dagster.errors import ConfigurationError, Problem
from muxly_dagster.project.checks import did_you_mean

_TYPES = {
    "boolean": "boolean",
    "int": "integer",
    "long": "integer",
    "datetime": "timestamp",
    "date": "date",
    **dict.fromkeys(("double", "currency", "percent"), "decimal"),
}
_LEFT_OUT = frozenset({"address", "location", "complexvalue", "base64"})
"""Compound fields stand in their parts too; content comes with no query of many records, and no bulk query takes any of these."""

_STAMPS = ("SystemModstamp", "LastModifiedDate", "CreatedDate")
DELETED = "IsDeleted"


class Field(msgspec.Struct, frozen=True):
    """One field of an object."""

    name: str
    type: str = "string"
    calculated: bool = False
    hidden: bool = msgspec.field(default=False, name="deprecatedAndHidden")


class Described(msgspec.Struct, frozen=True):
    """An object as its describe call tells it (https://developer.salesforce.com/docs/atlas.en-us.api.meta/api/sforce_api_calls_describesobjects.htm)."""

    name: str
    fields: list[Field] = []
    queryable: bool = True
    logs_deletes: bool = msgspec.field(default=False, name="replicateable")
    """Whether Salesforce keeps a log of the records that were deleted."""

    @property
    def stamp(self) -> str:
        """The field that says when a record last changed; empty where there is none."""
        names = {each.name for each in self.fields if each.type == "datetime"}
        return next((name for name in _STAMPS if name in names), "")

    @property
    def hears_deletes(self) -> bool:
        """Whether deleted records can be asked for, as long as they are in the recycle bin."""
        return any(each.name == DELETED for each in self.fields)

    @property
    def readable(self) -> list[Field]:
        """The fields that a query can give."""
        return [each for each in self.fields if each.type not in _LEFT_OUT and not each.hidden]

    def chosen(self, names: Sequence[str], *, formulas: bool) -> list[Field]:
        """The fields to read: those named, or all; with those that reading itself needs. Raises ConfigurationError for unknown ones."""
        problems = self.problems(names)
        if problems:
            raise ConfigurationError(problems)
        asked = {name.lower() for name in names}
        own = {"Id", self.stamp, DELETED}
        shown = (each for each in self.readable if (each.name.lower() in asked if asked else formulas or not each.calculated))
        found = {each.name: each for each in shown}
        return list((found | {each.name: each for each in self.fields if each.name in own}).values())

    def problems(self, names: Sequence[str]) -> list[Problem]:
        """What is wrong with these names of fields."""
        known = {each.name.lower() for each in self.readable}
        left_out = {each.name.lower(): each.type for each in self.fields if each.type in _LEFT_OUT}
        problems = []
        for name in names:
            if name.lower() in left_out:
                do = "name its parts" if left_out[name.lower()] != "base64" else "leave it out"
                problems.append(Problem("", f"{self.name}: {name} is a field of type {left_out[name.lower()]}, which cannot be pulled", do))
            elif name.lower() not in known:
                do = did_you_mean(name, [each.name for each in self.readable])
                problems.append(Problem("", f"{self.name}: there is no field {name!r}, or the user may not see it", do))
        return problems


class Listed(msgspec.Struct, frozen=True):
    """One of the objects that an organisation has."""

    name: str
    label: str = ""
    queryable: bool = False
    hidden: bool = msgspec.field(default=False, name="deprecatedAndHidden")


class _Global(msgspec.Struct, frozen=True):
    sobjects: list[Listed]


def list_objects(api: Api) -> list[Listed]:
    """The objects that the user may query."""
    found = msgspec.json.decode(api.get(api.path("sobjects")).content, type=_Global)
    return [each for each in found.sobjects if each.queryable and not each.hidden]


def describe(api: Api, name: str) -> Described:
    """An object as it is now. Raises ConfigurationError, with what may have been meant, for one that is not there."""
    try:
        found = msgspec.json.decode(api.get(api.path("sobjects", name, "describe")).content, type=Described)
    except Missing:
        do = did_you_mean(name, [each.name for each in list_objects(api)])
        raise ConfigurationError(f"salesforce has no object {name!r}, or the user may not see it", do=do) from None
    if not found.queryable:
        raise ConfigurationError(f"salesforce: {name} cannot be queried", do="leave this pull out")
    return found


def types_of(fields: Sequence[Field]) -> dict[str, str]:
    """The declared type of every field. Numbers with a fraction are decimals with all their digits; what is not listed is text."""
    return {each.name: _TYPES.get(each.type, "string") for each in fields}


def schema_of(fields: Sequence[Field]) -> pa.Schema:
    """The columns of a stream with these fields. Decimals are left out: how many digits they need, their values tell."""
    types = {name: type_ for name, type_ in types_of(fields).items() if type_ != "decimal" and name != DELETED}
    return pa.schema([declared_field(name, type_) for name, type_ in types.items()])


@dataclass(frozen=True)
class Query:
    """What is asked for: the records of an object, from one time on or behind one id; `every`: deleted and archived ones too."""

    table: str
    fields: tuple[str, ...]
    stamp: str = ""
    since: dt.datetime | None = None
    after: str = ""
    every: bool = False

    def soql(self, *, sorted_by: str = "") -> str:
        """The query in SOQL."""
        order = f" ORDER BY {sorted_by}" if sorted_by else ""
        return f"SELECT {','.join(self.fields)} FROM {self.table}{self._where}{order}"

    @property
    def counting(self) -> str:
        """The query for how many there are."""
        return f"SELECT COUNT() FROM {self.table}{self._where}"

    @property
    def _where(self) -> str:
        said = [f"{self.stamp} >= {self.since.astimezone(dt.UTC):%Y-%m-%dT%H:%M:%SZ}"] if self.since else []
        said += [f"Id > '{self.after}'"] if self.after.isalnum() else []
        return f" WHERE {' AND '.join(said)}" if said else ""
