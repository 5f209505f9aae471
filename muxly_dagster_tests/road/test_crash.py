"""The promise: killed at any moment, any number of times, every record is in the lake and in the destination exactly once."""

import multiprocessing
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from muxly_dagster import records
from muxly_dagster.lake import Lake
from muxly_dagster.state import State
from muxly_dagster_tests.road import crash

KILLED = -9


@pytest.fixture(scope="module")
def processes() -> Iterator[multiprocessing.context.ForkServerContext]:
    yield multiprocessing.get_context("forkserver")


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/warehouse.db" if request.param == "sqlite" else str(request.getfixturevalue("postgres"))


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("point", list(crash.POINTS))
def test_killed_at_every_step_of_the_protocol(
    processes: multiprocessing.context.ForkServerContext, tmp_path: Path, database: str, point: str, when: str
) -> None:
    killed = 0
    for occurrence in (1, 2, 2, 3):
        child = processes.Process(target=crash.run_and_die, args=(tmp_path, database, point, when, occurrence))
        child.start()
        child.join()
        killed += child.exitcode == KILLED
    assert killed >= 1
    finish(processes, tmp_path, database)
    everything_is_there_once(tmp_path, database)


@pytest.mark.parametrize("seed", range(3))
def test_killed_at_random_moments(processes: multiprocessing.context.ForkServerContext, tmp_path: Path, database: str, seed: int) -> None:
    moments = random.Random(seed)
    for _ in range(12):
        child = processes.Process(target=crash.run_once, args=(tmp_path, database))
        child.start()
        child.join(moments.uniform(0, 0.3))
        child.kill()
        child.join()
    finish(processes, tmp_path, database)
    everything_is_there_once(tmp_path, database)


def finish(processes: multiprocessing.context.ForkServerContext, folder: Path, database: str) -> None:
    child = processes.Process(target=crash.run_once, args=(folder, database))
    child.start()
    child.join()
    assert child.exitcode == 0


def everything_is_there_once(folder: Path, database: str) -> None:
    lake = Lake(str(folder / "lake"))
    expected = {f"{n}-{m}" for n in range(crash.BATCHES) for m in range(crash.SIZE)}
    for table in ("crm.things", "doubled"):
        log = lake.existing(table).changes(0, 1 << 40)
        assert len(log) == crash.RECORDS
        assert set(log["id"].to_pylist()) == expected
        assert set(log[records.OP].to_pylist()) == {"upsert"}
    engine = sa.create_engine(database.replace("postgresql://", "postgresql+psycopg://"))
    with engine.connect() as connection:
        for name in ("raw", "derived"):
            ids = connection.execute(sa.text(f"select id from {name}")).scalars().all()
            assert len(ids) == crash.RECORDS
            assert set(ids) == expected
    engine.dispose()
    state = State.open(f"sqlite:///{folder}/state.db", folder)
    for target in ("raw.warehouse", "derived.warehouse"):
        assert state.ledger.totals(target) == {"read": crash.RECORDS, "accepted": crash.RECORDS, "refused": 0, "unrouted": 0}
    state.close()
