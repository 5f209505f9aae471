"""SQLite for the `database` destination: INSERT ... ON CONFLICT, DELETE and the offset in one transaction of a WAL file."""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc

from muxly_dagster import records
from muxly_dagster.destinations.database.landing import MADE_BY, Landing
from muxly_dagster.destinations.database.session import Index, Session, Table, Widened
from muxly_dagster.errors import ConfigurationError, MuxlyError, RecordRefused, RetryLater

_BUSY_SECONDS = 30.0
_STATEMENT_ROWS = 10_000
_KEYS = "_muxly_keys"


class SqliteSession(Session):
    """An open file, with the one write lock it has."""

    folds_case: ClassVar[bool] = True
    has_schemas: ClassVar[bool] = False

    schema = ""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    @classmethod
    @contextmanager
    def opened(cls, address: str, schema: str, target: str, *, lock: bool = False) -> Iterator["SqliteSession"]:
        file = _file(address)
        with _explained(" ".join(filter(None, [str(file), target]))):
            if lock:
                file.parent.mkdir(parents=True, exist_ok=True)
            with _transaction(file, wal=lock) as connection:
                yield cls(connection)

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
            tables = session.rows("SELECT count(*) FROM sqlite_master WHERE type = 'table'")[0][0]
            return f"{file} has {tables} tables and can be written"

    def rows(self, statement: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        return self._connection.execute(statement, tuple(values)).fetchall()

    def run(self, statement: str, values: Sequence[object] = ()) -> int:
        return self._connection.execute(statement, tuple(values)).rowcount

    def rollback(self) -> None:
        self._connection.execute("ROLLBACK")

    # ---- the table

    def table(self, name: str) -> Table | None:
        found = self.rows("SELECT type, sql FROM sqlite_master WHERE name = ? COLLATE NOCASE AND type <> 'index'", [name])
        if not found:
            return None
        if found[0][0] != "table":
            raise ConfigurationError(f"{name} is not a table but a {found[0][0]}", do="set another `table`")
        return Table({row[1]: row[2] for row in self._info(name)}, f"/* {MADE_BY}" in str(found[0][1]))

    def indexes(self, table: str) -> list[Index]:
        found = [Index(tuple(row[1] for row in sorted(self._info(table), key=lambda row: row[5]) if row[5]), True)]
        for _, index, unique, _, partial in self.rows(f"PRAGMA index_list({self.quote(table)})"):
            columns = [row[2] for row in self.rows(f"PRAGMA index_info({self.quote(index)})")]
            if not partial and None not in columns:
                found.append(Index(tuple(columns), bool(unique)))
        return found

    def column_type(self, field: pa.Field, landing: Landing) -> str:
        return _column_type(field)

    def fits(self, field: pa.Field, present: str, *, ours: bool) -> bool:
        """BLOB means that SQLite converts nothing."""
        wanted, affinity = _column_type(field), _affinity(present)
        if wanted == "BLOB" or affinity in ("BLOB", "TEXT"):
            return True
        return wanted != "TEXT" and not (wanted == "BIGINT" and affinity == "REAL")

    def widened(self, field: pa.Field, present: str, landing: Landing) -> Widened | None:
        if _column_type(field) != "TEXT":
            return Widened("BIGINT")
        return Widened("TEXT", "CASE {} WHEN 1 THEN 'true' WHEN 0 THEN 'false' END" if present.upper() == "BOOLEAN" else "{}")

    def create(self, landing: Landing, columns: Mapping[str, str]) -> None:
        self._create(landing.table, columns, landing.key)

    def widen(self, landing: Landing, columns: Mapping[str, Widened]) -> None:
        """SQLite cannot change a column's type: copy the table into one that has the wider types, with its indexes."""
        table, info = landing.table, self._info(landing.table)
        key = [row[1] for row in sorted(info, key=lambda row: row[5]) if row[5]]
        types = {row[1]: columns[row[1]].type if row[1] in columns else row[2] for row in info}
        extras = self.rows(
            "SELECT sql FROM sqlite_master WHERE tbl_name = ? COLLATE NOCASE AND type IN ('index', 'trigger') AND sql IS NOT NULL", [table]
        )
        copy = f"{table}_muxly_rebuilt"
        self._create(copy, types, key)
        self.move_into(copy, table, list(types), columns, [statement for (statement,) in extras])

    def create_index(self, landing: Landing, name: str, columns: Sequence[str], *, unique: bool) -> bool:
        try:
            return super().create_index(landing, name, columns, unique=unique)
        except sqlite3.IntegrityError:
            return False

    def _create(self, table: str, columns: Mapping[str, str], key: Sequence[str]) -> None:
        parts = [f"{self.quote(name)} {type_}" for name, type_ in columns.items()]
        if key:
            parts.append(f"PRIMARY KEY ({self.quoted(key)})")
        self.run(f"CREATE TABLE {self.quote(table)} (/* {MADE_BY} */ {', '.join(parts)})")

    def _info(self, table: str) -> list[tuple[Any, ...]]:
        """For each column: its place, name, type, whether null is barred, its default, its place in the key."""
        return self.rows(f"PRAGMA table_info({self.quote(table)})")

    # ---- the rows

    def existing(self, landing: Landing, keys: pa.Table) -> int:
        key = self.quoted(landing.key)
        self.run(f"CREATE TEMP TABLE {_KEYS} AS SELECT {key} FROM {self.name(landing.table)} LIMIT 0")
        self._each_row(f"INSERT INTO {_KEYS} ({key}) VALUES ({', '.join('?' * len(landing.key))})", self._as_stored(landing, keys))
        same = " AND ".join(f"t.{self.quote(c)} = s.{self.quote(c)}" for c in landing.key)
        found = self.rows(f"SELECT count(*) FROM {_KEYS} s JOIN {self.name(landing.table)} t ON {same}")
        self.run(f"DROP TABLE {_KEYS}")
        return int(found[0][0])

    def upsert(self, landing: Landing, table: Table, rows: pa.Table) -> None:
        names = rows.column_names
        statement = f"INSERT INTO {self.quote(landing.table)} ({self.quoted(names)}) VALUES ({', '.join('?' * len(names))})"
        if landing.key:
            sets = ", ".join(f"{self.quote(n)} = excluded.{self.quote(n)}" for n in names if n not in landing.key)
            statement += f" ON CONFLICT ({self.quoted(landing.key)}) DO " + (f"UPDATE SET {sets}" if sets else "NOTHING")
        self._each_row(statement, self._as_stored(landing, rows))

    def delete(self, landing: Landing, keys: pa.Table) -> int:
        same = " AND ".join(f"{self.quote(n)} = ?" for n in keys.column_names)
        return self._each_row(f"DELETE FROM {self.quote(landing.table)} WHERE {same}", keys)

    def _each_row(self, statement: str, rows: pa.Table) -> int:
        changed = 0
        for part in rows.to_batches(max_chunksize=_STATEMENT_ROWS):
            changed += self._connection.executemany(statement, zip(*map(_values, part.columns), strict=True)).rowcount
        return changed

    def _as_stored(self, landing: Landing, rows: pa.Table) -> pa.Table:
        """Numbers on their way into a text column as text: SQLite itself would write 15 digits of them."""
        texts = {row[1].lower() for row in self._info(landing.table) if _affinity(row[2]) == "TEXT"}
        columns = [_exact_text(c) if n.lower() in texts else c for n, c in zip(rows.column_names, rows.columns, strict=True)]
        return pa.table(columns, names=rows.column_names)


def _column_type(field: pa.Field) -> str:
    """Decimals, dates, times and JSON are text: every other affinity would change them. BIGINT, as INTEGER keys take no text later."""
    names = {pa.int64(): "BIGINT", pa.float64(): "DOUBLE", pa.bool_(): "BOOLEAN", pa.binary(): "BLOB"}
    return names.get(field.type, "TEXT")


def _affinity(declared: str) -> str:
    """How SQLite converts what is stored in a column of this declared type (https://www.sqlite.org/datatype3.html, 3.1)."""
    text = declared.upper()
    for affinity, marks in (
        ("INTEGER", ("INT",)),
        ("TEXT", ("CHAR", "CLOB", "TEXT")),
        ("BLOB", ("BLOB",)),
        ("REAL", ("REAL", "FLOA", "DOUB")),
    ):
        if any(mark in text for mark in marks):
            return affinity
    return "NUMERIC" if text else "BLOB"


def _exact_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.cast(column, pa.string()) if column.type in (pa.int64(), pa.float64(), pa.bool_()) else column


def _values(column: pa.Array) -> list[Any]:
    """Python values as SQLite keeps them: text for decimals, dates (ISO 8601) and times (RFC 3339, UTC)."""
    if column.type == records.TIMESTAMP:
        column = pc.replace_substring(pc.cast(column, pa.string()), " ", "T", max_replacements=1)
    elif pa.types.is_decimal(column.type) or pa.types.is_date(column.type):
        column = pc.cast(column, pa.string())
    values: list[Any] = column.to_numpy(zero_copy_only=False).tolist() if _plain(column) else column.to_pylist()
    return values


def _plain(column: pa.Array) -> bool:
    """Numbers without nulls pass through NumPy, which is several times faster."""
    return column.null_count == 0 and column.type in (pa.int64(), pa.float64(), pa.bool_())


# ---- the file -------------------------------------------------------------------------------------------------------


def _file(address: str) -> Path:
    return Path(unquote(address.partition("?")[0])).expanduser()


@contextmanager
def _transaction(file: Path, *, wal: bool = False) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(file, timeout=_BUSY_SECONDS, isolation_level=None)) as connection:
        if wal:
            # Somebody else may have the file open and keep the mode from being changed: then it works without.
            with suppress(sqlite3.OperationalError):
                connection.execute("PRAGMA journal_mode = WAL")
        # FULL makes a committed offset survive a power cut together with its rows.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        if connection.in_transaction:
            connection.execute("COMMIT")


@contextmanager
def _explained(where: str) -> Iterator[None]:
    """Turn the driver's errors into those that say what to do. Codes: SQLite documentation, result codes."""
    try:
        yield
    except sqlite3.Error as error:
        raise _as_muxly_error(error, where) from error
    except OverflowError as error:
        raise RecordRefused(str(error), where=where) from error
    except OSError as error:
        raise ConfigurationError(f"the folder of the database cannot be used: {error.strerror}", do="correct `url`", where=where) from error


def _as_muxly_error(error: sqlite3.Error, where: str) -> MuxlyError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG):
        return RecordRefused(str(error), where=where)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return RetryLater(
            "another program is writing to the database", do="close what holds it open; the next run goes on from here", where=where
        )
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
        return RetryLater(
            f"the database file cannot grow: {error}", do="free some space on its disk; the next run goes on from here", where=where
        )
    if code == sqlite3.SQLITE_READONLY:
        return ConfigurationError("the database file is read-only", do="make it writable, or correct `url`", where=where)
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return ConfigurationError(f"this is no SQLite database: {error}", do="correct `url`, or move the file away", where=where)
    if code == sqlite3.SQLITE_CANTOPEN:
        return ConfigurationError(f"the database file cannot be opened: {error}", do="correct `url` or the file's permissions", where=where)
    return ConfigurationError(f"the database refused the table: {error}", do="change the table, or set another `table`", where=where)
