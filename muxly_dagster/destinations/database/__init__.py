"""The `database` destination: rows into a table of a PostgreSQL or SQLite database, exactly once.

The offset is stored in the table `_muxly_offsets` in the transaction that writes the rows, so the two cannot disagree: a delivery
that is repeated after a crash finds that it has already happened.
"""

from types import ModuleType
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field, SecretStr, field_validator, model_validator

from muxly_dagster.destination import Delivery, Destination, Receipt
from muxly_dagster.destinations.database.landing import Landing, Mode, RecordColumn, plan
from muxly_dagster.errors import MuxlyError
from muxly_dagster.project_paths import InProject
from muxly_dagster.resource import CheckResult

_POSTGRES = ("postgresql://", "postgres://", "postgresql+psycopg://", "postgresql+psycopg2://")
_SQLITE = "sqlite:///"
_POSTGRES_NAME_BYTES = 63


class Database(Destination):
    """A table in PostgreSQL or SQLite. Creates it, adds columns as they appear and keeps it in step with the source."""

    type: ClassVar[str] = "database"
    title: ClassVar[str] = "SQL database"
    keeps_offset: ClassVar[bool] = True

    # An address that is refused may hold a password: pydantic must not quote it.
    model_config = ConfigDict(hide_input_in_errors=True)

    url: Annotated[SecretStr, InProject()] = Field(
        description="`postgresql://user:password@host/database`, or `sqlite:///path/to/file.db`."
    )
    table: str = Field(
        "", description="The table's name; what it comes from, with dots as underscores (`crm_deals`), unless told otherwise."
    )
    schema_: str = Field("", alias="schema", description="PostgreSQL only: the schema the table is in; created if missing.")
    mode: Mode = Field(
        "upsert",
        description="append: every change is a new row. upsert: one row per key. mirror: upsert, and what the source deleted is deleted. "
        "replace: mirror, and the table is emptied before the first delivery.",
    )
    deletes: bool | None = Field(
        None, description="Delete rows that the source deleted. On for mirror and replace, off for upsert unless told otherwise."
    )
    columns: dict[str, str] = Field({}, description="Other names for columns: `{createdate: created_at}`.")
    record_columns: list[RecordColumn] | None = Field(
        None,
        description="What to store about each change besides its data, as `_muxly_...` columns; `[seq, op, at]` for append, else none.",
    )
    evolve: bool = Field(True, description="Create the table, add columns and widen types as the source's change; false: fail instead.")

    @field_validator("url")
    @classmethod
    def _known_database(cls, url: SecretStr) -> SecretStr:
        text = url.get_secret_value()
        if text.startswith(_POSTGRES) or (text.startswith(_SQLITE) and len(text) > len(_SQLITE)):
            return url
        raise ValueError("the address must start with postgresql:// or sqlite:/// (a file); other databases are not supported")

    @model_validator(mode="after")
    def _consistent(self) -> "Database":
        if self.schema_ and self._dialect_name == "sqlite":
            raise ValueError("SQLite has no schemas; leave `schema` out")
        if self.mode == "append" and self.deletes:
            raise ValueError("`mode: append` keeps every change as a row and deletes none; use `mode: mirror`, or leave `deletes` out")
        if self.mode in ("mirror", "replace") and self.deletes is False:
            raise ValueError(f"`mode: {self.mode}` deletes what the source deleted; use `mode: upsert` to keep it")
        return self

    def deliver(self, delivery: Delivery) -> Receipt:
        """Write the rows and the offset in one transaction; a stretch that was written already is left alone."""
        landing = self._landing(delivery)
        written = self._dialect.write(self._address, landing)
        detail: dict[str, object] = {"table": landing.target, "rows_written": written.written, "rows_deleted": written.deleted}
        if written.repeated:
            detail["repeated"] = True
        if written.evolved:
            detail["table_changes"] = list(written.evolved)
        return Receipt(len(delivery.rows), detail=detail)

    def position(self, delivery_id: str, table_id: str) -> int | None:
        """The seq stored with the rows; None before the first delivery."""
        held: int | None = self._dialect.position(self._address, self.schema_, delivery_id, table_id)
        return held

    def rewind(self, delivery_id: str, table_id: str, seq: int) -> None:
        """Forget that anything after `seq` was delivered, so that it is taken again."""
        self._dialect.rewind(self._address, self.schema_, delivery_id, table_id, seq)

    def check(self) -> CheckResult:
        """Sign in and see whether a table could be written; nothing is written."""
        tried = f"connect to {self._dialect.describe(self._address)}"
        try:
            return CheckResult("ok", tried, self._dialect.check(self._address, self.schema_))
        except MuxlyError as error:
            return CheckResult("failed", tried, error.what, error.do)

    def public_name(self, table: str) -> str:
        """The table with its schema."""
        name = self.table or table.replace(".", "_")
        return f"{self.schema_}.{name}" if self.schema_ else name

    def _landing(self, delivery: Delivery) -> Landing:
        postgres = self._dialect_name == "postgres"
        shown: list[RecordColumn] = ["seq", "op", "at"] if self.mode == "append" else []
        return plan(
            delivery,
            schema=self.schema_,
            table=self.table or delivery.table.replace(".", "_"),
            mode=self.mode,
            deletes=self.mode in ("mirror", "replace") if self.deletes is None else self.deletes,
            evolve=self.evolve,
            rename=self.columns,
            record_columns=shown if self.record_columns is None else self.record_columns,
            longest_name=_POSTGRES_NAME_BYTES if postgres else 0,
            folds_case=not postgres,
        )

    @property
    def _dialect_name(self) -> Literal["postgres", "sqlite"]:
        return "sqlite" if self.url.get_secret_value().startswith("sqlite:") else "postgres"

    @property
    def _dialect(self) -> ModuleType:
        """What speaks to the database: `write`, `position`, `rewind`, `check`, `describe`. Imported here because the driver is heavy."""
        if self._dialect_name == "sqlite":
            from muxly_dagster.destinations.database import sqlite

            return sqlite
        from muxly_dagster.destinations.database import postgres

        return postgres

    @property
    def _address(self) -> str:
        """The URL without the driver SQLAlchemy would use; a file's path for SQLite."""
        url = self.url.get_secret_value()
        scheme, _, rest = url.partition("://")
        return url.removeprefix(_SQLITE) if scheme == "sqlite" else f"{scheme.partition('+')[0]}://{rest}"
