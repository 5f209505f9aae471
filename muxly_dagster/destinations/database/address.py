"""What a database's URL says: which dialect speaks to it, and the rest of the address as that dialect wants it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from muxly_dagster.destinations.database.session import Session

Dialect = Literal["postgres", "mysql", "sqlite", "duckdb", "generic"]

_SCHEMES: dict[str, Dialect] = {
    "postgresql": "postgres",
    "postgres": "postgres",
    "postgresql+psycopg": "postgres",
    "postgresql+psycopg2": "postgres",
    "mysql": "mysql",
    "mariadb": "mysql",
    "mysql+pymysql": "mysql",
    "mariadb+pymysql": "mysql",
    "sqlite": "sqlite",
    "duckdb": "duckdb",
}
"""Databases with a dialect of their own here. Every other address, and every other driver of these, is SQLAlchemy's."""


@dataclass(frozen=True, slots=True)
class Address:
    """`rest` is a URL that the dialect's driver understands, or the path of a file. It may hold a password."""

    dialect: Dialect
    rest: str


def parsed(url: str) -> Address:
    """Take a URL apart. Raises ValueError, without quoting it, where it is none."""
    scheme, found, rest = url.partition("://")
    dialect = _SCHEMES.get(scheme, "generic")
    is_file = dialect in ("sqlite", "duckdb")
    if not found or not scheme or (is_file and not rest.removeprefix("/")) or (is_file and not rest.startswith("/")):
        raise ValueError(
            "the address must start with postgresql://, mysql://, mariadb://, sqlite:/// or duckdb:/// (a file),"
            " or be one that SQLAlchemy knows, such as mssql+pyodbc://"
        )
    if is_file:
        return Address(dialect, rest.removeprefix("/"))
    return Address(dialect, url if dialect == "generic" else f"{scheme.partition('+')[0]}://{rest}")


def session_of(address: Address) -> "type[Session]":
    """What speaks to the database. Imported here because drivers are heavy."""
    match address.dialect:
        case "postgres":
            from muxly_dagster.destinations.database.postgres import PostgresSession

            return PostgresSession
        case "mysql":
            from muxly_dagster.destinations.database.mysql import MySqlSession

            return MySqlSession
        case "sqlite":
            from muxly_dagster.destinations.database.sqlite import SqliteSession

            return SqliteSession
        case "duckdb":
            from muxly_dagster.destinations.database.duckdb import DuckDbSession

            return DuckDbSession
        case "generic":
            from muxly_dagster.destinations.database.generic import GenericSession

            return GenericSession
