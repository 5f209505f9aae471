"""Hides what is in columns."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import pyarrow as pa
from pydantic import BeforeValidator, Field, SecretStr

from muxly_dagster.sandbox import literal, quote
from muxly_dagster.transform import Step, require_columns, select_sql

# In YAML, `email: null` is no text but nothing.
Way = Annotated[Literal["hash", "redact", "last4", "null"], BeforeValidator(lambda value: "null" if value is None else value)]


class Mask(Step):
    """`mask: {email: hash, phone: last4}`, or `mask: {columns: {...}, salt: "${MASK_SALT}"}`.

    `hash` is SHA-256 in hex: equal values stay equal, and without a `salt` short values can be guessed. `redact` puts *** in
    place of every value, `last4` shows the last four characters, `null` empties the column. Nulls stay null.
    """

    name: ClassVar[str] = "mask"

    columns: dict[str, Way] = Field(min_length=1)
    salt: SecretStr = SecretStr("")

    @classmethod
    def parse(cls, settings: Any) -> "Mask":
        """The short form has the columns alone."""
        long = isinstance(settings, Mapping) and isinstance(settings.get("columns"), Mapping)
        return cls.model_validate(settings if long else {"columns": settings})

    @classmethod
    def written(cls, fields: dict[str, Any]) -> dict[str, Any]:
        """Column and way; or the same under `columns`, with `salt`."""
        ways = {"type": "object", "minProperties": 1, "additionalProperties": {"enum": ["hash", "redact", "last4", "null", None]}}
        long = {
            "type": "object",
            "properties": {"columns": ways, "salt": {"type": "string", "writeOnly": True}},
            "required": ["columns"],
            "additionalProperties": False,
        }
        return {"anyOf": [ways, long]}

    def sql(self, source: str, schema: pa.Schema) -> str:
        """Every column, some hidden."""
        require_columns(self.columns, schema)
        return select_sql(source, [(self._hidden(name) if name in self.columns else quote(name), name) for name in schema.names])

    def _hidden(self, column: str) -> str:
        value = quote(column)
        text = f"CAST({value} AS VARCHAR)"
        match self.columns[column]:
            case "hash":
                return f"sha256({literal(self.salt.get_secret_value())} || {text})"
            case "redact":
                return f"CASE WHEN {value} IS NOT NULL THEN '***' END"
            case "last4":
                # A value of four characters or fewer would be shown whole.
                return f"CASE WHEN length({text}) > 4 THEN '***' || right({text}, 4) WHEN {value} IS NOT NULL THEN '***' END"
            case "null":
                return f"CASE WHEN FALSE THEN {value} END"
