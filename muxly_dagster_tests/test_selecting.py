"""Tables that become pulls by pattern: named, kept, told about, and used like pulls that are written out."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from muxly_dagster.assembly import Assembly, assemble, load_assembly
from muxly_dagster.errors import ConfigurationError
from muxly_dagster.project.load import load_project
from muxly_dagster.selecting import Asking, pull_name
from muxly_dagster_tests.cli.command import ROOT, Muxly, MuxlyHere, clean_environ
from muxly_dagster_tests.connectors.databases import on_postgres, on_sqlite

TABLES = (
    "create table Orders (id int primary key, amount int)",
    "create table customers (id int primary key, name text)",
    "create table tmp_load (id int)",
    "insert into Orders values (1, 10), (2, 250)",
    "insert into customers values (1, 'ada')",
)
PROJECT = """
sources:
  shop:
    connector: sql
    url: "${SHOP_URL}"
    tables: ["*", "!tmp_*"]
transforms:
  large: {sql: select * from shop.orders where amount > 100, key: [id]}
routes:
  orders_out: {from: shop.orders, to: archive}
destinations:
  archive: {type: file, path: ./out, format: ndjson}
jobs:
  all_day: {select: [shop, large, orders_out]}
"""


@pytest.fixture
def muxly(tmp_path: Path) -> MuxlyHere:
    """The command in a project whose source is a SQLite database with three tables."""
    url = on_sqlite(tmp_path / "shop.db", *TABLES)
    (tmp_path / "muxly.yaml").write_text(PROJECT, "utf-8")
    return MuxlyHere(tmp_path, {"SHOP_URL": url})


def loaded(muxly: Muxly, text: str = "", ask: Asking = "once") -> Assembly:
    path = muxly.folder / "muxly.yaml"
    if text:
        path.write_text(text, "utf-8")
    return load_assembly(path, muxly.environ, home=muxly.folder / ".muxly", ask=ask)


def source(*lines: str) -> str:
    """A project that has only the source, with more lines in it."""
    return "\n".join(["sources:", "  shop:", "    connector: sql", '    url: "${SHOP_URL}"', *(f"    {line}" for line in lines)])


def problems(muxly: Muxly, text: str = "", ask: Asking = "once") -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        loaded(muxly, text, ask)
    return [f"{p.path} (line {p.line}): {p.what}; {p.do}" for p in caught.value.problems]


def test_a_selected_table_is_run_routed_and_transformed_like_any_pull(muxly: MuxlyHere) -> None:
    checked = muxly("check")
    assert checked.code == 0, checked.all
    assert "pulls: shop.orders, shop.customers" in checked.out

    ran = muxly("run", "all_day", "--json")
    assert ran.code == 0, ran.all
    assert [report["asset"] for report in ran.json] == ["shop.orders", "shop.customers", "large", "orders_out.archive"]
    written = [
        json.loads(line)["id"] for file in sorted((muxly.folder / "out").rglob("*.ndjson")) for line in file.read_text().splitlines()
    ]
    assert len(written) == 2
    assert [row["name"] for row in muxly("query", "select name from shop.customers", "--json").json] == ["ada"]


def test_one_selected_table_can_be_run_by_itself(muxly: MuxlyHere) -> None:
    assert [report["asset"] for report in muxly("run", "shop.orders", "--json").json] == ["shop.orders"]
    assert [report["asset"] for report in muxly("run", "shop", "--json").json] == ["shop.orders", "shop.customers"]


def test_dagster_loads_from_what_is_kept_while_the_database_is_away(muxly: MuxlyHere) -> None:
    assert muxly("check").code == 0
    (muxly.folder / "shop.db").unlink()
    (muxly.folder / "dagster").mkdir()
    (muxly.folder / "dagster" / "dagster.yaml").write_text("telemetry: {enabled: false}\n", "utf-8")
    environ = clean_environ() | muxly.environ | {"DAGSTER_HOME": str(muxly.folder / "dagster"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "dagster", "definitions", "validate", "-m", "muxly_dagster.definitions"]

    done = subprocess.run(command, cwd=muxly.folder, env=environ, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_what_is_kept_names_no_secret_and_is_read_as_long_as_the_patterns_stay(muxly: MuxlyHere) -> None:
    loaded(muxly)
    kept = muxly.folder / ".muxly" / "selected" / "shop.json"
    assert [each["name"] for each in json.loads(kept.read_text())["selected"]] == ["main.Orders", "main.customers"]
    on_sqlite(muxly.folder / "shop.db", "create table refunds (id int)")

    assert list(loaded(muxly).pulls) == ["shop.orders", "shop.customers"]
    assert list(loaded(muxly, source("tables: ['*', '!tmp_*', '!customers']")).pulls) == ["shop.orders", "shop.refunds"]
    assert os.listdir(kept.parent) == ["shop.json"]


def test_a_check_tells_what_is_new_and_what_is_gone(muxly: MuxlyHere) -> None:
    assert muxly("check", "--json").json["news"] == []
    on_sqlite(muxly.folder / "shop.db", "create table refunds (id int)", "drop table customers")

    told = muxly("check")
    assert told.code == 0
    assert "shop: new since the last time: main.refunds" in told.err
    assert "shop: gone since the last time: main.customers" in told.err
    again = muxly("check", "--json").json
    assert (again["news"], again["pulls"]) == ([], ["shop.orders", "shop.refunds"])


def test_while_the_project_needs_a_table_that_is_gone_what_is_kept_stays_so_that_the_rest_goes_on(muxly: MuxlyHere) -> None:
    loaded(muxly)
    on_sqlite(muxly.folder / "shop.db", "drop table Orders")

    assert muxly("check").code == 2
    assert "shop.orders" in loaded(muxly).pulls


def test_a_check_of_a_database_that_is_away_goes_by_what_is_kept_and_says_that_it_is_away(muxly: MuxlyHere, postgres: str) -> None:
    on_postgres(postgres, "create table orders (id int primary key, amount int)")
    head, _, name = postgres.partition("?")[0].rpartition("/")
    server = f"{head}/postgres"
    assert muxly("check", SHOP_URL=postgres).code == 0
    on_postgres(server, f"alter database {name} allow_connections false")

    done = muxly("check", SHOP_URL=postgres.replace("postgres@", "postgres:s3cr3t@"))
    assert done.code == 1
    assert "pulls: shop.orders" in done.out
    assert "not currently accepting connections" in done.all
    assert "s3cr3t" not in done.all


def test_a_database_that_is_away_before_it_was_ever_asked_is_told_and_all_else_is_still_looked_at(muxly: MuxlyHere) -> None:
    muxly.environ["SHOP_URL"] = "postgresql://ada:s3cr3t@127.0.0.1:1/shop"

    told = problems(muxly, PROJECT + "  wrong: {select: [nothing_here]}\n")
    assert len(told) == 2, told
    assert told[0].startswith("sources.shop (line 3): its patterns cannot be looked up: ")
    assert told[1].startswith("jobs.wrong.select.0 (line 15): there is nothing called nothing_here")
    assert "s3cr3t" not in str(told)


def test_offline_nobody_is_asked_and_what_names_unknown_pulls_is_not_to_blame(muxly: MuxlyHere) -> None:
    muxly.environ["SHOP_URL"] = "postgresql://ada@127.0.0.1:1/shop"

    done = muxly("check", "--offline")
    assert done.code == 0, done.all
    assert "sources.shop: which pulls its patterns select is not known" in done.err
    assert list(assemble(load_project(muxly.folder / "muxly.yaml", muxly.environ)).targets) == []


def test_a_source_that_is_wrong_itself_is_the_only_problem(muxly: MuxlyHere) -> None:
    assert [told.partition(":")[0] for told in problems(muxly, PROJECT.replace("tables:", "tabels:"))] == ["sources.shop.tabels (line 6)"]


def test_a_pattern_that_is_wrong_is_told_at_its_place(muxly: MuxlyHere) -> None:
    text = source("tables:", "  - customers", "  - ordres")

    assert problems(muxly, text) == [
        "sources.shop.tables.1 (line 7): there is no table ordres that the user may read; did you mean Orders?"
    ]


def test_a_pull_that_is_written_out_wins_over_the_pattern_whatever_it_is_called(muxly: MuxlyHere) -> None:
    text = source("tables: ['*', '!tmp_*']", "pulls:", "  sales: {table: Orders, cursor: id}", "  customers: {query: select 1 as id}")

    pulls = loaded(muxly, text).pulls
    assert list(pulls) == ["shop.sales", "shop.customers"]
    assert pulls["shop.sales"].stream.sync == "cursor"
    assert list(loaded(muxly, text.replace("Orders", "main.Orders")).pulls) == ["shop.sales", "shop.customers"]


def test_two_tables_of_one_name_are_told_until_one_is_written_out_or_left_out(muxly: MuxlyHere) -> None:
    on_sqlite(muxly.folder / "shop.db", 'create table "order s" (id int)', "create table order_s (id int)")
    tables = "tables: [order*]"

    [told] = problems(muxly, source(tables))
    assert told.startswith("sources.shop (line 2): main.order s and main.order_s would both be the pull order_s; write one")
    assert list(loaded(muxly, source(tables, "pulls: {spaced: {table: 'order s'}}")).pulls) == [
        "shop.spaced",
        "shop.orders",
        "shop.order_s",
    ]
    assert list(loaded(muxly, source("tables: [order*, '!order s']")).pulls) == ["shop.orders", "shop.order_s"]


def test_a_pull_of_the_same_name_that_reads_another_table_is_told(muxly: MuxlyHere) -> None:
    [told] = problems(muxly, source("tables: [Orders]", "pulls: {orders: {table: customers}}"))

    assert "main.Orders would be the pull orders, which is written out and reads customers" in told


def test_a_name_of_which_nothing_is_left_is_told(muxly: MuxlyHere) -> None:
    on_sqlite(muxly.folder / "shop.db", 'create table "注文" (id int)')

    [told] = problems(muxly, source("tables: ['*']"))
    assert "no name for a pull can be made of main.注文" in told


def test_tables_of_other_schemas_carry_the_schema_in_their_name_and_settings_go_where_they_fit(muxly: MuxlyHere, postgres: str) -> None:
    on_postgres(
        postgres,
        "create schema crm",
        "create table orders (id int primary key, updated_at timestamp)",
        'create table crm."Order Lines" (id int primary key)',
    )
    muxly.environ["SHOP_URL"] = postgres

    pulls = loaded(muxly, source("tables: ['*.*']", "table_settings: {'*.*': {cursor: updated_at, group: live}}")).pulls
    assert {name: (pull.stream.sync, pull.settings.group) for name, pull in pulls.items()} == {
        "shop.crm_order_lines": ("full", ""),
        "shop.orders": ("cursor", "live"),
    }


def test_a_file_that_is_damaged_or_cannot_be_written_costs_a_question_and_nothing_else(
    muxly: MuxlyHere, caplog: pytest.LogCaptureFixture
) -> None:
    kept = muxly.folder / ".muxly" / "selected"
    kept.mkdir(parents=True)
    (kept / "shop.json").write_text('{"selection": ', "utf-8")
    assert len(loaded(muxly).pulls) == 2
    assert json.loads((kept / "shop.json").read_text())["selected"]
    (kept / "shop.json").unlink()
    kept.rmdir()
    kept.write_text("in the way", "utf-8")

    assert len(loaded(muxly).pulls) == 2
    assert "what shop selects cannot be kept" in caplog.text


@pytest.mark.parametrize(
    ("table", "name"),
    [
        ("Orders", "orders"),
        ("crm.Order Items", "crm_order_items"),
        ("Größe", "grosse"),
        ("_private", "private"),
        ("2024_sales", "t_2024_sales"),
        ("main", "t_main"),
        ("muxly_x", "t_muxly_x"),
        ("注文", ""),
    ],
)
def test_any_table_gets_a_name_that_muxly_takes(table: str, name: str) -> None:
    assert pull_name(table) == name
