"""A database that deliveries go to, and a second way to look into it."""

import contextlib
import sqlite3
from typing import Any, Literal

import duckdb
import psycopg

from muxly_dagster.destinations.database import Database
from muxly_dagster_tests.peers import mariadb

Kind = Literal["postgres", "sqlite", "duckdb", "mariadb"]


def database(**fields: Any) -> Database:
    """A destination from fields as they stand in muxly.yaml."""
    return Database(**fields)


class Server:
    """A database to deliver to, and a second way to look into it. `url` is what the destination is given; `generic`: by SQLAlchemy."""

    def __init__(self, url: str, *, generic: bool = False) -> None:
        self.url, self.generic = url, generic
        self.kind: Kind = "sqlite"
        for kind, start in (("postgres", "postgres"), ("duckdb", "duckdb"), ("mariadb", "mysql"), ("mariadb", "mariadb")):
            if url.startswith(start):
                self.kind = kind  # type: ignore[assignment]
        self.postgres = self.kind == "postgres"

    def destination(self, **fields: Any) -> Database:
        return database(url=self.url, **fields)

    def run(self, statement: str) -> list[dict[str, Any]]:
        if self.kind == "postgres":
            with psycopg.connect(self.url.replace("+psycopg", "")) as connection:
                cursor = connection.execute(statement)
                names = [d.name for d in cursor.description or ()]
                return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()] if names else []
        if self.kind == "mariadb":
            with contextlib.closing(mariadb.connect(self.url)) as other, other.cursor() as found:
                found.execute("set session sql_mode = 'ANSI_QUOTES', time_zone = '+00:00'")
                found.execute(statement)
                return (
                    [dict(zip([d[0] for d in found.description], row, strict=True)) for row in found.fetchall()]
                    if found.description
                    else []
                )
        if self.kind == "duckdb":
            with duckdb.connect(self.url.partition(":///")[2]) as file:
                file.execute("set timezone = 'UTC'")
                rows = file.sql(statement)
                return [] if rows is None else rows.to_arrow_table().to_pylist()
        with contextlib.closing(sqlite3.connect(self.url.partition(":///")[2])) as file, file:
            found = file.execute(statement)
            return [dict(zip([d[0] for d in found.description], row, strict=True)) for row in found.fetchall()] if found.description else []

    def rows(self, table: str = "crm_deals") -> list[dict[str, Any]]:
        return self.run(f"select * from {table} order by id")

    def types(self, table: str = "crm_deals") -> dict[str, str]:
        if self.kind == "postgres":
            query = (
                "select attname, format_type(atttypid, atttypmod) t from pg_attribute"
                f" where attrelid = to_regclass('{table}') and attnum > 0"
            )
            return {r["attname"]: r["t"] for r in self.run(query)}
        if self.kind == "mariadb":
            query = (
                "select column_name as n, column_type as t from information_schema.columns"
                f" where table_schema = database() and table_name = '{table}' order by ordinal_position"
            )
            return {r["n"]: r["t"] for r in self.run(query)}
        return {r["name"]: r["type"] for r in self.run(f"pragma table_info({table})")}
