"""Leaves columns out."""

from typing import Any, ClassVar

import pyarrow as pa
from pydantic import Field

from muxly_dagster.sandbox import quote
from muxly_dagster.transform import Step, require_columns, select_sql


class Drop(Step):
    """`drop: [a, b]`, or `drop: a` for one."""

    name: ClassVar[str] = "drop"

    columns: list[str] = Field(min_length=1)

    @classmethod
    def parse(cls, settings: Any) -> "Drop":
        """Settings are a list of columns, or one."""
        return cls.model_validate({"columns": [settings] if isinstance(settings, str) else settings})

    @classmethod
    def written(cls, fields: dict[str, Any]) -> dict[str, Any]:
        """A column or several."""
        names = {"type": "array", "items": {"type": "string"}, "minItems": 1}
        return {"anyOf": [{"type": "string"}, names], "description": "Columns to leave out."}

    def sql(self, source: str, schema: pa.Schema) -> str:
        """The other columns."""
        require_columns(self.columns, schema)
        return select_sql(source, [(quote(name), name) for name in schema.names if name not in self.columns])
