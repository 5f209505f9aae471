"""What a pull of the sql connector may say."""

import re
from typing import Literal

from pydantic import Field, model_validator

from muxly_dagster.connector import PullSettings
from muxly_dagster.measures import parse_duration

CURSOR_PARAMETER = re.compile(r"(?<![:\w]):cursor\b")


class SqlPull(PullSettings):
    """What a pull reads: a table or a query, whole or by cursor."""

    table: str = Field("", description="The table or view, also as `schema.table`; the pull's own name unless told otherwise.")
    query: str = Field(
        "", description="A SELECT to read instead of a table. `:cursor` in it stands for where the last pull ended, null at first."
    )
    columns: list[str] = Field([], description="Columns to read; all unless told otherwise. The key's are always read.")
    cursor: str | list[str] = Field(
        "",
        description="A column that only grows (a number or a time of change): later pulls read from its last value on. Or a list: "
        "such a column, then columns that tell its equal values apart.",
    )
    lookback: str | int = Field(
        "", description="How far before the last value to read again, for rows that appear late: `15m` for a time, `1000` for a number."
    )
    deletes: Literal["keys"] | None = Field(
        None, description="`keys`: a pull by cursor then reads all keys too, and what is no longer among them is deleted in the lake."
    )
    deletes_every: str = Field("", description="How often all keys are read, such as `1d`; with every pull unless told otherwise.")
    batch_rows: int = Field(20_000, ge=1, le=1_000_000, description="Rows in one batch.")
    chunk_rows: int = Field(
        250_000,
        ge=1,
        description="A table of twice as many rows is read by ranges of its key, each so large; a broken range is read again.",
    )
    connections: int = Field(2, ge=1, le=16, description="Connections that read the ranges of a large PostgreSQL table at once.")

    @property
    def order(self) -> tuple[str, ...]:
        """The cursor's columns; none in a full pull."""
        if isinstance(self.cursor, str):
            return (self.cursor,) if self.cursor else ()
        return tuple(self.cursor)

    @model_validator(mode="after")
    def _agrees(self) -> "SqlPull":
        if self.table and self.query:
            raise ValueError("has both `table` and `query`; keep one of them")
        if len(set(self.order)) < len(self.order) or "" in self.order:
            raise ValueError("has a `cursor` that names a column twice, or none; name each column once")
        for field in ("lookback", "deletes"):
            if getattr(self, field) and not self.order:
                raise ValueError(f"has `{field}` without a `cursor`; a pull without cursor reads everything each time")
        if self.deletes_every and not self.deletes:
            raise ValueError("has `deletes_every` without `deletes: keys`; say both")
        for field, also in (("lookback", ", nor a number"), ("deletes_every", "")):
            said = str(getattr(self, field))
            if said and not (also and said.isdecimal()):
                try:
                    parse_duration(said)
                except ValueError as error:
                    raise ValueError(f"`{field}` {error}{also}") from None
        if self.query and not self.order and CURSOR_PARAMETER.search(self.query):
            raise ValueError("has `:cursor` in its `query`, but no `cursor`; name the column it is compared with")
        return self
