"""Gives columns other names."""

from typing import Any, ClassVar

import pyarrow as pa
from pydantic import Field

from muxly_dagster.sandbox import quote
from muxly_dagster.transform import Step, require_columns, select_sql


class Rename(Step):
    """`rename: {old: new}`; the columns keep their places. Names may be swapped."""

    name: ClassVar[str] = "rename"

    columns: dict[str, str] = Field(min_length=1)

    @classmethod
    def parse(cls, settings: Any) -> "Rename":
        """Settings are written without the word `columns`."""
        return cls.model_validate({"columns": settings})

    @classmethod
    def written(cls, fields: dict[str, Any]) -> dict[str, Any]:
        """A map of old to new names."""
        return {"type": "object", "minProperties": 1, "additionalProperties": {"type": "string"}, "description": "Old name: new name."}

    def sql(self, source: str, schema: pa.Schema) -> str:
        """Every column, some under new names."""
        require_columns(self.columns, schema)
        return select_sql(source, [(quote(name), self.columns.get(name, name)) for name in schema.names])
