"""The demo's course: the project is put in place, the API is up while it runs, each run is one day later, the end says where to look."""

import io
import sqlite3
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest
from rich.console import Console

from muxly_dagster.demo import PROJECT_FILES, run_demo
from muxly_dagster.errors import ConfigurationError


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=160)


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def deliver_something(environ: Mapping[str, str]) -> int:
    """Stands for the project's run: leaves what the project's destinations leave."""
    out = Path(environ["MUXLY_PROJECT"]).parent / "out"
    (out / "deals" / "crm_deals").mkdir(parents=True, exist_ok=True)
    (out / "deals" / "crm_deals" / "1.ndjson").write_text("{}\n")
    (out / "deals" / "crm_deals" / ".unfinished").write_text("{")
    with sqlite3.connect(out / "demo.db") as connection:
        connection.execute("create table if not exists customers as select 1 as id union select 2")
        connection.execute("create table if not exists _muxly_offsets (seq)")
    connection.close()
    return 0


def test_the_api_is_up_while_the_project_runs_and_a_day_later_once_a_run_went_well(tmp_path: Path, console: Console) -> None:
    days = []

    def run(environ: Mapping[str, str]) -> int:
        assert Path(environ["MUXLY_PROJECT"]).is_file()
        days.append(httpx.get(environ["DEMO_API"]).json()["day"])
        answer = httpx.get(environ["DEMO_API"] + "/crm/account", headers={"Authorization": f"Bearer {environ['DEMO_CRM_TOKEN']}"})
        assert answer.status_code == 200
        return 1 if len(days) == 1 else deliver_something(environ)

    assert [run_demo(tmp_path / "demo", console, run) for _ in range(3)] == [1, 0, 0]
    assert days == [1, 1, 2]
    assert "Day 2" in shown(console)


def test_the_end_names_the_files_the_database_and_the_dagster_ui(tmp_path: Path, console: Console) -> None:
    assert run_demo(tmp_path, console, deliver_something) == 0
    text = shown(console)
    assert f"{tmp_path}/out/deals (1 file, NDJSON)" in text
    assert "demo.db (SQLite; rows: customers 2)" in text
    assert f"-p {tmp_path} query" in text
    assert "Dagster UI" in text


def test_a_run_that_fails_is_not_followed_by_where_to_look(tmp_path: Path, console: Console) -> None:
    assert run_demo(tmp_path, console, lambda environ: 2) == 2
    assert "Where to look" not in shown(console)


def test_an_edited_project_is_kept_and_a_missing_file_comes_back(tmp_path: Path, console: Console) -> None:
    run_demo(tmp_path, console, lambda environ: 1)
    assert all((tmp_path / name).is_file() for name in PROJECT_FILES)
    (tmp_path / "muxly.yaml").write_text("name: mine\n")
    (tmp_path / "crm.yaml").unlink()
    run_demo(tmp_path, console, lambda environ: 1)
    assert (tmp_path / "muxly.yaml").read_text() == "name: mine\n"
    assert (tmp_path / "crm.yaml").is_file()


def test_a_broken_day_counter_says_how_to_begin_anew(tmp_path: Path, console: Console) -> None:
    (tmp_path / "day").write_text("tomorrow")
    with pytest.raises(ConfigurationError, match="begin the demo anew"):
        run_demo(tmp_path, console, lambda environ: 0)
