"""DuckDB for the `database` destination: Arrow rows inserted where they lie, DELETE and the offset, in one transaction of a file."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from muxly_dagster import records
from muxly_dagster.destinations.database.landing import MADE_BY, Landing
from muxly_dagster.destinations.database.session import Index, Session, Table, Widened, as_texts, refuse_inexact
from muxly_dagster.errors import ConfigurationError, MuxlyError, RecordRefused, RetryLater

_ROWS = "_muxly_rows"
_WHOLE = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT")
_FROM_TEXT = ("VARCHAR", "JSON", "UUID")

_writing: dict[str, threading.Lock] = {}
_writing_guard = threading.Lock()


class DuckDbSession(Session):
    """An open file. DuckDB gives it to one process at a time; within this one, deliveries take turns."""

    folds_case: ClassVar[bool] = True
    offset_types: ClassVar[tuple[str, str, str]] = ("VARCHAR", "BIGINT", "VARCHAR")

    def __init__(self, connection: duckdb.DuckDBPyConnection, schema: str) -> None:
        self._connection, self.schema = connection, schema
        self._ended = False

    @classmethod
    @contextmanager
    def opened(cls, address: str, schema: str, target: str, *, lock: bool = False) -> Iterator["DuckDbSession"]:
        file = _file(address)
        with _writing_guard:
            turn = _writing.setdefault(str(file.absolute()), threading.Lock())
        with _explained(" ".join(filter(None, [str(file), target]))), turn:
            file.parent.mkdir(parents=True, exist_ok=True)
            with duckdb.connect(str(file)) as connection:
                # What a text says of a time has to mean the same everywhere, and no extension is fetched from anywhere.
                connection.execute("SET TimeZone = 'UTC'")
                connection.execute("SET autoinstall_known_extensions = false")
                connection.begin()
                session = cls(connection, schema)
                yield session
                if not session._ended:
                    connection.commit()

    @classmethod
    def there(cls, address: str) -> bool:
        return _file(address).exists()

    @classmethod
    def describe(cls, address: str) -> str:
        return str(_file(address))

    @classmethod
    def check(cls, address: str, schema: str) -> str:
        file = _file(address)
        if not file.exists():
            folder = next(p for p in file.absolute().parents if p.exists())
            if not folder.is_dir():
                raise ConfigurationError(f"{folder} is not a folder", do="correct `url`", where=str(file))
            return f"{file} will be created"
        with cls.opened(address, schema, "") as session:
            return f"{file} has {session.rows('SELECT count(*) FROM duckdb_tables()')[0][0]} tables and can be written"

    def rows(self, statement: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        return self._connection.execute(statement, list(values)).fetchall()

    def run(self, statement: str, values: Sequence[object] = ()) -> int:
        found = self._connection.execute(statement, list(values)).fetchall()
        return int(found[0][0]) if found and isinstance(found[0][0], int) else 0

    def rollback(self) -> None:
        self._connection.rollback()
        self._ended = True

    # ---- the table

    def table(self, name: str) -> Table | None:
        query = ("SELECT comment, 'table' FROM duckdb_tables() WHERE {} UNION ALL SELECT NULL, 'view' FROM duckdb_views() WHERE {}").format(
            *[
                f"database_name = current_database() AND schema_name = {self._schema_name} AND lower({kind}_name) = lower(?)"
                for kind in ("table", "view")
            ]
        )
        found = self.rows(query, [name, name])
        if not found:
            return None
        if found[0][1] == "view":
            raise ConfigurationError(f"{name} is not a table but a view", do="set another `table`", where=name)
        query = (
            "SELECT column_name, data_type FROM duckdb_columns() WHERE database_name = current_database()"
            f" AND schema_name = {self._schema_name} AND lower(table_name) = lower(?) ORDER BY column_index"
        )
        return Table(dict(self.rows(query, [name])), str(found[0][0] or "").startswith(MADE_BY))

    @property
    def _schema_name(self) -> str:
        return "'" + self.schema.replace("'", "''") + "'" if self.schema else "current_schema()"

    def indexes(self, table: str) -> list[Index]:
        place = f"database_name = current_database() AND schema_name = {self._schema_name} AND lower(table_name) = lower(?)"
        keys = self.rows(
            f"SELECT constraint_column_names FROM duckdb_constraints() WHERE {place} AND constraint_type IN ('PRIMARY KEY', 'UNIQUE')",
            [table],
        )
        found = [Index(tuple(columns), True) for (columns,) in keys]
        for expressions, unique in self.rows(f"SELECT expressions, is_unique FROM duckdb_indexes() WHERE {place}", [table]):
            columns = [part.strip().strip("'").strip('"').replace('""', '"') for part in str(expressions).strip("[]").split(", ")]
            found.append(Index(tuple(columns), unique))
        return found

    def column_type(self, field: pa.Field, landing: Landing) -> str:
        if records.is_json(field):
            return "JSON"
        if pa.types.is_decimal(field.type):
            return f"DECIMAL({field.type.precision},{field.type.scale})"
        names = {
            pa.int64(): "BIGINT",
            pa.float64(): "DOUBLE",
            pa.bool_(): "BOOLEAN",
            pa.date32(): "DATE",
            records.TIMESTAMP: "TIMESTAMP WITH TIME ZONE",
            pa.binary(): "BLOB",
        }
        return names.get(field.type, "VARCHAR")

    def fits(self, field: pa.Field, present: str, *, ours: bool) -> bool:
        type_ = field.type
        if records.is_json(field):
            return present in ("JSON", "VARCHAR") and not (ours and present == "VARCHAR")
        if pa.types.is_string(type_):
            return (present in _FROM_TEXT or present.startswith("ENUM")) and not (ours and present == "JSON")
        if present == "VARCHAR":
            return not pa.types.is_binary(type_)
        if type_ == pa.int64():
            return present in (*_WHOLE, "DOUBLE") or present.startswith("DECIMAL")
        if pa.types.is_decimal(type_):
            return present.startswith("DECIMAL") and int(present.rstrip(")").rpartition(",")[2]) >= type_.scale
        if type_ == pa.date32():
            return present in ("DATE", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE")
        if type_ == records.TIMESTAMP:
            return present in ("TIMESTAMP", "TIMESTAMP WITH TIME ZONE")
        return present == {pa.float64(): "DOUBLE", pa.bool_(): "BOOLEAN", pa.binary(): "BLOB"}.get(type_)

    def widened(self, field: pa.Field, present: str, landing: Landing) -> Widened | None:
        if records.is_json(field):
            return Widened("JSON", "to_json({})")
        if present == "JSON":
            return Widened("VARCHAR", "CAST({} AS VARCHAR)")
        before = _lake_type(present)
        if before is None:
            return None
        after = records.widen(before, field.type)
        if after == pa.string() and pa.types.is_binary(before):
            return Widened("VARCHAR", "to_base64({})")
        if after == pa.string() and before == records.TIMESTAMP:
            return Widened("VARCHAR", "strftime({}, '%Y-%m-%dT%H:%M:%S.%fZ')")
        return Widened(self.column_type(pa.field("", after), landing))

    def create_offsets(self, columns: str) -> None:
        self._create_schema()
        super().create_offsets(columns)

    def create(self, landing: Landing, columns: Mapping[str, str]) -> None:
        self._create_schema()
        self._create(landing.table, columns, landing.key)

    def widen(self, landing: Landing, columns: Mapping[str, Widened]) -> None:
        """No column's type can be changed while an index needs it: copy the table into one that has the wider types, with its indexes."""
        table = self.table(landing.table)
        assert table is not None
        place = f"database_name = current_database() AND schema_name = {self._schema_name} AND lower(table_name) = lower(?)"
        keys = self.rows(
            f"SELECT constraint_column_names FROM duckdb_constraints() WHERE {place} AND constraint_type = 'PRIMARY KEY'", [landing.table]
        )
        extras = self.rows(f"SELECT sql FROM duckdb_indexes() WHERE {place}", [landing.table])
        copy = f"{landing.table}_muxly_rebuilt"
        types = {name: columns[name].type if name in columns else type_ for name, type_ in table.columns.items()}
        self._create(copy, types, keys[0][0] if keys else ())
        self.move_into(copy, landing.table, list(types), columns, [statement for (statement,) in extras])

    def create_index(self, landing: Landing, name: str, columns: Sequence[str], *, unique: bool) -> bool:
        try:
            return super().create_index(landing, name, columns, unique=unique)
        except duckdb.ConstraintException:
            return False

    def _create(self, table: str, columns: Mapping[str, str], key: Sequence[str]) -> None:
        parts = [f"{self.quote(name)} {type_}" for name, type_ in columns.items()]
        if key:
            parts.append(f"PRIMARY KEY ({self.quoted(key)})")
        self.run(f"CREATE TABLE {self.name(table)} ({', '.join(parts)})")
        self.run(f"COMMENT ON TABLE {self.name(table)} IS '{MADE_BY}'")

    def _create_schema(self) -> None:
        if self.schema:
            self.run(f"CREATE SCHEMA IF NOT EXISTS {self.quote(self.schema)}")

    # ---- the rows

    def existing(self, landing: Landing, keys: pa.Table) -> int:
        with self._at_hand(landing, keys):
            return int(self.rows(f"SELECT count(*) FROM {self.name(landing.table)} t JOIN {_ROWS} s ON {self._same(landing)}")[0][0])

    def upsert(self, landing: Landing, table: Table, rows: pa.Table) -> None:
        refuse_inexact(rows, table, ("double",), landing.target)
        columns = self.quoted(rows.column_names)
        statement = f"INSERT INTO {self.name(landing.table)} ({columns}) SELECT {columns} FROM {_ROWS}"
        if landing.key:
            sets = ", ".join(f"{self.quote(c)} = excluded.{self.quote(c)}" for c in rows.column_names if c not in landing.key)
            statement += f" ON CONFLICT ({self.quoted(landing.key)}) " + (f"DO UPDATE SET {sets}" if sets else "DO NOTHING")
        with self._at_hand(landing, rows):
            self.run(statement)

    def delete(self, landing: Landing, keys: pa.Table) -> int:
        with self._at_hand(landing, keys):
            return self.run(f"DELETE FROM {self.name(landing.table)} t USING {_ROWS} s WHERE {self._same(landing)}")

    def _same(self, landing: Landing) -> str:
        return " AND ".join(f"t.{self.quote(c)} = s.{self.quote(c)}" for c in landing.key)

    @contextmanager
    def _at_hand(self, landing: Landing, rows: pa.Table) -> Iterator[None]:
        """The rows under a name that statements can use."""
        table = self.table(landing.table)
        types = {name.lower(): type_ for name, type_ in table.columns.items()} if table else {}
        columns = [_for(types.get(name.lower(), ""), column) for name, column in zip(rows.column_names, rows.columns, strict=True)]
        self._connection.register(_ROWS, pa.table(columns, names=rows.column_names))
        yield
        self._connection.unregister(_ROWS)  # after an error the transaction takes no more statements; the name goes with the connection


def _for(present: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Values on their way into a text column as text in Muxly's own form; times without their zone, which is UTC, where it has none."""
    if present == "VARCHAR":
        return as_texts(column)
    if present == "TIMESTAMP" and column.type == records.TIMESTAMP:
        return pc.cast(column, pa.timestamp("us"))
    return column


def _lake_type(present: str) -> pa.DataType | None:
    """The lake type that Muxly creates this column type for."""
    if present.startswith("DECIMAL("):
        precision, scale = present[len("DECIMAL(") : -1].split(",")
        return pa.decimal128(int(precision), int(scale))
    return {
        "BIGINT": pa.int64(),
        "DOUBLE": pa.float64(),
        "BOOLEAN": pa.bool_(),
        "DATE": pa.date32(),
        "TIMESTAMP WITH TIME ZONE": records.TIMESTAMP,
        "BLOB": pa.binary(),
        "VARCHAR": pa.string(),
    }.get(present)


def _file(address: str) -> Path:
    return Path(unquote(address.partition("?")[0])).expanduser()


# ---- errors ---------------------------------------------------------------------------------------------------------


@contextmanager
def _explained(where: str) -> Iterator[None]:
    """Turn the driver's errors into those that say what to do."""
    try:
        yield
    except duckdb.Error as error:
        raise _as_muxly_error(error, where) from error
    except OSError as error:
        raise ConfigurationError(f"the folder of the database cannot be used: {error.strerror}", do="correct `url`", where=where) from error


def _as_muxly_error(error: duckdb.Error, where: str) -> MuxlyError:
    what = str(error).strip()
    if isinstance(error, duckdb.IOException) and "lock" in what.lower():
        return RetryLater(
            f"another program has the database file open, and DuckDB gives it to one at a time: {what.partition(' See also')[0]}",
            do="close that program, or let it read the file with `read_only`; the next run goes on from here",
            where=where,
        )
    if isinstance(error, duckdb.IOException) and ("not a valid DuckDB database file" in what or "older version" in what):
        return ConfigurationError(f"this is no DuckDB database: {what}", do="correct `url`, or move the file away", where=where)
    if isinstance(error, duckdb.OutOfMemoryException | duckdb.IOException):
        return RetryLater(
            f"the database could not finish: {what}", do="free some space or memory; the next run goes on from here", where=where
        )
    if isinstance(error, duckdb.TransactionException):
        return RetryLater(f"the database is in use: {what}", do="the next run goes on from here", where=where)
    if isinstance(error, duckdb.ConnectionException):
        return RetryLater(f"the database file is open in this process for something else: {what}", do="close it there first", where=where)
    if isinstance(
        error, duckdb.ConstraintException | duckdb.ConversionException | duckdb.OutOfRangeException | duckdb.InvalidInputException
    ):
        return RecordRefused(what, where=where)
    if isinstance(error, duckdb.InternalException | duckdb.FatalException):
        return MuxlyError(f"the database answered with an error: {what}", where=where)
    return ConfigurationError(f"the database refused the table: {what}", do="change the table, or set another `table`", where=where)
