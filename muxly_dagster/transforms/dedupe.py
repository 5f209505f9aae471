"""Keeps one row of those that agree in some columns."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import pyarrow as pa
from pydantic import BeforeValidator, Field

from muxly_dagster.sandbox import quote
from muxly_dagster.transform import Step, require_columns


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class Dedupe(Step):
    """`dedupe: {by: [email], keep: last, order: updated_at}`, or `dedupe: [email]` where any of the rows will do.

    Ties, and rows without an `order`, are settled by all other columns, so the same rows always give the same answer. A row
    with null in `by` has no equal and stays.
    """

    name: ClassVar[str] = "dedupe"

    by: Annotated[list[str], BeforeValidator(_listed)] = Field(min_length=1)
    keep: Literal["first", "last"] = "last"
    order: Annotated[list[str], BeforeValidator(_listed)] = Field(default=[])

    @classmethod
    def parse(cls, settings: Any) -> "Dedupe":
        """The short form has the columns alone."""
        return cls.model_validate(settings if isinstance(settings, Mapping) else {"by": settings})

    @classmethod
    def written(cls, fields: dict[str, Any]) -> dict[str, Any]:
        """One column, several, or the long form."""
        names: dict[str, Any] = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
        long = {
            "type": "object",
            "properties": {"by": names, "keep": {"enum": ["first", "last"], "default": "last"}, "order": names},
            "required": ["by"],
            "additionalProperties": False,
        }
        return {"anyOf": [*names["anyOf"], long]}

    def sql(self, source: str, schema: pa.Schema) -> str:
        """One row of each group."""
        require_columns([*self.by, *self.order], schema)
        way = "DESC" if self.keep == "last" else "ASC"
        ordered = [f"{quote(name)} {way} NULLS LAST" for name in self.order]
        ties = [f"{quote(name)} {way} NULLS LAST" for name in schema.names if name not in self.by and name not in self.order]
        partition = ", ".join(map(quote, self.by))
        order = f" ORDER BY {', '.join(ordered + ties)}" if ordered or ties else ""
        unequal = " OR ".join(f"{quote(name)} IS NULL" for name in self.by)
        return f"SELECT * FROM {source} QUALIFY {unequal} OR row_number() OVER (PARTITION BY {partition}{order}) = 1"
