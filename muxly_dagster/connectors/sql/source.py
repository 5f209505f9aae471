"""The table or query that a pull declares, checked against what the database has."""

import pyarrow as pa

from muxly_dagster.connectors.sql.dialect import Database
from muxly_dagster.connectors.sql.settings import CURSOR_PARAMETER, SqlPull
from muxly_dagster.errors import ConfigurationError, MuxlyError
from muxly_dagster.project.checks import did_you_mean


class Source:
    """The declared table or query, checked against what the database has."""

    def __init__(self, database: Database, pull: SqlPull, schema: str) -> None:
        self._query = pull.query.strip().rstrip(";")
        self.table = "" if pull.query else database.table(pull.table or pull.stream, schema)
        self.where = pull.table or pull.stream
        self.pull = pull
        try:
            described = {column.name: column for column in database.describe(self.sql(), self.table)}
        except ConfigurationError as error:
            if pull.query:
                raise
            tables = _tables(database)
            if self.where in tables:
                raise
            raise ConfigurationError(f"there is no table {self.where}", do=did_you_mean(self.where, tables), where=error.where) from None
        self.key = tuple(pull.key) if pull.key is not None else database.primary_key(self.table) if self.table else ()
        chosen = [*pull.columns, *(k for k in self.key if k not in pull.columns)] if pull.columns else list(described)
        for name in [*chosen, *self.key, *pull.order]:
            if name not in described:
                raise ConfigurationError(f"{self.where} has no column {name}", do=did_you_mean(name, described))
        # A number that is a key has to read the same for ever, whatever digits the other rows have.
        self.columns = [described[n].as_text() if n in self.key and described[n].loose else described[n] for n in chosen]
        self.order = [described[name] for name in pull.order]
        self.keys = [column for name in self.key for column in self.columns if column.name == name]
        self.schema = None if database.dynamic else pa.schema([c.field for c in self.columns if not c.loose])

    def sql(self, cursor: str = "null") -> str:
        """The FROM item; `cursor` is the expression that stands for `:cursor` in a query."""
        if not self._query:
            return self.table
        return f"({CURSOR_PARAMETER.sub(lambda _: cursor, self._query)}\n) as muxly_query"  # the line's end closes a comment


def _tables(database: Database) -> list[str]:
    """The tables' names for a hint; none where even they cannot be read."""
    try:
        return database.tables()
    except MuxlyError:
        return []
