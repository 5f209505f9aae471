"""Beginning a project and checking it: init, check, schema, and what the command says of itself."""

import json
import os
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml

from muxly_dagster import __version__
from muxly_dagster_tests.cli.command import Muxly
from muxly_dagster_tests.cli.conftest import SECRETS, reply
from muxly_dagster_tests.http.server import Server

COMMANDS = ["init", "check", "schema", "run", "preview", "query", "trace", "doctor", "dev", "demo", "connectors", "dead-letters"]


@pytest.fixture
def muxly(tmp_path: Path) -> Muxly:
    """The command in an empty folder."""
    return Muxly(tmp_path)


def test_the_default_template_runs_as_it_stands(muxly: Muxly, tmp_path: Path) -> None:
    begun = muxly("init", "shop")
    assert begun.code == 0
    assert "wrote shop/muxly.yaml" in begun.err
    assert begun.err.splitlines()[-1] == "next: cd shop; muxly check; muxly run everything"

    folder = tmp_path / "shop"
    assert muxly("check", folder=folder).code == 0
    assert muxly("run", "everything", folder=folder).code == 0
    rows = muxly("query", "select customer, spent from customers order by spent desc limit 1", "--json", folder=folder).json
    assert rows == [{"customer": "grace", "spent": "250.00"}]
    assert (folder / "warehouse.db").is_file()
    assert list((folder / "out").rglob("*.ndjson"))


def test_the_rest_template_runs_once_its_variables_are_set(muxly: Muxly, tmp_path: Path) -> None:
    begun = muxly("init", "shop", "--template", "rest")
    assert begun.err.splitlines()[-1] == "next: cd shop; set API_URL and API_TOKEN; muxly check; muxly run everything"

    folder = tmp_path / "shop"
    unset = muxly("check", folder=folder)
    assert unset.code == 2
    assert "muxly.yaml:6:" in unset.err
    assert "API_TOKEN" in unset.err
    with Server(reply) as api:
        environ = {"API_URL": api.url, "API_TOKEN": SECRETS["SHOP_TOKEN"]}
        assert muxly("check", folder=folder, **environ).code == 0
        [pulled, delivered] = muxly("run", "everything", "--json", folder=folder, **environ).json
    assert (pulled["read"], delivered["accepted"]) == (2, 2)


def test_the_sql_template_runs_from_one_database_to_another(muxly: Muxly, tmp_path: Path) -> None:
    import sqlite3

    assert (
        muxly("init", ".", "-t", "sql").err.splitlines()[-1] == "next: set SOURCE_URL and WAREHOUSE_URL; muxly check; muxly run everything"
    )
    with sqlite3.connect(tmp_path / "source.db") as connection:
        connection.executescript("create table users (id integer primary key, name text); insert into users values (1, 'ada')")
    connection.close()
    urls = {"SOURCE_URL": "sqlite:///source.db", "WAREHOUSE_URL": "sqlite:///warehouse.db"}
    (tmp_path / "elsewhere").mkdir()

    assert muxly("run", "everything", folder=tmp_path / "elsewhere", **urls).code == 0
    with sqlite3.connect(tmp_path / "warehouse.db") as connection:
        assert connection.execute("select name from app_users").fetchall() == [("ada",)]
    connection.close()


def test_a_project_that_is_there_is_left_alone(muxly: Muxly, tmp_path: Path) -> None:
    (tmp_path / "muxly.toml").write_text("name = 'mine'\n")
    done = muxly("init", ".")

    assert done.code == 2
    assert "muxly.toml is there already" in done.err
    assert not (tmp_path / "muxly.yaml").exists()


def test_a_template_or_folder_that_cannot_be_is_refused(muxly: Muxly, tmp_path: Path) -> None:
    unknown = muxly("init", "shop", "--template", "rset")
    assert unknown.code == 2
    assert "did you mean rest?" in unknown.err
    (tmp_path / "file").write_text("")
    assert "is a file" in muxly("init", "file").err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]
    assert "files (runs as it stands), sql or rest" in " ".join(muxly("init", "--help").out.split())


def test_the_schema_accepts_every_template_and_refuses_a_slip(muxly: Muxly, tmp_path: Path) -> None:
    done = muxly("schema")
    schema = done.json
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)

    for template in ("files", "sql", "rest"):
        assert muxly("init", template, "-t", template).code == 0
        text = (tmp_path / template / "muxly.yaml").read_text("utf-8")
        assert text.startswith("# yaml-language-server: $schema=.muxly/schema.json\n")
        project = yaml.safe_load(text)
        assert [error.message for error in validator.iter_errors(project)] == []
        project["rotues"] = {}
        assert not validator.is_valid(project)
        assert json.loads((tmp_path / template / ".muxly" / "schema.json").read_text("utf-8")) == schema


def test_check_says_what_there_is_and_tries_everything(shop: Muxly) -> None:
    done = shop("check")

    assert done.code == 1, "the source broken cannot be reached"
    assert "no mistakes found" in done.out
    assert "pulls: shop.orders, api.things, broken.users" in done.out
    lines = done.out.splitlines()
    assert any(line.startswith("failed  source broken") for line in lines)
    assert any(line.startswith("ok      source api") and "GET /things" in line for line in lines)
    assert any(line.startswith("ok      destination warehouse") for line in lines)


def test_check_for_machines(shop: Muxly) -> None:
    done = shop("check", "--json")

    assert done.code == 1
    assert done.json["status"] == "failed"
    status = {found["name"]: found["status"] for found in done.json["connections"]}
    assert status["source broken"] == "failed"
    assert status["source shop"] == status["source api"] == status["destination files"] == "ok"
    assert done.json["deliveries"] == ["big_orders.files", "big_orders.hook", "customers_out.warehouse", "things_out.files"]
    refused = shop("check", "--json", SHOP_TOKEN="another").json
    assert {found["name"]: found["status"] for found in refused["connections"]}["source api"] == "failed"


def test_offline_nobody_is_asked(shop: Muxly) -> None:
    assert shop("check", "--offline").code == 0
    offline = shop("check", "--offline", "--json", API_URL="http://127.0.0.1:1")
    assert (offline.code, offline.json["status"], offline.json["connections"]) == (0, "ok", [])


def test_every_mistake_is_told_with_its_place(shop: Muxly) -> None:
    text = (shop.folder / "muxly.yaml").read_text("utf-8")
    slips = text.replace("from: customers,", "from: custmers,").replace("type: webhook", "type: webhok")
    (shop.folder / "muxly.yaml").write_text(slips, "utf-8")
    done = shop("check")

    assert done.code == 2
    assert done.err.splitlines() == [
        "2 problems found",
        "muxly.yaml:26:25: routes.customers_out.from: there is no table custmers; did you mean customers?",
        "muxly.yaml:31:11: destinations.hook.type: there is no type of destination 'webhok'; did you mean webhook?",
    ]
    told = shop("check", "--json")
    assert told.code == 2
    assert [(p["file"], p["line"], p["column"], p["path"]) for p in told.json["problems"]] == [
        ("muxly.yaml", 26, 25, "routes.customers_out.from"),
        ("muxly.yaml", 31, 11, "destinations.hook.type"),
    ]
    for command in (["run", "shop"], ["query", "select 1"], ["preview", "shop.orders"], ["dead-letters", "list"], ["dev"]):
        assert shop(*command).code == 2


@pytest.mark.parametrize("text", ["sources: [", "sources: {a: {connector: files, path: x, pulls: [y]}", "", "\t", "- a", "a: *b"])
def test_a_file_that_is_no_project_is_told_without_a_traceback(muxly: Muxly, tmp_path: Path, text: str) -> None:
    (tmp_path / "muxly.yaml").write_text(text, "utf-8")
    done = muxly("check", "--offline")

    assert done.code == (0 if text == "" else 2)
    assert "muxly.yaml" in done.all


def test_where_there_is_no_project_it_says_how_to_begin_one(muxly: Muxly) -> None:
    for command in (["check"], ["run", "x"], ["query", "select 1"], ["dead-letters", "list"]):
        done = muxly(*command)
        assert done.code == 2
        assert "muxly init" in done.err
    assert "does not exist" in muxly("-p", "nowhere", "check").err


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/proc/self").is_dir(), reason="needs a place where nobody may write")
def test_a_home_that_cannot_be_written_is_told_without_a_traceback(shop: Muxly) -> None:
    for command in (["run", "shop"], ["doctor"], ["dead-letters", "list"]):
        done = shop(*command, MUXLY_HOME="/proc/self/muxly")
        assert done.code == (1 if command == ["doctor"] else 2)
        assert "/proc/self/muxly" in done.all


def test_a_state_database_that_is_none_is_told_without_a_traceback(shop: Muxly) -> None:
    assert shop("dead-letters", "list", MUXLY_DATABASE_URL="nonsense").code == 2
    (shop.folder / "broken.db").write_text("no database " * 1000)
    done = shop("dead-letters", "list", MUXLY_DATABASE_URL="sqlite:///broken.db")
    assert done.code == 2
    assert "the state database is damaged" in done.err


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_what_a_command_does_and_takes(muxly: Muxly, command: str) -> None:
    done = muxly(command, "--help")

    assert done.code == 0
    assert f"muxly {command}" in done.out
    sentence = next(line.strip() for line in done.out.splitlines() if line.strip() and "Usage" not in line)
    assert len(sentence.split()) > 3


def test_the_command_presents_itself(muxly: Muxly) -> None:
    assert muxly("--version").out == f"{__version__}\n"
    for done in (muxly(), muxly("--help")):
        assert all(command in done.all for command in COMMANDS)
    assert muxly("--help").code == 0


@pytest.mark.parametrize(
    "usage", [["chekc"], ["query"], ["preview"], ["run", "--jsn"], ["preview", "x", "--limit", "0"], ["dev", "--port", "99999"]]
)
def test_wrong_usage_ends_with_2(muxly: Muxly, usage: list[str]) -> None:
    done = muxly(*usage)

    assert done.code == 2
    assert "Usage: muxly" in done.err
