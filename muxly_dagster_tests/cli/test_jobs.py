"""`muxly jobs`, and the commands that know jobs made by the API."""

from pathlib import Path

import pytest

from muxly_dagster.state import State
from muxly_dagster_tests.cli.command import MuxlyHere

PROJECT = """
sources:
  shop: {connector: files, path: ./in, pulls: [orders]}
destinations:
  ops: {type: file, path: ops}
jobs:
  hourly: {select: [shop], cron: "@hourly", timezone: Europe/Berlin, jitter: 30s, on_failure: [ops]}
  by_hand: {select: [shop.orders]}
"""


@pytest.fixture
def muxly(tmp_path: Path) -> MuxlyHere:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "orders.csv").write_text("id\n1\n")
    (tmp_path / "muxly.yaml").write_text(PROJECT)
    return MuxlyHere(tmp_path, {"MUXLY_HOME": str(tmp_path / "home"), "DAGSTER_HOME": str(tmp_path / "dagster")})


@pytest.fixture
def state(muxly: MuxlyHere) -> State:
    """The project's state; connections are given back at once."""
    return State.open(f"sqlite:///{muxly.folder}/home/state.db", muxly.folder / "home")


def test_jobs_are_listed_shown_paused_and_resumed(muxly: MuxlyHere, state: State) -> None:
    state.jobs.create("nightly", {"select": ["shop"], "cron": "@daily"})
    state.jobs.create("gone", {"select": ["crm"]})
    state.close()
    listed = {job["name"]: job for job in muxly("jobs", "list", "--json").json}
    assert {name: job["status"] for name, job in listed.items()} == {
        "hourly": "on",
        "by_hand": "on",
        "nightly": "on",
        "gone": "does not fit",
    }
    assert (listed["hourly"]["at"], listed["nightly"]["at"]) == ("muxly.yaml:7", "the API")
    assert listed["hourly"]["on_failure"] == ["ops"]
    assert listed["hourly"]["next_run_at"].endswith(":00:00Z")
    assert listed["by_hand"]["next_run_at"] is None
    table = muxly("jobs", "list")
    assert "jobs.gone.select.0: there is nothing called crm to run" in table.all

    assert "muxly jobs resume hourly" in muxly("jobs", "pause", "hourly").err
    shown = muxly("jobs", "show", "hourly", "--json").json
    assert (shown["status"], shown["next_run_at"], shown["jitter"]) == ("paused", None, "30s")
    assert "Europe/Berlin" in muxly("jobs", "show", "hourly").out
    assert "next run is due at" in muxly("jobs", "resume", "hourly").err
    unknown = muxly("jobs", "pause", "hurly")
    assert (unknown.code, "did you mean hourly?" in unknown.err) == (2, True)


def test_a_job_is_started_for_dagster_to_find(muxly: MuxlyHere, state: State) -> None:
    asked = muxly("jobs", "start", "hourly", "shop.orders", "--from-start", "--parameter", "since=2026", "--parameter", "who=me", "--json")
    assert asked.code == 0
    [start] = state.starts.open("hourly")
    assert start.id == asked.json["id"]
    assert start.tags == {
        "muxly/select": "shop.orders",
        "muxly/parameters": '{"since":2026,"who":"me"}',
        "muxly/from_start": "true",
    }
    state.close()
    assert "is no parameter" in muxly("jobs", "start", "hourly", "--parameter", "since").err
    assert "there is nothing called crm" in muxly("jobs", "start", "hourly", "crm").err
    assert muxly("jobs", "start", "weekly").code == 2


def test_commands_know_jobs_that_were_made_by_the_api(muxly: MuxlyHere, state: State) -> None:
    state.jobs.create("nightly", {"select": ["shop"]})
    state.jobs.create("gone", {"select": ["crm"]})
    state.close()
    checked = muxly("check", "--offline", "--json").json
    assert checked["jobs"] == ["hourly", "by_hand", "nightly"]
    [warning] = checked["warnings"]
    assert "the job, which was made by the API, is left out" in warning["what"]
    assert [each["status"] for each in muxly("run", "nightly", "--json").json] == ["ok"]
