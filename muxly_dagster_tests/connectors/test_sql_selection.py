"""Which tables of a database patterns mean, in every make of database."""

import uuid
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from muxly_dagster.connectors.sql import Sql
from muxly_dagster.connectors.sql.selection import select_tables
from muxly_dagster.connectors.sql.settings import SqlPull
from muxly_dagster.errors import ConfigurationError, RetryLater
from muxly_dagster_tests.connectors.databases import on_mariadb, on_postgres, on_sqlite

SHOP = (
    'create table "Orders" (id int primary key, updated_at timestamp)',
    "create table customers (id int primary key, name varchar(20))",
    "create table tmp_load (id int)",
    "create view totals as select count(*) as n from customers",
)


def selected(url: str, *tables: str, schema: str = "", **settings: Any) -> dict[str, dict[str, Any]]:
    source = Sql.model_validate({"url": url, "schema": schema, "tables": tables, "table_settings": settings})
    return {each.short: dict(each.settings) for each in source.selected()}


@pytest.fixture
def shop(postgres: str) -> str:
    """A Postgres database with two schemas."""
    on_postgres(postgres, *SHOP, "create schema crm", "create table crm.contacts (id int)", "create table crm.tmp_x (id int)")
    return postgres


def test_a_pattern_means_the_tables_and_views_of_a_schema_without_those_that_another_leaves_out(shop: str) -> None:
    assert list(selected(shop, "public.*", "!*.tmp_*")) == ["Orders", "customers", "totals"]
    assert list(selected(shop, "*.*", "!tmp_*", "!crm.tmp_?")) == ["crm.contacts", "Orders", "customers", "totals"]


def test_a_pattern_without_a_schema_means_the_tables_that_are_found_without_one(shop: str) -> None:
    assert list(selected(shop, "*")) == ["Orders", "customers", "tmp_load", "totals"]
    assert list(selected(shop, "*", schema="crm")) == ["contacts", "tmp_x"]


def test_letter_case_does_not_count_and_the_pull_names_the_table_as_the_database_does(shop: str) -> None:
    assert selected(shop, "PUBLIC.orders") == {"Orders": {"table": "public.Orders"}}


def test_every_table_of_postgres_can_be_read_by_the_name_that_it_is_selected_by(shop: str) -> None:
    source = Sql.model_validate({"url": shop, "tables": ["*.*"]})

    for each in source.selected():
        assert list(source.pull(SqlPull(stream="x", **each.settings), None, None)) is not None


def test_partitions_are_not_selected_beside_their_table(postgres: str) -> None:
    on_postgres(postgres, "create table days (d date) partition by range (d)", "create table days_1 partition of days default")

    assert list(selected(postgres, "*")) == ["days"]


def test_tables_that_the_user_may_not_read_are_not_selected(shop: str) -> None:
    role = f"reader_{uuid.uuid4().hex[:8]}"
    on_postgres(shop, f"create role {role} login")
    try:
        on_postgres(shop, f'grant select on "Orders" to {role}', f"grant select (id) on customers to {role}")
        reader = shop.replace("postgres@", f"{role}@")

        assert list(selected(reader, "*.*")) == ["Orders", "customers"]
        with pytest.raises(ConfigurationError, match="there is no table tmp_load that the user may read"):
            selected(reader, "tmp_load")
    finally:
        on_postgres(shop, f"drop owned by {role}", f"drop role {role}")


def test_tables_of_mariadb_are_selected(mariadb: str) -> None:
    on_mariadb(mariadb, *(statement.replace('"', "`") for statement in SHOP))
    database = mariadb.partition("?")[0].rpartition("/")[2]

    found = selected(mariadb, "*", "!tmp_*", **{"*": {"cursor": "updated_at", "deletes": "keys"}})
    assert {name.lower(): settings for name, settings in found.items()} == {
        "customers": {"table": f"{database}.customers"},
        "orders": {"table": f"{database}.Orders", "cursor": "updated_at", "deletes": "keys"},
        "totals": {"table": f"{database}.totals"},
    }
    source = Sql.model_validate({"url": mariadb, "tables": [f"{database}.*"]})
    assert [source.resolve(SqlPull(stream="x", **e.settings)).key for e in source.selected() if e.short == "customers"] == [("id",)]


def test_tables_of_sqlite_are_selected_also_beside_a_broken_view(tmp_path: Path) -> None:
    url = on_sqlite(tmp_path / "shop.db", *SHOP, 'create table "a.b" (id int)', "create view broken as select * from nothing_here")

    assert list(selected(url, "*", "!tmp_*")) == ["Orders", "a.b", "broken", "customers", "totals"]
    assert selected(url, "main.c*") == {"customers": {"table": "main.customers"}}
    source = Sql.model_validate({"url": url, "tables": ["main.a.b", "customers"]})
    assert [source.resolve(SqlPull(stream="x", **e.settings)).key for e in source.selected()] == [(), ("id",)]


def test_settings_go_to_the_tables_that_have_their_columns_and_the_last_that_fits_counts(shop: str) -> None:
    on_postgres(shop, "create table events (n int, updated_at timestamp)", "create table logs (id int primary key, updated_at timestamp)")
    by_time = {"cursor": "updated_at", "deletes": "keys"}

    found = selected(shop, "*", **{"*": by_time, "logs": {"cursor": "id"}, "events": {"cursor": "nothing"}})
    assert found["Orders"] == {"table": "public.Orders"} | by_time
    assert found["logs"] == {"table": "public.logs", "cursor": "id"}
    assert found["customers"] == {"table": "public.customers"}
    assert found["events"] == {"table": "public.events"}, "it has no key, which `deletes` needs"
    assert selected(shop, "events", **{"*": by_time | {"key": ["n"]}})["events"]["key"] == ["n"]


def test_a_name_that_is_not_there_is_told_with_the_nearest(shop: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        selected(shop, "*", "costumers", "crm.contact")

    assert [(p.path, p.do) for p in caught.value.problems] == [
        ("tables.1", "did you mean customers?"),
        ("tables.2", "did you mean crm.contacts?"),
    ]


def test_patterns_that_select_nothing_are_told() -> None:
    with pytest.raises(ConfigurationError, match="tables: selects nothing"):
        select_tables([], ["*"], {})


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ({"tables": ["!tmp_*"]}, "only leaves tables out"),
        ({"tables": ["*", "!"]}, "has an empty pattern"),
        ({"table_settings": {"*": {"cursor": "id"}}}, "without `tables`"),
        ({"tables": ["*"], "table_settings": {"*": {"query": "select 1"}}}, "says `query` for"),
        ({"tables": ["*"], "table_settings": {"*": {"cursr": "id"}}}, "cursr"),
    ],
)
def test_what_cannot_be_meant_is_refused(said: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        Sql.model_validate({"url": "sqlite:///shop.db", **said})


def test_nothing_secret_is_kept_of_where_the_patterns_were_asked() -> None:
    source = Sql.model_validate({"url": "postgresql://ada:s3cr3t@db.example/shop?sslpassword=hush", "tables": ["*"]})

    kept = source.selection()
    assert kept is not None
    assert kept["database"] == "postgresql://db.example/shop"
    assert "s3cr3t" not in str(kept) and "hush" not in str(kept)


def test_a_source_without_patterns_has_nothing_to_select() -> None:
    assert Sql.model_validate({"url": "postgresql://nobody@127.0.0.1:1/x"}).selection() is None


def test_a_database_that_is_away_is_asked_again_later() -> None:
    with pytest.raises(RetryLater):
        selected("postgresql://nobody@127.0.0.1:1/x", "*")
