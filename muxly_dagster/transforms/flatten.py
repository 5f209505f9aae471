"""Makes columns of the fields inside a JSON column."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import pyarrow as pa
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from muxly_dagster.errors import ConfigurationError
from muxly_dagster.sandbox import literal, quote
from muxly_dagster.transform import TYPE_SCHEMA, Step, TypeName, cast_sql, require_columns, select_sql


def _typed(fields: Any) -> Any:
    return dict.fromkeys(fields, "string") if isinstance(fields, list) and all(isinstance(name, str) for name in fields) else fields


class Fields(BaseModel):
    """What to take out of one JSON column. A dot leads inside: `address.city` gives the column `address_city`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    fields: Annotated[dict[str, TypeName], BeforeValidator(_typed)] = Field(min_length=1)
    prefix: str = ""
    keep: bool = False


class Flatten(Step):
    """`flatten: {properties: [email, name]}`; with types `{properties: {age: integer}}`; the JSON column itself goes.

    The long form `{properties: {fields: ..., prefix: p_, keep: true}}` puts a prefix before the names and keeps the column.
    """

    name: ClassVar[str] = "flatten"

    columns: dict[str, Fields] = Field(min_length=1)

    @classmethod
    def parse(cls, settings: Any) -> "Flatten":
        """Under each column stand names, names with types, or the long form."""
        if isinstance(settings, Mapping):
            settings = {column: given if _is_long(given) else {"fields": given} for column, given in settings.items()}
        return cls.model_validate({"columns": settings})

    @classmethod
    def written(cls, fields: dict[str, Any]) -> dict[str, Any]:
        """JSON column: its fields."""
        names = {"type": "array", "items": {"type": "string"}, "minItems": 1}
        typed = {"type": "object", "minProperties": 1, "additionalProperties": TYPE_SCHEMA}
        long = {
            "type": "object",
            "properties": {"fields": {"anyOf": [names, typed]}, "prefix": {"type": "string"}, "keep": {"type": "boolean"}},
            "required": ["fields"],
            "additionalProperties": False,
        }
        return {
            "type": "object",
            "minProperties": 1,
            "additionalProperties": {"anyOf": [names, typed, long]},
            "description": "JSON column: the fields that become columns.",
        }

    def sql(self, source: str, schema: pa.Schema) -> str:
        """The fields' columns stand where their JSON column stood."""
        require_columns(self.columns, schema)
        columns: list[tuple[str, str]] = []
        for field in schema:
            given = self.columns.get(field.name)
            if given is None:
                columns.append((quote(field.name), field.name))
                continue
            if not pa.types.is_string(field.type):
                raise ConfigurationError(f"column {field.name} holds {field.type}, not JSON", do="flatten columns that hold objects")
            if given.keep:
                columns.append((quote(field.name), field.name))
            columns += [(_field_sql(field.name, path, kind), given.prefix + path.replace(".", "_")) for path, kind in given.fields.items()]
        return select_sql(source, columns)


def _is_long(given: Any) -> bool:
    """Told from typed fields of which one is called `fields`: that one has a type, which is text."""
    return isinstance(given, Mapping) and isinstance(given.get("fields"), list | Mapping)


def _field_sql(column: str, path: str, kind: str) -> str:
    json_path = literal("$" + "".join('."' + part.replace('"', '\\"') + '"' for part in path.split(".")))
    if kind == "json":
        return f"json_extract({quote(column)}, {json_path})"
    return cast_sql(f"json_extract_string({quote(column)}, {json_path})", kind, f"{column}.{path}", null_on_error=False)
