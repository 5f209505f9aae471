"""Databases as the tests of the sql connector use them: filled by hand, read by the connector."""

import sqlite3
from pathlib import Path
from typing import Any

import psycopg

from muxly_dagster.connector import Batch, Cursor
from muxly_dagster.connectors.sql import Sql, SqlPull
from muxly_dagster_tests.peers import mariadb as mariadb_peer


def on_postgres(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def on_mariadb(url: str, *statements: str) -> None:
    with mariadb_peer.connect(url) as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def on_sqlite(path: Path, *statements: str, rows: list[tuple[Any, ...]] | None = None) -> str:
    connection = sqlite3.connect(path)
    for statement in statements:
        if rows is not None and statement.lstrip().startswith("insert") and "?" in statement:
            connection.executemany(statement, rows)
        else:
            connection.execute(statement)
    connection.commit()
    connection.close()
    return f"sqlite:///{path}"


def sql(url: str, schema: str = "") -> Sql:
    return Sql.model_validate({"url": url, "schema": schema})


def batches(url: str, since: Cursor | None = None, /, **pull: Any) -> list[Batch]:
    return list(sql(url).pull(SqlPull(stream="things", **pull), since, None))


def rows(found: list[Batch]) -> list[dict[str, Any]]:
    return [row for batch in found for row in batch.rows.to_pylist()]


def last_cursor(found: list[Batch]) -> Cursor:
    return [batch.cursor for batch in found if batch.cursor is not None][-1]
