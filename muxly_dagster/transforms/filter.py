"""Keeps the rows for which a condition is true."""

from typing import Any, ClassVar

import pyarrow as pa

from muxly_dagster.transform import SqlExpression, Step, require_expression_columns


class Filter(Step):
    """`filter: "amount > 0 and email is not null"`. A condition that is null is not true."""

    name: ClassVar[str] = "filter"

    where: SqlExpression

    @classmethod
    def parse(cls, settings: Any) -> "Filter":
        """Settings are the condition."""
        return cls.model_validate({"where": settings})

    @classmethod
    def written(cls, fields: dict[str, Any]) -> dict[str, Any]:
        """The condition."""
        return {"type": "string", "description": "A SQL condition; rows for which it is true are kept."}

    def sql(self, source: str, schema: pa.Schema) -> str:
        """Fewer rows, the same columns."""
        return f"SELECT * FROM {source} WHERE {require_expression_columns(self.where, schema).sql}"
