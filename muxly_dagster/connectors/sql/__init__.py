"""The sql connector: tables and queries of PostgreSQL, MySQL, MariaDB and SQLite.

Columns become the lake's types without losing a digit. A pull reads everything, in one consistent snapshot, or (with `cursor`) what
came since the last time, in the order of that column.
"""

import contextlib
import datetime as dt
import decimal
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar
from urllib.parse import unquote, urlsplit

import pyarrow as pa
from pydantic import Field, SecretStr, field_validator, model_validator

from muxly_dagster import records
from muxly_dagster.connector import Batch, Connector, Cursor, Declaration, PullSettings, Stream, Unreadable
from muxly_dagster.connectors.sql.dialect import Chunk, Column, Database, Select
from muxly_dagster.errors import ConfigurationError, MuxlyError
from muxly_dagster.project.checks import did_you_mean
from muxly_dagster.project.duration import parse_duration
from muxly_dagster.project_paths import InProject
from muxly_dagster.resource import CheckResult

_SCHEMES = {"postgresql": "postgresql", "postgres": "postgresql", "mysql": "mysql", "mariadb": "mysql", "sqlite": "sqlite"}
_CURSOR_PARAMETER = re.compile(r"(?<![:\w]):cursor\b")


class SqlPull(PullSettings):
    """What a pull reads: a table or a query, whole or by cursor."""

    table: str = Field("", description="The table or view, also as `schema.table`; the pull's own name unless told otherwise.")
    query: str = Field(
        "", description="A SELECT to read instead of a table. `:cursor` in it stands for where the last pull ended, null at first."
    )
    columns: list[str] = Field([], description="Columns to read; all unless told otherwise. The key's are always read.")
    cursor: str = Field("", description="A column that only grows (a number or a time of change): later pulls read from its last value on.")
    lookback: str | int = Field(
        "", description="How far before the last value to read again, for rows that appear late: `15m` for a time, `1000` for a number."
    )
    batch_rows: int = Field(20_000, ge=1, le=1_000_000, description="Rows in one batch.")

    @model_validator(mode="after")
    def _agrees(self) -> "SqlPull":
        if self.table and self.query:
            raise ValueError("has both `table` and `query`; keep one of them")
        if self.lookback and not self.cursor:
            raise ValueError("has a `lookback` without a `cursor`; name the column it looks back on")
        if self.lookback and not str(self.lookback).isdecimal():
            try:
                parse_duration(str(self.lookback))
            except ValueError as error:
                raise ValueError(f"`lookback` {error}, nor a number") from None
        if self.query and not self.cursor and _CURSOR_PARAMETER.search(self.query):
            raise ValueError("has `:cursor` in its `query`, but no `cursor`; name the column it is compared with")
        return self


class Sql(Connector):
    """Tables and queries of a SQL database."""

    id: ClassVar[str] = "sql"
    title: ClassVar[str] = "SQL database (PostgreSQL, MySQL, MariaDB, SQLite)"
    Pull: ClassVar[type[PullSettings]] = SqlPull
    example: ClassVar[Mapping[str, Any]] = {"pulls": {"customers": {}, "orders": {"cursor": "updated_at"}}}

    url: Annotated[SecretStr, InProject()] = Field(
        description="postgresql://user:password@host/database, mysql://..., mariadb://... or sqlite:///file.db."
    )
    schema_: str = Field("", alias="schema", description="Where tables are looked for; the database's own choice unless told otherwise.")

    @field_validator("url")
    @classmethod
    def _is_known(cls, url: SecretStr) -> SecretStr:
        scheme, found, rest = url.get_secret_value().partition("://")
        if not found or scheme.partition("+")[0] not in _SCHEMES:
            raise ValueError("must begin with postgresql://, mysql://, mariadb:// or sqlite:///")
        return SecretStr(f"{_SCHEMES[scheme.partition('+')[0]]}://{rest}")

    @classmethod
    def declaration(cls) -> Declaration:
        """Which streams there are, only the database knows."""
        return Declaration(syncs=("full", "cursor"))

    def stream(self, pull: PullSettings) -> Stream:
        """The stream as declared; the key and the types are known when the database is asked."""
        settings = _settings(pull)
        return Stream(pull.stream, key=tuple(pull.key or ()), sync="cursor" if settings.cursor else "full")

    def resolve(self, pull: PullSettings) -> Stream:
        """The stream with the table's primary key and its columns' types. Asks the database."""
        with self._open() as database:
            source = _Source(database, _settings(pull), self.schema_)
        sync = self.stream(pull).sync
        return Stream(pull.stream, source.key, sync, source.schema)

    def streams(self) -> list[Stream]:
        """Every table and view, with its primary key. Asks the database."""
        with self._open() as database:
            return [Stream(name, database.primary_key(database.table(name, self.schema_))) for name in database.tables()]

    def test_connection(self) -> CheckResult:
        """Connect and look at the catalog."""
        tried = f"connect to {self._address()}"
        try:
            with self._open() as database:
                count = len(database.tables())
        except MuxlyError as error:
            return CheckResult("failed", tried, error.what, error.do)
        return CheckResult("ok", tried, f"{count} {'table' if count == 1 else 'tables'}")

    def pull(self, pull: PullSettings, cursor: Cursor | None, known: pa.Schema | None) -> Iterator[Batch]:
        """Read the table or query, whole or from the cursor on.

        Raises SignInError, RetryLater, SourceError, and ConfigurationError for tables and columns that do not exist.
        """
        settings = _settings(pull)
        with self._open() as database:
            source = _Source(database, settings, self.schema_)
            if settings.cursor:
                yield from _news(database, source, settings, cursor, known)
                return
            for chunk in database.read(Select(source.columns, source.sql(), batch_rows=settings.batch_rows), known):
                yield _batch(chunk)

    @contextlib.contextmanager
    def _open(self) -> Iterator[Database]:
        """A connection; errors met while it is open say which database it was, and never its password."""
        url = self.url.get_secret_value()
        try:
            with _connect(url, self.schema_) as database:
                yield database
        except MuxlyError as error:
            password = unquote(urlsplit(url).password or "")
            if password and password in str(error):
                raise type(error)("the database refused, in words that hold the password", where=self._address()) from None
            error.where = error.where or self._address()
            raise

    def _address(self) -> str:
        """The URL without user, password and options."""
        parts = urlsplit(self.url.get_secret_value())
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _settings(pull: PullSettings) -> SqlPull:
    if isinstance(pull, SqlPull):
        return pull
    return SqlPull.model_validate(pull.model_dump())


def _connect(url: str, schema: str) -> Database:
    scheme = url.partition("://")[0]
    if scheme == "postgresql":
        from muxly_dagster.connectors.sql.postgres import Postgres

        return Postgres(url, schema)
    if scheme == "mysql":
        from muxly_dagster.connectors.sql.mysql import MySql

        return MySql(url, schema)
    from muxly_dagster.connectors.sql.sqlite import Sqlite

    return Sqlite(url, schema)


def _batch(chunk: Chunk, cursor: Cursor | None = None) -> Batch:
    return Batch(records.normalise(chunk.rows), cursor, chunk.unreadable, chunk.metadata)


class _Source:
    """The declared table or query, checked against what the database has."""

    def __init__(self, database: Database, pull: SqlPull, schema: str) -> None:
        self._query = pull.query.strip().rstrip(";")
        self._table = "" if pull.query else database.table(pull.table or pull.stream, schema)
        self.where = pull.table or pull.stream
        try:
            described = {column.name: column for column in database.describe(self.sql(), self._table)}
        except ConfigurationError as error:
            if pull.query:
                raise
            tables = _tables(database)
            if self.where in tables:
                raise
            raise ConfigurationError(f"there is no table {self.where}", do=did_you_mean(self.where, tables), where=error.where) from None
        self.key = tuple(pull.key) if pull.key is not None else database.primary_key(self._table) if self._table else ()
        chosen = [*pull.columns, *(k for k in self.key if k not in pull.columns)] if pull.columns else list(described)
        for name in [*chosen, *self.key, *([pull.cursor] if pull.cursor else [])]:
            if name not in described:
                raise ConfigurationError(f"{self.where} has no column {name}", do=did_you_mean(name, described))
        # A number that is a key has to read the same for ever, whatever digits the other rows have.
        self.columns = [described[n].as_text() if n in self.key and described[n].loose else described[n] for n in chosen]
        self.cursor = described.get(pull.cursor)
        self.schema = None if database.dynamic else pa.schema([c.field for c in self.columns if not c.loose])

    def sql(self, cursor: str = "null") -> str:
        """The FROM item; `cursor` is the expression that stands for `:cursor` in a query."""
        if not self._query:
            return self._table
        return f"({_CURSOR_PARAMETER.sub(lambda _: cursor, self._query)}\n) as muxly_query"  # the line's end closes a comment


def _tables(database: Database) -> list[str]:
    """The tables' names for a hint; none where even they cannot be read."""
    try:
        return database.tables()
    except MuxlyError:
        return []


# ---- what came since the last time ----------------------------------------------------------------------------------


def _news(database: Database, source: _Source, pull: SqlPull, cursor: Cursor | None, known: pa.Schema | None) -> Iterator[Batch]:
    """Rows in the order of the cursor column, after those without a value there and those that `lookback` asks for again.

    Rows of the last value are read again where a key tells them apart: others may have joined them since.
    """
    column = source.cursor
    assert column is not None
    _check_cursor(database, column, source, pull)
    if cursor is not None and cursor.get("column") != column.name:
        raise ConfigurationError(
            f"the last pull went by {cursor.get('column')}, not by {column.name}",
            do=f"run `muxly run NAME --from-start` for this pull once, or set `cursor` back to {cursor.get('column')}",
        )
    last = None if cursor is None else cursor["value"]
    name, from_item = database.quote(column.name), source.sql(database.literal(_earlier(last, pull.lookback, column), column))

    def read(where: str, *, ordered: bool) -> Iterator[Chunk]:
        return database.read(Select(source.columns, from_item, where, column.name if ordered else "", pull.batch_rows), known)

    if column.nullable:
        for chunk in read(f"{name} is null", ordered=False):
            yield _batch(chunk) if source.key else _without_position(chunk, column.name)
    if last is None:
        yield from _in_order(read(f"{name} is not null", ordered=True), column.name)
        return
    bound = database.literal(last, column)
    if pull.lookback:
        start = database.literal(_earlier(last, pull.lookback, column), column)
        for chunk in read(f"{name} >= {start} and {name} < {bound}", ordered=False):
            yield _batch(chunk)
    yield from _in_order(read(f"{name} {'>=' if source.key else '>'} {bound}", ordered=True), column.name)


def _in_order(chunks: Iterator[Chunk], name: str) -> Iterator[Batch]:
    """Batches whose cursor never stands between rows of the same value: the last value of a chunk waits for the next one."""
    held: pa.Table | None = None
    held_at: Any = None

    def at(value: Any) -> Cursor:
        return {"column": name, "value": value}

    for chunk in chunks:
        if not chunk.positions:
            yield _batch(chunk)
            continue
        if held is not None:
            yield _batch(Chunk(held), at(held_at) if chunk.positions[0] != held_at else None)
        held_at = chunk.positions[-1]
        cut = len(chunk.positions)
        while cut and chunk.positions[cut - 1] == held_at:
            cut -= 1
        whole = at(chunk.positions[cut - 1]) if cut else None
        yield _batch(Chunk(chunk.rows.slice(0, cut), (), chunk.unreadable, chunk.metadata), whole)
        held = chunk.rows.slice(cut)
    if held is not None:
        yield _batch(Chunk(held), at(held_at))


def _without_position(chunk: Chunk, name: str) -> Batch:
    """Rows without key and without a cursor's value: nothing tells whether the lake has them already."""
    reason = f"{name} is null and the pull has no key; set `key`, or leave such rows out in a `query`"
    lost = tuple(Unreadable(records.to_json(row).decode(), reason) for row in chunk.rows.to_pylist())
    return Batch(records.normalise(chunk.rows.slice(0, 0)), None, chunk.unreadable + lost)


def _check_cursor(database: Database, column: Column, source: _Source, pull: SqlPull) -> None:
    type_ = column.field.type
    if pa.types.is_boolean(type_) or pa.types.is_binary(type_) or records.is_json(column.field):
        raise ConfigurationError(f"{column.name} ({column.kind}) has no order to go by", do="name a number or a time as `cursor`")
    if pull.lookback and not source.key:
        raise ConfigurationError("`lookback` reads rows again, and without a key they would be stored twice", do="set the pull's `key`")
    if pull.lookback and not database.dynamic and (pa.types.is_temporal(type_) == str(pull.lookback).isdecimal()):
        raise _wrong_lookback(pull.lookback, column)
    if pa.types.is_string(type_) and database.folds_text and not source.key:
        # Values that differ only in case or accents are equal there: a batch could end between them.
        raise ConfigurationError(f"the text column {column.name} can only be a cursor where there is a key", do="set the pull's `key`")


def _earlier(value: Any, lookback: str | int, column: Column) -> Any:
    """The cursor's value moved back; None where there is none yet."""
    if value is None or not lookback:
        return value
    try:
        if str(lookback).isdecimal():
            return str(decimal.Decimal(value) - int(lookback)) if isinstance(value, str) else value - int(lookback)
        moment = dt.datetime.fromisoformat(value)
    except (ValueError, TypeError, ArithmeticError):
        raise _wrong_lookback(lookback, column) from None
    try:
        back = moment - parse_duration(str(lookback))
    except OverflowError:
        back = dt.datetime.min
    if len(value) <= len("2024-01-01"):
        return back.date().isoformat()
    text = back.isoformat(sep=value[10])
    return text.replace("+00:00", "Z") if value.endswith("Z") else text


def _wrong_lookback(lookback: str | int, column: Column) -> ConfigurationError:
    return ConfigurationError(
        f"`lookback` {lookback} cannot be taken from {column.name} ({column.kind or 'its values'})",
        do="write 1000 for a number, 15m for a time",
    )
