"""What goes wrong around a run: other runs, tables that people change, databases that go away."""

import multiprocessing
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from muxly_dagster.errors import BusyError, ConfigurationError, MuxlyError, RetryLater, SignInError
from muxly_dagster.lake import LakeTable
from muxly_dagster.runtime import Runtime
from muxly_dagster_tests.bad_input.shop import PULL, TABLE, TARGET, Api, Shop, clear, things
from muxly_dagster_tests.http.server import Asked

Open = Callable[..., Shop]


# ---- two at once -----------------------------------------------------------------------------------------------------


def _pull_in_a_process(shop: Shop) -> None:
    shop.run(PULL)


def test_two_runs_of_one_pull_at_once_are_one(shop: Shop, api: Api) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def held_up(asked: Asked) -> None:
        inside.set()
        assert go_on.wait(60)

    api.troubles[2] = held_up
    first = multiprocessing.get_context("forkserver").Process(target=_pull_in_a_process, args=(_portable(shop),))
    first.start()
    try:
        assert inside.wait(60)
        error = shop.fails(BusyError)
    finally:
        go_on.set()
        first.join()
    assert first.exitcode == 0
    assert "another run of pull.shop.things is going on" in error.what
    assert "wait until it has ended" in error.do
    assert len(shop.table().changes(0, 99)) == 12
    assert shop.is_complete()


def _portable(shop: Shop) -> Shop:
    """The project without its API, whose threads cannot go to another process."""
    copy = Shop.__new__(Shop)
    copy.__dict__.update(shop.__dict__ | {"api": Api()})
    return copy


def test_two_runs_on_two_machines_cannot_number_changes_alike(shop: Shop, api: Api, tmp_path: Path) -> None:
    """Two machines with a state of their own share a lake by mistake: no lock keeps them apart, but the lake does."""
    shop.sync()
    api.pages.append(things(12, 13))
    inside, go_on = threading.Event(), threading.Event()

    def held_up(asked: Asked) -> None:
        if not inside.is_set():
            inside.set()
            assert go_on.wait(60)

    api.troubles[3] = held_up
    elsewhere = shop.settings.__class__(
        shop.settings.project, tmp_path / "elsewhere", f"sqlite:///{tmp_path}/elsewhere/state.db", shop.settings.lake_url
    )
    failed: list[MuxlyError] = []

    def run_elsewhere() -> None:
        with Runtime.open(elsewhere, shop.environ) as runtime:
            try:
                runtime.run(PULL)
            except MuxlyError as error:
                failed.append(error)

    thread = threading.Thread(target=run_elsewhere)
    thread.start()
    assert inside.wait(60)
    assert shop.run(PULL).changed == 2
    go_on.set()
    thread.join()
    assert [type(error) for error in failed] == [BusyError]
    assert "another run wrote to shop.things at the same time" in clear(failed[0]).what
    assert shop.table().changes(0, 99)["_muxly_seq"].to_pylist() == list(range(1, 15))
    assert shop.is_complete()


def test_the_lake_is_compacted_while_a_pull_and_a_delivery_go_on(shop: Shop, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(4):
        api.pages[0][n]["amount"] += 100
        shop.run(PULL)
    read, maintained = LakeTable.changes, 0

    def compacted_before_reading(table: LakeTable, after: int, upto: int) -> Any:
        nonlocal maintained
        with shop.open() as other:
            maintained += other.maintain()[PULL]["files_before"]
        return read(table, after, upto)

    def compacted_in_mid_pull(asked: Asked) -> None:
        with shop.open() as other:
            other.maintain()

    with monkeypatch.context() as patch:
        patch.setattr(LakeTable, "changes", compacted_before_reading)
        assert shop.run(TARGET).accepted == 15
    assert maintained == 4
    api.pages = [things(*range(5_000)), things(*range(5_000, 9_000))]
    api.troubles[1] = compacted_in_mid_pull
    shop.sync()
    assert shop.table().changes(0, 99_999)["_muxly_seq"].to_pylist() == list(range(1, shop.table().head + 1))
    assert sorted(set(shop.rows())) == api.ids


# ---- tables that people change ---------------------------------------------------------------------------------------


def test_a_lake_table_deleted_by_hand_and_put_back(shop: Shop, api: Api) -> None:
    shop.sync()
    table = shop.folder / ".muxly" / "lake" / "shop" / "things"
    shutil.move(table, shop.folder / "away")
    error = shop.fails(MuxlyError)
    assert "the lake table shop.things is gone" in error.what
    assert "restore it from a backup, or run `muxly run shop.things --from-start`" in error.do
    assert "muxly run shop.things" in shop.fails(MuxlyError, TARGET).do
    shutil.move(shop.folder / "away", table)
    api.pages.append(things(12))
    assert shop.is_complete()


def test_a_lake_table_deleted_by_hand_and_pulled_again(open_shop: Open, api: Api) -> None:
    shop = open_shop(warehouse={"mode": "upsert"})
    shop.sync()
    shutil.rmtree(shop.folder / ".muxly" / "lake" / "shop" / "things")
    shop.fails(MuxlyError)
    assert shop.run(PULL, from_start=True).changed == 12
    shop.run(TARGET)
    assert shop.rows() == api.ids


def test_a_lake_table_put_back_from_too_old_a_copy(open_shop: Open, api: Api) -> None:
    """Its changes would be numbered like others that were delivered long ago, and be passed over in silence."""
    shop = open_shop(warehouse={"mode": "upsert"})
    shop.sync()
    table = shop.folder / ".muxly" / "lake" / "shop" / "things"
    shutil.copytree(table, shop.folder / "copy")
    api.pages.append(things(*range(12, 20)))
    shop.sync()
    shutil.rmtree(table)
    shutil.copytree(shop.folder / "copy", table)
    error = shop.fails(MuxlyError, TARGET)
    assert "ends at change 12, but 20 were delivered" in error.what
    assert "muxly run out.warehouse --from-start" in error.do
    api.pages[3] = things(*range(12, 16))
    shop.run(PULL)
    shop.run(TARGET, from_start=True)
    assert set(api.ids) <= set(shop.rows())


def test_a_lake_file_deleted_by_hand(shop: Shop) -> None:
    shop.sync()
    (file,) = (shop.folder / ".muxly" / "lake" / "shop" / "things").glob("*.parquet")
    content = file.read_bytes()
    file.unlink()
    error = shop.fails(MuxlyError)
    assert "restore its files from a backup" in error.do
    file.write_bytes(content)
    assert shop.is_complete()


@pytest.fixture(params=["sqlite", "postgres"])
def warehouse_url(request: pytest.FixtureRequest) -> str:
    return "" if request.param == "sqlite" else str(request.getfixturevalue("postgres"))


def test_a_destination_table_with_a_missing_column_gets_it(open_shop: Open, api: Api, warehouse_url: str) -> None:
    shop = open_shop(warehouse_url)
    shop.sync()
    shop.rows(f"alter table {TABLE} drop column amount")
    api.pages.append(things(12))
    delivered = shop.sync()[1]
    assert delivered.metadata["last_receipt"]["table_changes"][0].startswith("added column amount")
    assert shop.rows(f"select amount from {TABLE} where id = 't0012'") == [12]
    assert shop.is_complete()


def test_a_destination_table_with_a_missing_column_that_nobody_may_add(open_shop: Open, api: Api, warehouse_url: str) -> None:
    shop = open_shop(warehouse_url)
    shop.sync()
    shop = open_shop(warehouse_url, warehouse={"evolve": False})
    shop.rows(f"alter table {TABLE} drop column amount")
    api.pages.append(things(12))
    shop.run(PULL)
    error = shop.fails(ConfigurationError, TARGET)
    assert "added column amount" in str(error)
    assert "change it by hand" in str(error)
    shop.rows(f"alter table {TABLE} add column amount bigint")
    assert shop.is_complete()


def test_a_destination_table_dropped_by_hand_is_not_begun_in_the_middle(open_shop: Open, api: Api, warehouse_url: str) -> None:
    shop = open_shop(warehouse_url)
    shop.sync()
    shop.rows(f"drop table {TABLE}")
    api.pages.append(things(12))
    shop.run(PULL)
    error = shop.fails(ConfigurationError, TARGET)
    assert "does not exist, though the changes up to 12 were delivered before" in str(error)
    assert "muxly run out.warehouse --from-start" in str(error)
    shop.run(TARGET, from_start=True)
    assert shop.rows() == api.ids


def test_a_destination_that_is_new_or_lost_gets_everything(open_shop: Open, api: Api, warehouse_url: str) -> None:
    shop = open_shop(warehouse_url)
    shop.sync()
    shop.rows(f"drop table {TABLE}")
    shop.rows("drop table _muxly_offsets")
    api.pages.append(things(12))
    assert shop.sync()[1].accepted == 13
    assert shop.rows() == api.ids
    assert shop.run(TARGET).read == 0


# ---- a Postgres that goes away ---------------------------------------------------------------------------------------


def test_a_postgres_that_goes_away_in_mid_delivery(open_shop: Open, api: Api, postgres: str) -> None:
    """A trigger ends the very connection that writes the last record."""
    shop = open_shop(postgres)
    shop.sync()
    api.pages.append(things(*range(12, 5_000)))
    shop.run(PULL)
    shop.rows(
        "create function go_away() returns trigger language plpgsql as $$ begin if new.id = 't4999' then"
        " perform pg_terminate_backend(pg_backend_pid()); end if; return new; end $$"
    )
    shop.rows(f"create trigger go_away before insert on {TABLE} for each row execute function go_away()")
    error = shop.fails(RetryLater, TARGET)
    assert "the database" in error.what
    assert "the next run goes on where this one stopped" in error.do
    assert shop.rows() == api.ids[:12]
    shop.rows(f"drop trigger go_away on {TABLE}")
    assert shop.is_complete()


def test_a_postgres_that_is_not_there(open_shop: Open, postgres: str) -> None:
    shop = open_shop(postgres)
    shop.run(PULL)
    shop.environ["WAREHOUSE_URL"] = "postgresql://someone:s3cr3t-t0ken-of-the-shop@127.0.0.1:1/nowhere"
    error = shop.fails(RetryLater, TARGET)
    assert "cannot be reached" in error.what
    shop.environ["WAREHOUSE_URL"] = postgres
    assert shop.is_complete()


def test_a_postgres_state_that_goes_away_in_mid_pull(open_shop: Open, api: Api, postgres: str) -> None:
    shop = open_shop()
    settings = shop.settings.__class__(shop.settings.project, shop.settings.home, postgres, shop.settings.lake_url)

    def run(name: str) -> Any:
        with Runtime.open(settings, shop.environ) as runtime:
            return runtime.run(name)

    shop.warehouse_url, warehouse = postgres, shop.warehouse_url

    def shot_down(asked: Asked) -> None:
        shop.rows("select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()")

    api.troubles[1] = shot_down
    run(PULL)  # the pool connects anew, and the lock that went with the connection is not missed
    api.troubles.clear()
    shop.warehouse_url = warehouse
    run(TARGET)
    assert shop.rows() == api.ids
    (broken,) = (
        settings.__class__(settings.project, settings.home, url, settings.lake_url)
        for url in [f"{postgres.partition('?')[0]}_gone?{postgres.partition('?')[2]}"]
    )
    with pytest.raises((RetryLater, SignInError)) as caught:
        Runtime.open(broken, shop.environ)
    assert "MUXLY_DATABASE_URL" in clear(caught.value).do
