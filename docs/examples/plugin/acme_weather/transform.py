"""Adds a temperature in degrees Fahrenheit."""

from typing import ClassVar

import pyarrow as pa
from pydantic import Field

from muxly_dagster.sandbox import quote
from muxly_dagster.transform import Step, require_columns


class Fahrenheit(Step):
    """`fahrenheit: {column: celsius}` adds the column `fahrenheit`."""

    name: ClassVar[str] = "fahrenheit"

    column: str = Field("celsius", description="The column with degrees Celsius.")

    def sql(self, source: str, schema: pa.Schema) -> str:
        """Every column and one more."""
        require_columns([self.column], schema)
        return f"SELECT *, {quote(self.column)} * 9 / 5 + 32 AS fahrenheit FROM {source}"
