"""What a run of a job is started with has its effect, and what was made by the API is what Dagster loads."""

import datetime as dt
import json
from collections.abc import Mapping
from pathlib import Path

import dagster as dg
import pytest

from muxly_dagster.assembly.tags import FROM_START, PARAMETERS, PAST_GUARD, SELECT
from muxly_dagster.defs.project import project_definitions
from muxly_dagster.defs.starts import STARTS
from muxly_dagster.settings import Settings
from muxly_dagster.state import State
from muxly_dagster.state.starts import Start

PROJECT = """
sources:
  shop: {connector: files, path: ./in, pulls: [orders]}
transforms:
  since:
    from: [shop.orders]
    python: since:told
    key: [what]
routes:
  out: {from: shop.orders, to: [archive]}
destinations:
  archive: {type: database, url: "sqlite:///out.db", mode: mirror, guard: {deletes: 0%, at_least: 1}}
jobs:
  day: {select: [shop, since, out]}
"""
FUNCTION = """
import pyarrow as pa

def told(orders, parameters):
    return pa.Table.from_pylist([{"what": key, "value": str(value)} for key, value in (parameters or {"nothing": 0}).items()])
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "orders.csv").write_text("id\n1\n2\n")
    (tmp_path / "muxly.yaml").write_text(PROJECT)
    (tmp_path / "since.py").write_text(FUNCTION)
    home = tmp_path / "home"
    return Settings(tmp_path / "muxly.yaml", home, f"sqlite:///{home}/state.db", str(tmp_path / "lake"))


def run(settings: Settings, instance: dg.DagsterInstance, tags: Mapping[str, str], *assets: str) -> dg.ExecuteInProcessResult:
    job = project_definitions(settings, {}).resolve_job_def("day")
    chosen = [dg.AssetKey(name.split(".")) for name in assets] or None
    return job.execute_in_process(instance=instance, tags=tags, asset_selection=chosen, raise_on_error=False)


def read(result: dg.ExecuteInProcessResult, asset: str) -> object:
    [made] = [e for e in result.get_asset_materialization_events() if e.asset_key == dg.AssetKey(asset.split("."))]
    return made.materialization.metadata["read"].value


def test_tags_of_a_run_have_their_effect(settings: Settings, instance: dg.DagsterInstance) -> None:
    first = run(settings, instance, {PARAMETERS: json.dumps({"since": "2026-01-01", "most": 5})})
    assert first.success
    assert read(first, "since") == 2
    assert read(first, "out.archive") == 2
    again = run(settings, instance, {})
    assert (read(again, "since"), read(again, "out.archive")) == (1, 0)
    everything = run(settings, instance, {FROM_START: "true"}, "out.archive")
    assert read(everything, "out.archive") == 2
    wrong = run(settings, instance, {PARAMETERS: "since yesterday"}, "since")
    assert not wrong.success


def test_a_guard_is_passed_where_the_tag_says_so(settings: Settings, instance: dg.DagsterInstance) -> None:
    assert run(settings, instance, {}).success
    (settings.project.parent / "in" / "orders.csv").write_text("id\n1\n")
    assert not run(settings, instance, {}).success
    assert run(settings, instance, {PAST_GUARD: "true"}).success


def test_a_start_is_submitted_with_its_selection_by_the_sensor_too(settings: Settings, instance: dg.DagsterInstance) -> None:
    state = State.open(settings.database_url, settings.home)
    state.starts.put(Start("5a4b9b52-6d0c-5d0a-8a46-5a1bb13c62d7", "day", "api", dt.datetime.now(dt.UTC), {SELECT: "shop.orders since"}))
    state.close()
    definitions = project_definitions(settings, {})
    given = {"muxly": dict(definitions.resources or {})["muxly"]}
    with dg.build_sensor_context(instance, definitions=definitions, resources=given) as context:
        [request] = definitions.resolve_sensor_def(STARTS).evaluate_tick(context).run_requests or []
    assert [key.to_user_string() for key in request.asset_selection or ()] == ["shop/orders", "since"]


def test_jobs_of_the_state_are_loaded_and_looking_for_them_creates_nothing(settings: Settings) -> None:
    assert "nightly_schedule" not in _schedules(settings)
    assert not settings.home.exists()
    state = State.open(settings.database_url, settings.home)
    state.jobs.create("nightly", {"select": ["shop"], "cron": "@daily"})
    state.jobs.create("gone", {"select": ["crm"], "cron": "@daily"})
    state.jobs.create("day", {"select": ["shop"], "cron": "@daily"})
    state.close()
    assert "nightly_schedule" in _schedules(settings)
    assert "gone_schedule" not in _schedules(settings)
    assert "day_schedule" not in _schedules(settings), "the file's job wins"


def _schedules(settings: Settings) -> list[str]:
    return [schedule.name for schedule in project_definitions(settings, {}).get_repository_def().schedule_defs]
