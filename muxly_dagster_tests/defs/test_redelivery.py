"""Deliveries that wait are resumed by the sensor, once for each moment, and not while their destination is left alone."""

import datetime as dt

import dagster as dg

from muxly_dagster.defs.project import assembly_definitions
from muxly_dagster.defs.redelivery import REDELIVERY
from muxly_dagster.errors import RetryLater
from muxly_dagster.policy import Breaker
from muxly_dagster.runtime import Runtime
from muxly_dagster.settings import Settings
from muxly_dagster.state import Wait
from muxly_dagster_tests.defs.shop import Basket, Shop, assembly

PAST = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
FUTURE = dt.datetime(2100, 1, 1, tzinfo=dt.UTC)


def tick(definitions: dg.Definitions, instance: dg.DagsterInstance) -> list[dg.RunRequest]:
    resources = dict(definitions.resources or {})
    with dg.build_sensor_context(instance, definitions=definitions, resources={"muxly": resources["muxly"]}) as context:
        return list(definitions.resolve_sensor_def(REDELIVERY).evaluate_tick(context).run_requests or [])


def selected(requests: list[dg.RunRequest]) -> list[list[str]]:
    return [[key.to_user_string() for key in request.asset_selection or []] for request in requests]


def test_what_is_due_is_requested_one_run_a_destination(shop_settings: Settings, instance: dg.DagsterInstance) -> None:
    declared = assembly()
    definitions = assembly_definitions(declared, shop_settings)
    assert tick(definitions, instance) == []
    with Runtime.of(shop_settings, declared) as runtime:
        runtime.state.waiting.put(Wait("sales.big", PAST, "away", 1))
        runtime.state.waiting.put(Wait("sales.rest", FUTURE, "its window is closed"))
        runtime.state.waiting.put(Wait("sales.gone", PAST, "a delivery that is no longer in the project"))
    first = tick(definitions, instance)
    assert selected(first) == [["sales/big"]]
    assert [request.run_key for request in tick(definitions, instance)] == [first[0].run_key], "the same moment is the same run"
    with Runtime.of(shop_settings, declared) as runtime:
        runtime.state.waiting.put(Wait("sales.big", PAST + dt.timedelta(minutes=1), "away", 2))
    assert tick(definitions, instance)[0].run_key != first[0].run_key


def test_a_run_that_came_to_nothing_is_requested_again_but_not_at_every_tick(shop_settings: Settings, instance: dg.DagsterInstance) -> None:
    """Such as one whose process was killed: it left the moment in the state as it was, and Dagster runs no key twice."""
    declared = assembly()
    definitions = assembly_definitions(declared, shop_settings)
    keys = []
    for minutes in (0, 5, 11, 19, 21, 39, 41, 24 * 60):
        with Runtime.of(shop_settings, declared) as runtime:
            runtime.state.waiting.put(Wait("sales.big", dt.datetime.now(dt.UTC) - dt.timedelta(minutes=minutes), "away", 1))
        keys.append(tick(definitions, instance)[0].run_key)
    rounds = [str(key).rpartition(":")[2] for key in keys]
    assert rounds == ["0", "0", "1", "1", "2", "2", "3", "8"]


def test_what_a_run_is_about_to_deliver_is_not_requested_beside_it(shop_settings: Settings, instance: dg.DagsterInstance) -> None:
    declared = assembly()
    definitions = assembly_definitions(declared, shop_settings)
    with Runtime.of(shop_settings, declared) as runtime:
        runtime.state.waiting.put(Wait("sales.big", PAST, "away", 1))
        runtime.state.waiting.put(Wait("sales.rest", PAST, "away", 1))
    job = definitions.resolve_implicit_global_asset_job_def()
    run = instance.create_run_for_job(
        job, asset_selection=frozenset({dg.AssetKey(["sales", "big"])}), tags={"dagster/sensor_name": REDELIVERY}
    )
    assert selected(tick(definitions, instance)) == [["sales/rest"]]
    instance.report_run_canceled(run)
    assert sorted(selected(tick(definitions, instance))) == [["sales/big"], ["sales/rest"]]


def test_a_destination_that_is_left_alone_is_not_asked_for(shop_settings: Settings, instance: dg.DagsterInstance) -> None:
    declared = assembly()
    definitions = assembly_definitions(declared, shop_settings)
    with Runtime.of(shop_settings, declared) as runtime:
        runtime.state.waiting.put(Wait("sales.big", PAST, "away", 1))
        runtime.state.waiting.put(Wait("sales.rest", PAST, "away", 1))
        runtime.state.breakers.failed("big", Breaker(failures=1), "away", dt.datetime.now(dt.UTC))
        runtime.state.breakers.disable("rest", "gone", dt.datetime.now(dt.UTC))
    assert tick(definitions, instance) == []


def test_a_delivery_that_failed_is_resumed_after_a_restart(
    shop: Shop, baskets: dict[str, Basket], shop_settings: Settings, instance: dg.DagsterInstance
) -> None:
    declared = assembly(shop, baskets)
    baskets["big"]._troubles.append(RetryLater("the basket is away", after=60))
    job = assembly_definitions(declared, shop_settings).resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(instance=instance, raise_on_error=False)
    assert not result.success
    assert [row["id"] for row in baskets["rest"]._taken] == [2], "a destination that is down holds up nobody else"
    with Runtime.of(shop_settings, declared) as runtime:  # as it is after a restart: everything is read from the state
        wait = runtime.state.waiting.read("sales.big")
        assert wait is not None and wait.until > dt.datetime.now(dt.UTC) + dt.timedelta(seconds=50)
        runtime.state.waiting.put(Wait(wait.target, PAST, wait.why, wait.failures))
    again = assembly_definitions(assembly(shop, baskets), shop_settings)
    [request] = tick(again, instance)
    resumed = again.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=instance, asset_selection=list(request.asset_selection or [])
    )
    assert resumed.success
    assert [row["id"] for row in baskets["big"]._taken] == [1]
    with Runtime.of(shop_settings, declared) as runtime:
        assert runtime.state.waiting.all() == []


def test_a_destination_that_is_resumed_is_delivered_to_at_once(
    shop: Shop, baskets: dict[str, Basket], shop_settings: Settings, instance: dg.DagsterInstance
) -> None:
    """What was switched off waits for nothing, so that nobody would come back to it."""
    declared = assembly(shop, baskets)
    definitions = assembly_definitions(declared, shop_settings)
    with Runtime.of(shop_settings, declared) as runtime:
        runtime.run("shop.orders")
        runtime.state.breakers.disable("big", "gone", dt.datetime.now(dt.UTC))
        assert tick(definitions, instance) == []
        runtime.resume("big")
    assert selected(tick(definitions, instance)) == [["sales/big"]]
