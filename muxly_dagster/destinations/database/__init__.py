"""The `database` destination: rows into a table of a SQL database, exactly once.

The offset is stored in the table `_muxly_offsets` in the transaction that writes the rows, so the two cannot disagree: a delivery
that is repeated after a crash finds that it has already happened.
"""

import builtins
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, SecretStr, field_validator, model_validator

from muxly_dagster.destination import Delivery, Destination, Guarantee, Plan, Receipt
from muxly_dagster.destinations.database import address, writing
from muxly_dagster.destinations.database.landing import Landing, lay_out
from muxly_dagster.errors import MuxlyError
from muxly_dagster.landing import Mode, RecordColumn
from muxly_dagster.project_paths import InProject
from muxly_dagster.resource import CheckResult

if TYPE_CHECKING:
    from muxly_dagster.destinations.database.session import Session


class Database(Destination):
    """A table in a SQL database. Creates it, adds columns as they appear and keeps it in step with the source."""

    type: ClassVar[str] = "database"
    title: ClassVar[str] = "SQL database"
    guarantee: ClassVar[Guarantee] = "exactly once"
    batch_rows: ClassVar[int] = 250_000
    keeps_offset: ClassVar[bool] = True
    bulk: ClassVar[bool] = True
    example: ClassVar[Mapping[str, Any]] = {"mode": "mirror"}

    # An address that is refused may hold a password: pydantic must not quote it.
    model_config = ConfigDict(hide_input_in_errors=True)

    url: Annotated[SecretStr, InProject()] = Field(
        description="`postgresql://user:password@host/database`, `mysql://...`, `mariadb://...`, `sqlite:///path/to/file.db`,"
        " `duckdb:///path/to/file.duckdb`, or another address that SQLAlchemy knows, such as `mssql+pyodbc://...`."
    )
    table: str = Field(
        "", description="The table's name; what it comes from, with dots as underscores (`crm_deals`), unless told otherwise."
    )
    schema_: str = Field(
        "",
        alias="schema",
        description="The schema the table is in (MySQL: the database); PostgreSQL and DuckDB create it if it is missing.",
    )
    mode: Mode = Field(
        "upsert",
        description="append: every change is a new row. upsert: one row per key. mirror: upsert, and what the source deleted is deleted. "
        "replace: mirror, and the table is emptied before the first delivery.",
    )
    deletes: bool | None = Field(
        None, description="Delete rows that the source deleted. On for mirror and replace, off for upsert unless told otherwise."
    )
    columns: dict[str, str] = Field({}, description="Other names for columns: `{createdate: created_at}`.")
    types: dict[str, str] = Field({}, description="SQL types for columns that Muxly creates: `{amount: 'numeric(12,2)'}`.")
    indexes: list[list[str]] = Field([], description="Indexes to create if they are missing, each a list of columns: `[[stage, amount]]`.")
    record_columns: list[RecordColumn] | None = Field(
        None,
        description="What to store about each change besides its data, as `_muxly_...` columns; `[seq, op, at]` for append, else none.",
    )
    evolve: bool = Field(True, description="Create the table, add columns and widen types as the source's change; false: fail instead.")

    @field_validator("url")
    @classmethod
    def _known_database(cls, url: SecretStr) -> SecretStr:
        address.parsed(url.get_secret_value())
        return url

    @field_validator("types")
    @classmethod
    def _one_type_each(cls, types: dict[str, str]) -> dict[str, str]:
        for column, type_ in types.items():
            if not type_.strip() or ";" in type_ or "--" in type_ or "/*" in type_:
                raise ValueError(f"{column} needs one SQL type such as `numeric(12,2)`")
        return types

    @field_validator("indexes")
    @classmethod
    def _of_columns(cls, indexes: list[list[str]]) -> list[list[str]]:
        if any(not index or len(set(index)) < len(index) for index in indexes):
            raise ValueError("each index is a list of at least one column, none of them twice: `[[stage], [owner, amount]]`")
        return indexes

    @model_validator(mode="after")
    def _consistent(self) -> "Database":
        if self.schema_ and self._parsed.dialect == "sqlite":
            raise ValueError("SQLite has no schemas; leave `schema` out")
        if self.mode == "append" and self.deletes:
            raise ValueError("`mode: append` keeps every change as a row and deletes none; use `mode: mirror`, or leave `deletes` out")
        if self.mode in ("mirror", "replace") and self.deletes is False:
            raise ValueError(f"`mode: {self.mode}` deletes what the source deleted; use `mode: upsert` to keep it")
        return self

    def deliver(self, delivery: Delivery) -> Receipt:
        """Write the rows and the offset in one transaction; a stretch that was written already is left alone."""
        landing = self._landing(delivery)
        with self._session.opened(self._parsed.rest, self.schema_, landing.target, lock=True) as session:
            written = writing.write(session, landing)
        detail: dict[str, object] = {"table": landing.target, "rows_written": written.written, "rows_deleted": written.deleted}
        if written.repeated:
            detail["repeated"] = True
        if written.evolved:
            detail["table_changes"] = list(written.evolved)
        return Receipt(len(delivery.rows), detail=detail)

    def plan(self, delivery: Delivery) -> Plan:
        """What `deliver` would do: done in a transaction that is undone, or counted where a table cannot be changed in one."""
        landing = self._landing(delivery)
        if not self._session.there(self._parsed.rest):
            return Plan(
                len(landing.changes(0).upserts), notes=(f"created {self._session.describe(self._parsed.rest)}", "created the table")
            )
        with self._session.opened(self._parsed.rest, self.schema_, landing.target, lock=True) as session:
            return writing.rehearse(session, landing)

    def position(self, delivery_id: str, table_id: str) -> int | None:
        """The seq stored with the rows; None before the first delivery."""
        if not self._session.there(self._parsed.rest):
            return None
        with self._session.opened(self._parsed.rest, self.schema_, "") as session:
            return writing.position(session, delivery_id, table_id)

    def rewind(self, delivery_id: str, table_id: str, seq: int) -> None:
        """Forget that anything after `seq` was delivered, so that it is taken again."""
        if self._session.there(self._parsed.rest):
            with self._session.opened(self._parsed.rest, self.schema_, "") as session:
                writing.rewind(session, delivery_id, table_id, seq)

    def check(self) -> CheckResult:
        """Sign in and see whether a table could be written; nothing is written."""
        tried = f"connect to {self._session.describe(self._parsed.rest)}"
        try:
            return CheckResult("ok", tried, self._session.check(self._parsed.rest, self.schema_))
        except MuxlyError as error:
            return CheckResult("failed", tried, error.what, error.do)

    @property
    def passes_deletes(self) -> bool:
        """Whether rows are deleted here that the source deleted."""
        return self.mode in ("mirror", "replace") if self.deletes is None else self.deletes

    @property
    def one_row_per_key(self) -> bool:
        """Whether the newest change of a key is all there is of it."""
        return self.mode != "append"

    def public_name(self, table: str) -> str:
        """The table with its schema."""
        name = self.table or table.replace(".", "_")
        return f"{self.schema_}.{name}" if self.schema_ else name

    def _landing(self, delivery: Delivery) -> Landing:
        shown: list[RecordColumn] = ["seq", "op", "at"] if self.mode == "append" else []
        return lay_out(
            delivery,
            schema=self.schema_,
            table=self.table or delivery.table.replace(".", "_"),
            mode=self.mode,
            deletes=self.passes_deletes,
            evolve=self.evolve,
            rename=self.columns,
            record_columns=shown if self.record_columns is None else self.record_columns,
            types=self.types,
            indexes=self.indexes,
            longest_name=self._session.longest_name,
            folds_case=self._session.folds_case,
        )

    @property
    def _parsed(self) -> address.Address:
        return address.parsed(self.url.get_secret_value())

    @property
    def _session(self) -> "builtins.type[Session]":
        return address.session_of(self._parsed)
