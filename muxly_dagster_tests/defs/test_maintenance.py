"""The daily job: a compact lake, a short history, and never a run that is still shown or somebody else's."""

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from muxly_dagster.defs.maintenance import MAINTENANCE, Ours, prune_runs
from muxly_dagster.defs.project import assembly_definitions
from muxly_dagster.project.models import JobSpec
from muxly_dagster.settings import Settings
from muxly_dagster_tests.defs.shop import Shop, assembly

LATER = dt.timedelta(minutes=1)
ORDERS = dg.AssetKey(["shop", "orders"])


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """Dagster's memory as it is by default: SQLite in a folder, and a file for each run."""
    folder = tmp_path / "dagster"
    folder.mkdir()
    # The telemetry it has on by default would be a thread and a file outside the test's folder.
    with dg.DagsterInstance.local_temp(str(folder), overrides={"telemetry": {"enabled": False}}) as instance:
        yield instance


@pytest.fixture
def definitions(shop: Shop, shop_settings: Settings) -> dg.Definitions:
    return assembly_definitions(assembly(shop, jobs={"often": JobSpec(select=["shop"])}), shop_settings)


@pytest.fixture
def ours() -> Ours:
    return Ours(frozenset({"often", MAINTENANCE}), frozenset({ORDERS}))


def run_ids(instance: dg.DagsterInstance) -> set[str]:
    return {record.dagster_run.run_id for record in instance.get_run_records()}


def prune(instance: dg.DagsterInstance, ours: Ours) -> dict[str, int]:
    return prune_runs(instance, ours, dt.datetime.now(dt.UTC) + LATER)


def test_old_runs_go_and_each_assets_latest_materialization_stays(
    definitions: dg.Definitions, ours: Ours, instance: dg.DagsterInstance
) -> None:
    job = definitions.resolve_job_def("often")
    _, _, third = (job.execute_in_process(instance=instance).run_id for _ in range(3))

    assert prune(instance, ours) == {"deleted": 2, "kept": 1}
    assert run_ids(instance) == {third}
    latest = instance.get_latest_materialization_event(ORDERS)
    assert latest is not None
    assert latest.run_id == third
    history = instance.fetch_materializations(ORDERS, limit=10).records
    assert [record.run_id for record in history] == [third]


def test_a_deleted_run_leaves_no_file_behind(definitions: dg.Definitions, ours: Ours, instance: dg.DagsterInstance, tmp_path: Path) -> None:
    job = definitions.resolve_job_def("often")
    gone, kept = (job.execute_in_process(instance=instance).run_id for _ in range(2))
    assert list((tmp_path / "dagster").rglob(f"{gone}*"))
    prune(instance, ours)

    assert not list((tmp_path / "dagster").rglob(f"{gone}*"))
    assert list((tmp_path / "dagster").rglob(f"{kept}*"))


def test_a_failed_run_after_the_latest_materialization_goes(
    shop: Shop, definitions: dg.Definitions, ours: Ours, instance: dg.DagsterInstance
) -> None:
    job = definitions.resolve_job_def("often")
    good = job.execute_in_process(instance=instance).run_id
    shop._troubles.append(ValueError("a bug"))
    assert not job.execute_in_process(instance=instance, raise_on_error=False).success

    prune(instance, ours)
    assert run_ids(instance) == {good}


def test_young_runs_and_other_peoples_runs_stay(definitions: dg.Definitions, ours: Ours, instance: dg.DagsterInstance) -> None:
    @dg.asset
    def theirs() -> None:
        pass

    elsewhere = dg.Definitions(assets=[theirs])
    others = {elsewhere.resolve_implicit_global_asset_job_def().execute_in_process(instance=instance).run_id for _ in range(2)}
    young = {definitions.resolve_job_def("often").execute_in_process(instance=instance).run_id for _ in range(2)}

    assert prune_runs(instance, ours, dt.datetime.now(dt.UTC) - LATER) == {"deleted": 0, "kept": 0}
    assert run_ids(instance) == others | young
    prune(instance, ours)
    assert others < run_ids(instance)


def test_runs_of_chosen_assets_are_ours_and_runs_that_mix_them_with_others_are_not(ours: Ours) -> None:
    theirs = dg.AssetKey("theirs")
    check = dg.AssetCheckKey(ORDERS, "freshness")

    assert ours.owns(dg.DagsterRun(job_name="__ASSET_JOB", asset_selection=frozenset({ORDERS})))
    assert ours.owns(dg.DagsterRun(job_name="__ASSET_JOB", asset_selection=frozenset(), asset_check_selection=frozenset({check})))
    assert not ours.owns(dg.DagsterRun(job_name="__ASSET_JOB", asset_selection=frozenset({ORDERS, theirs})))
    assert not ours.owns(dg.DagsterRun(job_name="__ASSET_JOB"))


def test_more_runs_than_a_page_are_pruned(
    definitions: dg.Definitions, ours: Ours, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muxly_dagster.defs.maintenance._PAGE", 2)
    job = definitions.resolve_job_def("often")
    ran = [job.execute_in_process(instance=instance).run_id for _ in range(5)]

    assert prune(instance, ours) == {"deleted": 4, "kept": 1}
    assert run_ids(instance) == {ran[-1]}


def test_the_job_tidies_the_lake_and_tells_what_it_did(definitions: dg.Definitions, shop: Shop, instance: dg.DagsterInstance) -> None:
    job = definitions.resolve_job_def("often")
    for amount in (1.0, 2.0, 3.0):
        shop._rows[0]["amount"] = amount
        job.execute_in_process(instance=instance)
    result = definitions.resolve_job_def(MAINTENANCE).execute_in_process(instance=instance)

    assert result.success
    (tidied,) = [event for event in result.all_events if event.is_successful_output and event.step_key == "tidy_lake"]
    tables: Any = tidied.step_output_data.metadata["tables"].value
    assert tables["shop.orders"]["files_before"] == 3
    assert tables["shop.orders"]["files_after"] == 1


def test_maintenance_runs_every_night(definitions: dg.Definitions) -> None:
    schedule = definitions.resolve_schedule_def("muxly_maintenance_schedule")

    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
    assert schedule.cron_schedule == "17 3 * * *"
