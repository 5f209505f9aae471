"""Freshness: what is too old, who notices, and when a check is run at all."""

import datetime as dt

import dagster as dg
import pytest

from muxly_dagster.defs.checks import FRESHNESS_SENSOR, Freshness, delivery_result
from muxly_dagster.defs.project import assembly_definitions
from muxly_dagster.outcome import Outcome
from muxly_dagster.runtime import Runtime
from muxly_dagster.settings import Settings
from muxly_dagster_tests.defs.shop import Shop, assembly

NOON = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)


@pytest.mark.parametrize(("last", "fresh"), [(NOON - HOUR, True), (NOON - HOUR - dt.timedelta(seconds=1), False), (None, False)])
def test_a_table_is_fresh_until_its_last_success_is_too_long_ago(last: dt.datetime | None, fresh: bool) -> None:
    result = Freshness("shop.orders", HOUR, last).result(NOON)

    assert result.passed is fresh
    assert result.severity == dg.AssetCheckSeverity.WARN


def test_a_record_nobody_answers_for_is_an_error_and_a_waiting_one_a_warning() -> None:
    lost = delivery_result(Outcome("sales.big", read=3, accepted=1, unrouted=1), lag=0)
    waiting = delivery_result(Outcome("sales.big", read=2, accepted=1, unrouted=1), lag=7)

    assert (lost.passed, lost.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert (waiting.passed, waiting.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert waiting.description == "7 changes came in meanwhile and wait for the next run"


def watch(definitions: dg.Definitions, instance: dg.DagsterInstance, cursor: str | None) -> tuple[list[str], str | None]:
    """One tick of the sensor: the checks it asks for, and where it stands then."""
    resources = dict(definitions.resources or {})
    with dg.build_sensor_context(instance, cursor=cursor, definitions=definitions, resources={"muxly": resources["muxly"]}) as context:
        tick = definitions.resolve_sensor_def(FRESHNESS_SENSOR).evaluate_tick(context)
    asked = [key.to_user_string() for request in tick.run_requests or [] for key in request.asset_check_keys or []]
    return asked, tick.cursor


def test_the_sensor_asks_for_a_check_only_when_it_would_turn_out_otherwise(
    shop: Shop, shop_settings: Settings, instance: dg.DagsterInstance
) -> None:
    declared = assembly(shop, freshness="1h")
    definitions = assembly_definitions(declared, shop_settings)

    asked, cursor = watch(definitions, instance, None)
    assert asked == ["shop/orders:freshness"]
    assert watch(definitions, instance, cursor)[0] == []
    with Runtime.of(shop_settings, declared) as runtime:  # pulled without Dagster
        runtime.run("shop.orders")
    asked, cursor = watch(definitions, instance, cursor)
    assert asked == ["shop/orders:freshness"]
    assert watch(definitions, instance, cursor)[0] == []


def test_a_pull_and_its_freshness_check_run_in_one_job(shop: Shop, shop_settings: Settings, instance: dg.DagsterInstance) -> None:
    job = assembly_definitions(assembly(shop, freshness="1h"), shop_settings).resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(instance=instance, asset_selection=[dg.AssetKey(["shop", "orders"])])

    verdicts = {evaluation.check_name: evaluation.passed for evaluation in result.get_asset_check_evaluations()}
    assert verdicts == {"quarantine_rate": True, "freshness": True}


def test_a_project_that_says_nothing_of_freshness_has_no_sensor(shop_settings: Settings) -> None:
    assert not list(assembly_definitions(assembly(), shop_settings).sensors or [])
