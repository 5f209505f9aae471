"""Gives columns other types."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import pyarrow as pa
from pydantic import BeforeValidator, Field

from muxly_dagster.sandbox import quote
from muxly_dagster.transform import TYPE_SCHEMA, Step, TypeName, cast_sql, require_columns, select_sql


class Cast(Step):
    """`cast: {amount: "decimal(12,2)"}`, or `cast: {columns: {...}, on_error: null}` to make null of what does not fit."""

    name: ClassVar[str] = "cast"

    columns: dict[str, TypeName] = Field(min_length=1)
    # In YAML, `on_error: null` is no text but nothing.
    on_error: Annotated[Literal["fail", "null"], BeforeValidator(lambda value: "null" if value is None else value)] = "fail"

    @classmethod
    def parse(cls, settings: Any) -> "Cast":
        """The short form has the columns alone."""
        long = isinstance(settings, Mapping) and isinstance(settings.get("columns"), Mapping)
        return cls.model_validate(settings if long else {"columns": settings})

    @classmethod
    def written(cls, fields: dict[str, Any]) -> dict[str, Any]:
        """Column and type; or the same under `columns`, with `on_error`."""
        types = {"type": "object", "minProperties": 1, "additionalProperties": TYPE_SCHEMA, "description": "Column: type."}
        long = {
            "type": "object",
            "properties": {"columns": types, "on_error": {"enum": ["fail", "null", None], "default": "fail"}},
            "required": ["columns"],
            "additionalProperties": False,
        }
        return {"anyOf": [types, long]}

    def sql(self, source: str, schema: pa.Schema) -> str:
        """Every column, some cast."""
        require_columns(self.columns, schema)
        null_on_error = self.on_error == "null"
        return select_sql(
            source,
            [
                (
                    cast_sql(quote(name), self.columns[name], name, null_on_error=null_on_error) if name in self.columns else quote(name),
                    name,
                )
                for name in schema.names
            ],
        )
