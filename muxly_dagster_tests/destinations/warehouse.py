"""A database that deliveries go to, and a second way to look into it."""

import contextlib
import sqlite3
from typing import Any

import psycopg

from muxly_dagster.destinations.database import Database


def database(**fields: Any) -> Database:
    """A destination from fields as they stand in muxly.yaml."""
    return Database(**fields)


class Server:
    """A database to deliver to, and a second way to look into it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.postgres = url.startswith("postgres")

    def destination(self, **fields: Any) -> Database:
        return database(url=self.url, **fields)

    def run(self, statement: str) -> list[dict[str, Any]]:
        if self.postgres:
            with psycopg.connect(self.url) as connection:
                cursor = connection.execute(statement)
                names = [d.name for d in cursor.description or ()]
                return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()] if names else []
        with contextlib.closing(sqlite3.connect(self.url.removeprefix("sqlite:///"))) as file, file:
            found = file.execute(statement)
            return [dict(zip([d[0] for d in found.description], row, strict=True)) for row in found.fetchall()] if found.description else []

    def rows(self, table: str = "crm_deals") -> list[dict[str, Any]]:
        return self.run(f"select * from {table} order by id")

    def types(self, table: str = "crm_deals") -> dict[str, str]:
        if self.postgres:
            query = (
                f"select attname, format_type(atttypid, atttypmod) t from pg_attribute where attrelid = '{table}'::regclass and attnum > 0"
            )
            return {r["attname"]: r["t"] for r in self.run(query)}
        return {r["name"]: r["type"] for r in self.run(f"pragma table_info({table})")}
