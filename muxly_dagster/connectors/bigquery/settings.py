"""What a pull from BigQuery may say."""

import re
from typing import Any

from pydantic import Field, model_validator

from muxly_dagster.connector import PullSettings
from muxly_dagster.connectors.bigquery import parameters
from muxly_dagster.measures import parse_duration

CURSOR_PARAMETER = re.compile(r"(?<![@\w])@cursor\b", re.IGNORECASE)
_TABLE = re.compile(r"(?:(?:[a-z][a-z0-9.:-]*[a-z0-9]\.)?\w+\.)?[^.`\\/]+")


class BigqueryPull(PullSettings):
    """A table or view, or a query; everything, what came by a column, or what changed by partition."""

    table: str = Field(
        "", description="The table or view: `table`, `dataset.table` or `project.dataset.table`; the pull's own name unless told otherwise."
    )
    query: str = Field(
        "", description="A SELECT to read instead of a table. `@cursor` in it stands for where the last pull ended, null at first."
    )
    parameters: dict[str, Any] = Field(
        {},
        description="Values of the query's `@name` parameters: a value, or `{type: NUMERIC, value: '1.5'}`.",
    )
    columns: list[str] = Field([], description="Columns to read; all unless told otherwise. The key's and the cursor's are always read.")
    where: str = Field("", description="A condition in GoogleSQL that the rows of the table must meet, such as `country = 'NO'`.")
    cursor: str = Field("", description="A column that only grows (a number or a time of change): later pulls read from its last value on.")
    lookback: str | int = Field(
        "", description="How far before the last value to read again, for rows that appear late: `15m` for a time, `1000` for a number."
    )
    partition: bool = Field(False, description="Read only the partitions that changed since the last pull, and replace them as a whole.")
    streams: int = Field(4, ge=1, le=64, description="How many streams are read at once, at most.")

    @model_validator(mode="after")
    def _agrees(self) -> "BigqueryPull":
        if self.table and self.query:
            raise ValueError("has both `table` and `query`; keep one of them")
        for name in ("columns", "where", "partition"):
            if self.query and getattr(self, name):
                raise ValueError(f"has both `query` and `{name}`, which is for tables; write it into the query")
        if self.parameters and not self.query:
            raise ValueError("has `parameters` without a `query`")
        if self.partition and self.cursor:
            raise ValueError("has both `partition` and `cursor`; keep one of them")
        if self.lookback and not self.cursor:
            raise ValueError("has a `lookback` without a `cursor`; name the column it looks back on")
        if self.lookback and not str(self.lookback).isdecimal():
            try:
                parse_duration(str(self.lookback))
            except ValueError as error:
                raise ValueError(f"`lookback` {error}, nor a number") from None
        if self.query and not self.cursor and CURSOR_PARAMETER.search(self.query):
            raise ValueError("has `@cursor` in its `query`, but no `cursor`; name the column it is compared with")
        if self.table and not _TABLE.fullmatch(self.table):
            raise ValueError("has a `table` that is no name; write table, dataset.table or project.dataset.table")
        for name, said in self.parameters.items():
            try:
                parameters.typed(name, said)
            except ValueError as error:
                raise ValueError(f"the parameter {name} {error}") from None
        return self
