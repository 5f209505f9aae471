"""Freshness: what is too old, who notices, and when a check is run at all."""

import dataclasses
import datetime as dt

import dagster as dg
import pytest

from muxly_dagster.defs.checks.freshness import Freshness
from muxly_dagster.defs.checks.own import delivery_result, refused_result
from muxly_dagster.defs.checks.standing import WATCH
from muxly_dagster.defs.project import assembly_definitions
from muxly_dagster.outcome import Outcome
from muxly_dagster.policy import Breaker
from muxly_dagster.runtime import Runtime
from muxly_dagster.settings import Settings
from muxly_dagster_tests.defs.shop import Basket, Shop, assembly

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


def test_changes_that_wait_for_a_reason_are_no_warning() -> None:
    kept = delivery_result(Outcome("sales.big", read=2, accepted=2, metadata={"waits": "its window is closed"}), lag=7)

    assert kept.passed
    assert kept.description == "2 accepted, 0 refused, 0 meant for elsewhere; 7 changes wait: its window is closed"


@pytest.mark.parametrize(("refused", "passes"), [(0, True), (1, True), (2, False)])
def test_a_share_of_refused_records_is_allowed(refused: int, passes: bool) -> None:
    result = refused_result(Outcome("sales.big", read=12, accepted=10 - refused, refused=refused, unrouted=2), 0.1)

    assert (result.passed, result.severity) == (passes, dg.AssetCheckSeverity.WARN)
    assert f"{refused} of 10 records were refused" in str(result.description)


def watch(definitions: dg.Definitions, instance: dg.DagsterInstance, cursor: str | None) -> tuple[list[str], str | None]:
    """One tick of the sensor: the checks it asks for, and where it stands then."""
    resources = dict(definitions.resources or {})
    with dg.build_sensor_context(instance, cursor=cursor, definitions=definitions, resources={"muxly": resources["muxly"]}) as context:
        tick = definitions.resolve_sensor_def(WATCH).evaluate_tick(context)
    asked = [key.to_user_string() for request in tick.run_requests or [] for key in request.asset_check_keys or []]
    return asked, tick.cursor


def test_the_sensor_asks_for_a_check_only_when_it_would_turn_out_otherwise(
    shop: Shop, shop_settings: Settings, instance: dg.DagsterInstance
) -> None:
    declared = assembly(shop, freshness="1h")
    definitions = assembly_definitions(declared, shop_settings)

    asked, cursor = watch(definitions, instance, None)
    assert asked == ["shop/orders:freshness", "sales/big:breaker_closed", "sales/rest:breaker_closed"]
    assert watch(definitions, instance, cursor)[0] == []
    with Runtime.of(shop_settings, declared) as runtime:  # pulled without Dagster
        runtime.run("shop.orders")
    asked, cursor = watch(definitions, instance, cursor)
    assert asked == ["shop/orders:freshness"]
    assert watch(definitions, instance, cursor)[0] == []


def test_a_breaker_that_opens_and_a_delivery_that_lags_are_noticed(
    shop: Shop, baskets: dict[str, Basket], shop_settings: Settings, instance: dg.DagsterInstance
) -> None:
    late = {name: Basket(max_lag="1h") if name == "rest" else basket for name, basket in baskets.items()}
    declared = assembly(shop, late)
    definitions = assembly_definitions(declared, shop_settings)
    _, cursor = watch(definitions, instance, None)
    with Runtime.of(shop_settings, declared) as runtime:
        runtime.state.breakers.failed("big", Breaker(failures=1), "the basket is away", NOON)
        runtime.run("shop.orders")
    asked, cursor = watch(definitions, instance, cursor)
    assert asked == ["sales/big:breaker_closed"]

    result = definitions.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=instance, asset_selection=[dg.AssetKey(["sales", "rest"])]
    )
    told = {each.check_name: each.description for each in result.get_asset_check_evaluations()}
    assert told["delivery_lag"] == "nothing waits; 1:00:00 allowed"
    assert told["breaker_closed"] == "rest is delivered to"


def test_a_pull_and_its_freshness_check_run_in_one_job(shop: Shop, shop_settings: Settings, instance: dg.DagsterInstance) -> None:
    job = assembly_definitions(assembly(shop, freshness="1h"), shop_settings).resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(instance=instance, asset_selection=[dg.AssetKey(["shop", "orders"])])

    verdicts = {evaluation.check_name: evaluation.passed for evaluation in result.get_asset_check_evaluations()}
    assert verdicts == {"quarantine_rate": True, "freshness": True}


def test_a_project_with_nothing_to_watch_has_no_sensor(shop_settings: Settings) -> None:
    nothing = dataclasses.replace(assembly(), targets={}, destinations={})
    assert not list(assembly_definitions(nothing, shop_settings).sensors or [])
