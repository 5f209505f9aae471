"""Computes columns, new ones or in place of old ones."""

from typing import Any, ClassVar

import pyarrow as pa
from pydantic import Field

from muxly_dagster.sandbox import quote
from muxly_dagster.transform import SqlExpression, Step, require_expression_columns, select_sql


class Set(Step):
    """`set: {name: "first || ' ' || last"}`. Every expression sees the columns as they were before the step."""

    name: ClassVar[str] = "set"

    columns: dict[str, SqlExpression] = Field(min_length=1)

    @classmethod
    def parse(cls, settings: Any) -> "Set":
        """Numbers and booleans may stand as they are: `set: {version: 2}`."""
        if isinstance(settings, dict):
            settings = {name: str(value) if isinstance(value, bool | int | float) else value for name, value in settings.items()}
        return cls.model_validate({"columns": settings})

    @classmethod
    def written(cls, fields: dict[str, Any]) -> dict[str, Any]:
        """Column and expression."""
        value = {"type": ["string", "number", "boolean"]}
        return {"type": "object", "minProperties": 1, "additionalProperties": value, "description": "Column: SQL expression."}

    def sql(self, source: str, schema: pa.Schema) -> str:
        """Old columns in their places, then the new ones."""
        values = {name: require_expression_columns(text, schema).sql for name, text in self.columns.items()}
        # Lest a second column in other letter case come about: SQL would not tell the two apart.
        places = {name.casefold(): name for name in schema.names}
        values = {places.get(name.casefold(), name): value for name, value in values.items()}
        kept = [(values.get(name, quote(name)), name) for name in schema.names]
        return select_sql(source, kept + [(value, name) for name, value in values.items() if name not in schema.names])
