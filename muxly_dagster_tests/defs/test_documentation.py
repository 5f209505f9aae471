"""The Python example of docs/dagster.md, run as it stands there."""

from pathlib import Path
from typing import Any

import dagster as dg

from muxly_dagster.defs.project import assembly_definitions
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
