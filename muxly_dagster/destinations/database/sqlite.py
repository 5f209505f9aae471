"""SQLite for the `database` destination: INSERT ... ON CONFLICT, DELETE and the offset in one transaction of a WAL file."""

import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc

from muxly_dagster import records
from muxly_dagster.destinations.database.landing import MADE_BY, OFFSETS, Landing, Written, gone, no_unique_key, now, surplus_rows
from muxly_dagster.errors import ConfigurationError, MuxlyError, RecordRefused, RetryLater

_BUSY_SECONDS = 30.0
_STATEMENT_ROWS = 10_000


def write(path: str, landing: Landing) -> Written:
    """Apply a landing and move the offset. Raises as `Destination.deliver` does; nothing is kept then."""
    file = _file(path)
    with _explained(f"{file} {landing.target}"):
        file.parent.mkdir(parents=True, exist_ok=True)
        with _transaction(file, wal=True) as connection:
            position, begun = _offsets(connection, landing)
            if position is not None and position >= landing.upto:
                return Written(position=position, repeated=True)
            if position and not _declared(connection, landing.table):
                raise gone(landing, position)
            evolved = _fit_table(connection, landing)
            if landing.mode == "replace" and not begun:
                connection.execute(f"DELETE FROM {_quoted(landing.table)}")
            changes = landing.changes(position or 0)
            _upsert(connection, landing, changes.upserts)
            deleted = _delete(connection, landing, changes.deletes)
            _set_offset(connection, landing)
            return Written(len(changes.upserts), deleted, position, evolved=tuple(evolved))


def position(path: str, schema: str, delivery_id: str, table_id: str) -> int | None:
    """The seq stored for a delivery of a lake table. A file that is not there yet is not created."""
    file = _file(path)
    if not file.exists():
        return None
    with _explained(str(file)), _transaction(file) as connection:
        return _position(connection, delivery_id, table_id)


def rewind(path: str, schema: str, delivery_id: str, table_id: str, seq: int) -> None:
    """Lower the stored seq."""
    file = _file(path)
    if not file.exists():
        return
    with _explained(str(file)), _transaction(file) as connection:
        if _declared(connection, OFFSETS):
            connection.execute(
                f"UPDATE {OFFSETS} SET seq = ? WHERE delivery = ? AND table_id = ? AND seq > ?", (seq, delivery_id, table_id, seq)
            )


def check(path: str, schema: str) -> str:
    """Say whether the file can be written. Raises ConfigurationError when it cannot."""
    file = _file(path)
    if not file.exists():
        folder = next(p for p in file.absolute().parents if p.exists())
        if not folder.is_dir():
            raise ConfigurationError(f"{folder} is not a folder", do="correct `url`", where=str(file))
        return f"{file} will be created"
    with _explained(str(file)), _transaction(file) as connection:
        tables = connection.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table'").fetchone()[0]
        return f"{file} has {tables} tables and can be written"


def describe(path: str) -> str:
    """The file."""
    return str(_file(path))


def _file(path: str) -> Path:
    return Path(unquote(path.partition("?")[0])).expanduser()


# ---- the connection -------------------------------------------------------------------------------------------------


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


# ---- offsets --------------------------------------------------------------------------------------------------------


def _offsets(connection: sqlite3.Connection, landing: Landing) -> tuple[int | None, bool]:
    """The delivery's position, and whether any delivery of this lake table into this table has begun."""
    connection.execute(
        f"CREATE TABLE IF NOT EXISTS {OFFSETS} (delivery TEXT NOT NULL, table_id TEXT NOT NULL, target TEXT NOT NULL, seq INTEGER NOT NULL,"
        " run_id TEXT NOT NULL, at TEXT NOT NULL, PRIMARY KEY (delivery, table_id))"
    )
    begun = connection.execute(
        f"SELECT 1 FROM {OFFSETS} WHERE target = ? AND table_id = ? LIMIT 1", (landing.table, landing.table_id)
    ).fetchone()
    return _position(connection, landing.delivery_id, landing.table_id), begun is not None


def _position(connection: sqlite3.Connection, delivery_id: str, table_id: str) -> int | None:
    if not _declared(connection, OFFSETS):
        return None
    row = connection.execute(f"SELECT seq FROM {OFFSETS} WHERE delivery = ? AND table_id = ?", (delivery_id, table_id)).fetchone()
    return int(row[0]) if row else None


def _set_offset(connection: sqlite3.Connection, landing: Landing) -> None:
    values = (landing.delivery_id, landing.table_id, landing.table, landing.upto, landing.run_id, now())
    connection.execute(f"INSERT OR REPLACE INTO {OFFSETS} (delivery, table_id, target, seq, run_id, at) VALUES (?, ?, ?, ?, ?, ?)", values)


# ---- the table ------------------------------------------------------------------------------------------------------


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _list(names: Sequence[str]) -> str:
    return ", ".join(map(_quoted, names))


def _declared(connection: sqlite3.Connection, table: str) -> str:
    """The statement that created a table; empty if there is none."""
    row = connection.execute("SELECT type, sql FROM sqlite_master WHERE name = ? COLLATE NOCASE", (table,)).fetchone()
    if row and row[0] != "table":
        raise ConfigurationError(f"{table} is not a table but a {row[0]}", do="set another `table`")
    return str(row[1]) if row else ""


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


def _fits(field: pa.Field, affinity: str) -> bool:
    """Whether the column keeps this lake column's values as they are. BLOB means that SQLite converts nothing."""
    wanted = _column_type(field)
    if wanted == "BLOB" or affinity in ("BLOB", "TEXT"):
        return True
    return wanted != "TEXT" and not (wanted == "BIGINT" and affinity == "REAL")


def _fit_table(connection: sqlite3.Connection, landing: Landing) -> list[str]:
    """Create the table, or add and widen columns until it holds the landing's. Says what was changed."""
    statement = _declared(connection, landing.table)
    if not statement:
        if not landing.evolve:
            raise ConfigurationError("the table does not exist", do="create it, or remove `evolve: false`", where=landing.target)
        _create(connection, landing.table, {f.name: _column_type(f) for f in landing.columns}, landing.key)
        return ["created the table"]
    present = {name: (name_, type_) for name_, type_ in _table_columns(connection, landing.table) for name in [name_.lower()]}
    said, wider = [], {}
    for field in landing.columns:
        known = present.get(field.name.lower())
        if known is None:
            said.append(f"added column {field.name} ({_column_type(field)})")
        elif not _fits(field, _affinity(known[1])):
            if f"/* {MADE_BY}" not in statement:
                raise ConfigurationError(
                    f"column {field.name} is {known[1]} in the table, but what arrives is {field.type}",
                    do="set another `table`, or rename the column with `columns:`",
                    where=landing.target,
                )
            wider[known[0]] = _column_type(field) if _column_type(field) == "TEXT" else "BIGINT"
            said.append(f"changed column {field.name} from {known[1]} to {wider[known[0]]}")
    if said and not landing.evolve:
        raise ConfigurationError(
            f"the table needs a change that `evolve: false` forbids: {'; '.join(said)}", do="change it by hand", where=landing.target
        )
    for field in landing.columns:
        if field.name.lower() not in present:
            connection.execute(f"ALTER TABLE {_quoted(landing.table)} ADD COLUMN {_quoted(field.name)} {_column_type(field)}")
    if wider:
        _rebuild(connection, landing.table, wider)
    if landing.key and not _has_unique_key(connection, landing.table, landing.key):
        said.append(_add_unique_key(connection, landing))
    return said


def _table_columns(connection: sqlite3.Connection, table: str) -> list[tuple[str, str]]:
    return [(row[1], row[2]) for row in connection.execute(f"PRAGMA table_info({_quoted(table)})")]


def _create(connection: sqlite3.Connection, table: str, columns: dict[str, str], key: Sequence[str]) -> None:
    parts = [f"{_quoted(name)} {type_}" for name, type_ in columns.items()]
    if key:
        parts.append(f"PRIMARY KEY ({_list(key)})")
    connection.execute(f"CREATE TABLE {_quoted(table)} (/* {MADE_BY} */ {', '.join(parts)})")


def _rebuild(connection: sqlite3.Connection, table: str, wider: dict[str, str]) -> None:
    """SQLite cannot change a column's type: copy the table into one that has the wider types, with its indexes."""
    info = connection.execute(f"PRAGMA table_info({_quoted(table)})").fetchall()
    key = [row[1] for row in sorted(info, key=lambda row: row[5]) if row[5]]
    columns = {row[1]: wider.get(row[1], row[2]) for row in info}
    extras = connection.execute(
        "SELECT sql FROM sqlite_master WHERE tbl_name = ? COLLATE NOCASE AND type IN ('index', 'trigger') AND sql IS NOT NULL", (table,)
    ).fetchall()
    copy = f"{table}_muxly_rebuilt"
    _create(connection, copy, columns, key)
    values = [_as_text(row[1]) if row[1] in wider and row[2].upper() == "BOOLEAN" else _quoted(row[1]) for row in info]
    connection.execute(f"INSERT INTO {_quoted(copy)} ({_list(list(columns))}) SELECT {', '.join(values)} FROM {_quoted(table)}")
    connection.execute(f"DROP TABLE {_quoted(table)}")
    connection.execute(f"ALTER TABLE {_quoted(copy)} RENAME TO {_quoted(table)}")
    for (statement,) in extras:
        connection.execute(statement)


def _as_text(column: str) -> str:
    return f"CASE {_quoted(column)} WHEN 1 THEN 'true' WHEN 0 THEN 'false' END"


def _has_unique_key(connection: sqlite3.Connection, table: str, key: Sequence[str]) -> bool:
    wanted = {name.lower() for name in key}
    info = connection.execute(f"PRAGMA table_info({_quoted(table)})").fetchall()
    if {row[1].lower() for row in info if row[5]} == wanted:
        return True
    for _, index, unique, _, partial in connection.execute(f"PRAGMA index_list({_quoted(table)})").fetchall():
        columns = {str(row[2]).lower() for row in connection.execute(f"PRAGMA index_info({_quoted(index)})")}
        if unique and not partial and columns == wanted:
            return True
    return False


def _add_unique_key(connection: sqlite3.Connection, landing: Landing) -> str:
    if not landing.evolve:
        raise no_unique_key(landing)
    name = re.sub(r"\W", "_", f"{landing.table}_{'_'.join(landing.key)}_key")
    try:
        connection.execute(f"CREATE UNIQUE INDEX {_quoted(name)} ON {_quoted(landing.table)} ({_list(landing.key)})")
    except sqlite3.IntegrityError:
        raise surplus_rows(landing) from None
    return f"added a unique index on {', '.join(landing.key)}"


# ---- the rows -------------------------------------------------------------------------------------------------------


def _upsert(connection: sqlite3.Connection, landing: Landing, rows: pa.Table) -> None:
    names = rows.column_names
    texts = {name.lower() for name, declared in _table_columns(connection, landing.table) if _affinity(declared) == "TEXT"}
    rows = pa.table([_exact_text(c) if n.lower() in texts else c for n, c in zip(names, rows.columns, strict=True)], names=names)
    statement = f"INSERT INTO {_quoted(landing.table)} ({_list(names)}) VALUES ({', '.join('?' * len(names))})"
    if landing.key:
        sets = ", ".join(f"{_quoted(n)} = excluded.{_quoted(n)}" for n in names if n not in landing.key)
        statement += f" ON CONFLICT ({_list(landing.key)}) DO " + (f"UPDATE SET {sets}" if sets else "NOTHING")
    for part in rows.to_batches(max_chunksize=_STATEMENT_ROWS):
        connection.executemany(statement, zip(*map(_values, part.columns), strict=True))


def _delete(connection: sqlite3.Connection, landing: Landing, keys: pa.Table) -> int:
    same = " AND ".join(f"{_quoted(n)} = ?" for n in keys.column_names)
    deleted = 0
    for part in keys.to_batches(max_chunksize=_STATEMENT_ROWS):
        rows = zip(*map(_values, part.columns), strict=True)
        deleted += connection.executemany(f"DELETE FROM {_quoted(landing.table)} WHERE {same}", rows).rowcount
    return deleted


def _exact_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Numbers on their way into a text column: SQLite itself would write 15 digits of them."""
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
