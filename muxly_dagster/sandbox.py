"""Where people's SQL is read and run: checked to be one expression or one SELECT, then run in a DuckDB that can touch nothing else.

The parser gives early, friendly errors; the promise that nothing escapes rests on DuckDB itself: no files, no network, no
extensions, no Python variables, and a configuration that cannot be changed any more.
"""

import difflib
import itertools
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from muxly_dagster.errors import ConfigurationError, MuxlyError

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

_thread = threading.local()
_MAX_MESSAGE = 400


# ---- running --------------------------------------------------------------------------------------------------------


def connect(
    *, memory_limit: str = "1GB", threads: int = 2, spill: Path | None = None, every_try_alone: bool = False
) -> "duckdb.DuckDBPyConnection":
    """An empty in-memory DuckDB in UTC that reads only what is registered with it (Arrow tables, datasets, readers).

    `memory_limit` is in DuckDB's words ("512MB"). Queries that need more are refused, unless `spill` names a folder for
    temporary files; that folder then is the one place on disk that this DuckDB may touch. With `every_try_alone`, an expression that
    fails fails only the TRY it stands in, even where others have it too.
    """
    import duckdb

    config: dict[str, Any] = {
        "memory_limit": memory_limit,
        "threads": threads,
        "temp_directory": str(spill) if spill else "",
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "python_enable_replacements": "false",
    }
    connection = duckdb.connect(":memory:", config=config)
    connection.execute("SET TimeZone = 'UTC'")
    # Not among the options above: DuckDB takes those in no set order, and this one forbids the others that name a folder.
    connection.execute("SET enable_external_access = false")
    if every_try_alone:
        # What two TRY share would be computed before them, where its failure fails the query.
        connection.execute("SET disabled_optimizers = 'common_subexpressions'")
    connection.execute("SET lock_configuration = true")
    return connection


def shared() -> "duckdb.DuckDBPyConnection":
    """This thread's own small sandbox, for expressions over one batch: opening one costs more than most such queries.

    One DuckDB thread, so that answers come in the order of the rows. Whoever registers a view takes it away again.
    """
    connection: duckdb.DuckDBPyConnection | None = getattr(_thread, "connection", None)
    if connection is None:
        connection = _thread.connection = connect(memory_limit="512MB", threads=1, every_try_alone=True)
    return connection


_NEVER = ("Binder Error", "Catalog Error", "Parser Error", "Syntax Error", "Not implemented Error")


@contextmanager
def explained(where: str) -> Iterator[None]:
    """Turn DuckDB's errors into Muxly's: SQL that can never run is a ConfigurationError, data that does not fit a MuxlyError.

    The original is not kept as the cause: it quotes the query, where a step may have put a secret.
    """
    import duckdb

    try:
        yield
    except (duckdb.Error, OSError) as error:
        # While rows are streamed, DuckDB's errors come as OSError; its first words tell the kind either way.
        kind, said = str(error).partition(": ")[0], short(error)
        if isinstance(error, OSError) and not kind.endswith("Error"):
            raise
        if kind == "Permission Error":
            raise ConfigurationError(
                f"the SQL may read tables of the lake and nothing else: {said}",
                do="pull the data with a source, then read its table",
                where=where,
            ) from None
        if kind in _NEVER:
            raise ConfigurationError(f"the SQL cannot run: {said}", where=where) from None
        if kind == "Out of Memory Error":
            do = "read fewer columns, or split the query into two transforms"
            raise MuxlyError(f"the query needs more memory than it may use: {said}", do=do, where=where) from None
        do = "guard the expression with TRY_CAST or TRY, or filter such rows out"
        raise MuxlyError(f"the SQL failed on the data: {said}", do=do, where=where) from None


def short(error: Exception) -> str:
    """DuckDB's message in one line: without its class, the excerpt of the query and the advice that follows."""
    text = str(error)
    for rest in ("\n\nLINE ", "\n\tCandidate functions:", "\nPossible solutions:"):
        text = text.partition(rest)[0]
    head, colon, rest = text.partition(": ")
    text = " ".join((rest if colon and head.endswith("Error") else text).split())
    return text if len(text) <= _MAX_MESSAGE else text[:_MAX_MESSAGE] + " ..."


def select(connection: "duckdb.DuckDBPyConnection", sql: str, *, where: str = "") -> "pa.Table":
    """The rows of one SELECT, all at once. Raises ConfigurationError for every other statement."""
    query = read_query(sql)
    with explained(where):
        return connection.sql(query.text).to_arrow_table()


# ---- reading --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Expression:
    """One scalar expression as its author wrote it, and the columns it names."""

    text: str
    columns: tuple[str, ...]

    @property
    def sql(self) -> str:
        """The expression to stand inside a query: the line break ends a comment its author may have left open."""
        return f"({self.text}\n)"


@dataclass(frozen=True, slots=True)
class Query:
    """One SELECT as its author wrote it, and the names of the tables it reads ("crm.contacts"), sorted."""

    text: str
    tables: tuple[str, ...]


@lru_cache(maxsize=4096)
def read_expression(text: str) -> Expression:
    """Read one scalar SQL expression. Raises ConfigurationError for anything else: statements, subqueries, aggregates, windows."""
    from sqlglot import exp

    node = _parse(text, "one SQL expression")
    refused: dict[type[Any], str] = {
        exp.Query: "a subquery; prepare the data in a transform and use its columns",
        exp.AggFunc: "an aggregate; it sees one row at a time",
        exp.Window: "a window function; it sees one row at a time",
        exp.Star: "a star; name the columns",
        exp.Columns: "COLUMNS(); name the columns",
        exp.Explode: "UNNEST; it must give one value per row",
        exp.Placeholder: "a parameter; write the value",
        exp.Parameter: "a parameter; write the value",
    }
    found = node.find(*refused)
    if found is not None:
        what = next(what for kind, what in refused.items() if isinstance(found, kind))
        raise ConfigurationError(f"{_quoted(text)} contains {what}")
    if not isinstance(node, exp.Condition):
        raise ConfigurationError(f"{_quoted(text)} is not an expression", do="write one SQL expression, such as amount > 10000")
    loops = list(node.find_all(exp.Comprehension))
    bound = {loop.args[part].name for loop in loops for part in ("expression", "position") if loop.args.get(part) is not None}
    columns = dict.fromkeys(name for arrow in node.find_all(exp.Lambda) for name in _json_columns(arrow))
    for column in node.find_all(exp.Column):
        if column.table:
            raise ConfigurationError(
                f"{_quoted(text)} reads {column.table}.{column.name}, but a row has only columns",
                do=f"write {column.name}, or {column.table} ->> '{column.name}' for a field inside JSON",
            )
        if column.name not in bound:
            columns[column.name] = None
    return Expression(text.strip().rstrip(";"), tuple(sorted(columns)))


def functions(text: str) -> set[str]:
    """The names, in lower case, of what SQL calls: whatever stands before an opening bracket, comments and quotes aside."""
    import sqlglot

    tokens = sqlglot.tokenize(text, dialect="duckdb")
    return {name.text.lower() for name, bracket in itertools.pairwise(tokens) if bracket.token_type == sqlglot.TokenType.L_PAREN}


def _json_columns(arrow: Any) -> list[str]:
    """Inside a function's brackets the parser takes `properties -> '$.a'` for a lambda; one that ignores its argument is a JSON access."""
    from sqlglot import exp

    arguments = [argument.name for argument in arrow.expressions]
    used = {identifier.name for identifier in arrow.this.find_all(exp.Identifier)}
    return arguments if len(arguments) == 1 and arguments[0] not in used else []


def read_query(text: str) -> Query:
    """Read one SELECT (or WITH, UNION, VALUES, FROM ...). Raises ConfigurationError for every other statement."""
    from sqlglot import exp

    node = _parse(text, "one SELECT")
    if not isinstance(node, exp.Query | exp.Values) or node.find(exp.DML, exp.DDL, exp.Command) is not None:
        raise ConfigurationError("the sql is not a SELECT", do="write one SELECT; its rows become the table")
    defined = {cte.alias_or_name.casefold() for cte in node.find_all(exp.CTE)}
    tables: dict[str, None] = {}
    for table in node.find_all(exp.Table):
        if not isinstance(table.this, exp.Identifier) or (not table.db and table.name.casefold() in defined):
            continue
        tables[".".join(part.name for part in table.parts)] = None
    return Query(text.strip().rstrip(";"), tuple(sorted(tables)))


def _parse(text: str, wanted: str) -> Any:
    import sqlglot
    from sqlglot.errors import SqlglotError

    try:
        nodes = [node for node in sqlglot.parse(text, dialect="duckdb") if node is not None]
    except SqlglotError as error:
        raise ConfigurationError(f"{_quoted(text)} is not {wanted}: {_place(error)}") from error
    except RecursionError:
        raise ConfigurationError(f"{_quoted(text)} is nested too deeply", do="write it simpler") from None
    if not nodes:
        raise ConfigurationError("the SQL is empty", do=f"write {wanted}")
    if len(nodes) > 1:
        raise ConfigurationError(f"{_quoted(text)} is not {wanted}, but {len(nodes)} statements")
    return nodes[0]


def _place(error: Exception) -> str:
    details = getattr(error, "errors", None)
    if not details:
        return " ".join(str(error).split())
    first = details[0]
    near = f" near {first['highlight']!r}" if first.get("highlight") else ""
    return f"{first['description'].rstrip('.').lower()}{near} (line {first['line']}, column {first['col']})"


def _quoted(text: str) -> str:
    line = " ".join(text.split())
    return f"`{line if len(line) <= 80 else line[:77] + '...'}`"


# ---- words ----------------------------------------------------------------------------------------------------------


def quote(name: str) -> str:
    """A name as a SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as a SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def unknown_column(name: str, columns: Iterable[str]) -> str:
    """What to say about a column that is not there, with the nearest name there is."""
    known = list(columns)
    folded = {column.casefold().removeprefix("_muxly_"): column for column in known} | {column.casefold(): column for column in known}
    near = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.6)
    if near:
        return f"there is no column {name}; did you mean {folded[near[0]]}?"
    shown = ", ".join(known[:12]) + (" ..." if len(known) > 12 else "")
    return f"there is no column {name}; the columns are {shown}" if known else f"there is no column {name}"
