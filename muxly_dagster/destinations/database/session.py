"""What a database does for deliveries, in the same words whatever the database: a session is a connection with one transaction."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import pyarrow as pa
import pyarrow.compute as pc

from muxly_dagster import records
from muxly_dagster.destinations.database.landing import OFFSETS, Landing
from muxly_dagster.errors import ConfigurationError, RecordRefused

WAIT = "see that the database is running and can be reached; the next run goes on where this one stopped"
SIGN_IN = "correct the user and password in `url`"


@dataclass(frozen=True, slots=True)
class Table:
    """A table that is there: its columns and their types in the database's words; `ours`: Muxly made it."""

    columns: Mapping[str, str]
    ours: bool


@dataclass(frozen=True, slots=True)
class Index:
    """An index over whole columns of all rows, primary keys included."""

    columns: tuple[str, ...]
    unique: bool


@dataclass(frozen=True, slots=True)
class Widened:
    """A column's new type, and the SQL that makes its old values of the new type (`{}` is the column)."""

    type: str
    using: str = "{}"


class Session(ABC):
    """One connection in one transaction, committed when `opened` is left without an error.

    Every method raises as `Destination.deliver` does; nothing is kept then.
    """

    longest_name: ClassVar[int] = 0
    """The most bytes a name may have; 0: as many as one likes."""

    folds_case: ClassVar[bool] = False
    """Whether `A` and `a` are one column."""

    has_schemas: ClassVar[bool] = True

    changes_tables_in_transaction: ClassVar[bool] = True
    """Whether a table that was made or changed is as before after a rollback. If not, tables are changed first."""

    mark: ClassVar[str] = "?"
    """What stands for a value in a statement."""

    offset_types: ClassVar[tuple[str, str, str]] = ("TEXT", "BIGINT", "TEXT")
    """The types of texts, of the seq and of the time in the table of offsets."""

    schema: str

    @classmethod
    @abstractmethod
    def opened(cls, address: str, schema: str, target: str, *, lock: bool = False) -> AbstractContextManager[Self]:
        """Sign in and begin. `target` names the table in errors; `lock` says that it will be written."""

    @classmethod
    def there(cls, address: str) -> bool:
        """Whether there is anything to sign in to yet: a file that a delivery would create is not."""
        return True

    @classmethod
    @abstractmethod
    def describe(cls, address: str) -> str:
        """The address without credentials."""

    @classmethod
    @abstractmethod
    def check(cls, address: str, schema: str) -> str:
        """Say who signed in where, and that tables can be written there; leave nothing behind."""

    # ---- statements

    @abstractmethod
    def rows(self, statement: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """What a query answers."""

    @abstractmethod
    def run(self, statement: str, values: Sequence[object] = ()) -> int:
        """Run a statement; how many rows it changed."""

    def quote(self, name: str) -> str:
        """A name as it stands in a statement."""
        return '"' + name.replace('"', '""') + '"'

    def quoted(self, names: Sequence[str]) -> str:
        """Names with commas between them."""
        return ", ".join(map(self.quote, names))

    def name(self, table: str) -> str:
        """A table with its schema as it stands in a statement."""
        return f"{self.quote(self.schema)}.{self.quote(table)}" if self.schema else self.quote(table)

    # ---- the transaction

    def lock(self, table: str) -> None:  # noqa: B027
        """Make deliveries into one table wait for each other: a repeat finds the offset of the first, and no two of them deadlock."""

    def begin(self, table: str, *, rehearsal: bool = False) -> None:  # noqa: B027
        """Begin with the rows; where tables cannot be changed in a transaction, only this begins one. A rehearsal needs no turn."""

    @abstractmethod
    def rollback(self) -> None:
        """Undo everything."""

    # ---- the table

    @abstractmethod
    def table(self, name: str) -> Table | None:
        """What is there under a name. Raises ConfigurationError for a view."""

    @abstractmethod
    def indexes(self, table: str) -> list[Index]:
        """The table's indexes."""

    @abstractmethod
    def column_type(self, field: pa.Field, landing: Landing) -> str:
        """The type to create for a lake column."""

    @abstractmethod
    def fits(self, field: pa.Field, present: str, *, ours: bool) -> bool:
        """Whether a column of the type `present` takes this lake column's values as they are: exactly, or by refusing one aloud.

        `ours` says that Muxly created the table.
        """

    def widened(self, field: pa.Field, present: str, landing: Landing) -> Widened | None:
        """What a column that Muxly created must become to hold its old values and the lake column's; None if there is no such type."""
        return None

    @abstractmethod
    def create(self, landing: Landing, columns: Mapping[str, str]) -> None:
        """Create the table, with the landing's key and a note that Muxly made it."""

    def create_offsets(self, columns: str) -> None:
        """Create the table of offsets, if nobody else did meanwhile."""
        self.run(f"CREATE TABLE IF NOT EXISTS {self.name(OFFSETS)} ({columns})")

    def add_columns(self, landing: Landing, columns: Mapping[str, str]) -> None:
        """Add columns, null in the rows that are there."""
        for name, type_ in columns.items():
            self.run(f"ALTER TABLE {self.name(landing.table)} ADD COLUMN {self.quote(name)} {type_}")

    def widen(self, landing: Landing, columns: Mapping[str, Widened]) -> None:
        """Change the types of columns, their values with them."""
        raise NotImplementedError(f"{type(self).__name__} widens no columns")

    def move_into(self, copy: str, table: str, names: Sequence[str], columns: Mapping[str, Widened], indexes: Sequence[str]) -> None:
        """Let a table made as `copy`, with columns of these names, take the place of `table`: with its rows, and its indexes' statements.

        For databases that cannot change a column's type in place; `columns` are those that are widened.
        """
        values = [columns[name].using.format(self.quote(name)) if name in columns else self.quote(name) for name in names]
        self.run(f"INSERT INTO {self.name(copy)} ({self.quoted(names)}) SELECT {', '.join(values)} FROM {self.name(table)}")
        self.run(f"DROP TABLE {self.name(table)}")
        self.run(f"ALTER TABLE {self.name(copy)} RENAME TO {self.quote(table)}")
        for statement in indexes:
            self.run(statement)

    def create_index(self, landing: Landing, name: str, columns: Sequence[str], *, unique: bool) -> bool:
        """Create an index; False where rows that are there do not let it be unique."""
        self.run(f"CREATE {'UNIQUE ' if unique else ''}INDEX {self.quote(name)} ON {self.name(landing.table)} ({self.quoted(columns)})")
        return True

    # ---- the rows

    def empty(self, landing: Landing) -> int:
        """Delete every row; how many there were."""
        return self.run(f"DELETE FROM {self.name(landing.table)}")

    @abstractmethod
    def existing(self, landing: Landing, keys: pa.Table) -> int:
        """How many of these keys, each of which is there once, the table has."""

    @abstractmethod
    def upsert(self, landing: Landing, table: Table, rows: pa.Table) -> None:
        """Write rows; with a key, each over the one that has its key. `table` is what it was before anything was widened or added."""

    @abstractmethod
    def delete(self, landing: Landing, keys: pa.Table) -> int:
        """Delete rows by their keys; how many there were."""


def does_not_fit(landing: Landing, field: pa.Field, present: str, wanted: str) -> ConfigurationError:
    """The error for a column of a type that cannot hold what arrives."""
    return ConfigurationError(
        f"column {field.name} is {present} in the table, but what arrives is {wanted}",
        do=f"change the column to {wanted}, set another `table`, or another name for the column with `columns:`",
        where=landing.target,
    )


def refuse_inexact(rows: pa.Table, table: Table, doubles: Sequence[str], where: str) -> None:
    """Databases round a large whole number into a column of doubles without a word: refuse it."""
    for field in rows.schema:
        if field.type == pa.int64() and table.columns.get(field.name, "").lower() in doubles:
            try:
                pc.cast(rows[field.name], pa.float64())
            except pa.ArrowInvalid as error:
                raise RecordRefused(f"column {field.name} is {table.columns[field.name]} in the table: {error}", where=where) from None


def as_texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Values as exact text: times in RFC 3339 (UTC), dates in ISO 8601, numbers with all their digits. Bytes stay bytes."""
    if column.type == records.TIMESTAMP:
        return pc.replace_substring(pc.cast(column, pa.string()), " ", "T", max_replacements=1)
    return column if pa.types.is_binary(column.type) else pc.cast(column, pa.string())
