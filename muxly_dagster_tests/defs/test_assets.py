"""Pulls, transforms and deliveries run by Dagster: what they do, tell and check."""

from typing import Any

import dagster as dg

from muxly_dagster.connector import Unreadable
from muxly_dagster.defs.project import assembly_definitions
from muxly_dagster.settings import Settings
from muxly_dagster_tests.defs.shop import Basket, Shop, assembly


def run(definitions: dg.Definitions, instance: dg.DagsterInstance, *, succeeds: bool = True) -> dg.ExecuteInProcessResult:
    """Run every asset and check."""
    job = definitions.resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(instance=instance, raise_on_error=succeeds)
    assert result.success is succeeds
    return result


def told(result: dg.ExecuteInProcessResult, *path: str) -> dict[str, Any]:
    """The metadata of an asset's materialization."""
    (event,) = [event for event in result.get_asset_materialization_events() if event.asset_key == dg.AssetKey(path)]
    return {name: value.value for name, value in event.materialization.metadata.items()}


def checked(result: dg.ExecuteInProcessResult) -> dict[str, tuple[bool, str]]:
    """Every check's verdict and words, by asset and name."""
    return {
        f"{evaluation.asset_key.to_user_string()}:{evaluation.check_name}": (evaluation.passed, evaluation.description or "")
        for evaluation in result.get_asset_check_evaluations()
    }


def test_a_run_pulls_transforms_and_delivers(
    shop: Shop, baskets: dict[str, Basket], shop_settings: Settings, instance: dg.DagsterInstance
) -> None:
    result = run(assembly_definitions(assembly(shop, baskets), shop_settings), instance)

    assert [row["id"] for row in baskets["big"]._taken] == [1]
    assert [row["id"] for row in baskets["rest"]._taken] == [2]
    orders = told(result, "shop", "orders")
    assert {name: orders[name] for name in ("read", "changed", "refused", "dagster/row_count")} == {
        "read": 2,
        "changed": 2,
        "refused": 0,
        "dagster/row_count": 2,
    }
    assert [column.name for column in orders["dagster/column_schema"].columns] == ["id", "amount"]
    assert orders["dagster/uri"].endswith("/lake/shop/orders/")
    assert told(result, "totals")["dagster/row_count"] == 1
    big = told(result, "sales", "big")
    assert {name: big[name] for name in ("read", "accepted", "refused", "unrouted")} == {
        "read": 2,
        "accepted": 1,
        "refused": 0,
        "unrouted": 1,
    }
    assert big["seconds"] >= 0


def test_a_second_run_moves_only_what_changed(
    shop: Shop, baskets: dict[str, Basket], shop_settings: Settings, instance: dg.DagsterInstance
) -> None:
    definitions = assembly_definitions(assembly(shop, baskets), shop_settings)
    run(definitions, instance)
    shop._rows[1]["amount"] = 6.0
    result = run(definitions, instance)

    assert told(result, "shop", "orders")["changed"] == 1
    assert [(row["id"], row["amount"]) for row in baskets["rest"]._taken] == [(2, 5.0), (2, 6.0)]
    assert len(baskets["big"]._taken) == 1


def test_all_is_well_says_every_check(shop: Shop, shop_settings: Settings, instance: dg.DagsterInstance) -> None:
    result = run(assembly_definitions(assembly(shop), shop_settings), instance)

    found = {"shop/orders:quarantine_rate": (True, "0 of 2 records could not be read (0.0%; 5.0% allowed)")}
    for name in ("big", "rest"):
        found |= {
            f"sales/{name}:delivery_complete": (True, "1 accepted, 0 refused, 1 meant for elsewhere"),
            f"sales/{name}:refused_share": (True, "0 of 1 records were refused (0.0%; 0.0% allowed)"),
            f"sales/{name}:breaker_closed": (True, f"{name} is delivered to"),
        }
    assert checked(result) == found


def test_too_many_unreadable_records_fail_the_pulls_check(shop: Shop, shop_settings: Settings, instance: dg.DagsterInstance) -> None:
    shop._unreadable.append(Unreadable("{", "not JSON"))
    result = run(assembly_definitions(assembly(shop, max_quarantined=0.2), shop_settings), instance)

    words = "1 of 3 records could not be read (33.3%; 20.0% allowed); see `muxly dead-letters list shop.orders`"
    assert checked(result)["shop/orders:quarantine_rate"] == (False, words)


def test_as_many_unreadable_records_as_allowed_pass(shop: Shop, shop_settings: Settings, instance: dg.DagsterInstance) -> None:
    shop._unreadable.append(Unreadable("{", "not JSON"))
    result = run(assembly_definitions(assembly(shop, max_quarantined=0.5), shop_settings), instance)

    assert checked(result)["shop/orders:quarantine_rate"][0] is True


def test_a_refused_record_warns_at_its_delivery_and_nowhere_else(
    shop: Shop, baskets: dict[str, Basket], shop_settings: Settings, instance: dg.DagsterInstance
) -> None:
    baskets["big"]._refused_ids.add(1)
    result = run(assembly_definitions(assembly(shop, baskets), shop_settings), instance)

    words = "1 of 1 records were refused (100.0%; 0.0% allowed); see `muxly dead-letters list sales.big`"
    assert checked(result)["sales/big:refused_share"] == (False, words)
    assert checked(result)["sales/rest:refused_share"][0] is True
    big = told(result, "sales", "big")
    assert (big["dead_letters_open"], big["deliveries"]) == (1, 1)
    assert [(row.data["reason"], row.data["record"].split(":")[0]) for row in big["dead_letters"].records] == [
        ("not wanted", "shop.orders")
    ]
    assert told(result, "sales", "rest")["dead_letters_open"] == 0
    severities = {
        evaluation.asset_key.path[-1]: evaluation.severity for evaluation in result.get_asset_check_evaluations() if not evaluation.passed
    }
    assert severities == {"big": dg.AssetCheckSeverity.WARN}
