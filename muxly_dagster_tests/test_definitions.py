"""What Dagster's own commands make of a project: real child processes, real files, a real database."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from muxly_dagster import demo
from muxly_dagster.definitions import project_environ

Command = Callable[..., "subprocess.CompletedProcess[str]"]

PROJECT = """
sources:
  shop: {connector: files, path: ./data, pulls: {orders: {glob: "orders*.csv", key: [id], freshness: 1d}}}
transforms:
  customers: {key: [customer], sql: "select customer, count(*) as orders from shop.orders group by all"}
routes:
  customers_out: {from: customers, to: [warehouse]}
destinations:
  warehouse: {type: database, url: "sqlite:///${SHOP_DATABASE}", mode: upsert}
jobs:
  everything: {select: [shop, customers, customers_out], cron: "@hourly"}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project's folder with two orders."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "orders.csv").write_text("id,customer\n1,ada\n2,grace\n", "utf-8")
    (tmp_path / "muxly.yaml").write_text(PROJECT, "utf-8")
    return tmp_path


@pytest.fixture
def dagster(folder: Path) -> Command:
    """The `dagster` command, run in the project's folder with a Dagster home of its own."""
    (folder / "dagster").mkdir()
    (folder / "dagster" / "dagster.yaml").write_text("telemetry: {enabled: false}\n", "utf-8")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MUXLY_", "DAGSTER_"))}
    root = Path(__file__).parents[1]
    environ = kept | {"DAGSTER_HOME": str(folder / "dagster"), "PYTHONPATH": str(root), "SHOP_DATABASE": str(folder / "shop.db")}

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "dagster", *arguments, "-m", "muxly_dagster.definitions"]
        return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=120, check=False)

    return run


def test_a_project_validates(dagster: Command, folder: Path) -> None:
    done = dagster("definitions", "validate")

    assert done.returncode == 0, done.stderr
    assert not (folder / ".muxly").exists()


def test_a_mistake_is_shown_with_its_place_and_the_way_out(dagster: Command, folder: Path) -> None:
    (folder / "muxly.yaml").write_text(PROJECT.replace("from: customers", "from: costumers"), "utf-8")
    done = dagster("definitions", "validate")

    assert done.returncode != 0
    shown = done.stdout + done.stderr
    assert "muxly.yaml:7" in shown
    assert "costumers" in shown


def test_assets_are_materialized_by_their_keys(dagster: Command, folder: Path) -> None:
    done = dagster("asset", "materialize", "--select", "shop/orders,customers")

    assert done.returncode == 0, done.stderr
    assert (folder / ".muxly" / "lake" / "customers" / "_delta_log").is_dir()
    assert not (folder / "shop.db").exists()


def test_a_job_moves_records_from_the_files_to_the_database(dagster: Command, folder: Path) -> None:
    done = dagster("job", "execute", "-j", "everything")

    assert done.returncode == 0, done.stderr
    with sqlite3.connect(folder / "shop.db") as connection:
        rows = connection.execute("select customer, orders from customers order by customer").fetchall()
    connection.close()
    assert rows == [("ada", 1), ("grace", 1)]


def test_the_environment_stays_as_it_is_where_there_is_a_project(folder: Path) -> None:
    (folder / "below").mkdir()

    assert project_environ({"A": "b"}, folder / "below") == {"A": "b"}
    assert project_environ({"MUXLY_PROJECT": "elsewhere"}, Path("/")) == {"MUXLY_PROJECT": "elsewhere"}


def test_without_a_project_the_demo_is_loaded_with_what_the_environment_says(tmp_path: Path) -> None:
    environ = project_environ({"MUXLY_PROJECT": "", "DEMO_API": "http://127.0.0.1:1234"}, tmp_path)

    assert environ["MUXLY_PROJECT"] == str(Path(demo.__file__).parent / "muxly.yaml")
    assert environ["DEMO_API"] == "http://127.0.0.1:1234"
    assert environ["MUXLY_HOME"] == str(tmp_path / ".demo" / ".muxly")


def test_the_demo_that_was_run_here_is_preferred_to_the_one_in_the_package(tmp_path: Path) -> None:
    demo.copy_project(tmp_path / ".demo")

    assert project_environ({}, tmp_path)["MUXLY_PROJECT"] == str(tmp_path / ".demo" / "muxly.yaml")
