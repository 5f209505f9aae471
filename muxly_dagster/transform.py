"""The contract of a transform: from tables of the lake to a table of the lake.

A transform is written as `sql`, as `steps` or as `python`. A step is one verb (rename, filter, mask ...) that compiles to SQL;
steps are chained, so they run as one DuckDB query.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Annotated, Any, ClassVar

import pyarrow as pa
from pydantic import AfterValidator, BaseModel, ConfigDict, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from muxly_dagster import sandbox
from muxly_dagster.errors import ConfigurationError


class Step(BaseModel, ABC):
    """One verb of a `steps` transform: fields are its settings, `sql` its meaning.

    Subclasses set `name`, the word in muxly.yaml. A step is written `{name: SETTINGS}`; `parse` turns the settings as written
    into fields where a shorter form reads better (`drop: [a, b]`), and `written` tells JSON Schema of that form.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: ClassVar[str]

    @classmethod
    def parse(cls, settings: Any) -> "Step":
        """Build the step from what stands under its name. Raises pydantic.ValidationError."""
        return cls.model_validate(settings)

    @classmethod
    def written(cls, fields: dict[str, Any]) -> dict[str, Any]:
        """JSON Schema of what may stand under the name; `fields` is that of the long form."""
        return fields

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """So `model_json_schema()` describes the step as people write it."""
        fields = handler.resolve_ref_schema(handler(core_schema))
        return cls.written(fields)

    @abstractmethod
    def sql(self, source: str, schema: pa.Schema) -> str:
        """A DuckDB SELECT over `source` (an identifier, ready to use) whose columns are `schema`.

        Raises ConfigurationError when the step names a column that `schema` lacks.
        """


# ---- what several steps need ----------------------------------------------------------------------------------------

_TYPES = {
    "string": "VARCHAR",
    "integer": "BIGINT",
    "number": "DOUBLE",
    "boolean": "BOOLEAN",
    "timestamp": "TIMESTAMPTZ",
    "date": "DATE",
    "json": "JSON",
}
_DECIMAL = re.compile(r"decimal\(\s*(\d{1,2})\s*,\s*(\d{1,2})\s*\)")


def _checked_type(word: str) -> str:
    duckdb_type(word)
    return word


def _checked_expression(text: str) -> str:
    try:
        sandbox.read_expression(text)
    except ConfigurationError as error:
        raise ValueError(str(error.problems[0])) from error
    return text


TypeName = Annotated[str, AfterValidator(_checked_type)]
"""A column type as people write it: string, integer, number, boolean, timestamp, date, json or decimal(p,s)."""

SqlExpression = Annotated[str, AfterValidator(_checked_expression)]
"""One scalar SQL expression."""

TYPE_SCHEMA: dict[str, Any] = {
    "type": "string",
    "anyOf": [{"enum": list(_TYPES)}, {"pattern": r"^decimal\(\s*\d{1,2}\s*,\s*\d{1,2}\s*\)$"}],
}
"""JSON Schema of a TypeName."""


def duckdb_type(word: str) -> str:
    """DuckDB's name of a TypeName. Raises ValueError for a word that is none."""
    if word in _TYPES:
        return _TYPES[word]
    match = _DECIMAL.fullmatch(word)
    if match and 1 <= int(match[1]) <= 38 and int(match[2]) <= int(match[1]):
        return f"DECIMAL({int(match[1])},{int(match[2])})"
    raise ValueError(f"{word} is not a type; take one of {', '.join(_TYPES)} or decimal(precision,scale) up to decimal(38,38)")


def cast_sql(value: str, to: str, column: str, *, null_on_error: bool) -> str:
    """SQL for `value` (SQL) in the type `to` (a TypeName), exactly: a fraction never becomes an integer by rounding.

    A value that does not fit is null, or fails with a message that names `column` and the value.
    """
    kind = duckdb_type(to)
    if kind == "VARCHAR":
        return f"CAST({value} AS VARCHAR)"
    tried = f"TRY_CAST({value} AS {kind})"
    if kind == "BIGINT":
        # By way of text, since numbers and text alike are rounded by a plain cast; 19 digits and 18 decimals fill a DECIMAL.
        exact = f"TRY_CAST(CAST({value} AS VARCHAR) AS DECIMAL(38,18)) = {tried}"
        tried = f"CASE WHEN {exact} OR TRY_CAST({value} AS BOOLEAN) IS NOT NULL AND typeof({value}) = 'BOOLEAN' THEN {tried} END"
    if null_on_error:
        return tried
    shown = f"left(CAST({value} AS VARCHAR), 60)"
    message = f"{sandbox.literal(f'column {column} holds ')} || {shown} || {sandbox.literal(f', which is not {to}')}"
    return f"CASE WHEN {value} IS NOT NULL THEN COALESCE({tried}, error({message})) END"


def select_sql(source: str, columns: Iterable[tuple[str, str]]) -> str:
    """A SELECT of (SQL, column name) pairs. Raises ConfigurationError when two names are one to SQL, or none is left."""
    pairs = list(columns)
    if not pairs:
        raise ConfigurationError("no column would be left", do="keep at least one")
    seen: dict[str, str] = {}
    for _, name in pairs:
        if name.casefold() in seen:
            raise ConfigurationError(
                f"there would be two columns named {name}", do=f"give one of them another name than {seen[name.casefold()]}"
            )
        seen[name.casefold()] = name
    shown = ", ".join(value if value == sandbox.quote(name) else f"{value} AS {sandbox.quote(name)}" for value, name in pairs)
    return f"SELECT {shown} FROM {source}"


def require_columns(names: Iterable[str], schema: pa.Schema) -> None:
    """Raise ConfigurationError, with everything that is wrong in one message, when `schema` lacks one of the names."""
    missing = [name for name in names if name not in schema.names]
    if missing:
        raise ConfigurationError("; ".join(sandbox.unknown_column(name, schema.names) for name in missing))


def require_expression_columns(text: str, schema: pa.Schema) -> sandbox.Expression:
    """The expression, once its columns are known to be there; letter case does not count in SQL."""
    expression = sandbox.read_expression(text)
    folded = {name.casefold() for name in schema.names}
    require_columns([name for name in expression.columns if name.casefold() not in folded], schema)
    return expression
