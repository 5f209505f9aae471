"""The definitions as a whole: what Dagster sees, how fast, and what it must never see."""

import dataclasses
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.remote_representation.external_data import RepositorySnap
from dagster._serdes import serialize_value

from muxly_dagster.assembly import Assembly
from muxly_dagster.connector import PullSettings
from muxly_dagster.defs.project import assembly_definitions
from muxly_dagster.errors import ConfigurationError
from muxly_dagster.project.models import JobSpec
from muxly_dagster.settings import Settings
from muxly_dagster_tests.defs.shop import SECRET, Basket, Shop, assembly


def test_each_pull_transform_and_delivery_is_an_asset_downstream_of_what_it_reads(shop_settings: Settings) -> None:
    graph = assembly_definitions(assembly(), shop_settings).resolve_asset_graph()

    parents = {
        key.to_user_string(): sorted(parent.to_user_string() for parent in graph.get(key).parent_keys) for key in graph.get_all_asset_keys()
    }
    assert parents == {"shop/orders": [], "totals": ["shop/orders"], "sales/big": ["shop/orders"], "sales/rest": ["shop/orders"]}


def test_assets_tell_their_kinds_groups_owners_and_descriptions(shop_settings: Settings) -> None:
    owned = assembly(owners=["team:sales", "ann@example.com"], group="money", description="Every order.")
    graph = assembly_definitions(owned, shop_settings).resolve_asset_graph()

    orders, totals, big = (graph.get(dg.AssetKey(path)) for path in (["shop", "orders"], ["totals"], ["sales", "big"]))
    assert (orders.kinds, totals.kinds, big.kinds) == ({"shop", "delta"}, {"duckdb", "delta"}, {"basket"})
    assert (orders.group_name, totals.group_name, big.group_name) == ("money", "transforms", "routes")
    assert orders.owners == ["team:sales", "ann@example.com"]
    assert orders.description == "Every order."
    assert big.description == "Changes of shop.orders delivered to big (Basket)."
    assert orders.metadata["dagster/table_name"] == "shop.orders"
    assert big.metadata["dagster/table_name"] == "basket/shop.orders"
    columns = orders.metadata["dagster/column_schema"].columns
    assert [(column.name, column.type, column.constraints.unique) for column in columns] == [
        ("id", "int64", True),
        ("amount", "double", False),
    ]


def test_sources_and_destinations_are_resources_by_their_names(shop_settings: Settings) -> None:
    shop, baskets = Shop(), {"big": Basket(), "rest": Basket()}
    resources = assembly_definitions(assembly(shop, baskets), shop_settings).resources

    assert resources is not None
    assert resources["shop"] is shop
    assert resources["big"] is baskets["big"]
    assert {"muxly", "lake_io_manager"} <= set(resources)


def test_a_destination_called_like_a_source_is_told_apart(shop_settings: Settings) -> None:
    basket = Basket()
    resources = assembly_definitions(assembly(Shop(), {"shop": basket}), shop_settings).resources

    assert resources is not None
    assert isinstance(resources["shop"], Shop)
    assert resources["shop_destination"] is basket


@pytest.mark.filterwarnings("ignore:Property `ScheduleDefinition.environment_vars`:DeprecationWarning")  # Dagster's own snapshot reads it
def test_no_secret_reaches_what_dagster_shows(tmp_path: Path) -> None:
    url = f"postgresql://muxly:{SECRET}@127.0.0.1/muxly"
    settings = Settings(project=tmp_path, home=tmp_path, database_url=url, lake_url=str(tmp_path / "lake"))
    repository = assembly_definitions(assembly(), settings).get_repository_def()
    repository.load_all_definitions()

    snapshot = serialize_value(RepositorySnap.from_def(repository))
    assert "shop/orders" in snapshot or '"orders"' in snapshot
    assert SECRET not in snapshot


def test_building_definitions_opens_neither_lake_nor_database(tmp_path: Path) -> None:
    home = tmp_path / "home"
    settings = Settings(project=tmp_path, home=home, database_url=f"sqlite:///{home}/state.db", lake_url=str(home / "lake"))
    assembly_definitions(assembly(), settings).get_repository_def().load_all_definitions()

    assert not home.exists()


def test_an_owner_that_dagster_would_refuse_is_a_mistake_in_the_project(shop_settings: Settings) -> None:
    with pytest.raises(ConfigurationError) as caught:
        assembly_definitions(assembly(owners=["sales"]), shop_settings)

    assert str(caught.value) == "sources.shop.pulls.orders.owners.0: 'sales' is not an owner; write an e-mail address or `team:NAME`"


@pytest.mark.filterwarnings("ignore:Property `ScheduleDefinition.environment_vars`:DeprecationWarning")  # Dagster's own snapshot reads it
def test_hundreds_of_pulls_and_routes_load_with_their_jobs_and_checks(shop_settings: Settings) -> None:
    big = _repeated(200)
    repository = assembly_definitions(big, shop_settings).get_repository_def()
    repository.load_all_definitions()
    serialize_value(RepositorySnap.from_def(repository))

    assert len(repository.asset_graph.get_all_asset_keys()) == 400
    assert len(repository.asset_graph.asset_check_keys) == 200 * 2 + 200 * 3


def _repeated(count: int) -> Assembly:
    one = assembly()
    pull, target = one.pulls["shop.orders"], one.targets["sales.big"]
    return dataclasses.replace(
        one,
        pulls={f"shop.p{n}": dataclasses.replace(pull, name=f"shop.p{n}", settings=PullSettings(freshness="1h")) for n in range(count)},
        transforms={},
        targets={f"r{n}.big": dataclasses.replace(target, name=f"r{n}.big", route=f"r{n}", table=f"shop.p{n}") for n in range(count)},
        jobs={f"job{n}": JobSpec(select=[f"shop.p{k}" for k in range(n * 50, n * 50 + 50)], cron="0 * * * *") for n in range(count // 50)},
    )
