"""Rate budgets in the state database: held together by whoever opens it, on SQLite and on Postgres."""

import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from muxly_dagster.services import Rate, Used
from muxly_dagster.state import State, tables
from muxly_dagster.state.turns import SharedTurns


@pytest.fixture
def states(url: str, tmp_path: Path) -> Iterator[tuple[State, State]]:
    """The same database, opened twice as two processes do."""
    one, two = State.open(url, tmp_path), State.open(url, tmp_path)
    yield one, two
    one.close()
    two.close()


def test_what_one_has_reserved_the_other_cannot(states: tuple[State, State]) -> None:
    rate = Rate("account", requests=10, window=30.0)
    mine, yours = states[0].turns.reserve([rate], 7), states[1].turns.reserve([rate], 7)
    assert (mine.count, yours.count) == (7, 3)
    assert states[0].turns.reserve([rate], 1).count == 0
    assert states[1].turns.reserve([Rate("another", requests=10, window=30.0)], 1).count == 1


def test_what_is_left_of_a_grant_goes_to_the_others(states: tuple[State, State]) -> None:
    rate = Rate("account", requests=10, window=30.0)
    mine = states[0].turns.reserve([rate], 10)
    states[0].turns.settle([rate], Used(mine.id, 4, mine.opens))
    assert states[1].turns.reserve([rate], 10).count == 6


def test_a_reservation_counts_in_all_of_its_budgets(states: tuple[State, State]) -> None:
    whole, search = Rate("whole", requests=10, window=30.0), Rate("search", requests=2, window=30.0)
    assert states[0].turns.reserve([whole, search], 5).count == 2
    assert states[1].turns.reserve([whole], 10).count == 8


def test_paced_reservations_follow_one_another(states: tuple[State, State]) -> None:
    rate = Rate("paced", spacing=1.0)
    grants = [states[number % 2].turns.reserve([rate], 1) for number in range(4)]
    assert all(later.opens - earlier.opens > 0.5 for earlier, later in pairwise(grants))


def test_a_pause_holds_for_everybody(states: tuple[State, State]) -> None:
    states[0].turns.pause(["account"], 7.0)
    until = states[1].turns.paused(["account", "other"])
    assert list(until) == ["account"]
    assert until["account"] <= time.monotonic() + 7.0
    assert states[1].turns.reserve([Rate("account", spacing=0.1)], 1).opens >= until["account"] - 0.5


def test_places_are_shared_and_come_back(states: tuple[State, State]) -> None:
    one, two = states[0].turns, states[1].turns
    assert one.slots("account", 3, "one", 0, 16)[0] == 3
    assert two.slots("account", 3, "two", 0, 16)[0] == 0
    assert one.slots("account", 3, "one", 3, 16)[0] == 1
    assert two.slots("account", 3, "two", 0, 16)[0] == 0
    assert one.slots("account", 3, "one", 1, 16)[0] == 1
    assert two.slots("account", 3, "two", 0, 16)[0] == 2
    assert one.slots("account", 3, "one", 0, 0)[0] == 0
    assert two.slots("account", 3, "two", 2, 16)[0] == 3


def test_places_of_one_that_died_are_free_after_its_lease(states: tuple[State, State]) -> None:
    dead, alive = SharedTurns(states[0].engine, lease=0.3), SharedTurns(states[1].engine, lease=0.3)
    assert dead.slots("account", 2, "dead", 0, 2)[0] == 2
    deadline = time.monotonic() + 20
    while not (may := alive.slots("account", 2, "alive", 0, 2)[0]) or may < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_no_name_of_an_account_is_stored(states: tuple[State, State]) -> None:
    states[0].turns.reserve([Rate("crm with the-secret-token", spacing=1.0)], 1)
    with states[1].engine.begin() as connection:
        rows = connection.execute(sa.select(tables.budgets)).all()
    assert len(rows) == 1
    assert "the-secret-token" not in str(rows)


def test_the_migration_goes_back_and_forth(states: tuple[State, State]) -> None:
    config = Config()
    config.set_main_option("script_location", "muxly_dagster:state/migrations")
    config.set_main_option("path_separator", "os")
    config.attributes["engine"] = states[0].engine
    command.downgrade(config, "0001")
    assert not sa.inspect(states[0].engine).has_table("budgets")
    command.upgrade(config, "head")
    assert states[0].turns.reserve([Rate("account", spacing=1.0)], 1).count == 1
