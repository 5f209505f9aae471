"""Bulk destinations as IO managers: people's own assets are kept there, what changed moves, and a killed run repeats nothing."""

import dataclasses
import json
import sqlite3
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest
from pydantic import SecretStr

from muxly_dagster.defs.project import assembly_definitions
from muxly_dagster.destination import Destination
from muxly_dagster.destinations.database import Database
from muxly_dagster.destinations.file import File
from muxly_dagster.errors import MuxlyError
from muxly_dagster.runtime import Runtime
from muxly_dagster.settings import Settings
from muxly_dagster.state import Ledger
from muxly_dagster_tests.defs.shop import Basket, Shop, assembly
from muxly_dagster_tests.defs.test_io_manager import ORDERS, failure, in_pandas, stored


class Kept:
    """A person's own asset, `doubled`, kept by the IO manager of a bulk destination."""

    def __init__(self, shop: Shop, destination: Destination, settings: Settings, instance: dg.DagsterInstance) -> None:
        self.assembly = dataclasses.replace(assembly(shop), destinations={"kept": destination}, targets={})
        self._settings, self._instance = settings, instance

    def run(self, *more: dg.AssetsDefinition) -> dg.ExecuteInProcessResult:
        """Run the shop's pull, the asset, and those behind it."""
        doubled = dg.asset(ins={"orders": ORDERS}, name="doubled", io_manager_key="kept_io_manager", metadata={"muxly/key": ["id"]})(
            in_pandas
        )
        definitions = dg.Definitions.merge(assembly_definitions(self.assembly, self._settings), dg.Definitions(assets=[doubled, *more]))
        chosen = [dg.AssetKey(["shop", "orders"]), *(key for asset in (doubled, *more) for key in asset.keys)]
        job = definitions.resolve_implicit_global_asset_job_def()
        return job.execute_in_process(instance=self._instance, raise_on_error=False, asset_selection=chosen)

    def told(self, result: dg.ExecuteInProcessResult) -> dict[str, Any]:
        (event,) = [event for event in result.get_asset_materialization_events() if event.asset_key == dg.AssetKey("doubled")]
        return {name: value.value for name, value in event.materialization.metadata.items()}

    def totals(self) -> dict[str, int]:
        with Runtime.of(self._settings, self.assembly) as runtime:
            return runtime.state.ledger.totals("doubled.kept")


def table(file: Path) -> list[tuple[Any, ...]]:
    with sqlite3.connect(file) as connection:
        found = connection.execute("select id, amount from doubled order by id").fetchall()
    connection.close()
    return found


def test_an_asset_is_kept_in_a_database_and_only_what_changed_moves(
    shop: Shop, shop_settings: Settings, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    file = tmp_path / "kept.db"
    kept = Kept(shop, Database(url=SecretStr(f"sqlite:///{file}"), mode="mirror"), shop_settings, instance)
    first = kept.run()
    assert first.success
    assert table(file) == [(1, 100.0), (2, 10.0)]
    told = kept.told(first)
    assert (told["accepted"], told["rows_refused"], told["delivered_to"], told["dagster/row_count"]) == (2, 0, "kept", 2)

    shop._rows[:] = [{"id": 2, "amount": 5.0}, {"id": 3, "amount": 1.0}]
    second = kept.run()
    assert table(file) == [(2, 10.0), (3, 2.0)], "what is gone from the asset is deleted in mirror mode"
    assert kept.told(second)["accepted"] == 2
    third = kept.run()
    assert (kept.told(third)["accepted"], kept.told(third)["changed"]) == (0, 0)
    assert kept.totals() == {"read": 4, "accepted": 4, "refused": 0, "unrouted": 0}


def test_an_asset_is_kept_in_files_as_changes(shop: Shop, shop_settings: Settings, instance: dg.DagsterInstance, tmp_path: Path) -> None:
    kept = Kept(shop, File(path=str(tmp_path / "out"), format="ndjson"), shop_settings, instance)
    kept.run()
    shop._rows[:] = [{"id": 2, "amount": 6.0}]
    kept.run()
    files = sorted((tmp_path / "out").rglob("*.ndjson"))
    changes = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    assert [(each["op"], each["data"]) for each in changes] == [
        ("upsert", {"id": 1, "amount": 100.0}),
        ("upsert", {"id": 2, "amount": 10.0}),
        ("upsert", {"id": 2, "amount": 12.0}),
        ("delete", {"id": 1, "amount": 100.0}),
    ]
    assert {each["stream"] for each in changes} == {"doubled"}


def test_what_a_destination_keeps_is_read_back(shop: Shop, shop_settings: Settings, instance: dg.DagsterInstance, tmp_path: Path) -> None:
    seen: list[tuple[str, Any]] = []

    @dg.asset(ins={"doubled": dg.AssetIn(input_manager_key="kept_io_manager")})
    def looked(doubled: pd.DataFrame) -> None:
        seen.extend(zip(doubled["id"].tolist(), doubled["amount"].tolist(), strict=True))

    kept = Kept(shop, Database(url=SecretStr(f"sqlite:///{tmp_path}/kept.db")), shop_settings, instance)
    assert kept.run(looked).success
    assert sorted(seen) == [(1, 100.0), (2, 10.0)]


def test_a_run_that_was_killed_between_the_database_and_the_ledger_repeats_nothing(
    shop: Shop, shop_settings: Settings, instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "kept.db"
    kept = Kept(shop, Database(url=SecretStr(f"sqlite:///{file}"), mode="append"), shop_settings, instance)
    with monkeypatch.context() as patch:

        def lost(*_: Any, **__: Any) -> None:
            raise MuxlyError("the state is gone")

        patch.setattr(Ledger, "record", lost)
        assert "the state is gone" in failure(kept.run())
    assert len(table(file)) == 2 and kept.totals()["read"] == 0
    again = kept.run()
    assert again.success
    assert len(table(file)) == 2, "every change is a row, so a repetition would show"
    assert kept.totals() == {"read": 2, "accepted": 2, "refused": 0, "unrouted": 0}


def test_a_destination_that_is_away_fails_the_asset_and_gets_everything_later(
    shop: Shop, shop_settings: Settings, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    file = tmp_path / "kept.db"
    file.mkdir()
    kept = Kept(shop, Database(url=SecretStr(f"sqlite:///{file}")), shop_settings, instance)
    result = kept.run()
    assert not result.success and str(file) in failure(result)
    assert len(stored(shop_settings, "doubled")) == 2, "the lake has it all the same"
    file.rmdir()
    assert kept.run().success
    assert table(file) == [(1, 100.0), (2, 10.0)]


def test_every_bulk_destination_has_an_io_manager_and_no_other(shop_settings: Settings) -> None:
    declared = assembly(baskets={"big": Basket(), "rest": Basket()})
    assert not [
        name for name in assembly_definitions(declared, shop_settings).resources or {} if name in ("big_io_manager", "rest_io_manager")
    ]


def test_what_a_database_refuses_of_an_asset_can_be_replayed(
    shop: Shop, shop_settings: Settings, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    file = tmp_path / "warehouse.db"
    with sqlite3.connect(file) as connection:
        connection.execute("create table doubled (id bigint primary key, amount double check (amount < 50))")
    connection.close()
    kept = Kept(shop, Database(url=SecretStr(f"sqlite:///{file}")), shop_settings, instance)
    assert kept.run().success
    assert (kept.totals()["accepted"], kept.totals()["refused"]) == (1, 1)
    with sqlite3.connect(file) as connection:
        connection.executescript("drop table doubled; create table doubled (id bigint primary key, amount double)")
    connection.close()
    with Runtime.of(shop_settings, kept.assembly) as runtime:
        report = runtime.replay(runtime.state.ledger.dead_letters("doubled.kept"))
        assert report == {"replayed": 1, "superseded": 0, "refused": 0}
        assert runtime.state.ledger.dead_letters("doubled.kept") == []
    assert len(table(file)) == 1
