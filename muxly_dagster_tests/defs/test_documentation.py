"""The Python examples of docs/dagster.md, run as they stand there."""

import dataclasses
import sqlite3
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import SecretStr

from muxly_dagster.defs.project import assembly_definitions
from muxly_dagster.destinations.database import Database
from muxly_dagster.lake import Lake
from muxly_dagster.settings import Settings
from muxly_dagster_tests.defs.shop import Shop, assembly

PAGE = Path(__file__).parents[2] / "docs" / "dagster.md"


def test_the_asset_in_the_documentation_runs_downstream_of_a_pull(
    shop: Shop, shop_settings: Settings, instance: dg.DagsterInstance
) -> None:
    names: dict[str, Any] = {}
    exec(PAGE.read_text("utf-8").split("```python\n")[1].split("```")[0], names)
    definitions = dg.Definitions.merge(assembly_definitions(assembly(shop), shop_settings), dg.Definitions(assets=[names["discounts"]]))
    chosen = [dg.AssetKey(["shop", "orders"]), dg.AssetKey("discounts")]
    result = definitions.resolve_implicit_global_asset_job_def().execute_in_process(instance=instance, asset_selection=chosen)

    assert result.success
    rows = Lake(shop_settings.lake_url).existing("discounts").current().to_pylist()
    assert {row["id"]: row["discount"] for row in rows} == {1: 5.0, 2: 0.5}


def test_the_asset_that_a_destination_keeps_is_delivered_there(
    shop: Shop, shop_settings: Settings, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    names: dict[str, Any] = {}
    exec(PAGE.read_text("utf-8").split("```python\n")[2].split("```")[0], names)
    shop._rows[:] = [{"id": n, "amount": float(n), "customer": customer} for n, customer in enumerate(("ada", "grace", "ada"))]
    warehouse = Database(url=SecretStr(f"sqlite:///{tmp_path}/warehouse.db"), mode="mirror")
    declared = dataclasses.replace(assembly(shop), destinations={"warehouse": warehouse}, targets={})
    definitions = dg.Definitions.merge(assembly_definitions(declared, shop_settings), dg.Definitions(assets=[names["spending"]]))
    chosen = [dg.AssetKey(["shop", "orders"]), dg.AssetKey("spending")]
    assert definitions.resolve_implicit_global_asset_job_def().execute_in_process(instance=instance, asset_selection=chosen).success
    with sqlite3.connect(tmp_path / "warehouse.db") as connection:
        assert connection.execute("select customer, amount from spending order by customer").fetchall() == [("ada", 2.0), ("grace", 1.0)]
    connection.close()
