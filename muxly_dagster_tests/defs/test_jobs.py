"""Jobs as declared, with their schedules."""

import dagster as dg

from muxly_dagster.defs.project import assembly_definitions
from muxly_dagster.project.models import JobSpec
from muxly_dagster.settings import Settings
from muxly_dagster_tests.defs.shop import Basket, Shop, assembly

BERLIN = JobSpec(select=["shop", "sales.big"], cron="*/15 * * * *", timezone="Europe/Berlin")


def test_a_job_runs_what_it_selects_and_nothing_else(
    shop: Shop, baskets: dict[str, Basket], shop_settings: Settings, instance: dg.DagsterInstance
) -> None:
    definitions = assembly_definitions(assembly(shop, baskets, jobs={"often": BERLIN}), shop_settings)
    result = definitions.resolve_job_def("often").execute_in_process(instance=instance)

    assert result.success
    ran = sorted(event.asset_key.to_user_string() for event in result.get_asset_materialization_events() if event.asset_key)
    assert ran == ["sales/big", "shop/orders"]
    assert not baskets["rest"]._taken


def test_a_job_leaves_standing_checks_to_the_sensor(shop: Shop, shop_settings: Settings, instance: dg.DagsterInstance) -> None:
    definitions = assembly_definitions(assembly(shop, jobs={"often": BERLIN}, freshness="1h"), shop_settings)
    result = definitions.resolve_job_def("often").execute_in_process(instance=instance)

    assert {evaluation.check_name for evaluation in result.get_asset_check_evaluations()} == {
        "quarantine_rate",
        "delivery_complete",
        "refused_share",
    }


def test_a_schedule_keeps_its_cron_timezone_and_switch(shop_settings: Settings) -> None:
    jobs = {"often": BERLIN, "off": JobSpec(select=["shop"], cron="@daily", enabled=False), "manual": JobSpec(select=["shop"])}
    definitions = assembly_definitions(assembly(jobs=jobs), shop_settings)

    often, off = definitions.resolve_schedule_def("often_schedule"), definitions.resolve_schedule_def("off_schedule")
    assert (often.cron_schedule, often.execution_timezone) == ("*/15 * * * *", "Europe/Berlin")
    assert often.default_status == dg.DefaultScheduleStatus.RUNNING
    assert off.default_status == dg.DefaultScheduleStatus.STOPPED
    names = {schedule.name for schedule in definitions.get_repository_def().schedule_defs}
    assert names == {"often_schedule", "off_schedule", "muxly_maintenance_schedule"}


def test_jobs_run_in_one_process(shop_settings: Settings) -> None:
    definitions = assembly_definitions(assembly(jobs={"often": BERLIN}), shop_settings)

    assert definitions.resolve_job_def("often").executor_def is dg.in_process_executor
    assert definitions.executor is dg.in_process_executor
