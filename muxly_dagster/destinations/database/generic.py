"""Any database that SQLAlchemy has a dialect for: portable statements, SELECT to know what is there, then UPDATE, INSERT and DELETE.

Nothing is known of whether such a database can undo the change of a table: tables are changed first, which is safe to repeat. Deliveries
into one table take turns by a row in the table of offsets.
"""

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy import exc

from muxly_dagster.destinations.database import generic_types as types
from muxly_dagster.destinations.database.landing import OFFSETS, Landing
from muxly_dagster.destinations.database.session import SIGN_IN, WAIT, Index, Session, Table
from muxly_dagster.errors import ConfigurationError, MuxlyError, RecordRefused, RetryLater, SignInError

_ASKED_ROWS = 100
_RESERVED = {"at", "seq", "target", "delivery"}
_STATEMENT_ROWS = 5_000

_PACKAGES = {
    "mssql": "pyodbc",
    "oracle": "oracledb",
    "snowflake": "snowflake-sqlalchemy",
    "redshift": "sqlalchemy-redshift",
    "clickhouse": "clickhouse-connect",
    "trino": "trino[sqlalchemy]",
    "databricks": "databricks-sqlalchemy",
    "db2": "ibm-db-sa",
    "ibm_db_sa": "ibm-db-sa",
    "hana": "sqlalchemy-hana",
    "cockroachdb": "sqlalchemy-cockroachdb",
    "duckdb": "duckdb-engine",
}
"""What to install for a dialect that is not there."""

_SIGN_IN = re.compile(
    r"access denied for user|authentication failed|login failed|invalid username|role .* does not exist|ORA-01017|password", re.I
)
_RECORD = re.compile(r"constraint|cannot be null|default value|out of range|too long|truncat|incorrect .* value|too large for column", re.I)
_RIGHTS = re.compile(r"read.?only|permission|denied|privilege|not authorized", re.I)
_TABLE = re.compile(r"no such|does not exist|doesn't exist|unknown|syntax|not supported", re.I)


class GenericSession(Session):
    """A connection by SQLAlchemy."""

    longest_name: ClassVar[int] = 63
    folds_case: ClassVar[bool] = True
    changes_tables_in_transaction: ClassVar[bool] = False

    def __init__(self, connection: sa.Connection, schema: str) -> None:
        self._connection, self.schema = connection, schema
        self._types: dict[str, types.Type] = {}
        text = self._compiled(sa.Unicode(250))
        self.offset_types = (text, self._compiled(sa.BigInteger()), text)  # type: ignore[misc]

    @classmethod
    @contextmanager
    def opened(cls, address: str, schema: str, target: str, *, lock: bool = False) -> Iterator["GenericSession"]:
        where = " ".join(filter(None, [cls.describe(address), target]))
        database = _database(address)
        try:
            with database.connect() as connection:
                yield cls(connection, schema)
                connection.commit()
        except exc.SQLAlchemyError as error:
            # The driver's own words may hold the address.
            raise _explained(error, where, database.url.password) from None
        finally:
            database.dispose()

    @classmethod
    def describe(cls, address: str) -> str:
        scheme, _, rest = address.partition("://")
        return f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}"

    @classmethod
    def check(cls, address: str, schema: str) -> str:
        with cls.opened(address, schema, "") as session:
            tables = sa.inspect(session._connection).get_table_names(schema=schema or None)
            return f"signed in, {session._connection.dialect.name}, {len(tables)} tables"

    def rows(self, statement: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in self._connection.execute(_text(statement), _named(values))]

    def run(self, statement: str, values: Sequence[object] = ()) -> int:
        return int(self._connection.execute(_text(statement), _named(values)).rowcount)

    def quote(self, name: str) -> str:
        return self._connection.dialect.identifier_preparer.quote(_name(name))

    def begin(self, table: str, *, rehearsal: bool = False) -> None:
        self._connection.commit()
        if rehearsal:
            return
        lock = {"delivery": "", "table_id": f"lock {table}"}
        same = " AND ".join(f"{self.quote(name)} = ?" for name in lock)
        if not self.rows(f"SELECT {self.quote('seq')} FROM {self.name(OFFSETS)} WHERE {same}", list(lock.values())):
            every = lock | {"target": "-", "seq": 0, "run_id": "-", "at": "-"}
            marks = ", ".join("?" * len(every))
            try:
                self.run(f"INSERT INTO {self.name(OFFSETS)} ({self.quoted(list(every))}) VALUES ({marks})", list(every.values()))
            except exc.IntegrityError:  # somebody was faster
                self._connection.rollback()
        self._connection.commit()
        # The first thing in the transaction: what it reads from now on is what the last turn left.
        self.run(f"UPDATE {self.name(OFFSETS)} SET {self.quote('seq')} = {self.quote('seq')} + 1 WHERE {same}", list(lock.values()))

    def rollback(self) -> None:
        self._connection.rollback()

    # ---- the table

    def table(self, name: str) -> Table | None:
        inspector, schema = sa.inspect(self._connection), self.schema or None
        if name in inspector.get_view_names(schema=schema):
            raise ConfigurationError("this is not a table but a view", do="set another `table`", where=name)
        if not inspector.has_table(name, schema=schema):
            return None
        found = {column["name"]: column["type"] for column in inspector.get_columns(name, schema=schema)}
        columns = {column: self._compiled(type_) for column, type_ in found.items()}
        self._types |= {columns[column]: type_ for column, type_ in found.items()}
        return Table(columns, ours=False)

    def _compiled(self, type_: types.Type) -> str:
        try:
            return type_.compile(self._connection.dialect)
        except exc.CompileError:  # a type that SQLAlchemy has no name for
            return str(type(type_).__name__)

    def indexes(self, table: str) -> list[Index]:
        inspector, schema = sa.inspect(self._connection), self.schema or None
        found = [Index(tuple(inspector.get_pk_constraint(table, schema=schema).get("constrained_columns") or ()), True)]
        with contextlib.suppress(NotImplementedError):
            found += [Index(tuple(unique["column_names"]), True) for unique in inspector.get_unique_constraints(table, schema=schema)]
        for index in inspector.get_indexes(table, schema=schema):
            if None not in index["column_names"]:
                found.append(Index(tuple(map(str, index["column_names"])), bool(index["unique"])))
        return found

    def column_type(self, field: pa.Field, landing: Landing) -> str:
        in_key = field.name in {*landing.key, *(name for index in landing.indexes for name in index)}
        return self._compiled(types.column_type(field, self._connection.dialect, in_key=in_key))

    def fits(self, field: pa.Field, present: str, *, ours: bool) -> bool:
        return types.fits(field, self._types[present], self._connection.dialect)

    def create_offsets(self, columns: str) -> None:
        self._change(f"CREATE TABLE {self.name(OFFSETS)} ({columns})", lambda: self.table(OFFSETS) is not None)

    def create(self, landing: Landing, columns: Mapping[str, str]) -> None:
        parts = [f"{self.quote(name)} {type_}{' NOT NULL' if name in landing.key else ''}" for name, type_ in columns.items()]
        if landing.key:
            parts.append(f"PRIMARY KEY ({self.quoted(landing.key)})")
        self._change(f"CREATE TABLE {self.name(landing.table)} ({', '.join(parts)})", lambda: self.table(landing.table) is not None)
        made = self.table(landing.table)
        there = {name.lower() for name in made.columns} if made else set()
        self.add_columns(landing, {name: type_ for name, type_ in columns.items() if name.lower() not in there})

    def add_columns(self, landing: Landing, columns: Mapping[str, str]) -> None:
        for name, type_ in columns.items():

            def added(name: str = name) -> bool:
                table = self.table(landing.table)
                return table is not None and name.lower() in map(str.lower, table.columns)

            self._change(f"ALTER TABLE {self.name(landing.table)} ADD {self.quote(name)} {type_}", added)

    def create_index(self, landing: Landing, name: str, columns: Sequence[str], *, unique: bool) -> bool:
        statement = f"CREATE {'UNIQUE ' if unique else ''}INDEX {self.quote(name)} ON {self.name(landing.table)} ({self.quoted(columns)})"
        try:
            self._change(statement, lambda: tuple(columns) in [index.columns for index in self.indexes(landing.table)])
        except exc.IntegrityError:
            return False
        return True

    def _change(self, statement: str, made: Callable[[], bool]) -> None:
        """Change a table; that another delivery has just made the same change is well."""
        percent = self._connection.dialect.paramstyle in ("format", "pyformat")
        try:
            self._connection.exec_driver_sql(statement.replace("%", "%%") if percent else statement)
        except exc.DBAPIError:
            self._connection.rollback()
            if not made():
                raise
        self._connection.commit()

    # ---- the rows

    def empty(self, landing: Landing) -> int:
        count = int(self.rows(f"SELECT count(*) FROM {self.name(landing.table)}")[0][0])
        self.run(f"DELETE FROM {self.name(landing.table)}")
        return count

    def existing(self, landing: Landing, keys: pa.Table) -> int:
        return sum(map(len, (self._there(landing, part) for part in self._parts(landing, keys))))

    def upsert(self, landing: Landing, table: Table, rows: pa.Table) -> None:
        target = self._target(landing, rows.column_names)
        places = {name: f"c{place}" for place, name in enumerate(rows.column_names)}
        insert = target.insert().values({name: sa.bindparam(places[name]) for name in places})
        others: dict[str, Any] = {name: sa.bindparam(places[name]) for name in places if name not in landing.key}
        update = target.update().where(*(target.c[name] == sa.bindparam(places[name]) for name in landing.key)).values(others)
        for part in self._parts(landing, rows):
            there = self._there(landing, part) if landing.key else set()
            new = [{places[name]: value for name, value in row.items()} for place, row in enumerate(part) if place not in there]
            old = [{places[name]: value for name, value in row.items()} for place, row in enumerate(part) if place in there]
            if old and others:
                self._connection.execute(update, old)
            if new:
                self._connection.execute(insert, new)

    def delete(self, landing: Landing, keys: pa.Table) -> int:
        target = self._target(landing, landing.key)
        places = {name: f"c{place}" for place, name in enumerate(landing.key)}
        delete = target.delete().where(*(target.c[name] == sa.bindparam(places[name]) for name in landing.key))
        deleted = 0
        for part in self._parts(landing, keys):
            there = [part[place] for place in sorted(self._there(landing, part))]
            if there:
                self._connection.execute(delete, [{places[name]: value for name, value in row.items()} for row in there])
                deleted += len(there)
        return deleted

    def _target(self, landing: Landing, names: Sequence[str]) -> sa.TableClause:
        column_types = self._column_types(landing)
        columns = [sa.column(_name(name), column_types[name.lower()]) for name in names]
        return sa.table(_name(landing.table), *columns, schema=self.schema or None)

    def _column_types(self, landing: Landing) -> dict[str, types.Type]:
        table = self.table(landing.table)
        return {name.lower(): self._types[type_] for name, type_ in table.columns.items()} if table else {}

    def _parts(self, landing: Landing, rows: pa.Table) -> Iterator[list[dict[str, Any]]]:
        """The rows as drivers take them, by the thousand."""
        column_types = self._column_types(landing)
        for start in range(0, len(rows), _STATEMENT_ROWS):
            part = rows.slice(start, _STATEMENT_ROWS)
            columns = [types.values(part[name], column_types[name.lower()]) for name in rows.column_names]
            yield [dict(zip(rows.column_names, row, strict=True)) for row in zip(*columns, strict=True)]

    def _there(self, landing: Landing, part: list[dict[str, Any]]) -> set[int]:
        """The places of the rows whose keys the table has, as the database itself compares them.

        Raises RecordRefused where it takes one text for another.
        """
        target, found = self._target(landing, landing.key), set[int]()
        for start in range(0, len(part), _ASKED_ROWS):
            asked = part[start : start + _ASKED_ROWS]
            questions = [
                sa.select(sa.literal_column(str(n)).label("n"), *target.c).where(
                    *(target.c[name] == sa.bindparam(f"k{n}_{k}", type_=target.c[name].type) for k, name in enumerate(landing.key))
                )
                for n in range(len(asked))
            ]
            values = {f"k{n}_{k}": row[name] for n, row in enumerate(asked) for k, name in enumerate(landing.key)}
            for n, *key in self._connection.execute(sa.union_all(*questions), values):
                for name, value in zip(landing.key, key, strict=True):
                    wanted = asked[n][name]
                    if isinstance(wanted, str) and str(value) != wanted:
                        raise RecordRefused(
                            f"the key {wanted!r} is not {value!r}, but column {name} takes them for one", where=landing.target
                        )
                found.add(start + n)
        return found


def _name(name: str) -> str:
    """A name that is quoted where SQLAlchemy would not know that it must be."""
    return sa.sql.quoted_name(name, quote=True) if name.lower() in _RESERVED else name


def _text(statement: str) -> sa.TextClause:
    """A statement with question marks as SQLAlchemy's."""
    parts = statement.replace(":", r"\:").split("?")
    return sa.text("".join(part + (f":p{place}" if place < len(parts) - 1 else "") for place, part in enumerate(parts)))


def _named(values: Sequence[object]) -> dict[str, object]:
    return {f"p{place}": value for place, value in enumerate(values)}


def _database(address: str) -> sa.Engine:
    """Raises ConfigurationError for an address that is none, or whose driver is not installed."""
    scheme = address.partition("://")[0]
    name = scheme.partition("+")[0]
    install = "install the package {} where Muxly runs: pip install {}"
    try:
        return sa.create_engine(sa.make_url(address), poolclass=sa.NullPool, hide_parameters=True)
    except exc.NoSuchModuleError:
        if name in _PACKAGES:
            do = install.format(_PACKAGES[name], _PACKAGES[name])
        else:
            do = "correct `url`, or install the package that brings SQLAlchemy its dialect"
        raise ConfigurationError(f"SQLAlchemy knows no database {scheme}://", do=do) from None
    except ModuleNotFoundError as error:
        package = _PACKAGES.get(name, "") if scheme == name or _PACKAGES.get(name) == error.name else str(error.name)
        package = package or str(error.name)
        raise ConfigurationError(f"the driver of {scheme}:// is not installed", do=install.format(package, package)) from None
    except (exc.ArgumentError, TypeError, ValueError):
        raise ConfigurationError(f"this is no address that SQLAlchemy can use for {scheme}://", do="correct `url`") from None


def _explained(error: exc.SQLAlchemyError, where: str, password: Any) -> MuxlyError:
    """SQLAlchemy's error as one that says what to do. Drivers use the classes of PEP 249 freely, so the words count as well."""
    what = str(getattr(error, "orig", None) or error).strip()
    if password:
        what = what.replace(str(password), "***")
    if isinstance(error, exc.IntegrityError | exc.DataError):
        return RecordRefused(what, where=where)
    if not isinstance(error, exc.DBAPIError):
        return ConfigurationError(f"the database refused the table: {what}", do="change the table, or set another `table`", where=where)
    if _SIGN_IN.search(what):
        return SignInError(f"the database refused the sign-in: {what}", do=SIGN_IN, where=where)
    if isinstance(error, exc.OperationalError) and _RECORD.search(what):
        return RecordRefused(what, where=where)
    if _RIGHTS.search(what):
        return ConfigurationError(what, do="grant the user of `url` the right to create and write this table", where=where)
    if isinstance(error, exc.ProgrammingError | exc.NotSupportedError) or _TABLE.search(what):
        return ConfigurationError(f"the database refused the table: {what}", do="change the table, or set another `table`", where=where)
    return RetryLater(f"the database cannot be reached, or could not finish: {what}", do=WAIT, where=where)
