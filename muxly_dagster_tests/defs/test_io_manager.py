"""The lake as an IO manager: people's own assets read pulls and leave tables."""

from collections.abc import Callable
from typing import Any, ClassVar

import dagster as dg
import duckdb
import pandas as pd
import pyarrow as pa
import pytest

from muxly_dagster.defs.project import assembly_definitions
from muxly_dagster.lake import Lake
from muxly_dagster.runtime import Runtime
from muxly_dagster.settings import Settings
from muxly_dagster_tests.defs.shop import Basket, Shop, assembly

ORDERS = dg.AssetIn(key=["shop", "orders"])


def run(assets: list[dg.AssetsDefinition], shop: Shop, settings: Settings, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    """Run the shop's pull and then these assets, as one code location holds them."""
    definitions = dg.Definitions.merge(assembly_definitions(assembly(shop), settings), dg.Definitions(assets=assets))
    chosen = [dg.AssetKey(["shop", "orders"]), *(key for asset in assets for key in asset.keys)]
    job = definitions.resolve_implicit_global_asset_job_def()
    return job.execute_in_process(instance=instance, raise_on_error=False, asset_selection=chosen)


def stored(settings: Settings, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = Lake(settings.lake_url).existing(name).current().to_pylist()
    return rows


def in_pandas(orders: pd.DataFrame) -> pd.DataFrame:
    return orders.assign(amount=orders["amount"] * 2)


def in_pyarrow(orders: pa.Table) -> pa.Table:
    return pa.table({"id": orders["id"], "amount": [value * 2 for value in orders["amount"].to_pylist()]})


def in_batches(orders: pa.RecordBatchReader) -> pa.RecordBatchReader:
    return in_pyarrow(orders.read_all()).to_reader()


def in_duckdb(orders: duckdb.DuckDBPyRelation) -> duckdb.DuckDBPyRelation:
    return orders.project("id, amount * 2 as amount")


def in_rows(orders) -> list[dict[str, Any]]:  # type: ignore[no-untyped-def]
    return [{"id": row["id"], "amount": row["amount"] * 2} for row in orders.to_pylist()]


@pytest.mark.parametrize("double", [in_pandas, in_pyarrow, in_batches, in_duckdb, in_rows])
def test_an_asset_reads_a_pull_and_leaves_a_table_in_the_type_it_likes(
    double: Callable[..., Any], shop: Shop, shop_settings: Settings, instance: dg.DagsterInstance
) -> None:
    doubled = dg.asset(ins={"orders": ORDERS}, name="doubled", io_manager_key="lake_io_manager", metadata={"muxly/key": ["id"]})(double)
    result = run([doubled], shop, shop_settings, instance)

    assert result.success
    assert sorted(stored(shop_settings, "doubled"), key=lambda row: row["id"]) == [{"id": 1, "amount": 100.0}, {"id": 2, "amount": 10.0}]
    (event,) = [event for event in result.get_asset_materialization_events() if event.asset_key == dg.AssetKey("doubled")]
    told = {name: value.value for name, value in event.materialization.metadata.items()}
    assert (told["dagster/row_count"], told["changed"], told["dagster/table_name"]) == (2, 2, "doubled")


def test_only_what_changed_is_appended_and_what_is_gone_is_deleted(
    shop: Shop, shop_settings: Settings, instance: dg.DagsterInstance
) -> None:
    copied = dg.asset(ins={"orders": ORDERS}, name="copied", io_manager_key="lake_io_manager", metadata={"muxly/key": ["id"]})(in_pyarrow)
    run([copied], shop, shop_settings, instance)
    shop._rows[:] = [{"id": 1, "amount": 50.0}, {"id": 3, "amount": 1.0}]
    run([copied], shop, shop_settings, instance)

    table = Lake(shop_settings.lake_url).existing("copied")
    assert table.head == 4  # two orders, then one new and one gone
    assert sorted(row["id"] for row in table.current().to_pylist()) == [1, 3]


def test_a_whole_number_beside_a_null_keeps_its_digits_in_pandas(shop: Shop, shop_settings: Settings, instance: dg.DagsterInstance) -> None:
    shop._rows[:] = [{"id": 2**53 + 1, "amount": 1.0, "parent": 2**53 + 1}, {"id": 2, "amount": 2.0, "parent": None}]
    seen: list[Any] = []

    @dg.asset(ins={"orders": ORDERS})
    def looked(orders: pd.DataFrame) -> None:
        seen.extend(orders["parent"].tolist())

    assert run([looked], shop, shop_settings, instance).success
    assert seen[0] == 2**53 + 1
    assert seen[1] is pd.NA


def test_an_input_names_the_columns_it_wants(shop: Shop, shop_settings: Settings, instance: dg.DagsterInstance) -> None:
    seen: list[str] = []

    @dg.asset(ins={"orders": dg.AssetIn(key=["shop", "orders"], metadata={"muxly/columns": ["amount"]})})
    def looked(orders: pa.Table) -> None:
        seen.extend(orders.column_names)

    assert run([looked], shop, shop_settings, instance).success
    assert seen == ["amount"]


def failure(result: dg.ExecuteInProcessResult) -> str:
    (event,) = [event for event in result.all_events if event.is_step_failure]
    shown = event.step_failure_data.user_failure_data
    assert shown is not None
    return shown.description or ""


def wants_text(orders: str) -> pa.Table:
    return pa.table({"text": [orders]})


def gives_number(orders: pa.Table) -> Any:
    return len(orders)


def gives_no_key(orders: pa.Table) -> pa.Table:
    return pa.table({"id": pa.nulls(1, pa.int64()), "amount": [1.0]})


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (
            wants_text,
            "the input orders is annotated as str, which the lake cannot be read as; annotate it as pandas.DataFrame, pyarrow.Table",
        ),
        (gives_number, "the asset made returned int, which cannot be stored in the lake; return pandas.DataFrame, pyarrow.Table"),
        (gives_no_key, "the record has no key: id is null"),
    ],
)
def test_what_the_lake_cannot_do_is_said_with_the_way_out(
    function: Callable[..., Any], words: str, shop: Shop, shop_settings: Settings, instance: dg.DagsterInstance
) -> None:
    made = dg.asset(ins={"orders": ORDERS}, name="made", io_manager_key="lake_io_manager", metadata={"muxly/key": ["id"]})(function)

    assert words in failure(run([made], shop, shop_settings, instance))


def test_a_pull_that_never_ran_says_how_to_run_it(shop: Shop, shop_settings: Settings, instance: dg.DagsterInstance) -> None:
    copied = dg.asset(ins={"orders": ORDERS}, name="copied", io_manager_key="lake_io_manager")(in_pyarrow)
    definitions = dg.Definitions.merge(assembly_definitions(assembly(shop), shop_settings), dg.Definitions(assets=[copied]))
    job = definitions.resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(instance=instance, raise_on_error=False, asset_selection=[dg.AssetKey("copied")])

    assert failure(result) == "shop.orders has no data yet\n  → run `muxly run shop.orders` first"


def test_partitions_are_refused(shop: Shop, shop_settings: Settings, instance: dg.DagsterInstance) -> None:
    days = dg.StaticPartitionsDefinition(["monday"])
    copied = dg.asset(ins={"orders": ORDERS}, name="copied", io_manager_key="lake_io_manager", partitions_def=days)(in_pyarrow)
    with Runtime.of(shop_settings, assembly(shop)) as runtime:
        runtime.run("shop.orders")
    definitions = dg.Definitions.merge(assembly_definitions(assembly(shop), shop_settings), dg.Definitions(assets=[copied]))
    job = definitions.resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(
        instance=instance, raise_on_error=False, asset_selection=[dg.AssetKey("copied")], partition_key="monday"
    )

    assert "the asset copied has partitions, but a lake table is stored and read as a whole" in failure(result)


class Shelf(Basket):
    """A destination of whole tables that deletes what is gone."""

    bulk: ClassVar[bool] = True

    @property
    def passes_deletes(self) -> bool:
        return True


def shelved(
    shop_settings: Settings, instance: dg.DagsterInstance, shelf: Shelf, name: str, ids: list[int], tags: dict[str, str] | None = None
) -> dg.ExecuteInProcessResult:
    """Run an asset of this name, with rows of these ids, that is delivered to the destination `big`."""

    @dg.asset(name=name, io_manager_key="big_io_manager", metadata={"muxly/key": ["id"]})
    def table() -> pa.Table:
        return pa.table({"id": ids})

    definitions = dg.Definitions.merge(
        assembly_definitions(assembly(baskets={"big": shelf, "rest": Basket.model_validate({})}), shop_settings),
        dg.Definitions(assets=[table]),
    )
    job = definitions.resolve_implicit_global_asset_job_def()
    return job.execute_in_process(instance=instance, raise_on_error=False, asset_selection=[dg.AssetKey([name])], tags=tags)


def test_a_guard_that_stops_an_asset_is_passed_by_a_runs_tag(shop_settings: Settings, instance: dg.DagsterInstance) -> None:
    shelf = Shelf.model_validate({"guard": {"at_least": 1}})
    assert shelved(shop_settings, instance, shelf, "stock", [1, 2, 3, 4]).success
    assert not shelved(shop_settings, instance, shelf, "stock", [1]).success
    assert len(shelf._taken) == 4
    assert shelved(shop_settings, instance, shelf, "stock", [1], {"muxly/past_guard": "true"}).success
    assert len(shelf._taken) == 7


def test_an_asset_and_a_route_cannot_be_the_same_delivery(shop_settings: Settings, instance: dg.DagsterInstance) -> None:
    """They would share one offset, and send everything again behind each other."""
    shelf = Shelf.model_validate({})
    assert not shelved(shop_settings, instance, shelf, "sales", [1]).success
    assert shelf._taken == []
