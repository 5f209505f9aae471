"""The sql connector: tables and queries of PostgreSQL, MySQL, MariaDB and SQLite.

Columns become the lake's types without losing a digit. A pull reads everything, in one consistent snapshot, or (with `cursor`) what
came since the last time, in the order of that column.
"""

import contextlib
import dataclasses
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Self
from urllib.parse import unquote, urlsplit

import pyarrow as pa
from pydantic import Field, SecretStr, field_validator, model_validator

from muxly_dagster.connector import Batch, Connector, Cursor, Declaration, PullSettings, Selected, Stream
from muxly_dagster.connectors.sql.connections import Connections
from muxly_dagster.connectors.sql.dialect import Database, Select
from muxly_dagster.connectors.sql.news import batch, news
from muxly_dagster.connectors.sql.ranges import Ranges, read_ranges, splits
from muxly_dagster.connectors.sql.selection import NOT_SHARED, WITHOUT, select_tables
from muxly_dagster.connectors.sql.settings import SqlPull
from muxly_dagster.connectors.sql.source import Source
from muxly_dagster.connectors.sql.threads import side_by_side
from muxly_dagster.errors import MuxlyError
from muxly_dagster.project_paths import InProject
from muxly_dagster.resource import CheckResult

__all__ = ["Sql", "SqlPull"]

_SCHEMES = {"postgresql": "postgresql", "postgres": "postgresql", "mysql": "mysql", "mariadb": "mysql", "sqlite": "sqlite"}


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

    tables: list[str] = Field(
        [],
        description="Tables and views to pull beside `pulls`: names, or patterns with `*` and `?`, such as `public.*`. "
        "One that begins with `!` leaves out what it matches.",
    )
    table_settings: dict[str, SqlPull] = Field(
        {},
        description="Settings of the pulls that `tables` makes, by pattern: the last that matches a table counts, of those whose columns "
        "and key the table has.",
    )

    @field_validator("tables")
    @classmethod
    def _names_some(cls, tables: list[str]) -> list[str]:
        if any(not pattern.removeprefix(WITHOUT).strip() for pattern in tables):
            raise ValueError("has an empty pattern; write a table's name, or a pattern such as `public.*`")
        if tables and all(pattern.startswith(WITHOUT) for pattern in tables):
            raise ValueError('only leaves tables out; say first which there are, such as "*"')
        return tables

    @field_validator("table_settings")
    @classmethod
    def _can_be_shared(cls, settings: dict[str, SqlPull]) -> dict[str, SqlPull]:
        for pattern, shared in settings.items():
            for name in NOT_SHARED:
                if name in shared.model_fields_set:
                    raise ValueError(f"says `{name}` for {pattern}, which only a pull under `pulls` can")
        return settings

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.table_settings and not self.tables:
            raise ValueError('has `table_settings` without `tables`; say which tables there are, such as `tables: ["*"]`')
        return self

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
        return Stream(pull.stream, key=tuple(pull.key or ()), sync="cursor" if settings.order else "full", deletes=bool(settings.deletes))

    def resolve(self, pull: PullSettings) -> Stream:
        """The stream with the table's primary key and its columns' types. Asks the database."""
        with self._open() as database:
            source = Source(database, _settings(pull), self.schema_)
        return dataclasses.replace(self.stream(pull), key=source.key, schema=source.schema)

    def streams(self) -> list[Stream]:
        """Every table and view, with its primary key. Asks the database."""
        with self._open() as database:
            return [Stream(name, database.primary_key(database.table(name, self.schema_))) for name in database.tables()]

    def selection(self) -> Mapping[str, Any] | None:
        """The patterns, their settings, and which database they are asked of."""
        if not self.tables:
            return None
        settings = {pattern: shared.model_dump(mode="json", exclude_unset=True) for pattern, shared in self.table_settings.items()}
        return {"database": self._address(), "schema": self.schema_, "tables": self.tables, "table_settings": settings}

    def selected(self) -> Sequence[Selected]:
        """The tables and views that `tables` means. Asks the database."""
        with self._open() as database:
            return select_tables(database.relations(), self.tables, self.table_settings)

    @classmethod
    def reads(cls, name: str, pull: Mapping[str, Any]) -> str:
        """The table that a pull names; empty for one that reads a query."""
        return "" if pull.get("query") else str(pull.get("table") or pull.get("stream") or name)

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
        with self._telling(), Connections(lambda: _connect(self.url.get_secret_value(), self.schema_)) as connections:
            database = connections.open()
            source = Source(database, settings, self.schema_)
            if source.order:
                makers = [news(database, source, cursor, known)]
            elif splits(database, source):
                ranges = Ranges(source)
                databases = [database, *connections.beside(database, settings.connections - 1)]
                makers = [read_ranges(database, connections, source, ranges, known) for database in databases]
            else:
                makers = [_whole(database, source, known)]
            yield from side_by_side(makers, connections.interrupt)

    @contextlib.contextmanager
    def _open(self) -> Iterator[Database]:
        """A connection."""
        with self._telling(), _connect(self.url.get_secret_value(), self.schema_) as database:
            yield database

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        """Errors met meanwhile say which database it was, and never its password."""
        try:
            yield
        except MuxlyError as error:
            password = unquote(urlsplit(self.url.get_secret_value()).password or "")
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


def _whole(database: Database, source: Source, known: pa.Schema | None) -> Generator[Batch, None, None]:
    for chunk in database.read(Select(source.columns, source.sql(), batch_rows=source.pull.batch_rows), known):
        yield batch(chunk)
